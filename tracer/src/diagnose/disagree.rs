//! Servers that a client asks at once, as musl's resolver asks all that its resolv.conf names, and that say
//! different things: which of them is believed is chance. Told from answers that are good, each by itself.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{Diagnosis, state::Recent};
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

/// Two questions of one socket closer than this were sent at once.
const AT_ONCE: Duration = Duration::from_millis(5);

/// Most answers that are remembered, of each of two generations. Few, for all are looked up: they are to stay in a
/// processor's cache, and servers that are asked at once answer soon after each other.
const ANSWERS: usize = 512;

/// Most clients that are told apart.
const CLIENTS: usize = 256;

/// RFC 1035, section 4.1.1.
const NOERROR: u16 = 0;
const NXDOMAIN: u16 = 3;

/// One question of one socket, by id and type: who asks several at once sends them the same message.
type Question = (SocketAddr, u16, Option<u16>);

/// What was answered of late, and which clients' servers disagreed.
#[derive(Debug, Default)]
pub(super) struct Disagree {
    answers: Recent<Question, (SocketAddr, u16, KtimeNs), ANSWERS>,
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
        let Some((other, said, at)) = self.answers.replace(question, answer) else {
            return;
        };
        let near = dns.ktime - at < AT_ONCE && at - dns.ktime < AT_ONCE;
        if other == dns.asked || said == rcode || !near {
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
