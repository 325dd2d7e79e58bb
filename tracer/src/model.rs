//! The words of the product: what was seen (`Fact`), what became of it (`Row`), and all of it
//! together (`Trace`). Plain values; nothing here reads, writes, waits or knows a clock.

pub mod asked;
pub mod bounded;
pub mod breakdown;
pub mod cause;
pub mod change;
pub mod clock;
pub mod cluster;
pub mod conntrack;
pub mod drops;
pub mod ends;
pub mod fact;
pub mod finding;
pub mod history;
pub mod ids;
pub mod index;
pub mod insert;
pub mod journey;
pub mod lag;
pub mod name;
pub mod numbers;
pub mod pod;
pub mod policy;
pub mod prefix;
pub mod row;
pub mod search;
pub mod selector;
pub mod series;
mod spent;
pub mod spread;
pub mod stages;
pub mod steps;
pub mod stopped;
pub mod tally;
pub mod trace;
pub mod uniform;
pub mod upstream;
pub mod verdict;
pub mod verified;
pub mod walk;
pub mod worst;

pub use asked::{ServiceName, ServicePortName, Via};
pub use change::{Change, ClusterChange};
pub use clock::ClockOffset;
pub use cluster::Snapshot;
pub use ends::{Delivery, SocketEnds};
pub use fact::{
    Comm, Conntrack, Event, Fact, Flow, IoEvent, Losses, Packet, Place, Sender, Socket,
    SocketEvent, SocketIo, Task, Transport,
};
pub use finding::{Finding, Severity};
pub use history::History;
pub use ids::{CgroupId, Ifindex, KtimeNs, NetnsInode, SkbId, SockId, WallNs};
pub use index::Index;
pub use journey::Journey;
pub use name::{EndsKey, Name, NamedEnds};
pub use numbers::{qtype_name, rcode_name};
pub use pod::{Pod, PodName, Source};
pub use row::{Asked, Client, Connection, Dns, Named, Outcome, Protocol, Row, Site};
pub use trace::Trace;
pub use upstream::Upstream;
