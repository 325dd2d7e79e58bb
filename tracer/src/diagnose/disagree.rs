//! Servers that a client asks at once, as musl's resolver asks all that its resolv.conf names, and that say
//! different things: which of them is believed is chance. Told from answers that are good, each by itself.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use rustc_hash::FxHashMap;

use super::{
    Diagnosis,
    state::{Recent, are_at_once},
};
use crate::model::{Dns, Finding, KtimeNs, Outcome, Row, Severity, WallNs, tally::Who};

pub(super) const SERVERS_DISAGREE: Diagnosis = Diagnosis {
    name: "servers_disagree",
    severity: Severity::Warning,
    sentence: "asks several DNS servers at once, and they disagree on names that one of them knows: whose answer comes first wins",
    wire: "one question leaves one socket for several servers within milliseconds; one answers NOERROR, another NXDOMAIN",
    cause: "musl (Alpine) asks all nameservers of resolv.conf at once and takes the first answer, also where it is NXDOMAIN; one of the servers is not the cluster's (dnsConfig.nameservers, dnsPolicy None or Default)",
    remedy: "name the cluster's DNS alone in the pod: dnsPolicy ClusterFirst without dnsConfig.nameservers; for other zones a block with forward in the Corefile",
    refuted_by: "",
    least: 3,
    // Two rows together tell it.
    claim: None,
};

/// Most answers that are remembered, of each of two generations: servers that are asked at once answer soon after each
/// other.
const ANSWERS: usize = 1024;

/// Most clients of which it is known whether they ask several servers.
const ASKING: usize = 1024;

/// Most clients that are told apart.
const CLIENTS: usize = 256;

/// RFC 1035, section 4.1.1.
const NOERROR: u16 = 0;
const NXDOMAIN: u16 = 3;

/// One question of one socket, by id and type: who asks several at once sends them the same message.
type Question = (SocketAddr, u16, Option<u16>);

/// Who answered, with which rcode, and when it was asked.
type Answer = (SocketAddr, u16, KtimeNs);

/// Which servers a client asks.
#[derive(Debug)]
enum Asks {
    /// One so far, which said this last.
    One(Question, Answer),
    Several,
}

/// What was answered of late, and which clients' servers disagreed.
#[derive(Debug, Default)]
pub(super) struct Disagree {
    asks: FxHashMap<IpAddr, Asks>,
    /// To those that ask several: nearly all ask one, and need not be remembered answer by answer.
    answers: Recent<Question, Answer, ANSWERS>,
    clients: BTreeMap<IpAddr, Told>,
}

/// Of one client.
#[derive(Debug)]
struct Told {
    who: String,
    times: u64,
    first: WallNs,
    /// Which name, and what each of two servers said of it.
    example: String,
}

impl Disagree {
    /// Takes a row; `who` is its client.
    pub(super) fn add(&mut self, row: &Row, who: impl FnOnce() -> Who) {
        let Row::Dns(dns) = row else { return };
        let Some(rcode) = known(dns) else { return };
        let question = (dns.client.address, dns.id, dns.qtype);
        let answer = (dns.asked, rcode, dns.ktime);
        if !self.asks_several(question, answer) {
            return;
        }
        let Some((other, said, at)) = self.answers.replace(question, answer) else {
            return;
        };
        if other == dns.asked || said == rcode || !are_at_once(dns.ktime, at) {
            return;
        }
        let client = dns.client.address.ip();
        if self.clients.len() >= CLIENTS && !self.clients.contains_key(&client) {
            return;
        }
        let word = |rcode| {
            if rcode == NXDOMAIN {
                "NXDOMAIN"
            } else {
                "NOERROR"
            }
        };
        let told = self.clients.entry(client).or_insert_with(|| Told {
            who: who().to_string(),
            times: 0,
            first: dns.wall,
            example: format!(
                "of {}, {other} says {} and {} says {}",
                dns.name.as_deref().unwrap_or("a name"),
                word(said),
                dns.asked,
                word(rcode)
            ),
        });
        told.times += 1;
    }

    /// Whether who asked is known to ask several servers, or not known for want of room.
    fn asks_several(&mut self, question: Question, answer: Answer) -> bool {
        let client = question.0.ip();
        let room = self.asks.len() < ASKING;
        match self.asks.get_mut(&client) {
            Some(Asks::One(earlier, said)) if said.0 == answer.0 => {
                (*earlier, *said) = (question, answer);
                false
            }
            Some(Asks::One(earlier, said)) => {
                self.answers.insert(*earlier, *said);
                self.asks.insert(client, Asks::Several);
                true
            }
            None if room => {
                self.asks.insert(client, Asks::One(question, answer));
                false
            }
            Some(Asks::Several) | None => true,
        }
    }

    /// What was found of how many queries in all, with the number of times.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub(super) fn findings(&self, all: u64) -> impl Iterator<Item = (u64, Finding)> {
        let told = self.clients.values();
        let told = told.filter(|told| told.times >= SERVERS_DISAGREE.least);
        told.map(move |told| {
            let finding = Finding {
                name: SERVERS_DISAGREE.name,
                severity: SERVERS_DISAGREE.severity,
                object: format!("client {}", told.who),
                sentence: SERVERS_DISAGREE.sentence.to_owned(),
                stage: None,
                evidence: vec![
                    format!("{} questions were answered in two ways", told.times),
                    told.example.clone(),
                ],
                since: Some(told.first),
                share: Some((told.times * 2) as f64 / all.max(1) as f64),
                remedy: SERVERS_DISAGREE.remedy.to_owned(),
                refuted_by: SERVERS_DISAGREE.refuted_by.to_owned(),
            };
            (told.times, finding)
        })
    }
}

/// Whether a name exists, by the answer; `None` where there is none, or it says something else.
fn known(dns: &Dns) -> Option<u16> {
    let good = dns.outcome == Outcome::Answered;
    dns.rcode
        .filter(|rcode| good && [NOERROR, NXDOMAIN].contains(rcode))
}
