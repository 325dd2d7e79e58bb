//! `tracer drops`: has the kernel count drops by group, and prints what it counted.

use std::{
    io::{self, BufWriter, Write as _},
    time::Duration,
};

use anyhow::{Result, bail};
use tokio::time::{Instant, interval_at};

use super::{End, Exit, here::Here, names::Names, shown::format, tell};
use crate::{
    cli::DropsArgs,
    kernel::{self, DropTables, Kernel, Status, clock},
    model::{
        Event, KtimeNs, Losses, Protocol, WallNs,
        change::Kind,
        drops::{Carried, DropCount, DropGroup, DropNames, Drops, NamedDrops, is_netfilter, usual},
        index::Standing,
    },
    report::{self, DropsSummary, Format, Zone},
};

/// How often the kernel's tables are read at the least: they hold 2048 groups each.
const READ_EVERY: Duration = Duration::from_secs(5);

/// Counts drops until the time is up or a signal comes.
///
/// # Errors
/// The kernel side cannot be loaded, or output cannot be written.
pub async fn drops(args: &DropsArgs) -> Result<Exit> {
    let mut end = End::new()?;
    let mut counting = Counting::start(args)?;
    end.limit(args.duration);
    let timer = |every: Duration| interval_at(Instant::now() + every, every);
    let mut read = timer(READ_EVERY);
    let mut show = timer(args.every.unwrap_or(READ_EVERY));
    loop {
        tokio::select! {
            biased;
            () = end.reached() => break,
            _ = show.tick(), if args.every.is_some() => {
                counting.read()?;
                counting.show()?;
            }
            _ = read.tick() => counting.read()?,
            () = counting.names.hear(None) => {}
        }
    }
    counting.finish(args.every.is_some())
}

/// Drops being counted.
struct Counting {
    kernel: Kernel,
    tables: DropTables,
    reasons: DropNames,
    names: Names<Here>,
    netns: Vec<String>,
    format: Format,
    out: BufWriter<io::Stdout>,
    /// Since the last table shown.
    lately: Drops,
    shown_at: Instant,
    /// Since the beginning.
    all: Drops,
    losses: Losses,
    began: Instant,
}

impl Counting {
    fn start(args: &DropsArgs) -> Result<Self> {
        let (kernel, tables) = DropTables::load(&args.vip)?;
        if !kernel
            .probes()
            .iter()
            .any(|state| matches!(state.status, Status::Attached(_)))
        {
            bail!(kernel::Error::NoProbe);
        }
        let reasons = kernel.drop_names();
        let mut names = Names::start(&args.names)?;
        tell("counting drops");
        names.tell_notice();
        Ok(Self {
            kernel,
            tables,
            reasons,
            names,
            netns: args.netns.clone(),
            format: format(args.output, Zone::Local),
            out: BufWriter::with_capacity(64 << 10, io::stdout()),
            lately: Drops::default(),
            shown_at: Instant::now(),
            all: Drops::default(),
            losses: Losses::default(),
            began: Instant::now(),
        })
    }

    fn read(&mut self) -> Result<()> {
        if let Event::Tick { ktime, wall } = clock::tick() {
            self.names.tick(ktime, wall);
        }
        let (lately, all) = (&mut self.lately, &mut self.all);
        let node = &mut self.names.local;
        self.tables.take(&mut |group, count| {
            // Asked while it lives: the answer is kept.
            node.netns(group.netns);
            lately.add(group, count);
            all.add(group, count);
        })?;
        let losses = self.kernel.losses()?;
        self.losses.add(&losses);
        Ok(())
    }

    /// Prints what came since the last time.
    fn show(&mut self) -> Result<()> {
        let seconds = self.shown_at.elapsed().as_secs_f64();
        self.shown_at = Instant::now();
        let lately = std::mem::take(&mut self.lately);
        self.print(&lately, seconds)
    }

    fn print(&mut self, drops: &Drops, seconds: f64) -> Result<()> {
        let (now, named) = self.named(drops);
        report::drops(self.format, now, &named, seconds, &mut self.out)?;
        self.out.flush()?;
        Ok(())
    }

    /// Drops with names, those of most packets first; and the time.
    fn named(&mut self, drops: &Drops) -> (WallNs, Vec<NamedDrops>) {
        let Event::Tick { ktime, wall } = clock::tick() else {
            return (WallNs::default(), Vec::new());
        };
        let mut merged = Drops::default();
        for (group, count) in &drops.groups {
            merged.add(self.without_idle_hook(*group), *count);
        }
        let mut named: Vec<_> = merged
            .groups
            .into_iter()
            .map(|(group, count)| self.name(group, count, ktime, wall))
            .collect();
        named.retain(|named| self.wants(named));
        named.sort_by_key(|named| (named.usual.is_some(), u64::MAX - named.count.packets));
        (wall, named)
    }

    fn without_idle_hook(&mut self, group: DropGroup) -> DropGroup {
        let symbol = self.names.local.symbol(group.location);
        let told = is_netfilter(&self.reasons.reason(group.reason), symbol.as_deref());
        DropGroup {
            hook: group.hook.filter(|_| told),
            ..group
        }
    }

    fn name(
        &mut self,
        group: DropGroup,
        count: DropCount,
        ktime: KtimeNs,
        wall: WallNs,
    ) -> NamedDrops {
        let reason = self.reasons.reason(group.reason);
        let ago = i64::try_from((ktime - count.last).as_nanos()).unwrap_or(i64::MAX);
        let last = WallNs(wall.0.saturating_sub(ago));
        let protocol = match group.carried {
            Carried::Ip(6) => Protocol::Tcp,
            _ => Protocol::Udp,
        };
        let ends = count
            .flow
            .map(|flow| [flow.src, flow.dst].map(|end| self.names.end(end.ip(), last)));
        NamedDrops {
            usual: usual(&reason, group.carried),
            reason: reason.into(),
            ends: ends.unwrap_or_default(),
            service: group
                .service
                .and_then(|asked| self.names.service(asked, protocol, last)),
            symbol: self.names.local.symbol(group.location),
            netns: (group.netns.0 != 0).then(|| self.names.local.netns(group.netns)),
            last,
            group,
            count,
        }
    }

    fn wants(&self, named: &NamedDrops) -> bool {
        let inode = named.group.netns.0.to_string();
        let from = |wanted: &String| named.netns.as_deref() == Some(wanted) || inode == *wanted;
        self.netns.is_empty() || self.netns.iter().any(from)
    }

    fn finish(mut self, shown: bool) -> Result<Exit> {
        self.read()?;
        let length = self.began.elapsed().as_secs_f64();
        // With tables of intervals, JSON has said all but the last interval already.
        if shown && self.format == Format::Json {
            self.show()?;
        } else {
            let all = std::mem::take(&mut self.all);
            self.print(&all, length)?;
            self.all = all;
        }
        let all = std::mem::take(&mut self.all);
        let (_, named) = self.named(&all);
        let summary = DropsSummary {
            seconds: length,
            drops: &named,
            beyond: all.beyond,
            losses: self.losses,
            unseen: &self.unseen(),
        };
        let lost = summary.lost();
        report::drops_summary(self.format, &summary, &mut self.out)?;
        self.out.flush()?;
        self.names.finish();
        Ok(if lost > 0 {
            Exit::Incomplete
        } else {
            Exit::Done
        })
    }

    fn unseen(&self) -> Vec<String> {
        let mut unseen = self.kernel.unseen_of_drops();
        if self.names.local.symbols_are_hidden() {
            unseen.push(
                "names of kernel code: reading them needs CAP_SYSLOG, and kernel.kptr_restrict below 2"
                    .to_owned(),
            );
        }
        unseen.extend(self.unheard());
        unseen
    }

    /// What the API server was asked for and never said.
    fn unheard(&self) -> Option<String> {
        let api = self.names.api()?;
        let silent = api.kinds.iter().find_map(|(kind, standing)| {
            let why = match standing {
                Standing::Awaited => "it has not answered yet",
                Standing::Lost {
                    why, listed: false, ..
                } => why,
                Standing::Watched { .. } | Standing::Lost { .. } => return None,
            };
            let counts = matches!(kind, Kind::Pods | Kind::Services);
            counts.then(|| why.to_owned())
        })?;
        let server = api.server.as_deref().unwrap_or("the API server");
        Some(format!("names that {server} knows: {silent}"))
    }
}
