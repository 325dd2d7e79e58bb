//! Turns one ordered stream of events into rows: pure, synchronous, and bounded in memory.
//! Time comes from events, never from a clock; ticks let time-outs fire in silence.
//!
//! Knows which packets belong together; not where facts come from, nor how rows are shown.

pub mod message;
pub mod stream;

mod carried;
mod connections;
mod dns;
mod dropped;
mod inserts;
mod journey;
mod last;
mod nat;
mod once;
pub(crate) mod quote;
mod sockets;
mod spot;
mod words;

#[cfg(test)]
mod scenario;
#[cfg(test)]
mod sound_tests;
#[cfg(test)]
mod stopped_tests;
#[cfg(test)]
mod tests;

use std::{net::IpAddr, time::Duration};

pub use self::connections::is_asked_for;
use self::{
    connections::Connections,
    dns::DnsTable,
    inserts::{Counted, Inserts, Suspect, Why},
    message::Peek,
    nat::{Ends, Nat},
    once::Once,
    spot::Spot,
    stream::Streams,
};
use crate::model::{
    Event, Fact, Flow, KtimeNs, Losses, Packet, Place, Protocol, Row, SkbId, Transport, WallNs,
    drops::DropNames, fact::TcpFlags, trace::Unplaced,
};

/// How often time-outs are looked for, in time of the events.
const SWEEP_EVERY: Duration = Duration::from_millis(250);

/// After this long without a segment a DNS stream is forgotten; RFC 7766, section 6.2.3 expects
/// idle connections to end within seconds.
const STREAM_IDLE: Duration = Duration::from_secs(30);

/// Bytes that all DNS streams buffer together.
const STREAM_BYTES: usize = 4 << 20;

/// What the correlator is told before it begins.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Ports that carry DNS.
    pub dns_ports: Vec<u16>,
    /// Prefixes known to be service addresses, as address and length in bits; when there are
    /// none, every failed connection is worth a row.
    pub vips: Vec<(IpAddr, u8)>,
    /// Whether connections that nothing translated are worth a row too, as they are where another node
    /// translated them.
    pub direct: bool,
    /// How long a query may go unanswered before it becomes a row.
    pub unanswered_after: Duration,
    /// How long it is remembered after that, so that a late answer finds it.
    pub keep: Duration,
    /// Most queries, and most connections, that are followed at once.
    pub tracked: usize,
    /// Whether queries and answers are followed into sockets; a row then waits until its answer
    /// has been read.
    pub paths: bool,
    /// Names of the running kernel's drop reasons.
    pub drop_names: DropNames,
}

impl Default for Settings {
    /// glibc retries after 5 s (resolv.conf(5), `timeout`), hence 6.
    fn default() -> Self {
        Self {
            dns_ports: vec![53],
            vips: Vec::new(),
            direct: false,
            unanswered_after: Duration::from_secs(6),
            keep: Duration::from_secs(15),
            tracked: 65_536,
            paths: false,
            drop_names: DropNames::default(),
        }
    }
}

/// The two clocks of the latest tick, which translate any record's time.
#[derive(Clone, Copy, Debug, Default)]
struct Clocks {
    ktime: KtimeNs,
    wall: WallNs,
}

impl Clocks {
    fn wall(self, ktime: KtimeNs) -> WallNs {
        let since = i128::from(ktime.0) - i128::from(self.ktime.0);
        WallNs(i64::try_from(i128::from(self.wall.0) + since).unwrap_or(i64::MAX))
    }
}

/// What rows are made with, and their numbers.
#[derive(Debug)]
struct Register {
    settings: Settings,
    clocks: Clocks,
    serial: u64,
    /// What conntrack told the packet at hand.
    insert: Option<Why>,
    counted: Counted,
    /// When it was last told that something was lost.
    lost: Option<KtimeNs>,
}

impl Register {
    fn open<'a>(&'a mut self, rows: &'a mut Vec<Row>) -> Context<'a> {
        Context {
            settings: &self.settings,
            clocks: self.clocks,
            insert: self.insert.as_ref(),
            counted: &self.counted,
            lost: self.lost,
            serial: &mut self.serial,
            rows,
        }
    }
}

/// What all parts need while a row is made.
struct Context<'a> {
    settings: &'a Settings,
    clocks: Clocks,
    insert: Option<&'a Why>,
    counted: &'a Counted,
    lost: Option<KtimeNs>,
    serial: &'a mut u64,
    rows: &'a mut Vec<Row>,
}

impl Context<'_> {
    /// A drop that conntrack's statistics may explain.
    fn suspect(&self, packet: &Packet) -> Option<Suspect> {
        Suspect::of(packet, &self.settings.drop_names, self.insert)
    }

    fn next_serial(&mut self) -> u64 {
        *self.serial += 1;
        *self.serial
    }

    /// Whether something of what happened since `ktime` was lost, as far as is known by now.
    fn is_lossy(&self, ktime: KtimeNs) -> bool {
        self.lost.is_some_and(|lost| lost >= ktime)
    }
}

/// What is known of the datagram at hand, if it is one of DNS, from the place where it was seen last.
#[derive(Debug)]
struct AtHand {
    skb: SkbId,
    /// It was seen at another place before, of the same client.
    goes_on: bool,
    peek: Peek,
    flow: Flow,
    ends: Ends,
}

/// Eats events, yields rows.
#[derive(Debug)]
pub struct Correlator {
    register: Register,
    swept: KtimeNs,
    nat: Nat,
    dns: DnsTable,
    streams: Streams<(Flow, Spot)>,
    connections: Connections,
    inserts: Inserts,
    unreadable: Once,
    at_hand: Option<AtHand>,
    unplaced: Unplaced,
    losses: Losses,
}

impl Correlator {
    /// A correlator that has seen nothing.
    pub fn new(settings: Settings) -> Self {
        Self {
            swept: KtimeNs(0),
            nat: Nat::new(settings.tracked),
            dns: DnsTable::new(if settings.paths { settings.tracked } else { 0 }),
            streams: Streams::new(settings.tracked.min(4096), STREAM_BYTES),
            connections: Connections::default(),
            inserts: Inserts::default(),
            unreadable: Once::default(),
            at_hand: None,
            unplaced: Unplaced::default(),
            losses: Losses::default(),
            register: Register {
                settings,
                clocks: Clocks::default(),
                serial: 0,
                insert: None,
                counted: Counted::default(),
                lost: None,
            },
        }
    }

    /// Takes the next event; rows that are finished by it are pushed to `rows`.
    pub fn apply(&mut self, event: Event<'_>, rows: &mut Vec<Row>) {
        match event {
            Event::Fact(Fact::Packet(packet)) => {
                self.register.insert = self.inserts.of(packet);
                self.packet(packet, rows);
                self.register.insert = None;
            }
            Event::Fact(Fact::Insert(insert)) => self.inserts.note(insert),
            Event::Fact(Fact::Socket(socket)) => {
                self.connections
                    .socket(socket, &mut self.register.open(rows));
            }
            Event::Fact(Fact::SocketIo(io)) => {
                self.dns.socket(io, &mut self.register.open(rows));
            }
            Event::Tick { ktime, wall } => {
                self.register.clocks = Clocks { ktime, wall };
                self.dns.retire(ktime);
                if ktime - self.swept >= SWEEP_EVERY {
                    self.swept = ktime;
                    self.sweep(ktime, rows);
                }
            }
            Event::Counted(change) => self.register.counted.note(*change),
            Event::Loss(losses) => {
                self.losses.add(&losses);
                if losses.total() > 0 {
                    self.register.lost = Some(self.register.clocks.ktime);
                }
            }
            Event::Symbol { location, name } => {
                let symbols = &mut self.register.settings.drop_names.symbols;
                symbols.insert(location, name.to_owned());
            }
        }
    }

    /// Ends: a query or connection that is still open becomes a row if it has been open for the
    /// limit, or if its answer was under way; else it is merely unfinished and left out.
    pub fn finish(mut self, rows: &mut Vec<Row>) -> (Unplaced, Losses) {
        let end = self.register.clocks.ktime;
        self.sweep(end, rows);
        let before = rows.len();
        self.unplaced.open = self.dns.finish(&mut self.register.open(rows));
        in_order(rows, before);
        (self.unplaced(), self.losses)
    }

    /// What could not be placed so far.
    pub fn unplaced(&self) -> Unplaced {
        let stream_losses = self.streams.losses();
        Unplaced {
            evicted: self.dns.evicted() + self.connections.evicted() + self.streams.evicted(),
            tcp_gaps: stream_losses.gaps + stream_losses.unsynchronised,
            ..self.unplaced
        }
    }

    /// Whether the name of the code at `location` was told.
    pub fn knows_symbol(&self, location: u64) -> bool {
        let symbols = &self.register.settings.drop_names.symbols;
        symbols.contains_key(&location)
    }

    /// Queries and connections being followed.
    pub fn tracked(&self) -> usize {
        self.dns.len() + self.connections.len()
    }

    fn packet(&mut self, packet: &Packet, rows: &mut Vec<Row>) {
        if !packet.again {
            self.at_hand = None;
        }
        // The entry of a packet that is dropped may never have been inserted.
        if let Some(conntrack) = &packet.conntrack
            && !spot::is_drop(packet)
            && let Some(protocol) = protocol(packet.transport)
        {
            self.nat.learn(protocol, conntrack);
        }
        self.unplaced.cut += u64::from(packet.unreadable);
        if let Place::Refused { .. } = packet.place
            && (packet.transport != Transport::Udp || !self.on_dns_port(packet.flow))
        {
            // The ICMP error itself tells of it.
            return;
        }
        match packet.transport {
            Transport::LaterFragment => self.unplaced.fragments += 1,
            Transport::IcmpError { kind, code } => self.icmp(packet, kind, code, rows),
            Transport::Udp if self.on_dns_port(packet.flow) => {
                self.datagram(packet, rows);
            }
            Transport::Udp => {
                let ends = self.nat.ends(Protocol::Udp, packet);
                let dns_ports = &self.register.settings.dns_ports;
                if ends.forward && dns_ports.contains(&ends.asked.port()) {
                    self.dns.leads_to(ends);
                }
                let mut context = self.register.open(rows);
                self.connections.udp(packet, ends, &mut context);
            }
            Transport::Tcp { flags, seq, .. } => self.segment(packet, flags, seq, rows),
        }
    }

    fn datagram(&mut self, packet: &Packet, rows: &mut Vec<Row>) {
        let (captured, len) = (&packet.payload[..], packet.payload_len as usize);
        self.message(Protocol::Udp, packet, captured, len, rows);
    }

    fn segment(&mut self, packet: &Packet, flags: TcpFlags, seq: u32, rows: &mut Vec<Row>) {
        let dns = self.on_dns_port(packet.flow);
        let ends = if flags.syn() {
            self.nat.ends_of_way(Protocol::Tcp, packet, !flags.ack())
        } else {
            self.nat.ends(Protocol::Tcp, packet)
        };
        let mut context = self.register.open(rows);
        let segment = connections::Segment {
            packet,
            flags,
            seq,
            ends,
            quiet: dns,
        };
        self.connections.tcp(&segment, &mut context);
        if !dns || spot::is_drop(packet) {
            return;
        }
        let key = (packet.flow, Spot::of(packet));
        let mut streams = std::mem::replace(&mut self.streams, Streams::new(1, 0));
        let mut whole = |message: stream::Message<'_>| {
            self.message(
                Protocol::Tcp,
                packet,
                message.captured,
                message.original_len,
                rows,
            );
        };
        if flags.syn() {
            streams.open(&key, seq, packet.ktime.0, &mut whole);
        }
        if packet.payload_len > 0 {
            let len = packet.payload_len as usize;
            streams.push(&key, packet.ktime.0, seq, &packet.payload, len, &mut whole);
        }
        if flags.fin() || flags.rst() {
            streams.remove(&key, &mut whole);
        }
        if flags.rst() {
            streams.remove(&(packet.flow.reversed(), key.1.other_side()), &mut whole);
        }
        self.streams = streams;
    }

    /// One DNS message at one place, whatever carried it.
    fn message(
        &mut self,
        protocol: Protocol,
        packet: &Packet,
        captured: &[u8],
        len: usize,
        rows: &mut Vec<Row>,
    ) {
        self.take_in_hand(protocol, packet, captured, len);
        let Some(AtHand {
            peek,
            ends,
            goes_on,
            ..
        }) = &self.at_hand
        else {
            return;
        };
        let mut seen = dns::Seen {
            protocol,
            packet,
            captured,
            peek,
            ends,
            goes_on: *goes_on,
            client: None,
        };
        if protocol == Protocol::Tcp {
            seen.client = self.connections.client(*ends);
        }
        let mut context = self.register.open(rows);
        self.dns.message(&seen, &mut self.unplaced, &mut context);
    }

    /// Has at hand what is known of a message; nothing where it cannot be read, which is counted.
    fn take_in_hand(&mut self, protocol: Protocol, packet: &Packet, captured: &[u8], len: usize) {
        match &mut self.at_hand {
            // A segment may hold several messages.
            Some(at_hand) if protocol == Protocol::Udp && at_hand.skb == packet.skb => {
                at_hand.goes_on = true;
                // Its ends hold until it is translated.
                if packet.conntrack.is_some() || packet.flow != at_hand.flow {
                    let forward = !at_hand.peek.is_response;
                    let ends = self.nat.ends_of_way(protocol, packet, forward);
                    at_hand.goes_on = ends.client == at_hand.ends.client;
                    (at_hand.flow, at_hand.ends) = (packet.flow, ends);
                }
            }
            _ => match Peek::parse(captured, len) {
                Ok(peek) => {
                    self.at_hand = Some(AtHand {
                        skb: packet.skb,
                        goes_on: false,
                        peek,
                        flow: packet.flow,
                        ends: self.nat.ends_of_way(protocol, packet, !peek.is_response),
                    });
                }
                Err(malformed) => {
                    self.at_hand = None;
                    self.unreadable(protocol, packet, captured, len, malformed);
                }
            },
        }
    }

    /// Counts a message that cannot be read, once for all places that it passes.
    fn unreadable(
        &mut self,
        protocol: Protocol,
        packet: &Packet,
        captured: &[u8],
        len: usize,
        malformed: message::Malformed,
    ) {
        let ends = self.nat.ends(protocol, packet);
        // Without conntrack its direction is not known.
        let ends = (ends.client.min(ends.asked), ends.client.max(ends.asked));
        if self.unreadable.is_first((protocol, ends, len, captured)) {
            match malformed {
                message::Malformed::Cut => self.unplaced.cut += 1,
                _ => self.unplaced.malformed += 1,
            }
        }
    }

    /// An ICMP error tells of the packet it quotes, unless it is lost on its way.
    fn icmp(&mut self, packet: &Packet, kind: u8, code: u8, rows: &mut Vec<Row>) {
        if spot::is_drop(packet) {
            return;
        }
        let Some(quoted) = quote::parse(&packet.payload) else {
            return;
        };
        let cause = words::icmp(packet, kind, code);
        let Some(cause) = cause else { return };
        let dns = self.on_dns_port(quoted.flow);
        let ends = self
            .nat
            .ends_of_quoted(quoted.protocol, packet, quoted.flow);
        let mut context = self.register.open(rows);
        if dns && quoted.protocol == Protocol::Udp {
            if context.settings.dns_ports.contains(&quoted.flow.dst.port()) {
                self.dns
                    .rejected(&quoted, packet, ends, &cause, &mut context);
            }
        } else {
            self.connections
                .rejected(&quoted, packet, ends, dns, &cause, &mut context);
        }
    }

    fn sweep(&mut self, now: KtimeNs, rows: &mut Vec<Row>) {
        let idle = u64::try_from(STREAM_IDLE.as_nanos()).unwrap_or(u64::MAX);
        // What an idle stream still held was a message cut in two; its query times out by itself.
        self.streams.expire(now.0, idle, &mut |_, _| {});
        self.nat.age(now);
        self.inserts.age(now);
        self.unreadable.turn();
        let before = rows.len();
        let mut context = self.register.open(rows);
        self.dns.sweep(now, &mut self.unplaced, &mut context);
        self.connections.sweep(now, &mut context);
        in_order(rows, before);
    }

    fn on_dns_port(&self, flow: Flow) -> bool {
        let (src, dst) = (flow.src.port(), flow.dst.port());
        let mut ports = self.register.settings.dns_ports.iter();
        ports.any(|port| *port == src || *port == dst)
    }
}

/// Sorts what was added since: the tables are in no order, rows are.
fn in_order(rows: &mut [Row], before: usize) {
    if let Some(new) = rows.get_mut(before..) {
        // Rows are large: their numbers are sorted, then each row is moved once.
        new.sort_by_cached_key(Row::serial);
    }
}

fn protocol(transport: Transport) -> Option<Protocol> {
    match transport {
        Transport::Udp => Some(Protocol::Udp),
        Transport::Tcp { .. } => Some(Protocol::Tcp),
        Transport::IcmpError { .. } | Transport::LaterFragment => None,
    }
}
