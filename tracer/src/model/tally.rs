//! `Tally`: what rows add up to, by whatever they are told apart.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::{
    bounded::Weight,
    cause::{Causes, is_bad_rcode},
    pod::Pod,
    row::{Named, Outcome, Protocol, Row},
    spread::Spread,
};

/// What kind of exchange a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A DNS query.
    Dns,
    /// A TCP connection.
    Tcp,
    /// A UDP flow of another protocol.
    Udp,
}

impl Kind {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 3] = [Self::Dns, Self::Tcp, Self::Udp];

    /// That of a row.
    pub fn of(row: &Row) -> Self {
        match row {
            Row::Dns(_) => Self::Dns,
            Row::Connection(connection) => Self::of_protocol(connection.protocol),
        }
    }

    /// That of a connection over `protocol`.
    pub fn of_protocol(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
        }
    }

    /// The word for it, in text, JSON and names of files alike.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Who did something, or where it happened: by the best name there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Who {
    /// A pod.
    Pod {
        /// Its namespace.
        namespace: Arc<str>,
        /// Its name.
        name: Arc<str>,
    },
    /// A network namespace, by its name.
    Netns(Arc<str>),
    /// Nobody knows whose address this is.
    Address(IpAddr),
}

impl Who {
    /// A pod by its name.
    pub fn pod(pod: &Pod) -> Self {
        Self::Pod {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
        }
    }

    /// The client of a row.
    pub fn client(row: &Row, named: &Named) -> Self {
        match (&named.pod, &named.netns) {
            (Some(name), _) => Self::pod(&name.pod),
            (None, Some(netns)) => Self::Netns(netns.clone()),
            (None, None) => Self::Address(row.client().address.ip()),
        }
    }

    /// The backend of a row; what was asked, where nothing was translated.
    pub fn backend(row: &Row, named: &Named) -> Self {
        match &named.backend {
            Some(name) => Self::pod(&name.pod),
            None => Self::Address(row.backend().unwrap_or(row.asked()).ip()),
        }
    }

    /// What it is, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Pod { .. } => "pod",
            Self::Netns(_) => "netns",
            Self::Address(_) => "address",
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { namespace, name } => write!(out, "{namespace}/{name}"),
            Self::Netns(name) => out.write_str(name),
            Self::Address(address) => write!(out, "{address}"),
        }
    }
}

/// What was asked, and the backend that it became; `None` where nothing was translated.
pub type Way = (SocketAddr, Option<SocketAddr>);

/// Totals of some exchanges.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// All of them; tries, of DNS.
    pub count: u64,
    /// Tries after the first, of DNS.
    pub retries: u64,
    /// Segments sent again, of TCP.
    pub sent_again: u64,
    /// By outcome.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Answers by response code, of DNS.
    pub rcodes: BTreeMap<u16, u64>,
    /// Answers with an rcode that says that the server failed or would not.
    pub refused: u64,
    /// Latency of the answered.
    pub latency: Spread,
    /// Why those without a good end failed.
    pub causes: Causes,
}

impl Weight for Tally {
    fn weight(&self) -> u64 {
        self.count
    }
}

impl Tally {
    /// Adds a row; `cause` as [`super::cause::of`] tells it.
    pub fn add(&mut self, row: &Row, cause: Option<&str>) {
        self.count += 1;
        let (outcome, latency) = (row.outcome(), row.latency());
        match row {
            Row::Dns(dns) => {
                self.retries += u64::from(dns.retry_of.is_some());
                if let Some(rcode) = dns.rcode {
                    *self.rcodes.entry(rcode).or_default() += 1;
                }
                self.refused += u64::from(is_bad_rcode(outcome, dns.rcode));
            }
            Row::Connection(connection) => self.sent_again += u64::from(connection.retransmits),
        }
        *self.outcomes.entry(outcome).or_default() += 1;
        if let Some(latency) = latency {
            self.latency.add(latency);
        }
        if let Some(cause) = cause {
            self.causes.add(cause);
        }
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.retries += other.retries;
        self.sent_again += other.sent_again;
        for (outcome, count) in &other.outcomes {
            *self.outcomes.entry(*outcome).or_default() += count;
        }
        for (rcode, count) in &other.rcodes {
            *self.rcodes.entry(*rcode).or_default() += count;
        }
        self.refused += other.refused;
        self.latency.merge(&other.latency);
        self.causes.merge(&other.causes);
    }

    /// Those without a good end.
    pub fn failed(&self) -> u64 {
        let bad = self
            .outcomes
            .iter()
            .filter(|(outcome, _)| !outcome.is_good());
        bad.map(|(_, count)| count).sum()
    }

    /// The latency that a `quantile` (0 to 1) of the answered does not exceed.
    pub fn at(&self, quantile: f64) -> Option<Duration> {
        self.latency.quantile(quantile)
    }
}
