//! `Trace`: everything the rows of a trace add up to, bounded whatever the traffic; the only
//! input of reports.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use hdrhistogram::Histogram;

use super::{
    asked::ServicePortName,
    breakdown::Breakdown,
    change,
    clock::ClockOffset,
    conntrack::ConntrackTotals,
    fact::Losses,
    ids::WallNs,
    index::Standing,
    journey::Journey,
    lag::LagTotals,
    pod::Source,
    row::{Connection, Dns, Named, Outcome, Protocol, Row},
    spent::{AllSpent, Spent},
    stages::StageTotals,
    tally::Kind,
    uniform::Uniform,
};

/// Most addresses that are told apart; what goes beyond is counted together.
const ADDRESSES: usize = 1024;

/// Most addresses, of DNS and of connections each, for which stages are told: their histograms
/// take some 10 KB a stage.
pub const STAGED: usize = 128;

/// What a trace adds up to.
#[derive(Debug, Default)]
pub struct Trace {
    /// DNS by the address asked, before NAT.
    pub dns: BTreeMap<SocketAddr, DnsTotals>,
    /// Connections by protocol and address asked.
    pub connections: BTreeMap<(Protocol, SocketAddr), ConnectionTotals>,
    /// Rows whose address was one too many to be told apart.
    pub beyond: u64,
    /// The same rows by all else that reports tell apart.
    pub breakdown: Breakdown,
    /// What was asked, by the Service's name it had last; of the addresses in `dns` and
    /// `connections`.
    pub services: BTreeMap<(Protocol, SocketAddr), Arc<ServicePortName>>,
    /// The backends that were ready at the end, by what was asked: of Services that choose each as often as
    /// the next, where that is known.
    pub ready: BTreeMap<(Protocol, SocketAddr), Vec<SocketAddr>>,
    /// Names of pods and Services in rows, by where they came from.
    pub names: BTreeMap<Source, u64>,
    /// What was said of translations, by `Verdict::name`.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// How TCP connections were spread over the endpoints of Services, where there were enough.
    pub spreads: Vec<ServiceSpread>,
    /// How the API server was heard; `None` where it was not asked.
    pub api: Option<Api>,
    /// How far kube-proxy was behind what the API server said; `None` where nobody looked.
    pub lag: Option<LagTotals>,
    /// How far the clocks of other nodes are ahead of the first one's, where recordings of several are told
    /// together.
    pub clocks: Vec<ClockOffset>,
    /// What conntrack counted, by namespace.
    pub conntrack: Vec<ConntrackTotals>,
    /// What the correlator could not place, by cause.
    pub unplaced: Unplaced,
    /// What was lost before the correlator.
    pub losses: Losses,
}

/// How the API server was heard at the end of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// Its address; `None` where the configuration has none.
    pub server: Option<Arc<str>>,
    /// When the snapshot from disk was true; `None` when there was none.
    pub snapshot: Option<WallNs>,
    /// When this was so.
    pub now: WallNs,
    /// Each kind of object.
    pub kinds: Vec<(change::Kind, Standing)>,
}

impl Api {
    /// How long ago `then` was.
    pub fn since(&self, then: WallNs) -> Duration {
        self.now - then
    }
}

/// Totals of the DNS queries to one address.
#[derive(Debug, Default)]
pub struct DnsTotals {
    /// Queries, every try counted.
    pub queries: u64,
    /// Queries answered within the limit.
    pub answered: u64,
    /// Answers that came after their query had been given up; not in `answered`.
    pub late: u64,
    /// Tries after the first.
    pub retries: u64,
    /// Queries by outcome.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Answers by response code.
    pub rcodes: BTreeMap<u16, u64>,
    /// Queries by the backend they were translated to.
    pub backends: BTreeMap<SocketAddr, u64>,
    /// Latency of the answered.
    pub latency: Latency,
    /// Of the first [`STAGED`] addresses alone, and where there are journeys.
    pub stages: Option<Box<StageTotals>>,
}

/// Totals of the connections to one address.
#[derive(Debug, Default)]
pub struct ConnectionTotals {
    /// Connections, or UDP flows.
    pub count: u64,
    /// By outcome.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// By the backend they were translated to.
    pub backends: BTreeMap<SocketAddr, u64>,
    /// Latency of the answered.
    pub latency: Latency,
    /// Of the first [`STAGED`] addresses alone, and where there are journeys.
    pub stages: Option<Box<StageTotals>>,
}

/// How connections to a Service's port were spread over its endpoints.
#[derive(Clone, Debug)]
pub struct ServiceSpread {
    /// Where it was asked.
    pub asked: SocketAddr,
    /// The port.
    pub port: Arc<ServicePortName>,
    /// What the test says.
    pub test: Uniform,
}

/// What was seen and could not be placed, by cause: packets or messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unplaced {
    /// DNS messages that do not parse (RFC 1035, section 4.1).
    pub malformed: u64,
    /// Messages captured too short to be told, and packets part of whose payload could not be read.
    pub cut: u64,
    /// Answers to no query that was seen.
    pub unmatched: u64,
    /// Answers from another address than the one asked.
    pub unexpected_source: u64,
    /// Answers that came again.
    pub duplicates: u64,
    /// Messages with more than one question.
    pub multi_question: u64,
    /// Queries, connections or streams forgotten for want of room.
    pub evicted: u64,
    /// Later fragments, which cannot be told from one another without reassembly.
    pub fragments: u64,
    /// Queries that were still waiting for their answer when the trace ended.
    pub open: u64,
    /// DNS over TCP that could not be put together.
    pub tcp_gaps: u64,
}

impl Unplaced {
    /// Adds `more`.
    pub fn add(&mut self, more: &Self) {
        self.malformed += more.malformed;
        self.cut += more.cut;
        self.unmatched += more.unmatched;
        self.unexpected_source += more.unexpected_source;
        self.duplicates += more.duplicates;
        self.multi_question += more.multi_question;
        self.evicted += more.evicted;
        self.fragments += more.fragments;
        self.open += more.open;
        self.tcp_gaps += more.tcp_gaps;
    }
}

/// A histogram of latencies, from 1 µs to 10 minutes, each to within one percent.
#[derive(Debug)]
pub struct Latency(Histogram<u32>);

impl Default for Latency {
    fn default() -> Self {
        Self(
            Histogram::new_with_bounds(1, 600_000_000, 2)
                .expect("the bounds are constants in order"),
        )
    }
}

impl Latency {
    /// Adds one.
    pub fn add(&mut self, latency: Duration) {
        self.0.saturating_record(
            u64::try_from(latency.as_micros())
                .unwrap_or(u64::MAX)
                .max(1),
        );
    }

    /// How many were added.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that a `quantile` (0 to 1) of them does not exceed; `None` when there are none.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        (!self.0.is_empty()).then(|| Duration::from_micros(self.0.value_at_quantile(quantile)))
    }
}

/// Has totals of stages, where there is room; what the journey spent comes later.
fn begin_stages(
    totals: &mut Option<Box<StageTotals>>,
    journey: &Journey,
    outcome: Outcome,
    room: bool,
) {
    if totals.is_none() && room {
        *totals = Some(Box::default());
    }
    if let Some(totals) = totals.as_mut().filter(|_| !outcome.is_good()) {
        totals.stop(journey);
    }
}

/// Rows being added to a [`Trace`], which is whole again when this is dropped.
pub struct Adding<'a> {
    trace: &'a mut Trace,
    spent: AllSpent,
}

impl Adding<'_> {
    /// Adds a row.
    pub fn add(&mut self, row: &Row, named: &Named) {
        let Self { trace, spent } = self;
        trace.breakdown.add(row, named);
        trace.add_names(row, named);
        if let Some(verdict) = named.verdict {
            *trace.verdicts.entry(verdict.name()).or_default() += 1;
        }
        match row {
            Row::Dns(dns) => trace.add_dns(dns),
            Row::Connection(connection) => trace.add_connection(connection),
        }
        if row.amends().is_none() {
            spent.add(row, named);
        }
    }
}

impl Drop for Adding<'_> {
    fn drop(&mut self) {
        for spent in self.spent.take() {
            self.trace.add_spent(&spent);
        }
    }
}

impl Trace {
    /// Adds a row.
    pub fn add(&mut self, row: &Row, named: &Named) {
        self.adding().add(row, named);
    }

    /// For adding rows that come at once, which is cheaper than one by one.
    pub fn adding(&mut self) -> Adding<'_> {
        Adding {
            trace: self,
            spent: AllSpent::default(),
        }
    }

    fn add_spent(&mut self, spent: &Spent) {
        self.breakdown.add_spent(spent);
        let stages = match spent.kind {
            Kind::Dns => self
                .dns
                .get_mut(&spent.asked)
                .map(|totals| &mut totals.stages),
            Kind::Tcp | Kind::Udp => {
                let totals = self.connections.get_mut(&(spent.protocol, spent.asked));
                totals.map(|totals| &mut totals.stages)
            }
        };
        if let Some(Some(stages)) = stages {
            stages.add(spent);
        }
    }

    fn add_names(&mut self, row: &Row, named: &Named) {
        let pods = [&named.pod, &named.backend, &named.asked.pod];
        let pods = pods.into_iter().flatten().map(|name| name.source);
        let service = named.asked.service.as_ref();
        for source in pods.chain(service.map(|name| name.source)) {
            *self.names.entry(source).or_default() += 1;
        }
        let Some(name) = service else {
            return;
        };
        let key = (row.protocol(), row.asked());
        let room = self.services.len() < 2 * ADDRESSES;
        match self.services.get_mut(&key) {
            Some(known) if Arc::ptr_eq(known, &name.port) => {}
            Some(known) => *known = Arc::clone(&name.port),
            None if room => {
                self.services.insert(key, Arc::clone(&name.port));
            }
            None => {}
        }
    }

    /// The Service's port that DNS was asked of at `address`, over whichever protocol.
    pub fn dns_service(&self, address: SocketAddr) -> Option<&Arc<ServicePortName>> {
        let of = |protocol| self.services.get(&(protocol, address));
        of(Protocol::Udp).or_else(|| of(Protocol::Tcp))
    }

    fn add_dns(&mut self, dns: &Dns) {
        if self.dns.len() >= ADDRESSES && !self.dns.contains_key(&dns.asked) {
            self.beyond += 1;
            return;
        }
        let room = self.dns.len() < STAGED;
        let totals = self.dns.entry(dns.asked).or_default();
        if let Some(rcode) = dns.rcode {
            *totals.rcodes.entry(rcode).or_default() += 1;
        }
        if dns.amends.is_some() {
            totals.late += 1;
            return;
        }
        totals.queries += 1;
        totals.answered += u64::from(dns.outcome == Outcome::Answered);
        totals.retries += u64::from(dns.retry_of.is_some());
        *totals.outcomes.entry(dns.outcome).or_default() += 1;
        if let Some(backend) = dns.backend {
            *totals.backends.entry(backend).or_default() += 1;
        }
        if let Some(latency) = dns.latency.filter(|_| dns.outcome == Outcome::Answered) {
            totals.latency.add(latency);
        }
        if let Some(journey) = &dns.journey {
            begin_stages(&mut totals.stages, journey, dns.outcome, room);
        }
    }

    fn add_connection(&mut self, connection: &Connection) {
        let key = (connection.protocol, connection.asked);
        if self.connections.len() >= ADDRESSES && !self.connections.contains_key(&key) {
            self.beyond += 1;
            return;
        }
        let room = self.connections.len() < STAGED;
        let totals = self.connections.entry(key).or_default();
        if connection.amends.is_some() {
            return;
        }
        totals.count += 1;
        *totals.outcomes.entry(connection.outcome).or_default() += 1;
        if let Some(backend) = connection.backend {
            *totals.backends.entry(backend).or_default() += 1;
        }
        if let Some(latency) = connection.latency {
            totals.latency.add(latency);
        }
        if let Some(journey) = &connection.journey {
            begin_stages(&mut totals.stages, journey, connection.outcome, room);
        }
    }

    /// Whether anything was lost, so that the totals are incomplete.
    pub fn is_incomplete(&self) -> bool {
        self.losses.total() > 0 || self.unplaced.evicted > 0
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::{Client, KtimeNs, SocketEnds};

    /// A query answered after `latency`, sent `second` after the epoch; that is its serial number too.
    pub(crate) fn answered(second: u64, latency: Duration) -> Row {
        Row::Dns(Dns {
            serial: second,
            ktime: KtimeNs(second * 1_000_000_000),
            wall: WallNs(i64::try_from(second).unwrap() * 1_000_000_000),
            client: Client {
                address: ([192, 0, 2, 1], 40_000).into(),
                netns: None,
                sender: None,
            },
            protocol: Protocol::Udp,
            asked: ([10, 96, 0, 10], 53).into(),
            backend: None,
            id: 1,
            name: Some("web.example.test".to_owned()),
            qtype: Some(1),
            rcode: Some(0),
            answers: Some(1),
            truncated: false,
            latency: Some(latency),
            outcome: Outcome::Answered,
            clash: None,
            cause: None,
            stopped: None,
            ends: SocketEnds::default(),
            upstream: None,
            retry_of: None,
            amends: None,
            journey: None,
        })
    }
}
