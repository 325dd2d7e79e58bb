//! Exchanges that never happened: as many as wanted, always the same ones.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tracer::model::{
    Client, Connection, Dns, Journey, KtimeNs, Named, NetnsInode, Outcome, Pod, PodName, Protocol,
    Row, Site, SocketEnds, Source, WallNs,
    ids::Ifindex,
    journey::{Flows, Leg, Passed, Point, Side, Stage, Step, Unseen},
};

/// 2026-11-25 20:11:30 UTC
const START: i64 = 1_795_637_490_000_000_000;

/// A generator after Marsaglia's xorshift64: what follows is random enough, and the same everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Microseconds as latencies are spread: most are short, a few very long.
    fn micros(&mut self, usual: u64) -> u64 {
        let sum = (0..4).map(|_| self.below(usual)).sum::<u64>() / 2 + usual / 4 + 20;
        match self.below(1_000) {
            0 => sum + self.below(300_000),
            1..20 => sum * (2 + self.below(20)),
            _ => sum,
        }
    }
}

/// The way of the packets of a query that took `micros`.
fn journey(start: u64, micros: u64) -> Journey {
    let backend = micros * 7 / 10;
    let point = |micros: u64, netns, side| Point {
        ktime: KtimeNs(start + micros * 1_000),
        netns: NetnsInode(netns),
        ifindex: Ifindex(2),
        side,
        flow: 0,
    };
    let passed = |leg, stage, end| Passed {
        step: Step { leg, stage },
        end,
    };
    let (there, read) = (2 + micros / 20, 2 + micros / 6);
    Journey {
        start: point(0, 1, Side::Queued),
        stages: smallvec::smallvec![
            passed(Leg::Query, Stage::ClientLink, point(2, 2, Side::Received)),
            passed(Leg::Query, Stage::Node, point(there, 2, Side::Queued)),
            passed(
                Leg::Query,
                Stage::BackendLink,
                point(there + 1, 3, Side::Received),
            ),
            passed(
                Leg::Query,
                Stage::BackendQueue,
                point(read, 3, Side::Delivered),
            ),
            passed(
                Leg::Answer,
                Stage::Backend,
                point(read + backend, 3, Side::Queued),
            ),
            passed(
                Leg::Answer,
                Stage::BackendLink,
                point(read + backend + 1, 2, Side::Received),
            ),
            passed(
                Leg::Answer,
                Stage::Node,
                point(read + backend + 4, 2, Side::Queued),
            ),
            passed(
                Leg::Answer,
                Stage::ClientLink,
                point(micros.max(read + backend + 5), 1, Side::Received),
            ),
        ],
        unseen: Unseen::new(),
        flows: Flows::new(),
        lost: None,
        left_out: 0,
    }
}

/// Those that pods are told from.
pub(crate) struct Cluster {
    named: Vec<Named>,
}

impl Cluster {
    /// Of 60 clients.
    pub(crate) fn new() -> Self {
        let pod = |namespace: &str, name: String| PodName {
            pod: Arc::new(Pod {
                namespace: namespace.into(),
                name: name.as_str().into(),
                uid: None,
            }),
            source: Source::Cni,
            age: Duration::ZERO,
            object: None,
        };
        let sites = [(1, "pod"), (2, "host"), (3, "server")].map(|(netns, name)| Site {
            netns: NetnsInode(netns),
            ifindex: Ifindex(2),
            name: name.into(),
            device: Some("eth0".into()),
        });
        let named = (0..60).map(|client| Named {
            pod: Some(pod("shop", format!("cart-7d9f8b6c5-x{client:03}"))),
            backend: Some(pod(
                "kube-system",
                format!("coredns-6799fbcd5-{}", client % 3),
            )),
            sites: Some(sites.clone().into()),
            ..Named::default()
        });
        Self {
            named: named.collect(),
        }
    }

    /// The row of this number, and its names.
    pub(crate) fn row(&self, serial: u64, of: u64, random: &mut Random) -> (Row, &Named) {
        let client = usize::try_from(random.below(60)).unwrap_or(0);
        // An hour of them.
        let at = serial * 3_600_000_000_000 / of;
        let row = if random.below(4) == 0 {
            Row::Connection(connection(serial, at, client, random))
        } else {
            Row::Dns(dns(serial, at, client, random))
        };
        (row, &self.named[client])
    }
}

fn client(client: usize) -> Client {
    let host = u8::try_from(client + 10).unwrap_or(u8::MAX);
    Client {
        address: SocketAddr::from(([10, 244, 0, host], 40_000)),
        netns: Some(NetnsInode(1)),
        sender: None,
    }
}

fn wall(at: u64) -> WallNs {
    WallNs(START + i64::try_from(at).unwrap_or(i64::MAX))
}

fn dns(serial: u64, at: u64, from: usize, random: &mut Random) -> Dns {
    // It is slower in the middle of the hour.
    let usual = if (1_500..1_900).contains(&(at / 1_000_000_000)) {
        4_000
    } else {
        300
    };
    let micros = random.micros(usual);
    let host = random.below(6_000);
    let (name, rcode) = match random.below(8) {
        0 => (format!("host{host}.example.test"), 0),
        1 => (format!("host{host}.example.test.shop.svc.cluster.local"), 3),
        2 => (format!("host{host}.example.test.svc.cluster.local"), 3),
        3 => (format!("host{host}.example.test.cluster.local"), 3),
        _ => (format!("web{}.shop.svc.cluster.local", host % 40), 0),
    };
    let (outcome, cause) = match random.below(2_000) {
        0 => (Outcome::Unanswered, Some("no answer within 6 s".to_owned())),
        1 if (at / 60_000_000_000).is_multiple_of(7) => (
            Outcome::Dropped,
            Some(
                "the kernel dropped the query: NETFILTER_DROP in FORWARD, by nft_do_chain+0x3e8"
                    .to_owned(),
            ),
        ),
        _ => (Outcome::Answered, None),
    };
    let answered = outcome == Outcome::Answered;
    let server = u8::try_from(random.below(3)).unwrap_or(0);
    Dns {
        serial,
        ktime: KtimeNs(at),
        wall: wall(at),
        client: client(from),
        protocol: Protocol::Udp,
        asked: ([10, 96, 0, 10], 53).into(),
        backend: Some(([10, 244, 0, 200 + server], 53).into()),
        id: 1,
        name: Some(name),
        qtype: Some(1),
        rcode: answered.then_some(rcode),
        answers: answered.then_some(1),
        truncated: false,
        latency: answered.then(|| Duration::from_micros(micros)),
        outcome,
        clash: None,
        stopped: None,
        cause,
        ends: SocketEnds::default(),
        upstream: None,
        retry_of: None,
        amends: None,
        journey: Some(Box::new(journey(at, micros))),
    }
}

fn connection(serial: u64, at: u64, from: usize, random: &mut Random) -> Connection {
    let service = u8::try_from(random.below(30)).unwrap_or(0);
    let backend = u8::try_from(random.below(5)).unwrap_or(0);
    let refused = service == 7 && random.below(3) == 0;
    Connection {
        serial,
        ktime: KtimeNs(at),
        wall: wall(at),
        client: client(from),
        protocol: Protocol::Tcp,
        asked: ([10, 96, 1, service], 80).into(),
        backend: (!refused).then(|| ([10, 244, 1, service * 8 + backend], 8080).into()),
        latency: (!refused).then(|| Duration::from_micros(random.micros(80))),
        first_byte: None,
        retransmits: 0,
        outcome: if refused {
            Outcome::Rejected
        } else {
            Outcome::Answered
        },
        cause: refused.then(|| "ICMP port unreachable from 10.244.0.1".to_owned()),
        amends: None,
        journey: None,
        stopped: None,
    }
}
