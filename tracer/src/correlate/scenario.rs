//! The words that tests of the correlator are written in: packets at places, time, and rows as
//! one line of text each.
//!
//! Every packet seen is 10 µs after the one before, so latencies count hops.

use std::time::Duration;

use bytes::Bytes;
use domain::base::iana::{OptRcode, Rtype};

use super::{Correlator, Settings};
use crate::model::{
    Comm, Conntrack, Event, Fact, Flow, Ifindex, KtimeNs, Losses, NetnsInode, Packet, Place, Row,
    Sender, SkbId, SockId, Socket, SocketEvent, Transport, WallNs, drops::DropNames,
    fact::TcpFlags, trace::Unplaced,
};

pub(super) const CLIENT: &str = "192.0.2.1:40000";
pub(super) const VIP: &str = "10.96.0.10:53";
pub(super) const BACKEND: &str = "192.0.2.53:53";

/// Namespaces.
pub(super) const POD: u32 = 1;
pub(super) const NODE: u32 = 2;
pub(super) const SERVER: u32 = 3;

/// Query types.
pub(super) const A: u16 = 1;
pub(super) const AAAA: u16 = 28;

/// TCP flags (RFC 9293, section 3.1).
pub(super) const FIN: u8 = 0x11;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const PSH: u8 = 0x18;
pub(super) const SYN_ACK: u8 = 0x12;

/// A packet at a place.
#[derive(Clone, Debug)]
pub(super) struct At(pub(super) Packet);

pub(super) fn at(place: Place, netns: u32, ifindex: u32) -> At {
    let nobody = "0.0.0.0:0".parse().unwrap();
    At(Packet {
        ktime: KtimeNs(0),
        place,
        netns: NetnsInode(netns),
        ifindex: Ifindex(ifindex),
        skb: SkbId(0xff00),
        flow: Flow {
            src: nobody,
            dst: nobody,
        },
        transport: Transport::Udp,
        conntrack: None,
        sender: None,
        headers: Bytes::new(),
        payload: Bytes::new(),
        payload_len: 0,
        again: false,
        unreadable: false,
        tunnel: None,
    })
}

pub(super) fn queued(netns: u32, ifindex: u32) -> At {
    at(Place::Queued, netns, ifindex)
}

pub(super) fn received(netns: u32, ifindex: u32) -> At {
    at(Place::Received, netns, ifindex)
}

pub(super) fn dropped(netns: u32, ifindex: u32, reason: u32) -> At {
    let location = 0;
    let hook = None;
    let place = Place::Dropped {
        reason,
        location,
        hook,
    };
    at(place, netns, ifindex)
}

pub(super) fn flow(src: &str, dst: &str) -> Flow {
    Flow {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
    }
}

pub(super) fn sender(pid: u32) -> Sender {
    Sender {
        pid: Some(pid),
        comm: Comm(*b"test\0\0\0\0\0\0\0\0\0\0\0\0"),
        cgroup: None,
        sock: SockId(u64::from(pid)),
    }
}

impl At {
    pub(super) fn udp(mut self, src: &str, dst: &str) -> Self {
        self.0.flow = flow(src, dst);
        self
    }

    pub(super) fn tcp(mut self, src: &str, dst: &str, flags: u8, seq: u32) -> Self {
        self.0.flow = flow(src, dst);
        self.0.transport = Transport::Tcp {
            flags: TcpFlags(flags),
            seq,
            ack: 0,
        };
        self
    }

    /// An ICMP error that quotes `quoted` with all its payload.
    pub(super) fn icmp(mut self, kind: u8, code: u8, from: &str, quoted: &At) -> Self {
        let to = quoted.0.flow.src;
        self.0.flow = flow(&format!("{from}:0"), &format!("{}:0", to.ip()));
        self.0.transport = Transport::IcmpError { kind, code };
        self.payload(quoted.wire())
    }

    /// With only the eight bytes of transport header quoted that RFC 792 asks for.
    pub(super) fn quoting_little(mut self) -> Self {
        self.0.payload.truncate(28);
        self
    }

    pub(super) fn sender(mut self, pid: u32) -> Self {
        self.0.sender = Some(sender(pid));
        self
    }

    pub(super) fn skb(mut self, skb: u64) -> Self {
        self.0.skb = SkbId(skb);
        self
    }

    /// The conntrack entry: the original tuple, and the reply tuple.
    pub(super) fn conntrack(mut self, original: (&str, &str), reply: (&str, &str)) -> Self {
        self.0.conntrack = Some(Conntrack {
            original: flow(original.0, original.1),
            reply: flow(reply.0, reply.1),
            zone: 0,
        });
        self
    }

    /// Queries have one skb address, answers another, all of them: it is used again at once.
    pub(super) fn dns(mut self, message: Vec<u8>) -> Self {
        let is_response = message.get(2).is_some_and(|flags| flags & 0x80 != 0);
        self.0.skb = SkbId(if is_response { 0xff02 } else { 0xff01 });
        self.payload(message)
    }

    pub(super) fn payload(mut self, payload: Vec<u8>) -> Self {
        self.0.payload_len = u32::try_from(payload.len()).unwrap();
        self.0.payload = payload.into();
        self
    }

    /// As an IPv4 packet.
    fn wire(&self) -> Vec<u8> {
        let Flow { src, dst } = self.0.flow;
        let (protocol, rest) = match self.0.transport {
            Transport::Tcp { flags, seq, .. } => {
                let rest = [&seq.to_be_bytes()[..], &[0; 4], &[0x50, flags.0], &[0; 6]];
                (6, rest.concat())
            }
            _ => (17, vec![0; 4]),
        };
        let total = 20 + 4 + rest.len() + self.0.payload.len();
        let mut wire = vec![0x45, 0];
        wire.extend(u16::try_from(total).unwrap().to_be_bytes());
        wire.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
        for end in [src, dst] {
            match end.ip() {
                std::net::IpAddr::V4(ip) => wire.extend(ip.octets()),
                std::net::IpAddr::V6(_) => panic!("quotes are IPv4 in these tests"),
            }
        }
        wire.extend(src.port().to_be_bytes());
        wire.extend(dst.port().to_be_bytes());
        [wire, rest, self.0.payload.to_vec()].concat()
    }
}

/// A DNS message of `questions` times the same question.
pub(super) fn dns(id: u16, flags: u16, counts: [u16; 4], name: &str, qtype: u16) -> Vec<u8> {
    let mut wire: Vec<u8> = [id, flags]
        .into_iter()
        .chain(counts)
        .flat_map(u16::to_be_bytes)
        .collect();
    for _ in 0..counts[0] {
        for label in name.split('.') {
            wire.extend(u8::try_from(label.len()));
            wire.extend_from_slice(label.as_bytes());
        }
        wire.push(0);
        wire.extend([qtype, 1].into_iter().flat_map(u16::to_be_bytes));
    }
    wire
}

pub(super) fn query(id: u16, name: &str, qtype: u16) -> Vec<u8> {
    dns(id, 0x0100, [1, 0, 0, 0], name, qtype)
}

/// An answer that says NOERROR and promises one record.
pub(super) fn answer(id: u16, name: &str, qtype: u16) -> Vec<u8> {
    dns(id, 0x8180, [1, 1, 0, 0], name, qtype)
}

/// As DNS goes over TCP (RFC 1035, section 4.2.2).
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let len = u16::try_from(message.len()).unwrap();
    [&len.to_be_bytes()[..], message].concat()
}

/// The four sights of a query from a pod through the node to the server's pod.
pub(super) fn asking(client: &str, message: &[u8]) -> [At; 4] {
    [
        queued(POD, 2).udp(client, VIP).sender(100),
        received(NODE, 10).udp(client, VIP),
        queued(NODE, 11)
            .udp(client, BACKEND)
            .conntrack((client, VIP), (BACKEND, client)),
        received(SERVER, 2).udp(client, BACKEND),
    ]
    .map(|at| at.dns(message.to_vec()))
}

/// The four sights of an answer on its way back.
pub(super) fn answering(client: &str, message: &[u8]) -> [At; 4] {
    [
        queued(SERVER, 2).udp(BACKEND, client).sender(200),
        received(NODE, 11).udp(BACKEND, client),
        queued(NODE, 10)
            .udp(VIP, client)
            .conntrack((client, VIP), (BACKEND, client)),
        received(POD, 2).udp(VIP, client),
    ]
    .map(|at| at.dns(message.to_vec()))
}

/// Something that happened to a TCP socket of process `pid`, in its pod.
pub(super) fn socket(event: SocketEvent, pid: u32, local: &str, remote: &str) -> Fact {
    Fact::Socket(Socket {
        ktime: KtimeNs(0),
        netns: NetnsInode(POD),
        flow: flow(local, remote),
        owner: sender(pid),
        event,
    })
}

/// A correlator, the time, and the rows so far.
pub(super) struct Scene {
    pub(super) correlator: Correlator,
    pub(super) rows: Vec<Row>,
    pub(super) now: KtimeNs,
}

impl Scene {
    pub(super) fn new() -> Self {
        Self::with(Settings::default())
    }

    pub(super) fn with(settings: Settings) -> Self {
        let mut scene = Self {
            correlator: Correlator::new(settings),
            rows: Vec::new(),
            now: KtimeNs(1_000_000_000),
        };
        scene.tick();
        scene
    }

    fn tick(&mut self) {
        let tick = Event::Tick {
            ktime: self.now,
            wall: WallNs(0),
        };
        self.correlator.apply(tick, &mut self.rows);
    }

    pub(super) fn see(&mut self, sights: impl IntoIterator<Item = At>) -> &mut Self {
        for At(packet) in sights {
            self.fact(Fact::Packet(packet));
        }
        self
    }

    pub(super) fn fact(&mut self, mut fact: Fact) -> &mut Self {
        self.now = self.now.plus(Duration::from_micros(10));
        match &mut fact {
            Fact::Packet(packet) => packet.ktime = self.now,
            Fact::Socket(socket) => socket.ktime = self.now,
            Fact::SocketIo(io) => io.ktime = self.now,
            Fact::Insert(insert) => insert.ktime = self.now,
        }
        self.correlator.apply(Event::Fact(&fact), &mut self.rows);
        self
    }

    /// Time passes, with a tick at least every 100 ms.
    pub(super) fn wait(&mut self, mut milliseconds: u64) -> &mut Self {
        while milliseconds > 0 {
            let step = milliseconds.min(100);
            self.now = self.now.plus(Duration::from_millis(step));
            self.tick();
            milliseconds -= step;
        }
        self
    }

    pub(super) fn unplaced(&self) -> Unplaced {
        self.correlator.unplaced()
    }

    /// The rows so far are these.
    #[track_caller]
    pub(super) fn shows(&self, expected: &[&str]) {
        let shown: Vec<_> = self.rows.iter().map(line).collect();
        assert_eq!(shown, expected);
    }

    pub(super) fn finish(self) -> (Vec<Row>, Unplaced, Losses) {
        let mut rows = self.rows;
        let (unplaced, losses) = self.correlator.finish(&mut rows);
        (rows, unplaced, losses)
    }
}

/// A row as a line.
pub(super) fn line(row: &Row) -> String {
    let mut line = String::new();
    let mut say = |text: String| line.push_str(&text);
    let micros = |duration: Duration| format!("{} µs", duration.as_micros());
    let (amends, cause) = match row {
        Row::Dns(row) => {
            let name = row.name.as_deref().unwrap_or("?");
            let qtype = row
                .qtype
                .map_or("?".to_owned(), |qtype| Rtype::from_int(qtype).to_string());
            say(format!("{} {name} {qtype} {}", row.serial, row.asked));
            say(row.backend.map_or(String::new(), |b| format!(" via {b}")));
            say(format!(": {}", row.outcome.name()));
            if let (Some(rcode), Some(latency)) = (row.rcode, row.latency) {
                say(format!(
                    " {} in {}",
                    OptRcode::masked_from_int(rcode),
                    micros(latency)
                ));
            }
            say(if row.truncated { ", truncated" } else { "" }.to_owned());
            say(row
                .retry_of
                .map_or(String::new(), |first| format!(", retry of {first}")));
            (row.amends, &row.cause)
        }
        Row::Connection(row) => {
            say(format!(
                "{} {} {}",
                row.serial,
                row.protocol.name(),
                row.asked
            ));
            say(row.backend.map_or(String::new(), |b| format!(" via {b}")));
            say(format!(": {}", row.outcome.name()));
            say(row
                .latency
                .map_or(String::new(), |l| format!(" in {}", micros(l))));
            say(row
                .first_byte
                .map_or(String::new(), |f| format!(", first byte {}", micros(f))));
            if row.retransmits > 0 {
                say(format!(", {} sent again", row.retransmits));
            }
            (row.amends, &row.cause)
        }
    };
    say(amends.map_or(String::new(), |earlier| format!(", amends {earlier}")));
    say(cause
        .as_ref()
        .map_or(String::new(), |cause| format!(": {cause}")));
    line
}

/// Names of drop reasons.
pub(super) fn drop_names<const N: usize>(reasons: [(u32, &str); N]) -> DropNames {
    DropNames {
        reasons: reasons
            .map(|(reason, name)| (reason, name.to_owned()))
            .into(),
        ..DropNames::default()
    }
}
