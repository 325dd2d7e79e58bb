//! What went wrong with the packets of a trace, named: each row without a good end is claimed by the
//! first diagnosis that its evidence supports, and what one cause did to many becomes one finding.
//! A pure function of rows; what is kept is bounded.

mod disagree;
mod dns;
mod drops;
mod evidence;
mod next_hop;
mod policy;
mod rejected;
mod service;
mod silent;
mod state;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

use self::{
    disagree::Disagree,
    evidence::Evidence,
    state::{State, is_loop_probe},
};
use crate::model::{
    Finding, Named, Row, Severity,
    breakdown::Breakdown,
    journey::Step,
    row::SLOW,
    tally::{Kind, Who},
};

/// A failure that has a name.
#[derive(Clone, Copy, Debug)]
pub struct Diagnosis {
    /// What `tracer explain` takes.
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong with the object, in one sentence without the full stop.
    pub sentence: &'static str,
    /// What its packets look like.
    pub wire: &'static str,
    /// What is behind it.
    pub cause: &'static str,
    /// What to do, as a command or an edit.
    pub remedy: &'static str,
    /// What would show that this is not it; empty when it is certain.
    pub refuted_by: &'static str,
    /// Fewest rows from which on it is told.
    pub least: u64,
    /// Whether a row is one of it; `None` where rows are told by what all of them add up to.
    claim: Option<Judge>,
}

/// Whether a row, by its names and by what earlier rows showed, is of a diagnosis.
type Judge = fn(&Row, &Named, &State) -> Option<Claim>;

/// A row that a diagnosis claims.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Claim {
    /// What is concerned: rows of one object are one finding.
    object: Object,
    /// What this row shows.
    shown: String,
}

/// What is concerned: what sort of thing, and its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Object(&'static str, At);

/// Where an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    /// On this node.
    Here,
    Address(IpAddr),
    Socket(SocketAddr),
}

impl Object {
    /// What was asked, with its port.
    fn asked(words: &'static str, row: &Row) -> Self {
        Self(words, At::Socket(row.asked()))
    }

    /// Who was to answer, with its port; what was asked, where nothing was translated.
    fn server(words: &'static str, row: &Row) -> Self {
        Self(words, At::Socket(row.backend().unwrap_or(row.asked())))
    }

    /// The same by its address alone.
    fn address(words: &'static str, row: &Row) -> Self {
        Self(
            words,
            At::Address(row.backend().unwrap_or(row.asked()).ip()),
        )
    }

    fn ip(self) -> Option<IpAddr> {
        match self.1 {
            At::Here => None,
            At::Address(ip) => Some(ip),
            At::Socket(socket) => Some(socket.ip()),
        }
    }

    /// What it is called, by the names of a row that is about it; `None` where it has none.
    fn name(self, row: &Row, named: &Named) -> Option<String> {
        let ip = self.ip()?;
        if row.backend().is_some_and(|backend| backend.ip() == ip) {
            return named.backend.as_ref().map(|name| name.pod.to_string());
        }
        if row.client().address.ip() == ip {
            return named.pod.as_ref().map(|name| name.pod.to_string());
        }
        if row.asked().ip() != ip {
            return None;
        }
        let asked = &named.asked;
        let service = asked.service.as_ref();
        let service = service.map(|name| name.port.service.to_string());
        let pod = || asked.pod.as_ref().map(|name| name.pod.to_string());
        service
            .or_else(pod)
            .or_else(|| asked.node.as_ref().map(ToString::to_string))
    }
}

impl fmt::Display for Object {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(words, at) = self;
        match at {
            At::Here => out.write_str(words),
            At::Address(ip) => write!(out, "{words} {ip}"),
            At::Socket(socket) => write!(out, "{words} {socket}"),
        }
    }
}

/// All of them. A row belongs to the first that claims it, so what says more stands before what
/// says less.
pub const ALL: &[Diagnosis] = &[
    dns::CONNTRACK_RACE,
    drops::CONNTRACK_FULL,
    drops::SNAT_PORTS,
    drops::INVALID_DROP,
    policy::NETWORK_POLICY,
    dns::NODE_CACHE,
    dns::TCP_FALLBACK,
    service::HAIRPIN,
    service::STALE_RULES,
    rejected::NO_ENDPOINTS,
    rejected::BACKEND_REFUSES,
    rejected::POLICY_REJECT,
    next_hop::NEIGHBOURS_FULL,
    next_hop::NO_NEIGHBOUR,
    next_hop::NO_ROUTE,
    next_hop::ROUTING_LOOP,
    rejected::UNREACHABLE,
    drops::RP_FILTER,
    next_hop::FORWARDING,
    silent::SERVER_PAUSED,
    silent::SERVER_THROTTLED,
    drops::RCVBUF_FULL,
    drops::BAD_CHECKSUM,
    next_hop::TUNNEL_TARGET,
    next_hop::QUEUE_FULL,
    drops::TOO_BIG,
    drops::LATE_ANSWER,
    drops::FORWARD_DROP,
    drops::POLICY_DROP,
    drops::KERNEL_DROP,
    dns::LOOP,
    dns::UNEXPECTED_SOURCE,
    dns::UPSTREAM_TIMEOUT,
    dns::SERVFAIL,
    silent::SERVER_OVERLOADED,
    silent::SERVER_SILENT,
    silent::TUNNEL_SILENT,
    silent::STALE_CONNTRACK,
    silent::ANSWER_LOST,
    service::STALLED,
    service::RESET,
    silent::BACKEND_SILENT,
    service::UNTRANSLATED,
    service::UNTRANSLATED_ENTRY,
    service::ENDED_EARLY,
    silent::UNANSWERED,
    dns::UPSTREAM_SLOW,
    silent::SERVER_SLOW,
    dns::NDOTS,
    disagree::SERVERS_DISAGREE,
];

/// The diagnosis called `name`.
pub fn named(name: &str) -> Option<&'static Diagnosis> {
    ALL.iter().find(|diagnosis| diagnosis.name == name)
}

/// What is another sign of the same, at the same address: it is told with the first of a pair.
const SAME: &[(&str, &str)] = &[
    ("server_paused", "server_overloaded"),
    ("server_paused", "server_silent"),
    ("server_paused", "rcvbuf_full"),
    ("server_paused", "server_slow"),
    ("server_paused", "late_answer"),
    ("server_throttled", "server_overloaded"),
    ("server_throttled", "server_silent"),
    ("server_throttled", "rcvbuf_full"),
    ("server_throttled", "server_slow"),
    ("server_throttled", "late_answer"),
    ("rcvbuf_full", "server_overloaded"),
    ("rcvbuf_full", "server_slow"),
    ("rcvbuf_full", "late_answer"),
    ("server_overloaded", "server_slow"),
    ("server_overloaded", "late_answer"),
    ("server_slow", "late_answer"),
    ("upstream_timeout", "upstream_slow"),
    ("no_neighbour", "unreachable"),
    ("no_route", "unreachable"),
];

/// What is another sign of the same, at what was asked by rows of the first of a pair. What an upstream server does
/// not answer its asker cannot answer either, and CoreDNS keeps a SERVFAIL for five seconds; a server that hangs
/// is not ready before long, and its Service loses it as an endpoint. What finds room in a full queue waits there. Who
/// is led to pods that are gone is told so in many ways.
const BEHIND: &[(&str, &str)] = &[
    ("upstream_timeout", "servfail"),
    ("upstream_timeout", "late_answer"),
    ("server_paused", "no_endpoints"),
    ("server_paused", "backend_silent"),
    ("server_throttled", "no_endpoints"),
    ("server_overloaded", "no_endpoints"),
    ("server_silent", "no_endpoints"),
    ("queue_full", "late_answer"),
    ("stale_rules", "unreachable"),
    ("stale_rules", "no_neighbour"),
    ("stale_rules", "no_route"),
    ("stale_rules", "backend_silent"),
    ("stale_rules", "unanswered"),
];

/// Most objects that are told apart.
const OBJECTS: usize = 256;

/// Diagnoses in the making.
#[derive(Debug, Default)]
pub struct Diagnoses {
    state: State,
    disagree: Disagree,
    found: BTreeMap<(usize, Object), Evidence>,
    /// Rows by kind, those that amend earlier ones apart.
    rows: BTreeMap<Kind, u64>,
    /// Rows of objects that were too many to be told apart.
    beyond: u64,
}

impl Diagnoses {
    /// Takes a further row.
    pub fn add(&mut self, row: &Row, named: &Named) {
        if row.amends().is_none() {
            *self.rows.entry(Kind::of(row)).or_default() += 1;
        }
        let claimed = if is_ordinary(row) {
            None
        } else {
            ALL.iter().enumerate().find_map(|(index, diagnosis)| {
                Some((index, diagnosis.claim?(row, named, &self.state)?))
            })
        };
        self.state.add(row, named.verdict);
        self.disagree.add(row, || Who::client(row, named));
        let Some((index, claim)) = claimed else {
            return;
        };
        let key = (index, claim.object);
        if self.found.len() >= OBJECTS && !self.found.contains_key(&key) {
            self.beyond += 1;
            return;
        }
        let evidence = self.found.entry(key).or_default();
        if evidence.name.is_none() {
            evidence.name = claim.object.name(row, named);
        }
        evidence.add(row, &Who::client(row, named), claim.shown);
    }

    /// What was found, the worst first; `totals` are of the same rows, and `left` says of an address asked and a
    /// backend of it whether that is an endpoint no more, or about to be none.
    pub fn findings(&self, totals: &Breakdown, left: &Left<'_>) -> Vec<Finding> {
        let mut all: Vec<(&'static Diagnosis, Object, Evidence)> = Vec::new();
        for ((index, object), evidence) in &self.found {
            let settled = silent::settled(&ALL[*index], *object, &self.state, left);
            let Some((diagnosis, object)) = settled else {
                continue;
            };
            let mut known = all.iter_mut();
            match known.find(|(of, at, _)| of.name == diagnosis.name && *at == object) {
                Some((.., known)) => known.merge(evidence),
                None => all.push((diagnosis, object, evidence.clone())),
            }
        }
        all.retain(|(diagnosis, _, evidence)| evidence.rows >= diagnosis.least);
        let settled: Vec<Settled<'_>> = all
            .iter()
            .map(|(diagnosis, object, evidence)| (*diagnosis, *object, evidence))
            .collect();
        let mut findings: Vec<(u64, Finding)> = Vec::new();
        for one in &settled {
            if settled.iter().any(|of| is_sign(of, one)) {
                continue;
            }
            let (diagnosis, object, evidence) = one;
            let of = self.rows.get(&evidence.kind()).copied();
            let of = of.unwrap_or(evidence.rows);
            let mut finding = finding(diagnosis, *object, evidence, of);
            for sign in settled.iter().filter(|sign| is_sign(one, sign)) {
                let (other, at, signs) = sign;
                let who = if at.1 == object.1 {
                    "it".to_owned()
                } else {
                    at.to_string()
                };
                let rows = signs.rows;
                finding
                    .evidence
                    .push(format!("and {rows} that {who} {}", other.sentence));
            }
            findings.push((evidence.rows, finding));
        }
        findings.extend(dns::ndots(totals));
        let queries = self.rows.get(&Kind::Dns).copied();
        findings.extend(self.disagree.findings(queries.unwrap_or(0)));
        findings.sort_by(|(rows, one), (others, other)| {
            let order = (other.severity, others).cmp(&(one.severity, rows));
            order.then_with(|| one.object.cmp(&other.object))
        });
        findings.into_iter().map(|(_, finding)| finding).collect()
    }

    /// Rows that no finding counts, for their objects were too many.
    pub fn beyond(&self) -> u64 {
        self.beyond
    }
}

/// Whether a backend of an address asked has left, or leaves.
pub type Left<'a> = dyn Fn(SocketAddr, SocketAddr) -> bool + 'a;

/// A diagnosis, what it is about, and what speaks for it.
type Settled<'a> = (&'static Diagnosis, Object, &'a Evidence);

/// Whether `other` is one more sign of what `one` says.
fn is_sign(one: &Settled<'_>, other: &Settled<'_>) -> bool {
    let pair = (one.0.name, other.0.name);
    let (at, there) = (one.1.1, other.1.1);
    SAME.contains(&pair) && at == there || BEHIND.contains(&pair) && one.2.is_through(there)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn finding(diagnosis: &Diagnosis, object: Object, evidence: &Evidence, of: u64) -> Finding {
    Finding {
        name: diagnosis.name,
        severity: diagnosis.severity,
        object: match &evidence.name {
            Some(name) => format!("{object} ({name})"),
            None => object.to_string(),
        },
        sentence: diagnosis.sentence.to_owned(),
        stage: evidence.stage(),
        evidence: evidence.lines(of),
        since: evidence.first,
        share: Some(evidence.rows as f64 / of.max(1) as f64),
        remedy: diagnosis.remedy.to_owned(),
        refuted_by: diagnosis.refuted_by.to_owned(),
    }
}

/// The stage that a row passed last.
fn last_step(row: &Row) -> Option<Step> {
    row.journey()?.stages.last().map(|stage| stage.step)
}

/// Whether no diagnosis can claim a row, as of nearly all: it ended well and soon, its server did not
/// fail, and it is no probe of CoreDNS's for a loop.
fn is_ordinary(row: &Row) -> bool {
    let soon = row.latency().is_none_or(|latency| latency < SLOW);
    let served = match row {
        Row::Dns(dns) => !dns.server_failed() && !is_loop_probe(dns),
        Row::Connection(_) => true,
    };
    row.outcome().is_good() && soon && served
}

/// The cause of a row that came to no good end; empty for one without.
fn cause(row: &Row) -> &str {
    row.cause()
        .filter(|_| !row.outcome().is_good())
        .unwrap_or_default()
}

/// The page behind a name, as text.
pub fn page(diagnosis: &Diagnosis) -> String {
    let Diagnosis {
        name,
        severity,
        sentence,
        wire,
        cause,
        remedy,
        refuted_by,
        ..
    } = diagnosis;
    let severity = severity.name();
    let refuted = match *refuted_by {
        "" => String::new(),
        refuted => format!("\nIt is not this if {refuted}.\n"),
    };
    format!(
        "{name} ({severity})\n\n{sentence}.\n\nIn the packets: {wire}.\n\nBehind it: {cause}.\n\nRemedy: {remedy}.\n{refuted}"
    )
}

#[cfg(test)]
mod tests;
