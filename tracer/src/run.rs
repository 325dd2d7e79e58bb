//! The wiring: load, drain, correlate, name, print; the one select loop.
//!
//! Everything runs on one thread: a trace must take little from a node in distress, and one
//! stream of events needs no more.

mod conntrack;
mod doctor;
mod drops;
mod ending;
mod explain;
mod filter;
mod names;
mod progress;
mod shown;
mod verify;

pub use self::{doctor::doctor, drops::drops, explain::explain, verify::verify};

use std::{
    env,
    io::{self, Write as _},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::yield_now,
    time::{Instant, sleep_until},
};

use crate::{
    cli::{LabArgs, NameArgs, Output, TraceArgs},
    correlate::{Correlator, Settings},
    kernel::{self, Drained, Kernel, Status, Stream, clock},
    lab::{Lab, Options as LabOptions},
    model::{Event, Fact, Losses, Place, Row, WallNs},
    node::Node,
    report::{self, ProbeLine},
};

use self::{
    names::Names,
    progress::Progress,
    shown::{Shown, colour, format},
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
    correlator: Correlator,
    shown: Shown,
    rows: Vec<Row>,
    losses_read: Instant,
    began: Instant,
}

impl Tracing {
    fn start(args: &TraceArgs, log: bool) -> Result<Self> {
        let names = Names::start(&args.names)?;
        let (mut kernel, stream) = Kernel::load(&kernel::Options {
            dns_ports: args.dns_port.clone(),
            connections: args.wants_connections(),
            paths: args.path,
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
        let settings = Settings {
            dns_ports: args.dns_port.clone(),
            vips: args.vip.clone(),
            unanswered_after: args.unanswered_after,
            keep: args.unanswered_after + Duration::from_secs(9),
            tracked: args.tracked as usize,
            paths: args.path,
            drop_names: kernel.drop_names(),
        };
        let mut correlator = Correlator::new(settings);
        let mut rows = Vec::new();
        correlator.apply(clock::tick(), &mut rows);
        let logger = if log { kernel.logger() } else { None };
        let mut shown = Shown::new(args, names, kernel.unseen());
        conntrack::watch_own(&mut shown.names.node);
        shown.warn_of_unknown_netns();
        shown.names.tell_notice();
        tell("tracing");
        let began = Instant::now();
        Ok(Self {
            kernel,
            stream,
            logger,
            correlator,
            shown,
            rows,
            losses_read: began,
            began,
        })
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
                () = self.shown.names.hear() => {}
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
            correlator,
            rows,
            shown,
            ..
        } = self;
        let mut news = false;
        let Drained { until, more } = stream.drain(&mut |fact: &Fact| {
            tell_symbol(fact, &mut shown.names.node, correlator, rows);
            news |= conntrack::is_met(fact, &mut shown.names.node);
            correlator.apply(Event::Fact(fact), rows);
        });
        // Time goes no further than what was read: with a backlog, answers may be in it.
        correlator.apply(clock::tick_at(until), rows);
        if news {
            conntrack::tell(&mut shown.names.node, correlator, rows);
        }
        if self.losses_read.elapsed() >= LOSSES_EVERY {
            self.losses_read = Instant::now();
            self.count_losses()?;
        }
        self.shown.rows(&mut self.rows)?;
        Ok(more)
    }

    fn count_losses(&mut self) -> Result<()> {
        conntrack::tell(
            &mut self.shown.names.node,
            &mut self.correlator,
            &mut self.rows,
        );
        let mut losses: Losses = self.kernel.losses()?;
        losses.add(&self.stream.losses());
        self.correlator.apply(Event::Loss(losses), &mut self.rows);
        Ok(())
    }

    fn finish(mut self) -> Result<Exit> {
        let Self {
            stream,
            correlator,
            rows,
            shown,
            ..
        } = &mut self;
        stream.finish(&mut |fact: &Fact| {
            tell_symbol(fact, &mut shown.names.node, correlator, rows);
            correlator.apply(Event::Fact(fact), rows);
        });
        correlator.apply(clock::tick(), rows);
        self.count_losses()?;
        let (unplaced, losses) = self.correlator.finish(&mut self.rows);
        self.shown.all_rows(&mut self.rows)?;
        self.shown.trace.conntrack = self.shown.names.node.conntrack_totals();
        self.shown.trace.unplaced = unplaced;
        self.shown.trace.losses = losses;
        self.shown.summary(self.began.elapsed())
    }
}

/// Names the code that dropped a packet, where that is new to the correlator.
fn tell_symbol(fact: &Fact, node: &mut Node, correlator: &mut Correlator, rows: &mut Vec<Row>) {
    if let Fact::Packet(packet) = fact
        && let Place::Dropped { location, .. } = packet.place
        && !correlator.knows_symbol(location)
        && let Some(name) = node.symbol(location)
    {
        let name = &name;
        correlator.apply(Event::Symbol { location, name }, rows);
    }
}

/// One line to the person at the terminal; stdout is for the answer.
fn tell(line: &str) {
    // Whoever closed it does not want it.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Now by the wall clock.
fn wall_now() -> WallNs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = since.unwrap_or_default().as_nanos();
    WallNs(i64::try_from(since).unwrap_or(i64::MAX))
}
