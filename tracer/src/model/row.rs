//! A row: one finished exchange or connection, as it is shown.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{
    asked::ServiceName,
    ends::SocketEnds,
    fact::{Comm, Sender},
    ids::{Ifindex, KtimeNs, NetnsInode, WallNs},
    insert::Clash,
    journey::{Journey, Stage, Step},
    pod::PodName,
    stopped::Stopped,
    upstream::Upstream,
    verdict::Verdict,
};

/// One finished thing to show.
#[derive(Clone, Debug)]
pub enum Row {
    /// A DNS query and what became of it.
    Dns(Dns),
    /// A connection, or UDP flow, to a service.
    Connection(Connection),
}

/// An answer that takes this long is late to the one who waits: the resolvers of musl and of many languages give up
/// after 2 to 5 s.
pub const SLOW: Duration = Duration::from_secs(1);

impl Row {
    /// The query; `None` of a connection.
    pub fn dns(&self) -> Option<&Dns> {
        match self {
            Self::Dns(dns) => Some(dns),
            Self::Connection(_) => None,
        }
    }

    /// Serial number of the row within the trace.
    pub fn serial(&self) -> u64 {
        match self {
            Self::Dns(dns) => dns.serial,
            Self::Connection(connection) => connection.serial,
        }
    }

    /// Who asked.
    pub fn client(&self) -> &Client {
        match self {
            Self::Dns(dns) => &dns.client,
            Self::Connection(connection) => &connection.client,
        }
    }

    /// The way of its packets; `None` when none of them was seen at a device.
    pub fn journey(&self) -> Option<&Journey> {
        match self {
            Self::Dns(dns) => dns.journey.as_deref(),
            Self::Connection(connection) => connection.journey.as_deref(),
        }
    }

    /// Leaves the way of its packets out.
    pub fn forget_journey(&mut self) {
        match self {
            Self::Dns(dns) => dns.journey = None,
            Self::Connection(connection) => connection.journey = None,
        }
    }

    /// Where a server is that took more than half of a long time itself, and waited for no other; `None` where nobody
    /// did, or its way was not seen.
    pub fn slow_server(&self) -> Option<NetnsInode> {
        let latency = self.latency().filter(|latency| *latency >= SLOW)?;
        let journey = self.journey()?;
        let is_own = |step: Step| {
            matches!(
                step.stage,
                Stage::BackendInput | Stage::BackendQueue | Stage::Backend
            )
        };
        let own = journey.spans().filter(|(step, ..)| is_own(*step));
        let own: Duration = own.map(|(_, begin, end)| end.ktime - begin.ktime).sum();
        let mut stages = journey.stages.iter().filter(|passed| is_own(passed.step));
        let netns = stages.next()?.end.netns;
        (own * 2 >= latency).then_some(netns)
    }

    /// Where it was seen last; `None` when it ended well, or was seen nowhere.
    pub fn stopped(&self) -> Option<Stopped> {
        match self {
            Self::Dns(dns) => dns.stopped,
            Self::Connection(connection) => connection.stopped,
        }
    }

    /// Who answered, or was to; `None` when nothing was translated.
    pub fn backend(&self) -> Option<SocketAddr> {
        match self {
            Self::Dns(dns) => dns.backend,
            Self::Connection(connection) => connection.backend,
        }
    }

    /// The address asked, before NAT.
    pub fn asked(&self) -> SocketAddr {
        match self {
            Self::Dns(dns) => dns.asked,
            Self::Connection(connection) => connection.asked,
        }
    }

    /// UDP or TCP.
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Dns(dns) => dns.protocol,
            Self::Connection(connection) => connection.protocol,
        }
    }

    /// How it ended.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Dns(dns) => dns.outcome,
            Self::Connection(connection) => connection.outcome,
        }
    }

    /// Why it ended badly; `None` when it did not.
    pub fn cause(&self) -> Option<&str> {
        match self {
            Self::Dns(dns) => dns.cause.as_deref(),
            Self::Connection(connection) => connection.cause.as_deref(),
        }
    }

    /// Until the answer, or the completed handshake; `None` when neither came.
    pub fn latency(&self) -> Option<Duration> {
        match self {
            Self::Dns(dns) => dns.latency,
            Self::Connection(connection) => connection.latency,
        }
    }

    /// Serial number of the earlier row that this one corrects.
    pub fn amends(&self) -> Option<u64> {
        match self {
            Self::Dns(dns) => dns.amends,
            Self::Connection(connection) => connection.amends,
        }
    }

    /// When its first packet was seen.
    pub fn ktime(&self) -> KtimeNs {
        match self {
            Self::Dns(dns) => dns.ktime,
            Self::Connection(connection) => connection.ktime,
        }
    }

    /// When it began, by the wall clock: whoever it names is who it was then.
    pub fn wall(&self) -> WallNs {
        match self {
            Self::Dns(dns) => dns.wall,
            Self::Connection(connection) => connection.wall,
        }
    }
}

/// Who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Address and port before any NAT.
    pub address: SocketAddr,
    /// Namespace it sent from; `None` when it is not on this node.
    pub netns: Option<NetnsInode>,
    /// Process and cgroup, where its sending was seen.
    pub sender: Option<Sender>,
}

/// What is known of a row's ends beyond their addresses; `None` where nothing is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// The client's network namespace, as `ip netns` or its first process calls it.
    pub netns: Option<Arc<str>>,
    /// Process id (tgid) and name of the sending thread.
    pub process: Option<(u32, Comm)>,
    /// Container id, 64 hexadecimal digits.
    pub container: Option<Arc<str>>,
    /// The client's pod.
    pub pod: Option<PodName>,
    /// The uid, or hash, of the client's pod in the path of its cgroup; `None` where it has none.
    pub pod_uid: Option<Arc<str>>,
    /// The node that the client runs on, or is.
    pub client_node: Option<Arc<str>>,
    /// What was asked.
    pub asked: Asked,
    /// The backend's pod.
    pub backend: Option<PodName>,
    /// The node that the backend runs on, or is.
    pub backend_node: Option<Arc<str>>,
    /// Whether the backend was to get this client's traffic; `None` where that is not known.
    pub verdict: Option<Verdict>,
    /// The rule of this node that turned the row's packet away, as its rules were just then; `None` where none
    /// did, or nobody looked.
    pub rule: Option<Arc<str>>,
    /// Which process of the server does not run, and why; `None` where that is not known.
    pub held: Option<Arc<str>>,
    /// Devices of the row's journey; `None` where that is not shown.
    pub sites: Option<Arc<[Site]>>,
}

impl Named {
    /// Devices of the row's journey; empty where that is not shown.
    pub fn sites(&self) -> &[Site] {
        self.sites.as_deref().unwrap_or_default()
    }

    /// The names of a device; `None` when they were not looked up.
    pub fn site(&self, netns: NetnsInode, ifindex: Ifindex) -> Option<&Site> {
        let mut sites = self.sites().iter();
        sites.find(|site| site.netns == netns && site.ifindex == ifindex)
    }
}

/// What is known of the address asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The Service.
    pub service: Option<ServiceName>,
    /// The pod, where its own address was asked.
    pub pod: Option<PodName>,
    /// The node, where its address was asked.
    pub node: Option<Arc<str>>,
    /// It is NodeLocalDNS, a cache on each node.
    pub local_dns: bool,
}

/// A device of a namespace, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Which namespace.
    pub netns: NetnsInode,
    /// Which device of it.
    pub ifindex: Ifindex,
    /// The namespace's name, or its inode.
    pub name: Arc<str>,
    /// The device's name; `None` when it is gone, or its namespace cannot be entered.
    pub device: Option<Arc<str>>,
}

/// Transport of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// RFC 768
    Udp,
    /// RFC 9293
    Tcp,
}

impl Protocol {
    /// The word for it, in text and JSON alike.
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// How an exchange or connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// An answer came; for TCP, the handshake was completed.
    Answered,
    /// Nothing came within the limit.
    Unanswered,
    /// An answer came when the client had closed its socket already.
    Late,
    /// An ICMP error came instead.
    Rejected,
    /// A TCP reset came.
    Reset,
    /// Nothing came, and the kernel was seen to drop the packet.
    Dropped,
    /// A UDP flow went one way only, which for other protocols than DNS need not be wrong.
    OneWay,
}

impl Dns {
    /// Whether the answer says that the server failed, or would not: SERVFAIL and REFUSED (RFC 1035, section
    /// 4.1.1).
    pub fn server_failed(&self) -> bool {
        matches!(self.rcode, Some(2 | 5))
    }
}

impl Outcome {
    /// The word for it, in text and JSON alike.
    pub fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Unanswered => "unanswered",
            Self::Late => "late",
            Self::Rejected => "rejected",
            Self::Reset => "reset",
            Self::Dropped => "dropped",
            Self::OneWay => "one_way",
        }
    }

    /// Whether the one who asked got what it wanted.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Answered | Self::OneWay)
    }
}

/// A DNS query, one try of it, and what became of it.
#[derive(Clone, Debug)]
pub struct Dns {
    /// Serial number of the row within the trace, from 1.
    pub serial: u64,
    /// When the query was first seen.
    pub ktime: KtimeNs,
    /// The same by the wall clock.
    pub wall: WallNs,
    /// Who asked.
    pub client: Client,
    /// UDP or TCP.
    pub protocol: Protocol,
    /// The address asked, before NAT.
    pub asked: SocketAddr,
    /// The backend it became; `None` when nothing was translated.
    pub backend: Option<SocketAddr>,
    /// DNS id (RFC 1035, section 4.1.1).
    pub id: u16,
    /// Name asked, presentation form without the last dot; `None` without a question.
    pub name: Option<String>,
    /// Type asked.
    pub qtype: Option<u16>,
    /// Full response code (RFC 6891, section 6.1.3); `None` without an answer.
    pub rcode: Option<u16>,
    /// Answer records, by the header's count; `None` without an answer.
    pub answers: Option<u16>,
    /// The answer was truncated (TC bit).
    pub truncated: bool,
    /// From the query's first sight to the answer's last; `None` without an answer.
    pub latency: Option<Duration>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it ended badly, in words, with what was seen; `None` when it did not.
    pub cause: Option<String>,
    /// How its conntrack entry clashed with another packet's; `None` when none was seen to.
    pub clash: Option<Box<Clash>>,
    /// Where it was seen last; `None` when it ended well, or was seen nowhere.
    pub stopped: Option<Stopped>,
    /// When query and answer passed their sockets, as far as that is known; where paths are
    /// wanted only.
    pub ends: SocketEnds,
    /// What its server asked of others meanwhile; `None` when nothing of that was seen.
    pub upstream: Option<Box<Upstream>>,
    /// Serial number of the first try of the same question, where this is a retry.
    pub retry_of: Option<u64>,
    /// Serial number of the earlier row that this one corrects.
    pub amends: Option<u64>,
    /// The way of its packets; `None` when none of them was seen at a device.
    pub journey: Option<Box<Journey>>,
}

/// A connection, or UDP flow, to a service.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Serial number of the row within the trace, from 1.
    pub serial: u64,
    /// When its first packet was seen.
    pub ktime: KtimeNs,
    /// The same by the wall clock.
    pub wall: WallNs,
    /// Who asked.
    pub client: Client,
    /// UDP or TCP.
    pub protocol: Protocol,
    /// The address asked, before NAT.
    pub asked: SocketAddr,
    /// The backend it became; `None` when nothing was translated.
    pub backend: Option<SocketAddr>,
    /// From the first packet to the completed handshake, or to the first UDP answer.
    pub latency: Option<Duration>,
    /// From the first packet to the server's first byte of data.
    pub first_byte: Option<Duration>,
    /// Segments that were sent again, as far as seen.
    pub retransmits: u32,
    /// How it ended, or stood when the row was made.
    pub outcome: Outcome,
    /// Why it ended badly.
    pub cause: Option<String>,
    /// Where it was seen last; `None` when it ended well, or was seen nowhere.
    pub stopped: Option<Stopped>,
    /// Serial number of the earlier row that this one corrects.
    pub amends: Option<u64>,
    /// The way of its packets; `None` when none of them was seen at a device.
    pub journey: Option<Box<Journey>>,
}
