//! Records that no program of the kernel writes: damaged ones, cut short, contradicting themselves. Nothing panics, and
//! of the sound ones they are made from, each tells its row.
//!
//! Those are stories of tests/data/records, made here: with UPDATE_EXPECT=1 they are written instead of compared. The
//! fuzz target `records` begins with them.

#[path = "support/damage.rs"]
mod damage;
#[path = "support/records.rs"]
mod records;

use std::{env, fs, path::PathBuf};

use tracer_ebpf::bytes;
use tracer_ebpf::record::{
    self, BEFORE_TUPLES, BEGINNING, CONNTRACK_BYTES, Origin, Outer, Packet, Pass, TUPLE_HASH,
    entry, event, io, kind, mark, part, pass, place, tunnel,
};

use damage::Xorshift;
use records::tell;

/// IPv4 address and port.
type End = ([u8; 4], u16);

const CLIENT: End = ([10, 244, 0, 11], 40_000);
const VIP: End = ([10, 96, 0, 10], 53);
const SERVER: End = ([10, 244, 0, 21], 53);
const NODE: End = ([192, 0, 2, 1], 4789);
/// A Service without endpoints.
const NOBODY: End = ([10, 96, 0, 12], 53);
const OTHER_NODE: End = ([192, 0, 2, 2], 4789);

const UDP: u8 = 17;
const TCP: u8 = 6;
const ICMP: u8 = 1;
/// `TCP_ESTABLISHED`, `TCP_CLOSE`: include/net/tcp_states.h
const ESTABLISHED: u8 = 1;
const CLOSED: u8 = 7;

/// The process of the server, of which sockets tell too.
const COREDNS: u32 = 53;

fn words(address: [u8; 4]) -> [u32; 4] {
    [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes(address)]
}

/// The length of a few bytes.
fn len(bytes: &[u8]) -> u16 {
    u16::try_from(bytes.len()).expect("they are few")
}

/// The address of the packet first seen at a time.
fn skb(at: u64) -> u64 {
    0xffff_8880_0000_1000 + at / 1000 * 256
}

/// The address of a process's socket.
fn sock(pid: u32) -> u64 {
    0xffff_8880_0000_0040 + u64::from(pid)
}

/// A packet seen at a time in a namespace.
fn seen(at: u64, netns: u32, place: u8, protocol: u8, [from, to]: [End; 2]) -> Packet {
    Packet {
        kind: kind::PACKET,
        captured: 0,
        skip: 0,
        ktime_ns: at,
        skb: skb(at),
        addresses: [words(from.0), words(to.0)],
        netns,
        ifindex: 2,
        seq: 0,
        ack: 0,
        payload_len: 0,
        reason: 0,
        sport: from.1.to_be_bytes(),
        dport: to.1.to_be_bytes(),
        protocol,
        tcp_flags: 0,
        place,
        marks: 0,
        parts: 0,
        pad: [0; 5],
        network: 0,
    }
}

/// A packet's record: its parts, payload, and further places.
fn laid(mut packet: Packet, parts: &[&[u8]], payload: &[u8], passes: &[Vec<u8>]) -> Vec<u8> {
    packet.captured = len(payload);
    if packet.payload_len == 0 {
        packet.payload_len = u32::from(packet.captured - packet.skip);
    }
    let mut record = [bytes(&packet), &parts.concat()[..], payload].concat();
    if !passes.is_empty() {
        record.resize(record.len().next_multiple_of(8), 0);
        record.extend(passes.concat());
    }
    record
}

/// What is kept of a conntrack entry.
fn conntrack(original: [End; 2], reply: [End; 2]) -> Vec<u8> {
    let mut entry = vec![0; CONNTRACK_BYTES];
    for (hash, [from, to]) in [
        (BEFORE_TUPLES, original),
        (BEFORE_TUPLES + TUPLE_HASH, reply),
    ] {
        let mut put =
            |at: usize, what: &[u8]| entry[hash + at..][..what.len()].copy_from_slice(what);
        put(16, &from.0);
        put(32, &from.1.to_be_bytes());
        put(34, &[2]);
        put(36, &to.0);
        put(52, &to.1.to_be_bytes());
    }
    entry
}

/// Of the query and its answer.
fn translated() -> Vec<u8> {
    conntrack([CLIENT, VIP], [SERVER, CLIENT])
}

/// A packet of that process, or one that is forwarded.
fn origin(pid: Option<u32>) -> Origin {
    Origin {
        sock: pid.map_or(0, sock),
        cgroup: 77,
        location: 0xffff_ffff_8100_0000,
        comm: *b"dig\0\0\0\0\0\0\0\0\0\0\0\0\0",
        pid: pid.unwrap_or(0),
        hook: record::hook::FORWARD,
        pad: [0; 3],
    }
}

fn further(at: u64, netns: u32, place: u8, parts: u8, more: &[u8]) -> Vec<u8> {
    let pass = Pass {
        ktime_ns: at,
        netns,
        ifindex: 3,
        place,
        parts,
        pad: [0; 6],
    };
    [bytes(&pass), more].concat()
}

/// What a UDP datagram begins with: IP header, ports.
fn beginning([from, to]: [End; 2]) -> Vec<u8> {
    let mut header = vec![0; BEGINNING];
    header[0] = 0x45;
    header[9] = UDP;
    header[12..16].copy_from_slice(&from.0);
    header[16..20].copy_from_slice(&to.0);
    header[20..22].copy_from_slice(&from.1.to_be_bytes());
    header[22..24].copy_from_slice(&to.1.to_be_bytes());
    header
}

fn query() -> Vec<u8> {
    fs::read(data().join("dns/query.bin")).expect("it is there")
}

/// The same question with the bit QR: RFC 1035, section 4.1.1.
fn answer() -> Vec<u8> {
    let mut answer = query();
    answer[2] |= 0x80;
    answer
}

/// A query as TCP carries it: RFC 7766, section 8.
fn framed_query() -> Vec<u8> {
    let query = query();
    [&len(&query).to_be_bytes()[..], &query].concat()
}

const fn micros(at: u64) -> u64 {
    9_000_000_000 + at * 1000
}

/// A datagram of a process on its way from one namespace through the node, where its ends change, to another; with
/// those parts it is received there.
fn passing(
    at: u64,
    [from, to]: [u32; 2],
    [before, after]: [[End; 2]; 2],
    pid: u32,
    message: &[u8],
    parts: u8,
) -> Vec<u8> {
    let mut packet = seen(micros(at), from, place::QUEUED, UDP, before);
    packet.parts = part::ORIGIN;
    let turned = [translated(), beginning(after)].concat();
    let is_turned = pass::CONNTRACK | pass::TURNED;
    let passes = [
        further(micros(at + 2), 9, place::RECEIVED, 0, &[]),
        further(micros(at + 4), 9, place::QUEUED, is_turned, &turned),
        further(micros(at + 6), to, place::RECEIVED, parts, &[]),
    ];
    laid(packet, &[bytes(&origin(Some(pid)))], message, &passes)
}

/// From the client through the node, where it is translated, to the server, and back.
fn exchange() -> Vec<Vec<u8>> {
    let there = [[CLIENT, VIP], [CLIENT, SERVER]];
    let back = [[SERVER, CLIENT], [VIP, CLIENT]];
    let same = pass::SAME_CONNTRACK;
    vec![
        passing(0, [1, 2], there, 4242, &query(), 0),
        passing(90, [2, 1], back, COREDNS, &answer(), same),
    ]
}

/// A query that is dropped, and one that an ICMP error comes back for, which quotes it.
fn failures() -> Vec<Vec<u8>> {
    let mut dropped = seen(micros(0), 9, place::DROPPED, UDP, [CLIENT, SERVER]);
    dropped.parts = part::CONNTRACK | part::ORIGIN;
    dropped.reason = 8;
    dropped.marks = mark::PORTS_BEHIND;
    dropped.skip = 20;
    let mut packet = beginning([CLIENT, SERVER])[..28].to_vec();
    packet.extend(query());
    let (entry, origin) = (translated(), origin(None));
    let quoted = [CLIENT, NOBODY];
    let query_seen = seen(micros(1000), 1, place::QUEUED, UDP, quoted);
    let mut error = seen(micros(1010), 1, place::RECEIVED, ICMP, [NODE, CLIENT]);
    error.sport = [3, 3];
    let mut quote = beginning(quoted)[..28].to_vec();
    quote.extend(query());
    vec![
        laid(
            seen(micros(0) - 9, 1, place::QUEUED, UDP, [CLIENT, VIP]),
            &[],
            &query(),
            &[],
        ),
        laid(dropped, &[&entry, bytes(&origin)], &packet, &[]),
        laid(query_seen, &[], &query(), &[]),
        laid(error, &[], &quote, &[]),
    ]
}

/// A handshake through a VIP, and a query in two segments of it; within a tunnel between two nodes.
fn segments() -> Vec<Vec<u8>> {
    const SYN: u8 = 2;
    const ACK: u8 = 16;
    let framed = framed_query();
    let (first, second) = framed.split_at(9);
    let segment = |at, netns, place, ends, flags, seq, payload: &[u8]| {
        let mut packet = seen(micros(at), netns, place, TCP, ends);
        packet.parts = part::CONNTRACK;
        packet.tcp_flags = flags;
        packet.seq = seq;
        laid(packet, &[&translated()], payload, &[])
    };
    let outer = Outer {
        addresses: [words(NODE.0), words(OTHER_NODE.0)],
        network: 1,
        kind: tunnel::VXLAN,
        pad: [0; 3],
    };
    let mut carried = seen(micros(3), 9, place::QUEUED, TCP, [CLIENT, SERVER]);
    carried.parts = part::OUTER;
    carried.marks = mark::TUNNELED;
    carried.tcp_flags = SYN;
    carried.seq = 100;
    let (there, back) = ([CLIENT, VIP], [SERVER, CLIENT]);
    vec![
        connect(0, event::CONNECTING, 2),
        segment(1, 1, place::QUEUED, there, SYN, 100, &[]),
        laid(carried, &[bytes(&outer)], &[], &[]),
        segment(50, 9, place::RECEIVED, back, SYN | ACK, 500, &[]),
        segment(52, 1, place::RECEIVED, [VIP, CLIENT], SYN | ACK, 500, &[]),
        connect(53, event::CONNECTED, ESTABLISHED),
        segment(60, 1, place::QUEUED, there, ACK, 101, first),
        segment(61, 1, place::QUEUED, there, ACK, 110, second),
        connect(70, event::RETRANSMITTED, 0),
        connect(80, event::CONNECTED, CLOSED),
    ]
}

/// Packets with their headers, as a recording has them: a query, an error that quotes it, the same over TCP, and over
/// IPv6 behind an extension header.
fn headers() -> Vec<Vec<u8>> {
    let with = |at, protocol, ends, header: &[u8], payload: &[u8]| {
        let mut packet = seen(micros(at), 1, place::QUEUED, protocol, ends);
        packet.skip = len(header);
        (packet, [header, payload].concat())
    };
    let whole = |(packet, bytes): (Packet, Vec<u8>)| laid(packet, &[], &bytes, &[]);
    let udp = beginning([CLIENT, VIP])[..28].to_vec();
    let quote = [&udp[..], &query()].concat();
    let mut icmp = beginning([NODE, CLIENT])[..28].to_vec();
    icmp[9] = ICMP;
    icmp[20..22].copy_from_slice(&[3, 3]);
    let mut error = with(10, ICMP, [NODE, CLIENT], &icmp, &quote);
    error.0.sport = [3, 3];
    error.0.place = place::RECEIVED;
    let mut tcp = beginning([CLIENT, VIP])[..40].to_vec();
    tcp[9] = TCP;
    tcp[24..].fill(0);
    tcp[32] = 0x50;
    let mut six = vec![0; 56];
    six[0] = 0x60;
    // Hop by hop, of one word, padding alone: RFC 8200, section 4.3.
    six[40..44].copy_from_slice(&[UDP, 0, 1, 4]);
    six[48..52].copy_from_slice(&[0x9c, 0x41, 0, 53]);
    let mut over_six = with(30, UDP, [CLIENT, VIP], &six, &query());
    let address = |last: u32| [0x2001_0db8_u32.to_be(), 0, 0, last.to_be()];
    over_six.0.addresses = [address(1), address(2)];
    over_six.0.sport = 40_001_u16.to_be_bytes();
    vec![
        whole(with(0, UDP, [CLIENT, VIP], &udp, &query())),
        whole(error),
        whole(with(20, TCP, [CLIENT, VIP], &tcp, &framed_query())),
        whole(over_six),
    ]
}

fn connect(at: u64, event: u8, state: u8) -> Vec<u8> {
    let mapped = |(address, _): End| std::net::Ipv4Addr::from(address).to_ipv6_mapped().octets();
    bytes(&record::Socket {
        kind: kind::SOCKET,
        netns: 1,
        ktime_ns: micros(at),
        sock: 0xffff_8880_0000_0999,
        cgroup: 77,
        comm: *b"curl\0\0\0\0\0\0\0\0\0\0\0\0",
        saddr: mapped(CLIENT),
        daddr: mapped(VIP),
        pid: 99,
        sport: CLIENT.1.to_be_bytes(),
        dport: VIP.1.to_be_bytes(),
        event,
        state,
        pad: [0; 6],
    })
    .to_vec()
}

/// What passes sockets, and entries that clash.
fn sockets() -> Vec<Vec<u8>> {
    let mut all = exchange();
    let passed = |at, event, skb| {
        bytes(&record::SocketIo {
            kind: kind::SOCKET_IO,
            netns: 2,
            ktime_ns: micros(at),
            sock: sock(COREDNS),
            skb,
            comm: *b"coredns\0\0\0\0\0\0\0\0\0",
            pid: COREDNS,
            tid: COREDNS + 1,
            amount: 40,
            queued: 1,
            sport: SERVER.1.to_be_bytes(),
            dport: CLIENT.1.to_be_bytes(),
            event,
            pad: [0; 5],
        })
        .to_vec()
    };
    let own: [u8; CONNTRACK_BYTES] = translated().try_into().expect("an entry has that length");
    let clash = |at, event| {
        bytes(&record::Conntrack {
            kind: kind::CONNTRACK,
            netns: 9,
            ktime_ns: micros(at),
            skb: skb(micros(0)),
            own,
            other: own,
            event,
            pad: [0; 7],
        })
        .to_vec()
    };
    let events = [
        passed(7, io::DELIVERED, skb(micros(0))),
        passed(20, io::READ, 0),
        passed(89, io::SENT, 0),
    ];
    all.splice(1..1, events);
    all.insert(0, clash(3, entry::CLASH_RESOLVED));
    all.extend([io::FULL, io::FAILED].map(|event| passed(200, event, 0)));
    all.extend([entry::CLASH_LOST, entry::TABLE_FULL].map(|event| clash(300, event)));
    all
}

/// Each story: its name, records, how many facts of each kind they tell, and what each of its rows says.
type Story = (
    &'static str,
    Vec<Vec<u8>>,
    [usize; 4],
    &'static [&'static str],
);

fn stories() -> [Story; 5] {
    [
        (
            "exchange",
            exchange(),
            [8, 0, 0, 0],
            &["10.96.0.10:53 ⇒ 10.244.0.21:53  A www.example  NOERROR"],
        ),
        (
            "failures",
            failures(),
            [4, 0, 0, 0],
            &["dropped", "ICMP port unreachable"],
        ),
        (
            "segments",
            segments(),
            [6, 4, 0, 0],
            &["www.example over tcp"],
        ),
        (
            "headers",
            headers(),
            [4, 0, 0, 0],
            &["ICMP port unreachable", "over tcp", "[2001:db8::1]:40001"],
        ),
        ("sockets", sockets(), [8, 0, 5, 3], &["\"sockets\""]),
    ]
}

fn data() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data")
}

/// Each record after its length.
fn framed(records: &[Vec<u8>]) -> Vec<u8> {
    let each = records
        .iter()
        .map(|record| [&len(record).to_le_bytes()[..], record].concat());
    each.collect::<Vec<_>>().concat()
}

#[test]
fn sound_records_tell_their_stories() {
    for (name, records, facts, rows) in stories() {
        let file = data().join(format!("records/{name}.bin"));
        if env::var_os("UPDATE_EXPECT").is_some() {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, framed(&records)).unwrap();
        }
        let bytes = fs::read(&file).unwrap();
        assert!(bytes == framed(&records), "{} differs", file.display());
        let told = tell(&bytes);
        assert_eq!(told.facts, facts, "{name}");
        assert_eq!(told.rows.len(), rows.len(), "{name}: {:#?}", told.rows);
        for (row, says) in told.rows.iter().zip(rows) {
            assert!(row.contains(says), "{name}: {row}");
        }
    }
}

#[test]
fn records_that_are_damaged_panic_nowhere() {
    const ROUNDS: usize = 5_000;
    let stories = stories().map(|(_, records, ..)| records);
    let mut random = Xorshift(0x0c0f_fee5);
    let (mut facts, mut rows) = ([0; 4], 0);
    for _ in 0..ROUNDS {
        let mut records = stories[random.below(stories.len())].clone();
        for _ in 0..=random.below(3) {
            let one = random.below(records.len());
            random.damage(&mut records[one]);
        }
        let told = tell(&framed(&records));
        facts
            .iter_mut()
            .zip(told.facts)
            .for_each(|(all, more)| *all += more);
        rows += told.rows.len();
    }
    // Most damage leaves most of a story.
    assert!(facts.iter().all(|&told| told > ROUNDS / 4), "{facts:?}");
    assert!(rows > ROUNDS / 2, "{rows} rows");
}
