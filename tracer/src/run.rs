//! The wiring: load, drain, correlate, name, print; the one select loop.
//!
//! Everything runs on one thread: a trace must take little from a node in distress, and one
//! stream of events needs no more.

mod alive;
mod attended;
mod conntrack;
mod doctor;
mod drops;
mod ending;
mod explain;
mod export;
mod feed;
mod filter;
mod hearing;
mod here;
mod join;
mod lag;
mod names;
mod offline;
mod probe;
mod progress;
mod record;
mod replay;
mod shown;
mod sites;
mod verify;

pub use self::{
    alive::alive,
    attended::{BEAT, HERE, INTERRUPT, attended},
    doctor::doctor,
    drops::drops,
    explain::explain,
    export::export,
    replay::{diagnose, report},
    verify::verify,
};

use std::{
    env,
    io::{self, Write as _},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::yield_now,
    time::{Instant, sleep_until},
};

use self::{
    alive::Alive,
    feed::Feed,
    here::Here,
    names::Names,
    progress::Progress,
    shown::{Shown, Wanted, colour},
};
use crate::{
    cli::{LabArgs, NameArgs, Output, RecordArgs, TraceArgs},
    kernel::{self, Drained, Kernel, Status, Stream, clock},
    lab::{Lab, Options as LabOptions},
    model::{Event, Fact, KtimeNs, Losses},
    report::{self, ProbeLine},
};

/// How often the loss counters are read.
const LOSSES_EVERY: Duration = Duration::from_secs(1);

/// How a command ended that did its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Wholly.
    Done,
    /// And found a problem, asked to judge.
    Problem,
    /// But records were lost.
    Incomplete,
}

/// Traces until the time is up or a signal comes.
///
/// # Errors
/// The kernel side cannot be loaded, or output cannot be written.
pub async fn trace(args: &TraceArgs, log: bool) -> Result<Exit> {
    if let Some(fault) = args.fault() {
        bail!(fault);
    }
    let mut end = End::new()?;
    let mut tracing = Tracing::start(args, log)?;
    end.limit(args.duration);
    tracing.until(end).await?;
    tracing.finish()
}

/// Records until the time is up or a signal comes.
///
/// # Errors
/// As [`trace`], or the directory cannot be written to.
pub async fn record(args: &RecordArgs, log: bool) -> Result<Exit> {
    let mut trace_args = args.trace.clone();
    trace_args.record = Some(args.dir.clone());
    trace_args.summary = true;
    trace(&trace_args, log).await
}

/// Builds the lab and traces it; or only holds it, when idle.
///
/// # Errors
/// As [`trace`], or the lab cannot be built or removed.
pub async fn lab(args: &LabArgs, log: bool) -> Result<Exit> {
    if let Some(fault) = args.trace.fault() {
        bail!(fault);
    }
    // From here on a signal ends the lab through its drop, also while it is being built.
    let mut end = End::new()?;
    let program = env::current_exe().context("find this program's own file")?;
    let options = LabOptions {
        prefix: args.prefix.clone(),
        program,
    };
    let lab = Lab::build(&options).context("build the lab")?;
    if args.idle {
        tell("lab ready");
        end.limit(args.trace.duration);
        end.reached().await;
        lab.remove().context("remove the lab")?;
        return Ok(Exit::Done);
    }
    // The lab is no cluster: its addresses may be some cluster's.
    let names = NameArgs {
        no_api: args.trace.names.kubeconfig.is_none(),
        alone: true,
        ..args.trace.names.clone()
    };
    let trace = TraceArgs {
        names,
        ..args.trace.clone()
    };
    let mut tracing = Tracing::start(&trace, log)?;
    let traffic = lab.traffic().context("start the lab's traffic")?;
    end.limit(args.trace.duration);
    tracing.until(end).await?;
    drop(traffic);
    let exit = tracing.finish();
    lab.remove().context("remove the lab")?;
    exit
}

/// Prints each probe and whether the kernel takes it.
///
/// # Errors
/// The kernel side cannot be loaded, or output cannot be written.
pub fn probes(output: Output) -> Result<Exit> {
    let options = kernel::Options {
        dns_ports: vec![53],
        connections: true,
        paths: true,
        headers: false,
        vips: Vec::new(),
        ring_bytes: 4096,
        log: false,
    };
    let (kernel, _stream) = Kernel::load(&options)?;
    let mut out = io::stdout().lock();
    for state in kernel.probes() {
        let (status, by, why) = match &state.status {
            Status::Attached(kind) => ("attached", Some(kind.name()), None),
            Status::NotInKernel => (
                "not_in_kernel",
                None,
                Some("this kernel has no such tracepoint"),
            ),
            Status::Refused(why) => ("refused", None, Some(why.as_str())),
        };
        let line = ProbeLine {
            r#type: "probe",
            name: state.probe.name,
            status,
            by,
            why,
            shows: state.probe.unseen,
        };
        report::probe(output == Output::Json, &line, &mut out)?;
    }
    for spot in kernel.blind_spots() {
        tell(&format!("not seen: {spot}"));
    }
    Ok(Exit::Done)
}

/// What ends a trace.
struct End {
    at: Option<Instant>,
    /// How long it is until then from the start.
    length: Option<Duration>,
    interrupt: Signal,
    terminate: Signal,
}

impl End {
    /// Signals count from here on; time, from [`End::limit`] on.
    fn new() -> Result<Self> {
        let on = |kind| signal(kind).context("listen for signals");
        let (interrupt, terminate) = (on(SignalKind::interrupt())?, on(SignalKind::terminate())?);
        Ok(Self {
            at: None,
            length: None,
            interrupt,
            terminate,
        })
    }

    /// Starts the clock.
    fn limit(&mut self, duration: Option<Duration>) {
        self.length = duration;
        self.at = duration.map(|duration| Instant::now() + duration);
    }

    async fn reached(&mut self) {
        let time = async {
            match self.at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = time => {}
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// A trace under way.
struct Tracing {
    kernel: Kernel,
    stream: Stream,
    logger: Option<kernel::Logger>,
    feed: Feed,
    shown: Shown<Here>,
    losses_read: Instant,
    alive: Option<Alive>,
}

impl Tracing {
    fn start(args: &TraceArgs, log: bool) -> Result<Self> {
        let mut names = Names::start(&args.names)?;
        names.follow_rules();
        let (mut kernel, stream) = Kernel::load(&kernel::Options {
            dns_ports: args.dns_port.clone(),
            connections: args.wants_connections(),
            paths: args.path,
            headers: args.record.is_some(),
            vips: args.vip.clone(),
            ring_bytes: args.ring_kib * 1024,
            log,
        })?;
        if kernel
            .probes()
            .iter()
            .all(|state| !matches!(state.status, Status::Attached(_)))
        {
            bail!(kernel::Error::NoProbe);
        }
        let session = record::session(args, &kernel, &names);
        let recorder = match &args.record {
            Some(dir) => Some(record::begin(dir, args, &session)?),
            None => None,
        };
        let alive = args.pod.alive.as_deref().map(Alive::start).transpose()?;
        let logger = if log { kernel.logger() } else { None };
        let mut shown = Shown::new(Wanted::live(args), names);
        shown.unseen(&session.unseen);
        conntrack::watch_own(&mut shown.names.local);
        shown.warn_of_unknown_netns();
        shown.names.tell_notice();
        let mut tracing = Self {
            kernel,
            stream,
            logger,
            feed: Feed::new(feed::settings(&session), recorder),
            shown,
            losses_read: Instant::now(),
            alive,
        };
        tracing.tick(clock::ktime());
        tell("tracing");
        Ok(tracing)
    }

    async fn until(&mut self, mut end: End) -> Result<()> {
        let mut more = false;
        // Where no lines tell that it goes on.
        let mut progress = Progress::new("tracing", self.shown.is_silent());
        loop {
            tokio::select! {
                biased;
                () = end.reached() => return Ok(()),
                () = yield_now(), if more => {}
                ready = self.stream.ready(), if !more => ready?,
                () = self.shown.names.hear(self.feed.recorder.as_mut()) => {}
            }
            more = self.step()?;
            progress.at(end.length);
            if let Some(logger) = &mut self.logger {
                logger.flush();
            }
        }
    }

    /// One batch; whether more is waiting.
    fn step(&mut self) -> Result<bool> {
        let Self {
            stream,
            feed,
            shown,
            ..
        } = self;
        let node = &mut shown.names.local;
        let mut news = false;
        let Drained { until, more } = stream.drain(&mut |fact: &Fact| {
            news |= conntrack::is_met(fact, node);
            feed.fact(fact, node);
        });
        // Time goes no further than what was read: with a backlog, answers may be in it.
        self.tick(until);
        if news {
            conntrack::tell(&mut self.shown.names.local, &mut self.feed);
        }
        if self.losses_read.elapsed() >= LOSSES_EVERY {
            self.losses_read = Instant::now();
            self.count_losses()?;
            if let Some(alive) = &self.alive {
                alive.tell();
            }
        }
        let Feed { rows, recorder, .. } = &mut self.feed;
        self.shown.rows(rows, recorder.as_mut())?;
        if let Some(recorder) = recorder {
            recorder.flush();
        }
        Ok(more)
    }

    /// Time has come to `then`.
    fn tick(&mut self, then: KtimeNs) {
        let tick = clock::tick_at(then);
        if let Event::Tick { ktime, wall } = tick {
            self.shown.names.tick(ktime, wall);
        }
        self.feed.apply(tick);
    }

    fn count_losses(&mut self) -> Result<()> {
        conntrack::tell(&mut self.shown.names.local, &mut self.feed);
        let mut losses: Losses = self.kernel.losses()?;
        losses.add(&self.stream.losses());
        if let Some(recorder) = &mut self.feed.recorder {
            losses.add(&recorder.losses());
        }
        self.feed.apply(Event::Loss(losses));
        Ok(())
    }

    fn finish(mut self) -> Result<Exit> {
        let Self {
            stream,
            feed,
            shown,
            ..
        } = &mut self;
        stream.finish(&mut |fact: &Fact| feed.fact(fact, &mut shown.names.local));
        self.tick(clock::ktime());
        self.count_losses()?;
        let (unplaced, mut losses) = self.feed.finish();
        let Feed { rows, recorder, .. } = &mut self.feed;
        self.shown.all_rows(rows, recorder.as_mut())?;
        if let Some(recorder) = recorder.take() {
            losses.add(&recorder.finish());
        }
        self.shown.names.finish();
        self.shown.tables();
        self.shown.trace.unplaced = unplaced;
        self.shown.trace.losses = losses;
        let length = self.feed.length();
        self.shown.summary(length)
    }
}

/// One line to the person at the terminal; stdout is for the answer.
fn tell(line: &str) {
    // Whoever closed it does not want it.
    let _ = writeln!(io::stderr(), "{line}");
}
