//! Any bytes as the kernel's records: what decoder, correlator, reports, redaction and captures make of them.

use bytes::Bytes;
use tracer::correlate::{Correlator, Settings};
use tracer::export::{Capture, Pcapng, Section};
use tracer::model::{Event, Fact, KtimeNs, Named, Row, Trace, WallNs};
use tracer::probes::Decoder;
use tracer::record::{Asked, Recorded, Session};
use tracer::redact::{Redact, Redactor};
use tracer::report::{Format, Zone, row, summary};
use tracer_ebpf::config::Offsets;

/// What came of some records.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Packets, what happened to sockets, what passed through them, and what conntrack did.
    pub(crate) facts: [usize; 4],
    /// Each row as JSON and as text.
    pub(crate) rows: Vec<String>,
}

/// Wall-clock time of all that happens.
const WALL: WallNs = WallNs(1_790_000_000_000_000_000);
/// After so many nanoseconds what is left open is over.
const MINUTE: u64 = 60_000_000_000;

/// Where the members of a conntrack entry lie in the records of tests/records.rs.
fn offsets() -> Offsets {
    Offsets {
        ct_tuplehash: 16,
        ct_zone: 12,
        hash_tuple: 16,
        tuple_saddr: 0,
        tuple_sport: 16,
        tuple_family: 18,
        tuple_daddr: 20,
        tuple_dport: 36,
        ..Offsets::NONE
    }
}

/// Takes `bytes` for records, each after its length in two bytes, least first; of one that is cut short, what there is.
///
/// # Panics
/// When a record tells more facts or fewer than times, and wherever the tracer would.
pub(crate) fn tell(bytes: &[u8]) -> Told {
    let batch = Bytes::copy_from_slice(bytes);
    let decoder = Decoder::new(&offsets());
    let mut correlator = Correlator::new(Settings {
        paths: true,
        ..Settings::default()
    });
    let mut given = Given::new();
    let (mut told, mut rows) = (Told::default(), Vec::new());
    let mut now = KtimeNs(0);
    let mut rest = &batch[..];
    while let Some((len, behind)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_le_bytes(*len)).min(behind.len());
        let record;
        (record, rest) = behind.split_at(len);
        let times = Decoder::times(record);
        // Records come in order of time; they are not if the clock of one is wrong.
        now = times.last().copied().unwrap_or(now);
        let wall = WALL;
        correlator.apply(Event::Tick { ktime: now, wall }, &mut rows);
        let mut taken = 0;
        let mut take = |fact: &Fact| {
            taken += 1;
            told.facts[match fact {
                Fact::Packet(_) => 0,
                Fact::Socket(_) => 1,
                Fact::SocketIo(_) => 2,
                Fact::Insert(_) => 3,
            }] += 1;
            given.away(fact);
            correlator.apply(Event::Fact(fact), &mut rows);
        };
        // As a stream does, which hands over the later sights when their time has come.
        let sights = [0..1, 1..times.len()];
        let decoded = sights
            .into_iter()
            .filter(|sights| !sights.is_empty())
            .try_for_each(|sights| decoder.decode(record, sights, &batch, &mut take));
        if decoded.is_some() {
            assert_eq!(taken, times.len().max(1));
        }
    }
    let later = KtimeNs(now.0.saturating_add(MINUTE));
    let wall = WallNs(WALL.0 + MINUTE.cast_signed());
    correlator.apply(Event::Tick { ktime: later, wall }, &mut rows);
    correlator.finish(&mut rows);
    told.rows = printed(&rows);
    told
}

/// What is given away of facts: themselves, redacted, and packets as captures.
struct Given {
    redactor: Redactor,
    capture: Pcapng<Vec<u8>>,
}

impl Given {
    fn new() -> Self {
        let what = Redact {
            names: true,
            addresses: true,
        };
        let mut redactor = Redactor::new(what, b"key");
        redactor.session(&Session {
            asked: Asked {
                dns_ports: vec![53],
                ..Asked::default()
            },
            ..Session::default()
        });
        let section = Section {
            machine: "",
            system: "",
            program: "",
            comment: "",
        };
        let mut capture = Pcapng::new(Vec::new(), &section).expect("memory takes it");
        capture.interface("eth0", "").expect("memory takes it");
        Self { redactor, capture }
    }

    fn away(&mut self, fact: &Fact) {
        let Recorded::Fact(other) = self.redactor.event(Recorded::Fact(fact.clone())) else {
            panic!("a fact stays one");
        };
        let (Fact::Packet(packet), Fact::Packet(other)) = (fact, other) else {
            return;
        };
        let lens = [packet, &other].map(|packet| [packet.headers.len(), packet.payload.len()]);
        assert_eq!(lens[0], lens[1]);
        let capture = Capture {
            packet: &other,
            wall: WALL,
            comments: &[],
        };
        self.capture.packet(0, &capture).expect("memory takes it");
    }
}

/// Each row as JSON and as text; what they add up to is printed too, and thrown away.
fn printed(rows: &[Row]) -> Vec<String> {
    let text = Format::Text {
        colour: false,
        zone: Zone::Utc,
    };
    let formats = [Format::Json, text];
    let (mut trace, named) = (Trace::default(), Named::default());
    let lines = rows.iter().map(|one| {
        trace.add(one, &named);
        let mut out = Vec::new();
        for format in formats {
            row(format, one, &named, &mut out).expect("memory takes it");
        }
        String::from_utf8(out).expect("lines are text")
    });
    let lines = lines.collect();
    for format in formats {
        summary(format, &trace, 60.0, &[], &mut Vec::new()).expect("memory takes it");
    }
    lines
}
