//! Which exchange or connection a packet belongs to: by the very sights that its journey tells of, else by
//! addresses, DNS id and time.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustc_hash::FxHashMap;

use crate::{
    correlate::quote,
    model::{Flow, Ifindex, KtimeNs, NetnsInode, Packet, Protocol, Row, Transport, journey::Point},
};

/// Most flows of one generation.
const MOST: usize = 65_536;

/// Claims of one flow: its ports, and of DNS its id, may be used again.
const KEPT: usize = 8;

/// How long before a query over TCP its connection may begin.
const AHEAD: Duration = Duration::from_secs(5);

/// What is said of all packets of a row.
#[derive(Debug)]
pub(super) struct Claim {
    /// What became of it.
    pub(super) line: String,
    /// It is one of those that are asked for.
    pub(super) wanted: bool,
}

/// Both ends, the lower one first; and the DNS id over UDP.
type Key = (SocketAddr, SocketAddr, Option<u16>);

/// One sight of a packet.
type Sight = (KtimeNs, NetnsInode, Ifindex);

/// Rows by flow, each with its beginning, in that order.
type Flows = FxHashMap<Key, Vec<(KtimeNs, Arc<Claim>)>>;

/// Rows that packets can belong to.
#[derive(Debug)]
pub(super) struct Claims {
    dns_ports: Vec<u16>,
    /// Stages that end at a sight, in words, by the time of the sight.
    sights: FxHashMap<Sight, (Arc<Claim>, String)>,
    /// Rows by flow, with their beginnings: those of now, and those of before.
    flows: [Flows; 2],
}

impl Claims {
    pub(super) fn new(dns_ports: &[u16]) -> Self {
        Self {
            dns_ports: dns_ports.to_vec(),
            sights: FxHashMap::default(),
            flows: Default::default(),
        }
    }

    /// Takes a row and what is said of it.
    pub(super) fn add(&mut self, row: &Row, claim: Claim) {
        let claim = Arc::new(claim);
        let (begin, id) = match row {
            Row::Dns(dns) => (dns.ktime, (dns.protocol == Protocol::Udp).then_some(dns.id)),
            Row::Connection(connection) => (connection.ktime, None),
        };
        let client = row.client().address;
        let mut flows = vec![(client, row.asked())];
        flows.extend(row.backend().map(|backend| (client, backend)));
        if let Some(journey) = row.journey() {
            flows.extend(journey.flows.iter().map(|flow| (flow.src, flow.dst)));
            let mut tell = |point: Point, words: String| {
                let sight = (point.ktime, point.netns, point.ifindex);
                self.sights.insert(sight, (Arc::clone(&claim), words));
            };
            for (step, begin, end) in journey.spans() {
                let (leg, stage) = (step.leg.name(), step.stage.name());
                let took = micros(end.ktime - begin.ktime);
                tell(end, format!("stage {leg} {stage}: {took} until here"));
            }
            tell(journey.start, "first seen here".to_owned());
        }
        let [young, old] = &mut self.flows;
        if young.len() >= MOST {
            *old = std::mem::take(young);
        }
        flows.sort_unstable();
        flows.dedup();
        for (a, b) in flows {
            let told = young.entry((a.min(b), a.max(b), id)).or_default();
            let at = told.partition_point(|(other, _)| *other <= begin);
            told.insert(at, (begin, Arc::clone(&claim)));
            if told.len() > KEPT {
                told.remove(0);
            }
        }
    }

    /// What is said of a packet, and of the stage that ends where it was seen.
    pub(super) fn of(&mut self, packet: &Packet) -> Option<(Arc<Claim>, Option<String>)> {
        let sight = (packet.ktime, packet.netns, packet.ifindex);
        if let Some((claim, stage)) = self.sights.remove(&sight) {
            return Some((claim, Some(stage)));
        }
        let (Flow { src, dst }, id) = match packet.transport {
            Transport::IcmpError { .. } => {
                let quoted = quote::parse(&packet.payload)?;
                (quoted.flow, self.id(quoted.flow, quoted.payload))
            }
            Transport::Udp => (packet.flow, self.id(packet.flow, &packet.payload)),
            Transport::Tcp { .. } => (packet.flow, None),
            Transport::LaterFragment => return None,
        };
        let key = (src.min(dst), src.max(dst), id);
        let mut claims = self.flows.iter().filter_map(|flows| flows.get(&key));
        let claims = claims.next()?;
        let before = claims.iter().rfind(|(begin, _)| *begin <= packet.ktime);
        // A query over TCP begins when its connection stands already.
        let is_ahead = |(begin, _): &&(KtimeNs, _)| *begin - packet.ktime < AHEAD;
        let ahead = claims.first().filter(|_| id.is_none()).filter(is_ahead);
        let (_, claim) = before.or(ahead)?;
        Some((Arc::clone(claim), None))
    }

    /// The id of a DNS message.
    fn id(&self, flow: Flow, payload: &[u8]) -> Option<u16> {
        let ends = [flow.src, flow.dst].map(|end| end.port());
        let is_dns = ends.iter().any(|port| self.dns_ports.contains(port));
        let id = payload.first_chunk().filter(|_| is_dns)?;
        Some(u16::from_be_bytes(*id))
    }

    /// Packets seen before `until` will not come.
    pub(super) fn forget(&mut self, until: KtimeNs) {
        // What was claimed is gone already; a sight can be another's than a packet's.
        if self.sights.len() > MOST {
            self.sights.retain(|(ktime, _, _), _| *ktime >= until);
        }
    }
}

fn micros(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    format!("{}.{:01} µs", nanos / 1000, nanos % 1000 / 100)
}
