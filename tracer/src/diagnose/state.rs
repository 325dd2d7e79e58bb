//! What earlier rows say about later ones: which question of a pair was answered, which backends
//! answer, which sockets keep asking in vain, who was told to ask again over TCP. Bounded.

use std::{
    collections::BTreeMap,
    hash::BuildHasher as _,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use rustc_hash::{FxBuildHasher, FxHashMap};

use super::Left;
use crate::model::{Dns, KtimeNs, Outcome, Protocol, Row, verdict::Verdict};

/// Most entries of a generation, unless said otherwise; there are two.
const ROOM: usize = 8192;

/// Most backends that are told apart.
const BACKENDS: usize = 4096;

/// A and AAAA (RFC 1035, section 3.2.2; RFC 3596, section 2.1).
const A: u16 = 1;
const AAAA: u16 = 28;

/// Two questions of one socket closer than this were sent at once.
const AT_ONCE: Duration = Duration::from_millis(5);

/// Whether one socket sent two questions at once, so far as their times tell.
pub(super) fn are_at_once(one: KtimeNs, other: KtimeNs) -> bool {
    one - other < AT_ONCE && other - one < AT_ONCE
}

/// A client that asks over TCP asks within this.
const FALLBACK: Duration = Duration::from_secs(30);

/// Entries of the last while: when one generation is full, the one before it is forgotten.
#[derive(Debug)]
pub(super) struct Recent<K, V, const MOST: usize = ROOM> {
    new: FxHashMap<K, V>,
    old: FxHashMap<K, V>,
}

impl<K, V, const MOST: usize> Default for Recent<K, V, MOST> {
    fn default() -> Self {
        Self {
            new: FxHashMap::default(),
            old: FxHashMap::default(),
        }
    }
}

impl<K: Eq + std::hash::Hash, V, const MOST: usize> Recent<K, V, MOST> {
    pub(super) fn insert(&mut self, key: K, value: V) {
        self.turn();
        self.new.insert(key, value);
    }

    /// Inserts, and returns what `key` had before.
    pub(super) fn replace(&mut self, key: K, value: V) -> Option<V>
    where
        K: Copy,
        V: Copy,
    {
        self.turn();
        let before = self.new.insert(key, value);
        before.or_else(|| self.old.get(&key).copied())
    }

    fn turn(&mut self) {
        if self.new.len() >= MOST {
            std::mem::swap(&mut self.old, &mut self.new);
            self.new.clear();
        }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.new.get(key).or_else(|| self.old.get(key))
    }
}

/// How a backend did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Did {
    pub(super) answered: u64,
    pub(super) failed: u64,
    /// Failures of a socket that had failed there before.
    pub(super) again: u64,
    /// Whether it is an endpoint of what was asked, by the last that the API server said; `None` where it was not
    /// heard.
    is_endpoint: Option<bool>,
    /// What was asked last that became it.
    asked: Option<SocketAddr>,
}

/// Sockets that an old conntrack entry leads astray, at most: where rules do it, there are ever new ones.
const ASTRAY: u64 = 3;

impl Did {
    /// Whether nobody is led to it any more, but by an old conntrack entry.
    pub(super) fn is_left(&self) -> bool {
        let sockets = self.failed - self.again;
        self.is_endpoint
            .map_or(sockets <= ASTRAY, |endpoint| !endpoint)
    }
}

/// Client and server of a query, by their hash alone, for all that are answered are kept, whatever becomes of them, and
/// twice the memory costs each row 50 ns. Among the 16,384 that are remembered two are one in 10^11 of such states.
fn socket(dns: &Dns) -> u64 {
    FxBuildHasher.hash_one((dns.client.address, dns.asked))
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct State {
    answered: Recent<u64, (u16, KtimeNs)>,
    failed: Recent<(SocketAddr, SocketAddr), ()>,
    truncated: Recent<(IpAddr, SocketAddr), KtimeNs>,
    probes: Recent<String, u32>,
    backends: BTreeMap<SocketAddr, Did>,
    /// What was asked and answered; and how often it was not translated after it had been, `None` where it
    /// never was.
    asked: BTreeMap<SocketAddr, Option<u64>>,
}

impl State {
    /// Takes a row, and what its translation is worth, after it was judged.
    pub(super) fn add(&mut self, row: &Row, verdict: Option<Verdict>) {
        let good = row.outcome() == Outcome::Answered;
        if let Row::Dns(dns) = row {
            self.add_dns(dns, good);
        }
        if good && (self.asked.len() < BACKENDS || self.asked.contains_key(&row.asked())) {
            let astray = self.asked.entry(row.asked()).or_default();
            if row.backend().is_some() {
                astray.get_or_insert(0);
            }
        }
        let Some(backend) = row.backend() else {
            if !good && let Some(Some(astray)) = self.asked.get_mut(&row.asked()) {
                *astray += 1;
            }
            return;
        };
        if self.backends.len() >= BACKENDS && !self.backends.contains_key(&backend) {
            return;
        }
        let did = self.backends.entry(backend).or_default();
        did.asked = Some(row.asked());
        if let Some(verdict) = verdict {
            let gone = matches!(verdict, Verdict::Stale(_) | Verdict::NotAnEndpoint);
            did.is_endpoint = Some(!gone);
        }
        let socket = (row.client().address, backend);
        if good {
            did.answered += 1;
        } else if row.amends().is_none() {
            did.failed += 1;
            did.again += u64::from(self.failed.get(&socket).is_some());
            self.failed.insert(socket, ());
        }
    }

    fn add_dns(&mut self, dns: &Dns, good: bool) {
        if let Some(qtype @ (A | AAAA)) = dns.qtype
            && good
        {
            self.answered.insert(socket(dns), (qtype, dns.ktime));
        }
        if good && dns.truncated && dns.protocol == Protocol::Udp {
            let key = (dns.client.address.ip(), dns.asked);
            self.truncated.insert(key, dns.ktime);
        }
        if is_loop_probe(dns) {
            let name = dns.name.clone().unwrap_or_default();
            let before = self.probes.get(&name).copied().unwrap_or(0);
            self.probes.insert(name, before + 1);
        }
    }

    /// Whether the other of A and AAAA, sent from the same socket at once, was answered.
    pub(super) fn twin_was_answered(&self, dns: &Dns) -> bool {
        let twin = match dns.qtype {
            Some(A) => AAAA,
            Some(AAAA) => A,
            _ => return false,
        };
        let answered = self.answered.get(&socket(dns));
        answered.is_some_and(|(qtype, at)| *qtype == twin && are_at_once(*at, dns.ktime))
    }

    /// Whether a client was told, a short while ago, to ask the same address over TCP.
    pub(super) fn was_truncated(&self, client: IpAddr, asked: SocketAddr, at: KtimeNs) -> bool {
        let told = self.truncated.get(&(client, asked));
        told.is_some_and(|told| at - *told < FALLBACK)
    }

    /// How often a probe of CoreDNS's plugin `loop` was asked before.
    pub(super) fn probes(&self, dns: &Dns) -> u32 {
        let name = dns.name.as_deref().unwrap_or_default();
        self.probes.get(&name.to_owned()).copied().unwrap_or(0)
    }

    /// How a backend did, of an address's ports together.
    pub(super) fn did(&self, backend: IpAddr) -> Did {
        let mut all = Did::default();
        for (address, did) in &self.backends {
            if address.ip() == backend {
                all.answered += did.answered;
                all.failed += did.failed;
                all.again += did.again;
                all.is_endpoint = all.is_endpoint.or(did.is_endpoint);
            }
        }
        all
    }

    /// Whether another backend of what was asked when `backend` failed answers.
    pub(super) fn others_answer(&self, backend: IpAddr) -> bool {
        let all = || self.backends.iter();
        let own: Vec<_> = all()
            .filter(|(address, _)| address.ip() == backend)
            .filter_map(|(_, did)| did.asked)
            .collect();
        all().any(|(address, did)| {
            let shares = did.asked.is_some_and(|asked| own.contains(&asked));
            address.ip() != backend && did.answered > 0 && shares
        })
    }

    /// Whether `asked` was translated, and somebody answered.
    pub(super) fn is_translated(&self, asked: SocketAddr) -> bool {
        matches!(self.asked.get(&asked), Some(Some(_)))
    }

    /// Whether `asked` was not translated after it had been, for others.
    pub(super) fn is_astray(&self, asked: SocketAddr) -> bool {
        matches!(self.asked.get(&asked), Some(Some(1..)))
    }

    /// Whether a backend that answered has left what it was a backend of.
    pub(super) fn has_left(&self, backend: IpAddr, left: &Left<'_>) -> bool {
        self.backends.iter().any(|(address, did)| {
            let gone = || did.asked.is_some_and(|asked| left(asked, *address));
            address.ip() == backend && did.answered > 0 && gone()
        })
    }

    /// Whether anything that asked `asked` was answered.
    pub(super) fn answers(&self, asked: SocketAddr) -> bool {
        self.asked.contains_key(&asked)
    }
}

/// HINFO for two numbers, which CoreDNS asks itself at start (plugin/loop).
pub(super) fn is_loop_probe(dns: &Dns) -> bool {
    const HINFO: u16 = 13;
    if dns.qtype != Some(HINFO) {
        return false;
    }
    let name = dns.name.as_deref().unwrap_or_default();
    let mut labels = name.split('.');
    let number = |label: Option<&str>| {
        label.is_some_and(|label| {
            label.len() >= 10 && label.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    number(labels.next()) && number(labels.next())
}
