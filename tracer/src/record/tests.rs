//! What is recorded comes back as it was, and what is missing is said.

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use arrow_schema::DataType;
use bytes::Bytes;
use tempfile::TempDir;

use super::{
    decode::Decoder,
    encode::Encoder,
    segment::{self, Table},
    session::Span,
    *,
};
use crate::model::{
    CgroupId, Change, Comm, Conntrack, EndsKey, Fact, Flow, Ifindex, IoEvent, KtimeNs, Name,
    NamedEnds, NetnsInode, Packet, Place, Pod, PodName, Sender, ServicePortName, SkbId, SockId,
    Socket, SocketEvent, SocketIo, Source, Task, Transport, Via, WallNs,
    change::{Key, Kind, Object, RuleClaim, RuleNames},
    cluster::{
        Endpoint, EndpointPort, EndpointSlice, LoadBalancerIp, Node, ObjectName, PodObject,
        PortProtocol, Service, ServicePort, ServiceType, TrafficPolicy, Workload,
    },
    conntrack::{ConntrackChange, ConntrackCounts, ConntrackTable},
    drops::Hook,
    fact::{TcpFlags, Tunnel, TunnelKind},
    insert::{Clash, Insert, InsertEvent},
};

const START: i64 = 1_790_000_000_000_000_000;

/// A directory that goes with its test.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn read(&self) -> (Vec<String>, Vec<String>) {
        let recording = Recording::open(std::slice::from_ref(&self.0.path().to_owned())).unwrap();
        let mut warnings = recording.warnings;
        let mut events = Vec::new();
        for mut stream in recording.sessions {
            events.extend((&mut stream).map(|event| format!("{event:?}")));
            warnings.append(&mut stream.warnings);
        }
        (events, warnings)
    }

    /// Writes events `first` to `next`, all of them ticks.
    fn segment(&self, first: u64, next: u64, last: bool) -> PathBuf {
        let mut encoder = Encoder::default();
        for seq in first..next {
            encoder.push(Some(seq), &tick(seq));
        }
        let span = Span {
            first,
            next,
            begins: START,
            ends: START,
            last,
        };
        let dir = segment::partition(self.0.path(), Table::Events, "n1", WallNs(START));
        let name = segment::file_name("s", first);
        segment::write(&dir, &name, &session(), &span, [Ok(encoder.finish())]).unwrap();
        dir.join(format!("{name}.parquet"))
    }
}

fn session() -> Session {
    Session {
        id: "s".to_owned(),
        node: "n1".to_owned(),
        ..Session::default()
    }
}

fn tick(seq: u64) -> Recorded {
    Recorded::Tick {
        ktime: KtimeNs(1_000 + seq),
        wall: WallNs(START + i64::try_from(seq).unwrap()),
    }
}

fn ticks(seqs: std::ops::Range<u64>) -> Vec<String> {
    seqs.map(|seq| format!("{:?}", tick(seq))).collect()
}

fn missing(unrecorded: u64) -> String {
    let losses = Losses {
        unrecorded,
        ..Losses::default()
    };
    format!("{:?}", Recorded::Loss(losses))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn flow() -> Flow {
    Flow {
        src: socket("192.0.2.1:40000"),
        dst: socket("[2001:db8::a]:53"),
    }
}

fn sender(pid: Option<u32>) -> Sender {
    Sender {
        pid,
        comm: Comm(*b"dig\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        cgroup: pid.map(|_| CgroupId(5991)),
        sock: SockId(0xffff_8880_0000_1000),
    }
}

fn packet(place: Place, transport: Transport) -> Packet {
    Packet {
        ktime: KtimeNs(1_234),
        place,
        netns: NetnsInode(4_026_532_000),
        ifindex: Ifindex(2),
        skb: SkbId(0xffff_8880_0000_2000),
        flow: flow(),
        transport,
        conntrack: None,
        sender: None,
        headers: Bytes::new(),
        payload: Bytes::new(),
        payload_len: 0,
        again: false,
        unreadable: false,
        tunnel: None,
    }
}

fn packets() -> Vec<Packet> {
    let dropped = Place::Dropped {
        reason: 8,
        location: 0xffff_ffff_8100_0000,
        hook: Some(Hook::Forward),
    };
    let refused = Place::Refused { kind: 3, code: 1 };
    let tcp = Transport::Tcp {
        flags: TcpFlags(18),
        seq: u32::MAX,
        ack: 7,
    };
    vec![
        Packet {
            conntrack: Some(Conntrack {
                original: flow(),
                reply: flow().reversed(),
                zone: 3,
            }),
            sender: Some(sender(Some(42))),
            headers: Bytes::from_static(b"\x45\x00"),
            payload: Bytes::from_static(b"question"),
            payload_len: 12,
            unreadable: true,
            ..packet(Place::Queued, Transport::Udp)
        },
        Packet {
            sender: Some(sender(None)),
            ..packet(Place::Received, tcp)
        },
        packet(dropped, Transport::LaterFragment),
        packet(refused, Transport::IcmpError { kind: 11, code: 0 }),
        Packet {
            tunnel: Some(Box::new(Tunnel {
                kind: TunnelKind::Vxlan,
                src: ip("192.0.2.10"),
                dst: ip("192.0.2.11"),
                network: 1,
            })),
            ..packet(Place::Queued, Transport::Udp)
        },
    ]
}

fn socket_events() -> Vec<Fact> {
    let task = Task {
        pid: 7,
        tid: 8,
        comm: Comm(*b"fifteen_letters\0"),
    };
    let io = |event, remote| {
        Fact::SocketIo(SocketIo {
            ktime: KtimeNs(1_300),
            netns: NetnsInode(1),
            sock: SockId(9),
            local: 53,
            remote,
            event,
        })
    };
    let (last, queued) = (Some(SkbId(3)), 2);
    vec![
        Fact::Socket(Socket {
            ktime: KtimeNs(1_250),
            netns: NetnsInode(1),
            flow: flow(),
            owner: sender(Some(1)),
            event: SocketEvent::Retransmitted,
        }),
        io(IoEvent::Delivered { last, queued }, None),
        io(IoEvent::Delivered { last: None, queued }, Some(53)),
        io(
            IoEvent::Read {
                by: task,
                bytes: 60,
                queued: 0,
            },
            Some(1),
        ),
        io(IoEvent::Sent { by: task, bytes: 9 }, None),
        io(IoEvent::Full, None),
        io(IoEvent::Failed { errno: 111 }, None),
    ]
}

fn inserts() -> Vec<Fact> {
    let entry = |zone| Conntrack {
        original: flow(),
        reply: flow().reversed(),
        zone,
    };
    let clash = |resolved| {
        InsertEvent::Clash(Box::new(Clash {
            skb: SkbId(5),
            own: entry(0),
            other: entry(1),
            resolved,
        }))
    };
    let events = [clash(true), clash(false), InsertEvent::Full];
    let facts = events.map(|event| Insert {
        ktime: KtimeNs(1_350),
        netns: NetnsInode(1),
        event,
    });
    facts.into_iter().map(Fact::Insert).collect()
}

fn counts() -> ConntrackCounts {
    ConntrackCounts {
        invalid: 1,
        insert_failed: 2,
        drop: 3,
        early_drop: 4,
        clash_resolve: 5,
        chain_toolong: 6,
    }
}

fn object_name(name: &str) -> ObjectName {
    ObjectName {
        namespace: "shop".into(),
        name: name.into(),
    }
}

fn labels() -> Vec<(Arc<str>, Arc<str>)> {
    vec![("app".into(), "web".into())]
}

fn pod_object() -> PodObject {
    PodObject {
        pod: Arc::new(Pod {
            namespace: "shop".into(),
            name: "web-1".into(),
            uid: Some("u1".into()),
        }),
        ips: vec![ip("192.0.2.7"), ip("2001:db8::7")],
        node: Some("n1".into()),
        host_network: false,
        workload: Some(Workload {
            kind: "Deployment".into(),
            name: "web".into(),
        }),
        labels: labels(),
        ready: true,
        created: WallNs(START),
        deleted: None,
        started: Some(WallNs(START + 1)),
        ended: None,
        config_hash: None,
    }
}

fn service() -> Service {
    Service {
        name: object_name("web"),
        uid: "u2".into(),
        r#type: ServiceType::LoadBalancer,
        cluster_ips: vec![ip("10.96.0.20")],
        headless: false,
        external_ips: Vec::new(),
        load_balancer_ips: vec![LoadBalancerIp {
            ip: ip("192.0.2.200"),
            proxied: true,
        }],
        source_ranges: vec![(ip("192.0.2.0"), 24)],
        ports: vec![ServicePort {
            name: "http".into(),
            protocol: PortProtocol::Tcp,
            port: 80,
            node_port: Some(30_080),
        }],
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Local,
        health_check_node_port: Some(32_000),
        affinity: Some(Duration::from_secs(10_800)),
        publish_not_ready: false,
        traffic_distribution: None,
        proxy_name: None,
        selector: labels(),
        created: WallNs(START),
    }
}

fn changes() -> Vec<ClusterChange> {
    let name = object_name;
    let slice = EndpointSlice {
        name: name("web-abc"),
        service: "web".into(),
        headless: false,
        endpoints: vec![Endpoint {
            addresses: vec![ip("192.0.2.7")],
            ready: true,
            serving: true,
            terminating: false,
            node: Some("n1".into()),
            zone: None,
            zone_hints: vec!["a".into()],
            node_hints: Vec::new(),
            pod: Some(name("web-1")),
        }],
        ports: vec![EndpointPort {
            name: "http".into(),
            protocol: PortProtocol::Tcp,
            port: None,
        }],
    };
    let node = Node {
        name: "n1".into(),
        addresses: vec![ip("192.0.2.100")],
        pod_cidrs: vec![(ip("192.0.2.0"), 26)],
        zone: None,
        ready: true,
        annotations: Vec::new(),
    };
    let slice_key = Key::Slice {
        name: name("web-abc"),
        service: "web".into(),
    };
    let kind = Kind::Pods;
    let why = "no route to host".into();
    let changes = [
        Change::Listing { kind, own: true },
        Change::Set(Object::Pod(Arc::new(pod_object()))),
        Change::Set(Object::Service(Arc::new(service()))),
        Change::Set(Object::Slice(Arc::new(slice))),
        Change::Set(Object::Node(Arc::new(node))),
        Change::Listed(Kind::Slices),
        Change::Gone(Key::Pod("u1".into())),
        Change::Gone(Key::Service(name("web"))),
        Change::Gone(slice_key),
        Change::Gone(Key::Node("n1".into())),
        Change::Lost { kind, why },
        Change::Heard(Kind::Nodes),
        Change::Kept(Object::Pod(Arc::new(pod_object()))),
        Change::Rules(Arc::new(RuleNames {
            claims: vec![RuleClaim {
                address: Some(ip("192.0.2.200")),
                protocol: PortProtocol::Tcp,
                port: 80,
                name: Arc::new(ServicePortName {
                    service: object_name("web"),
                    port: "http".into(),
                    via: Via::ClusterIp,
                }),
            }],
            own: vec![ip("192.0.2.100")],
        })),
    ];
    let at = WallNs(START + 5);
    let changes = changes.map(|what| ClusterChange { at, what });
    changes.into()
}

fn names() -> Vec<Name> {
    let pod = PodName {
        pod: Arc::new(Pod {
            namespace: "shop".into(),
            name: "cart-7d9".into(),
            uid: Some("u".into()),
        }),
        source: Source::Runtime,
        age: Duration::from_secs(9),
        object: None,
    };
    let key = EndsKey {
        netns: Some(NetnsInode(1)),
        cgroup: None,
        client: ip("192.0.2.1"),
        asked: socket("10.96.0.10:53"),
        backend: Some(socket("192.0.2.53:53")),
    };
    let (since, ends) = (WallNs(START), Box::default());
    vec![
        Name::Ends {
            key: EndsKey {
                netns: None,
                backend: None,
                ..key
            },
            since,
            ends,
        },
        Name::Ends {
            key,
            since,
            ends: Box::new(NamedEnds {
                netns: Some("client".into()),
                container: Some("c0ffee".into()),
                pod_uid: Some("u".into()),
                pod: Some(pod.clone()),
                asked: Some(pod.clone()),
                backend: Some(pod),
                rule: Some("filter FORWARD: -A FORWARD -j DROP".into()),
                held: Some("coredns[7] is stopped by a signal".into()),
            }),
        },
        Name::Device {
            netns: NetnsInode(1),
            ifindex: Ifindex(2),
            name: "client".into(),
            device: Some("eth0".into()),
        },
    ]
}

fn one_of_each() -> Vec<Recorded> {
    let mut events = vec![tick(0)];
    let packets = packets().into_iter().map(Fact::Packet);
    let facts = packets.chain(socket_events());
    events.extend(facts.map(Recorded::Fact));
    events.extend(inserts().into_iter().map(Recorded::Fact));
    events.push(Recorded::Counted(ConntrackChange {
        netns: NetnsInode(1),
        from: KtimeNs(100),
        to: KtimeNs(1_400),
        counts: counts(),
    }));
    events.push(Recorded::Conntrack(ConntrackTotals {
        netns: "node".into(),
        table: ConntrackTable {
            entries: 7,
            max: None,
            counts: counts(),
        },
    }));
    events.extend(changes().into_iter().map(Recorded::Change));
    events.extend(names().into_iter().map(Recorded::Name));
    events.push(Recorded::Symbol {
        location: 1,
        name: "nf_hook_slow+0x9c".into(),
    });
    events.push(Recorded::Loss(Losses {
        ring_full: 1,
        skipped: 2,
        unreadable: 3,
        undecodable: 4,
        unrecorded: 0,
    }));
    events
}

fn shown(events: &[Recorded]) -> Vec<String> {
    events.iter().map(|event| format!("{event:?}")).collect()
}

#[test]
fn each_event_comes_back_as_it_was() {
    let events = one_of_each();
    let mut encoder = Encoder::default();
    for (seq, event) in (0..).zip(&events) {
        encoder.push(Some(seq), event);
    }
    let decoded: Vec<_> = Decoder::new(&encoder.finish()).collect();
    let seqs: Vec<_> = decoded.iter().map(|(seq, _)| *seq).collect();
    let expected: Vec<_> = (0..events.len() as u64).map(Some).collect();
    assert_eq!(seqs, expected);
    let decoded: Vec<_> = decoded.into_iter().map(|(_, event)| event).collect();
    assert_eq!(shown(&decoded), shown(&events));
}

#[test]
fn a_recorder_writes_what_a_reader_reads() {
    let scratch = Scratch::new();
    let events = one_of_each();
    let mut recorder = Recorder::start(scratch.0.path(), session(), Keep::default()).unwrap();
    for event in events.iter().filter_map(Recorded::event) {
        recorder.event(event);
        recorder.flush();
    }
    assert_eq!(recorder.finish().total(), 0);
    let expected: Vec<_> = events
        .into_iter()
        .filter(|event| event.event().is_some())
        .collect();
    assert_eq!(scratch.read(), (shown(&expected), Vec::new()));
    assert!(
        scratch
            .0
            .path()
            .join("drops/node=n1/date=2026-09-21")
            .is_dir()
    );
}

#[test]
fn a_segment_that_is_cut_short_costs_what_it_held_and_no_more() {
    let scratch = Scratch::new();
    scratch.segment(0, 10, false);
    let cut = scratch.segment(10, 15, false);
    scratch.segment(15, 20, true);
    let bytes = fs::read(&cut).unwrap();
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let (events, warnings) = scratch.read();
    let expected = [ticks(0..10), vec![missing(5)], ticks(15..20)].concat();
    // What is missing is known once the next segment begins.
    assert_eq!(events.len(), expected.len());
    assert!(events.contains(&missing(5)), "{events:?}");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("is truncated or corrupt"));
}

#[test]
fn a_byte_that_is_wrong_is_told_where_it_makes_no_sense_and_panics_nowhere() {
    let scratch = Scratch::new();
    let path = scratch.segment(0, 200, true);
    let whole = fs::read(&path).unwrap();
    let mut told = 0;
    // The first columns: most of the others are void and not read.
    for at in 0..256 {
        for wrong in [0, 0x7f, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = wrong;
            fs::write(&path, bytes).unwrap();
            let (_, warnings) = scratch.read();
            let remedied = |line: &String| line.ends_with("copy it again") && !line.contains('\n');
            assert!(warnings.iter().all(remedied), "{at}: {warnings:?}");
            told += warnings.len();
        }
    }
    assert!(told > 200, "{told}");
}

#[test]
fn a_segment_of_a_newer_tracer_is_passed_over() {
    let scratch = Scratch::new();
    scratch.segment(0, 10, true);
    let newer = scratch.segment(10, 15, true);
    // Of equal length, so that all offsets still hold.
    let bytes = fs::read(&newer).unwrap();
    let at = bytes
        .windows(13)
        .position(|window| window == b"tracer.schema")
        .unwrap();
    let mut bytes = bytes;
    let value = bytes[at..].iter().position(|byte| *byte == b'1').unwrap();
    bytes[at + value] = b'9';
    fs::write(&newer, bytes).unwrap();
    let (events, warnings) = scratch.read();
    assert_eq!(events, ticks(0..10));
    assert!(
        warnings[0].contains("was written by a newer tracer (schema 9, this one reads 1)"),
        "{warnings:?}"
    );
}

#[test]
fn a_recording_without_its_end_says_so() {
    let scratch = Scratch::new();
    scratch.segment(0, 10, false);
    let (events, warnings) = scratch.read();
    assert_eq!(events, ticks(0..10));
    assert!(
        warnings[0].starts_with("the recording s of n1 has no end"),
        "{warnings:?}"
    );
}

#[test]
fn merged_segments_hold_the_same_and_replace_the_others() {
    let scratch = Scratch::new();
    let files = [
        scratch.segment(0, 10, false),
        scratch.segment(10, 15, false),
        scratch.segment(15, 20, true),
    ];
    let before = scratch.read();
    let copies: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    segment::merge(files[0].parent().unwrap(), &session(), &files).unwrap();
    assert!(files.iter().all(|file| !file.exists()));
    assert_eq!(scratch.read(), before);
    // As a crash before the others were removed would leave it.
    for (file, copy) in files.iter().zip(copies) {
        fs::write(file, copy).unwrap();
    }
    assert_eq!(scratch.read(), before);
}

#[test]
fn what_is_too_much_goes_and_the_oldest_first() {
    let scratch = Scratch::new();
    let files = [
        scratch.segment(0, 10, false),
        scratch.segment(10, 20, false),
        scratch.segment(20, 30, true),
    ];
    let bytes = fs::metadata(&files[0]).unwrap().len();
    let keep = Keep {
        bytes: Some(bytes * 5 / 2),
        age: None,
    };
    keep::apply(scratch.0.path(), "n1", keep, WallNs(START));
    assert!(!files[0].exists() && files[1].exists() && files[2].exists());
    let (events, warnings) = scratch.read();
    assert_eq!((events, warnings), (ticks(10..30), Vec::new()));
}

/// All files of a directory, and their bytes together.
fn files(dir: &std::path::Path) -> (usize, u64) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.fold((0, 0), |(count, bytes), entry| {
        let found = entry.metadata().unwrap();
        let (files, size) = if found.is_dir() {
            files(&entry.path())
        } else {
            (1, found.len())
        };
        (count + files, bytes + size)
    })
}

#[test]
fn a_recording_of_hours_keeps_to_its_bound_and_what_is_left_can_be_read_alone() {
    const MINUTE: u64 = 60_000_000_000;
    let scratch = Scratch::new();
    let bytes = 64 << 10;
    let keep = Keep {
        bytes: Some(bytes),
        age: None,
    };
    let mut recorder = Recorder::start(scratch.0.path(), session(), keep).unwrap();
    recorder.event(tick(0).event().unwrap());
    for change in changes().into_iter().take(6) {
        recorder.change(&change);
    }
    // The writer's pace is the wall's; more events than a segment holds are written at once.
    for minute in 0..8 {
        for number in 0..70_000 {
            let tick = tick(minute * MINUTE + number);
            recorder.event(tick.event().unwrap());
            if number % 1000 == 0 {
                recorder.flush();
                while recorder.shared.queued.load(Ordering::Relaxed) > 10_000 {
                    std::thread::yield_now();
                }
            }
        }
    }
    assert_eq!(recorder.finish().total(), 0);
    let (count, kept) = files(scratch.0.path());
    assert!(kept <= bytes * 2, "{kept} bytes in {count} files");
    let (events, warnings) = scratch.read();
    assert_eq!(warnings, Vec::<String>::new());
    assert!((1000..400_000).contains(&events.len()), "{}", events.len());
    // The Node was told in the first minute, which has gone.
    let node = events.iter().position(|event| event.contains("Set(Node("));
    assert!(node.is_some_and(|place| place < 100), "{node:?}");
}

#[test]
fn nothing_to_read_is_an_error() {
    let scratch = Scratch::new();
    let error = Recording::open(std::slice::from_ref(&scratch.0.path().to_owned())).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("holds no recording that can be read")
    );
}

/// Name, type and meaning of each column, by table.
fn columns() -> [(&'static str, Vec<Documented>); 4] {
    [
        ("events", super::events::Events::columns()),
        ("exchanges", super::tables::Exchanges::columns()),
        ("connections", super::tables::Connections::columns()),
        ("drops", super::tables::Drops::columns()),
    ]
}

type Documented = (&'static str, DataType, &'static str);

/// The type that DuckDB knows a column by.
fn sql_type(kind: &DataType) -> &'static str {
    match kind {
        DataType::Boolean => "boolean",
        DataType::Binary => "blob",
        DataType::UInt8 => "utinyint",
        DataType::UInt16 => "usmallint",
        DataType::UInt32 => "uinteger",
        DataType::UInt64 => "ubigint",
        DataType::Float64 => "double",
        DataType::Timestamp(..) => "timestamptz",
        _ => "varchar",
    }
}

#[test]
fn columns_of_one_name_have_one_type() {
    let mut known = std::collections::BTreeMap::new();
    for (table, columns) in columns() {
        for (name, kind, _) in columns {
            let before = known.insert(name, kind.clone());
            assert!(before.is_none_or(|before| before == kind), "{table}.{name}");
        }
    }
}

#[test]
fn the_document_lists_each_column() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/recordings.md");
    let text = fs::read_to_string(path).unwrap();
    let (before, _) = text.split_once("<!-- columns: ").unwrap();
    let note = "written by `UPDATE_EXPECT=1 cargo test -p tracer --lib record::`";
    let mut expected = format!("{before}<!-- columns: {note} -->\n");
    for (table, columns) in columns() {
        let head = "| column | type | what |\n|---|---|---|";
        writeln!(expected, "\n### `{table}`\n\n{head}").unwrap();
        for (name, kind, about) in columns {
            let kind = sql_type(&kind);
            writeln!(expected, "| `{name}` | {kind} | {about} |").unwrap();
        }
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(path, expected).unwrap();
    } else {
        assert_eq!(text, expected, "run with UPDATE_EXPECT=1");
    }
}
