//! `Lag`: how long it takes from an endpoint's being ready, as this node heard it, until the rules lead to it, and
//! from there until its first packet; change by change.
//!
//! Time is that of whoever saw: what was written and what was heard come in no fixed order.

use std::{
    collections::{BTreeSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use rustc_hash::FxHashMap;

use super::{
    cluster::{EndpointSlice, ObjectName, Service},
    ids::WallNs,
    trace::Latency,
};

/// What the rules do not have after this long, they will not have.
pub const UNWRITTEN: Duration = Duration::from_secs(60);

/// How long a first packet is waited for, counted from the change.
const UNASKED: Duration = Duration::from_secs(300);

/// How long what was written is kept, should it be heard of later.
const EARLY: Duration = Duration::from_millis(500);

/// Most changes waited for, and most of what was written early.
const MOST: usize = 4096;

/// An endpoint that became ready.
#[derive(Clone, Debug)]
struct Waiting {
    service: ObjectName,
    heard: WallNs,
    written: Option<WallNs>,
}

/// What was written before anybody had heard why.
#[derive(Clone, Debug)]
struct Early {
    at: WallNs,
    service: Option<Arc<str>>,
    endpoint: SocketAddr,
}

/// Changes under way, and what came of others.
#[derive(Debug, Default)]
pub struct Lag {
    /// By endpoint: each packet asks whether one is waited for.
    waiting: FxHashMap<SocketAddr, Vec<Waiting>>,
    early: VecDeque<Early>,
    totals: LagTotals,
}

/// What came of changes.
#[derive(Debug, Default)]
pub struct LagTotals {
    /// Endpoints that became ready.
    pub changes: u64,
    /// From when that was heard until the rules led there.
    pub written: Latency,
    /// From then until the first packet came there.
    pub asked: Latency,
    /// Not in the rules within a minute: not for this node, or kube-proxy does not follow.
    pub unwritten: u64,
    /// How far apart looks were where the kernel does not tell what is written: so much later may it have been seen.
    pub polled: Option<Duration>,
    /// The slowest to be written.
    pub slowest: Option<Slowest>,
}

/// A change that took long.
#[derive(Clone, Debug, PartialEq)]
pub struct Slowest {
    /// Whose endpoint.
    pub service: ObjectName,
    /// Which.
    pub endpoint: SocketAddr,
    /// Until the rules led there.
    pub took: Duration,
}

/// The ready endpoints that kube-proxy is to have rules for.
pub fn ready_of(service: Option<&Service>, slices: &[Arc<EndpointSlice>]) -> BTreeSet<SocketAddr> {
    let served = service.is_some_and(Service::is_addressed);
    let slices = slices.iter().filter(|slice| served && !slice.headless);
    let endpoints = slices.flat_map(|slice| {
        let ready = slice.endpoints.iter().filter(|one| one.ready);
        let ready = ready.filter_map(|one| one.addresses.first());
        ready.flat_map(|address| {
            let ports = slice.ports.iter().filter_map(|port| port.port);
            ports.map(|port| SocketAddr::new(*address, port))
        })
    });
    endpoints.collect()
}

impl Lag {
    /// At `at` it was heard that of a Service's endpoints those `before` are now those `after`.
    pub fn heard(
        &mut self,
        at: WallNs,
        service: &ObjectName,
        before: &BTreeSet<SocketAddr>,
        after: &BTreeSet<SocketAddr>,
    ) {
        // What is gone before the rules had it is nobody's lag.
        self.retain(|endpoint, one| one.service != *service || after.contains(endpoint));
        self.early
            .retain(|one| !before.contains(&one.endpoint) || after.contains(&one.endpoint));
        let name = service.to_string();
        for endpoint in after.difference(before).copied() {
            self.totals.changes += 1;
            self.make_room();
            self.waiting.entry(endpoint).or_default().push(Waiting {
                service: service.clone(),
                heard: at,
                written: None,
            });
            let mut early = self.early.iter().rev();
            let early = early.find(|one| {
                one.endpoint == endpoint && one.service.as_deref().is_none_or(|of| of == name)
            });
            if let Some(Early { at, service, .. }) = early.cloned() {
                self.written(at, service.as_deref(), endpoint);
            }
        }
    }

    /// A rule to `endpoint` was written; `service`, as `shop/web`, where the rule names it.
    pub fn written(&mut self, at: WallNs, service: Option<&str>, endpoint: SocketAddr) {
        let fits = |one: &&mut Waiting| {
            one.written.is_none() && service.is_none_or(|name| one.service.to_string() == name)
        };
        let mut known = false;
        let waiting = self.waiting.get_mut(&endpoint).into_iter().flatten();
        for one in waiting.filter(fits) {
            known = true;
            one.written = Some(at);
            let took = at - one.heard;
            self.totals.written.add(took);
            if self
                .totals
                .slowest
                .as_ref()
                .is_none_or(|slowest| took > slowest.took)
            {
                self.totals.slowest = Some(Slowest {
                    service: one.service.clone(),
                    endpoint,
                    took,
                });
            }
        }
        if !known {
            if self.early.len() == MOST {
                self.early.pop_front();
            }
            self.early.push_back(Early {
                at,
                service: service.map(Into::into),
                endpoint,
            });
        }
    }

    /// Something was seen by looking each so often.
    pub fn polled(&mut self, each: Duration) {
        self.totals.polled = self.totals.polled.max(Some(each));
    }

    /// A packet was sent there.
    pub fn packet(&mut self, at: WallNs, endpoint: SocketAddr) {
        let Some(waiting) = self.waiting.get_mut(&endpoint) else {
            return;
        };
        waiting.retain(|one| match one.written {
            Some(written) if at >= written => {
                self.totals.asked.add(at - written);
                false
            }
            _ => true,
        });
        if waiting.is_empty() {
            self.waiting.remove(&endpoint);
        }
    }

    /// Time has come to `now`.
    pub fn tick(&mut self, now: WallNs) {
        let mut unwritten = 0;
        self.retain(|_, one| {
            let waited = now - one.heard;
            let is_unwritten = one.written.is_none() && waited > UNWRITTEN;
            unwritten += u64::from(is_unwritten);
            !is_unwritten && waited < UNASKED
        });
        self.totals.unwritten += unwritten;
        while self.early.front().is_some_and(|one| now - one.at > EARLY) {
            self.early.pop_front();
        }
    }

    fn retain(&mut self, mut keep: impl FnMut(&SocketAddr, &Waiting) -> bool) {
        self.waiting.retain(|endpoint, waiting| {
            waiting.retain(|one| keep(endpoint, one));
            !waiting.is_empty()
        });
    }

    /// Forgets a change that has waited longest, where there are too many.
    fn make_room(&mut self) {
        let all = || self.waiting.values().flatten();
        if all().count() < MOST {
            return;
        }
        let oldest = all().map(|one| one.heard).min();
        let mut forgotten = false;
        self.retain(|_, one| {
            let forget = !forgotten && Some(one.heard) == oldest;
            forgotten |= forget;
            !forget
        });
    }

    /// What came of changes so far.
    pub fn totals(&self) -> &LagTotals {
        &self.totals
    }

    /// The same, at the end.
    pub fn finish(self) -> LagTotals {
        self.totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn name() -> ObjectName {
        ObjectName {
            namespace: "shop".into(),
            name: "web".into(),
        }
    }

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 244, 1, last], 8080))
    }

    fn heard(lag: &mut Lag, ms: i64, before: &[u8], after: &[u8]) {
        let set = |all: &[u8]| all.iter().map(|last| at(*last)).collect();
        lag.heard(WallNs(ms * MS), &name(), &set(before), &set(after));
    }

    #[test]
    fn a_change_is_followed_from_the_slice_to_the_rules_to_the_first_packet() {
        let mut lag = Lag::default();
        heard(&mut lag, 0, &[1], &[1, 2]);
        lag.written(WallNs(20 * MS), Some("shop/other"), at(2));
        lag.written(WallNs(30 * MS), Some("shop/web"), at(2));
        lag.written(WallNs(40 * MS), Some("shop/web"), at(2));
        lag.packet(WallNs(25 * MS), at(2));
        lag.packet(WallNs(50 * MS), at(2));
        lag.packet(WallNs(90 * MS), at(2));
        let totals = lag.finish();
        assert_eq!(totals.changes, 1);
        assert_eq!((totals.written.count(), totals.asked.count()), (1, 1));
        let slowest = totals.slowest.unwrap();
        assert_eq!(slowest.took, Duration::from_millis(30));
        let first = totals.asked.quantile(1.0).unwrap();
        assert!((first.as_secs_f64() - 0.02).abs() < 0.001, "{first:?}");
    }

    #[test]
    fn what_is_written_before_it_is_heard_took_no_time() {
        let mut lag = Lag::default();
        lag.written(WallNs(0), None, at(2));
        heard(&mut lag, 10, &[], &[2]);
        let totals = lag.finish();
        assert_eq!(totals.written.count(), 1);
        assert_eq!(totals.slowest.unwrap().took, Duration::ZERO);
    }

    #[test]
    fn what_never_comes_is_counted_and_what_goes_again_is_not() {
        let mut lag = Lag::default();
        heard(&mut lag, 0, &[], &[1, 2]);
        heard(&mut lag, 10, &[1, 2], &[1]);
        lag.tick(WallNs(61_000 * MS));
        let totals = lag.totals();
        assert_eq!((totals.changes, totals.unwritten), (2, 1));
        assert_eq!(totals.written.count(), 0);
    }
}
