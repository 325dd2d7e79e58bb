//! A session's packets, each with what is said of it, into a capture.

use std::{collections::VecDeque, time::Duration};

use anyhow::Result;
use rustc_hash::FxHashMap;

use super::{
    super::{
        feed::{Feed, settings},
        filter::Filter,
        names::Names,
        replay::{Batches, learn},
    },
    Counts, Out,
    claims::{Claim, Claims},
};
use crate::{
    cli::ExportArgs,
    export::{Capture, Section, original_len},
    model::{Fact, Ifindex, KtimeNs, NetnsInode, Packet, Place, Row, WallNs, drops::DropNames},
    record::{self, Recorded, Session},
    report::{self, Format, Zone},
};

/// How much longer than a query may go unanswered a packet waits for its row.
const GRACE: Duration = Duration::from_secs(2);

/// What a section says of its session.
pub(super) struct SectionOf {
    machine: String,
    system: String,
    program: String,
    comment: String,
}

impl SectionOf {
    pub(super) fn new(session: &Session) -> Self {
        let Session {
            id,
            node,
            tracer,
            kernel,
            machine,
            ..
        } = session;
        Self {
            machine: machine.clone(),
            system: format!("Linux {kernel}"),
            program: format!("tracer {tracer}"),
            comment: format!(
                "node {node}, recording {id}. Packets begin at their network header: link layers were not captured. A packet is here once for each place at which it was seen; an interface is called after its network namespace and device."
            ),
        }
    }

    pub(super) fn words(&self) -> Section<'_> {
        Section {
            machine: &self.machine,
            system: &self.system,
            program: &self.program,
            comment: &self.comment,
        }
    }
}

/// A session being exported.
pub(super) struct Export {
    out: Out,
    feed: Feed,
    names: Names<record::Names>,
    drop_names: DropNames,
    filter: Filter,
    /// Rows are chosen; packets of others are left out.
    choosy: bool,
    interfaces: FxHashMap<(NetnsInode, Ifindex), u32>,
    claims: Claims,
    /// Packets whose row may still come, and when they were seen.
    held: VecDeque<(Packet, WallNs)>,
    hold: Duration,
    /// The latest tick.
    clock: (KtimeNs, WallNs),
    batches: Batches,
}

impl Export {
    pub(super) fn new(args: &ExportArgs, session: &Session, out: Out) -> Self {
        let mut settings = settings(session);
        // Stages are told of each packet, whoever asked for them.
        settings.paths = true;
        let hold = settings.unanswered_after + GRACE;
        Self {
            out,
            drop_names: session.drop_names(),
            claims: Claims::new(&settings.dns_ports),
            feed: Feed::new(settings, None),
            names: Names::new(record::Names::default(), session.api.clone(), session.rules),
            filter: Filter::new(&args.rows),
            choosy: !args.rows.is_empty(),
            interfaces: FxHashMap::default(),
            held: VecDeque::new(),
            hold,
            clock: Default::default(),
            batches: Batches::default(),
        }
    }

    pub(super) fn event(&mut self, event: Recorded, counts: &mut Counts) -> Result<()> {
        if self.batches.end_before(&event) {
            self.claim()?;
        }
        if let Some(event) = event.event() {
            self.feed.apply(event);
        }
        match &event {
            Recorded::Fact(Fact::Packet(packet)) if packet.headers.is_empty() => counts.bare += 1,
            Recorded::Fact(Fact::Packet(packet)) => {
                let wall = self.wall(packet.ktime);
                self.held.push_back((packet.clone(), wall));
            }
            Recorded::Tick { ktime, wall } => {
                self.clock = (*ktime, *wall);
                let until = KtimeNs(ktime.0.saturating_sub(nanos(self.hold)));
                self.write(until, counts)?;
            }
            Recorded::Symbol { location, name } => {
                let symbols = &mut self.drop_names.symbols;
                symbols.insert(*location, name.to_string());
            }
            _ => {}
        }
        learn(&mut self.names, event);
        Ok(())
    }

    /// Takes the rows that are finished.
    fn claim(&mut self) -> Result<()> {
        let mut rows = std::mem::take(&mut self.feed.rows);
        for row in rows.drain(..) {
            let claim = self.told(&row)?;
            self.claims.add(&row, claim);
        }
        self.feed.rows = rows;
        Ok(())
    }

    /// What is said of the packets of `row`: the line that a trace prints.
    fn told(&mut self, row: &Row) -> Result<Claim> {
        let named = self.names.of(row);
        let format = Format::Text {
            colour: false,
            zone: Zone::Utc,
        };
        let mut text = Vec::new();
        report::row(format, row, &named, &mut text)?;
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().next().unwrap_or_default();
        let kind = match row {
            Row::Dns(_) => "exchange",
            Row::Connection(_) => "connection",
        };
        Ok(Claim {
            line: format!("{kind} {}: {}", row.serial(), line.trim_end()),
            wanted: self.filter.wants(row, &named),
        })
    }

    /// Writes what was seen before `until`.
    fn write(&mut self, until: KtimeNs, counts: &mut Counts) -> Result<()> {
        while let Some((packet, wall)) = self.held.pop_front_if(|(packet, _)| packet.ktime < until)
        {
            self.packet(&packet, wall, counts)?;
        }
        self.claims.forget(until);
        Ok(())
    }

    fn packet(&mut self, packet: &Packet, wall: WallNs, counts: &mut Counts) -> Result<()> {
        let claim = self.claims.of(packet);
        if self.choosy && !claim.as_ref().is_some_and(|(claim, _)| claim.wanted) {
            counts.unwanted += 1;
            return Ok(());
        }
        let mut comments = Vec::new();
        if let Some((claim, stage)) = claim {
            comments.push(claim.line.clone());
            comments.extend(stage);
        }
        self.place(packet, &mut comments);
        let interface = self.interface(packet.netns, packet.ifindex)?;
        counts.packets += 1;
        let captured = packet.headers.len() + packet.payload.len();
        counts.truncated += u64::from((original_len(packet) as usize) > captured);
        let capture = Capture {
            wall,
            packet,
            comments: &comments,
        };
        Ok(self.out.packet(interface, &capture)?)
    }

    /// By the latest tick, as all times of a recording are.
    fn wall(&self, ktime: KtimeNs) -> WallNs {
        let (then, wall) = self.clock;
        let since = i128::from(ktime.0) - i128::from(then.0);
        WallNs(i64::try_from(i128::from(wall.0) + since).unwrap_or(0))
    }

    /// Where it was seen, as far as its interface does not tell.
    fn place(&self, packet: &Packet, comments: &mut Vec<String>) {
        match packet.place {
            Place::Queued | Place::Received => {}
            Place::Dropped {
                reason,
                location,
                hook,
            } => {
                let symbol = self.drop_names.symbols.get(&location);
                let at = symbol.map(|symbol| format!(" at {symbol}"));
                let hook = hook.map(|hook| format!(", hook {}", hook.name()));
                let words = format!(
                    "dropped here: {}{}{}",
                    self.drop_names.reason(reason),
                    at.unwrap_or_default(),
                    hook.unwrap_or_default()
                );
                comments.push(words);
            }
            Place::Refused { kind, code } => comments.push(format!(
                "refused here with an ICMP error of type {kind}, code {code}"
            )),
        }
        if let Some(sender) = &packet.sender
            && let Some(pid) = sender.pid
        {
            comments.push(format!("sent by {}[{pid}]", sender.comm));
        }
        if let Some(tunnel) = &packet.tunnel {
            comments.push(format!(
                "carried by {} from {} to {}, network {}: its outer headers were not captured",
                tunnel.kind.name(),
                tunnel.src,
                tunnel.dst,
                tunnel.network
            ));
        }
        if packet.unreadable {
            comments.push("part of it lay where it could not be read".to_owned());
        }
    }

    fn interface(&mut self, netns: NetnsInode, ifindex: Ifindex) -> Result<u32> {
        if let Some(number) = self.interfaces.get(&(netns, ifindex)) {
            return Ok(*number);
        }
        let site = self.names.local.site(netns, ifindex);
        let (name, device) = (&site.name, site.device.as_deref());
        let device = match (device, ifindex.0) {
            (Some(device), _) => device.to_owned(),
            (None, 0) => "no device".to_owned(),
            (None, index) => format!("device {index}"),
        };
        let described = format!(
            "network namespace {name} (inode {}), {device} (index {})",
            netns.0, ifindex.0
        );
        let number = self
            .out
            .interface(&format!("{name}/{device}"), &described)?;
        self.interfaces.insert((netns, ifindex), number);
        Ok(number)
    }

    /// Writes what is left; the file.
    pub(super) fn finish(mut self, counts: &mut Counts) -> Result<Out> {
        self.feed.finish();
        self.claim()?;
        self.write(KtimeNs(u64::MAX), counts)?;
        Ok(self.out)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
