//! `Search`: what a client's search path costs. A resolver tries a short name with each domain of
//! the path before it is tried as it stands, and most of these queries are in vain.
//!
//! The path is not read from any resolv.conf: it is told from the queries. A name that does not
//! exist and ends as `NAMESPACE.svc.DOMAIN` may be such a try; it is one when the same client goes on
//! with the same first labels and another end.

use std::{collections::BTreeMap, time::Duration};

use super::{bounded::Weight, ids::WallNs, row::Dns, row::Outcome};

/// Most names that are followed for one client at once.
const WALKS: usize = 128;

/// Most domains that are told apart.
const DOMAINS: usize = 16;

/// A client that goes on after longer than this asks anew: longer than a resolver's time-out.
const PAUSE: Duration = Duration::from_secs(10);

/// NXDOMAIN, RFC 1035, section 4.1.1.
const NXDOMAIN: u16 = 3;

/// What one client's search path costs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Search {
    /// Queries for names that were searched for, those in vain included.
    pub sent: u64,
    /// Queries in vain: the name was then asked for with another end.
    pub wasted: u64,
    /// Answers of names that were found, by the domain that was right; the empty one is the name
    /// as it stands.
    pub won: BTreeMap<Box<str>, u64>,
    /// Fewest dots of a name that was found as it stands, with such a name.
    pub bare: Option<(usize, Box<str>)>,
    /// Most dots of a name that was found through the path, with such a name in full.
    pub searched: Option<(usize, Box<str>)>,
    walks: BTreeMap<Box<str>, Walk>,
}

/// One name on its way through the path.
#[derive(Clone, Debug, PartialEq)]
struct Walk {
    /// What it was tried with last.
    end: Box<str>,
    /// Queries with that end that found nothing.
    in_vain: u64,
    /// When the last of them was sent.
    at: WallNs,
}

impl Weight for Search {
    fn weight(&self) -> u64 {
        self.sent.max(1)
    }
}

impl Search {
    /// Notes a query of this client for `name`, in lower case.
    pub fn add(&mut self, dns: &Dns, name: &str) {
        let (Some(rcode), Outcome::Answered) = (dns.rcode, dns.outcome) else {
            return;
        };
        let found = match rcode {
            0 => true,
            NXDOMAIN => false,
            _ => return,
        };
        if let Some((base, end)) = self.known(name) {
            self.go_on(base, end, found, dns.wall);
        } else if !found && let Some((base, end)) = first_try(name) {
            self.begin(base, end, dns.wall);
        }
    }

    /// Adds all that `other` came to; names that it is still going through are left out.
    pub fn merge(&mut self, other: &Self) {
        self.sent += other.sent;
        self.wasted += other.wasted;
        for (domain, count) in &other.won {
            if self.won.len() < DOMAINS || self.won.contains_key(domain) {
                *self.won.entry(domain.clone()).or_default() += count;
            }
        }
        if let Some((dots, name)) = &other.bare
            && self.bare.as_ref().is_none_or(|(fewest, _)| dots < fewest)
        {
            self.bare = Some((*dots, name.clone()));
        }
        if let Some((dots, name)) = &other.searched
            && self.searched.as_ref().is_none_or(|(most, _)| dots > most)
        {
            self.searched = Some((*dots, name.clone()));
        }
    }

    /// The name and the end that `name` is another try of, the longest that fits.
    fn known<'a>(&self, name: &'a str) -> Option<(&'a str, &'a str)> {
        if self.walks.is_empty() {
            return None;
        }
        let dots = name.match_indices('.').map(|(at, _)| at);
        let ends: Vec<_> = dots.chain([name.len()]).collect();
        let fits = ends
            .iter()
            .rev()
            .find(|at| self.walks.contains_key(&name[..**at]));
        fits.map(|&at| (&name[..at], name[at..].trim_start_matches('.')))
    }

    fn begin(&mut self, base: &str, end: &str, at: WallNs) {
        if self.walks.len() >= WALKS {
            // The one that was left alone for longest has ended, most likely.
            let oldest = self.walks.iter().min_by_key(|(_, walk)| walk.at);
            if let Some(oldest) = oldest.map(|(base, _)| base.clone()) {
                self.walks.remove(&oldest);
            }
        }
        let walk = Walk {
            end: end.into(),
            in_vain: 1,
            at,
        };
        self.walks.insert(base.into(), walk);
    }

    fn go_on(&mut self, base: &str, end: &str, found: bool, at: WallNs) {
        let walk = self.walks.get_mut(base).expect("it was found there");
        let pause = u64::try_from(at.0.saturating_sub(walk.at.0)).unwrap_or(0);
        if u128::from(pause) > PAUSE.as_nanos() {
            walk.in_vain = 0;
        }
        if *walk.end != *end {
            self.wasted += walk.in_vain;
            self.sent += walk.in_vain;
            walk.in_vain = 0;
            walk.end = end.into();
        }
        walk.at = at;
        match (found, end.is_empty()) {
            (false, false) => walk.in_vain += 1,
            // It exists nowhere: that query was the one needed to know it.
            (false, true) => self.sent += 1,
            (true, _) => {
                self.sent += 1;
                self.win(base, end);
            }
        }
    }

    fn win(&mut self, base: &str, end: &str) {
        if let Some(count) = self.won.get_mut(end) {
            *count += 1;
        } else if self.won.len() < DOMAINS {
            self.won.insert(end.into(), 1);
        }
        let dots = base.matches('.').count();
        if end.is_empty() {
            if self.bare.as_ref().is_none_or(|(fewest, _)| dots < *fewest) {
                self.bare = Some((dots, base.into()));
            }
        } else if self.searched.as_ref().is_none_or(|(most, _)| dots > *most) {
            self.searched = Some((dots, format!("{base}.{end}").into()));
        }
    }
}

/// Cuts a name that does not exist where the first domain of a pod's search path would begin:
/// before `NAMESPACE.svc.DOMAIN`, the last such one.
fn first_try(name: &str) -> Option<(&str, &str)> {
    let svc = name.rfind(".svc.")?;
    let dot = name[..svc].rfind('.')?;
    Some((&name[..dot], &name[dot + 1..]))
}

#[cfg(test)]
mod tests;
