//! `Upstream`: what a DNS server asked of others while a client's query waited there.

use std::{net::SocketAddr, time::Duration};

use super::row::Outcome;

/// The queries outward that served one query of a client, told by the last one that was answered,
/// or else by the last one that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Serial number of that query's own row.
    pub serial: u64,
    /// The address it asked, before NAT.
    pub asked: SocketAddr,
    /// From its first sight to its answer's arrival; `None` when none came until the client was
    /// answered, or given up.
    pub latency: Option<Duration>,
    /// What had become of it by then.
    pub outcome: Outcome,
    /// Its answer's response code; `None` without an answer.
    pub rcode: Option<u16>,
    /// How many queries the server sent for it.
    pub queries: u32,
    /// How long one of them was under way, in all.
    pub waited: Duration,
    /// Another query could be meant: several clients waited for the same, or it was not seen which
    /// process asked.
    pub inferred: bool,
}
