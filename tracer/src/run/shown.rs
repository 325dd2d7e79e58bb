//! Rows on their way out: chosen, named, added up, printed; live or replayed.

use std::{
    env,
    io::{self, BufWriter, IsTerminal as _, Write},
    time::Duration,
};

use anyhow::Result;

use super::{
    Exit, ending,
    filter::Filter,
    here::Here,
    names::{Local, Names},
    tell,
};
use crate::{
    cli::{DiagnoseArgs, Output, ReplayArgs, ReportArgs, ToldArgs, TraceArgs, TraceOutput},
    diagnose::Diagnoses,
    model::{Finding, Named, Row, Trace},
    record::{Asked, Recorder},
    report::{self, Format, Whole, Zone},
};

/// Most rows that are held back until names are known.
const HELD: usize = 16_384;

/// Which rows are wanted, and how they are shown.
pub(super) struct Wanted {
    dns: bool,
    connections: bool,
    netns: Vec<String>,
    filter: Filter,
    each: bool,
    output: TraceOutput,
    told: ToldArgs,
    format: Format,
}

impl Wanted {
    /// Of a trace.
    pub(super) fn live(args: &TraceArgs) -> Self {
        Self {
            dns: args.wants_dns(),
            connections: args.wants_connections(),
            netns: args.netns.clone(),
            filter: Filter::new(&args.rows),
            each: !args.summary && args.output != TraceOutput::Html,
            output: args.output,
            told: args.told.clone(),
            format: told_as(args.output, Zone::Local),
        }
    }

    /// Of recordings; each says itself whether it is of DNS, connections or both.
    pub(super) fn replayed(args: &ReportArgs) -> Self {
        Self {
            each: !args.summary && args.output != TraceOutput::Html,
            output: args.output,
            told: args.told.clone(),
            format: told_as(args.output, Zone::Utc),
            ..Self::none_shown(&args.replay)
        }
    }

    /// Of recordings, to be diagnosed only.
    pub(super) fn diagnosed(args: &DiagnoseArgs) -> Self {
        Self {
            format: format(args.output, Zone::Utc),
            ..Self::none_shown(&args.replay)
        }
    }

    fn wants(&self, row: &Row, named: &Named) -> bool {
        let kind = match row {
            Row::Dns(_) => self.dns,
            Row::Connection(_) => self.connections,
        };
        kind && self.is_from(row, named) && self.filter.wants(row, named)
    }

    /// Whether it is of one of the namespaces that were asked for, by name or inode.
    fn is_from(&self, row: &Row, named: &Named) -> bool {
        if self.netns.is_empty() {
            return true;
        }
        let inode = row.client().netns.map(|inode| inode.0.to_string());
        let mut wanted = self.netns.iter();
        wanted
            .any(|wanted| named.netns.as_deref() == Some(wanted) || inode.as_ref() == Some(wanted))
    }

    fn none_shown(args: &ReplayArgs) -> Self {
        Self {
            dns: true,
            connections: true,
            netns: args.netns.clone(),
            filter: Filter::new(&args.rows),
            each: false,
            output: TraceOutput::default(),
            told: ToldArgs::default(),
            format: told_as(TraceOutput::default(), Zone::Utc),
        }
    }
}

pub(super) struct Shown<L> {
    wanted: Wanted,
    pub(super) names: Names<L>,
    pub(super) trace: Trace,
    diagnoses: Diagnoses,
    unseen: Vec<String>,
    out: BufWriter<io::Stdout>,
}

impl Shown<Here> {
    /// A namespace may yet come, so its name may be right; more likely it is not.
    pub(super) fn warn_of_unknown_netns(&mut self) {
        for name in &self.wanted.netns {
            if !self.names.local.knows_netns(name) {
                tell(&format!(
                    "no network namespace is called {name} now: see `ip netns`"
                ));
            }
        }
    }
}

impl<L: Local> Shown<L> {
    pub(super) fn new(wanted: Wanted, names: Names<L>) -> Self {
        Self {
            wanted,
            names,
            trace: Trace::default(),
            diagnoses: Diagnoses::default(),
            unseen: Vec::new(),
            out: BufWriter::with_capacity(64 << 10, io::stdout()),
        }
    }

    /// Whether nothing is printed before the end.
    pub(super) fn is_silent(&self) -> bool {
        !self.wanted.each
    }

    /// Things that cannot be seen, in words; each is told once.
    pub(super) fn unseen(&mut self, unseen: &[String]) {
        for what in unseen {
            if !self.unseen.contains(what) {
                self.unseen.push(what.clone());
            }
        }
    }

    /// The rows that follow come from a recording of which `asked` was asked.
    pub(super) fn of(&mut self, asked: &Asked) {
        self.wanted.dns = asked.dns;
        self.wanted.connections = asked.connections;
    }

    /// Shows `rows`, and has them recorded; leaves them for a moment at the start, until names are
    /// known.
    pub(super) fn rows(
        &mut self,
        rows: &mut Vec<Row>,
        recorder: Option<&mut Recorder>,
    ) -> io::Result<()> {
        if rows.is_empty() || (rows.len() < HELD && !self.names.are_settled()) {
            return Ok(());
        }
        self.all_rows(rows, recorder)
    }

    /// Shows `rows`, whatever is known.
    pub(super) fn all_rows(
        &mut self,
        rows: &mut Vec<Row>,
        mut recorder: Option<&mut Recorder>,
    ) -> io::Result<()> {
        let Self {
            wanted,
            names,
            trace,
            diagnoses,
            out,
            ..
        } = self;
        let mut trace = trace.adding();
        for row in &*rows {
            names.packet(row);
            let mut named = names.local.name(row);
            if let Some(recorder) = &mut recorder {
                // Whoever reads it may want other rows.
                let sites = names.sites(row);
                recorder.names(row, &named, sites.as_deref().unwrap_or_default());
            }
            names.join(row, &mut named);
            if wanted.wants(row, &named) {
                named.sites = names.sites(row);
                trace.add(row, &named);
                diagnoses.add(row, &named);
                if wanted.each {
                    report::row(wanted.format, row, &named, out)?;
                }
            }
            if let Some(recorder) = &mut recorder {
                recorder.row(row, &named);
            }
        }
        drop(trace);
        rows.clear();
        self.out.flush()
    }

    /// Shows a row that has its names, of a recording of which `asked` was asked.
    pub(super) fn row(&mut self, asked: &Asked, row: &Row, named: &Named) -> io::Result<()> {
        self.of(asked);
        if self.wanted.wants(row, named) {
            self.trace.add(row, named);
            self.diagnoses.add(row, named);
            if self.wanted.each {
                report::row(self.wanted.format, row, named, &mut self.out)?;
            }
        }
        Ok(())
    }

    /// Takes what is known of the node's conntrack tables and of the API server by now.
    pub(super) fn tables(&mut self) {
        let tables = self.names.local.conntrack_totals();
        self.trace.conntrack.extend(tables);
        if let Some(api) = self.names.api() {
            self.trace.api = Some(api);
        }
        self.trace.lag = self.names.lag();
    }

    pub(super) fn summary(mut self, length: Duration) -> Result<Exit> {
        self.trace.ready = self.names.ready(&self.trace);
        self.trace.spreads = self.names.spreads(&self.trace);
        let findings = self.found();
        let whole = Whole {
            trace: &self.trace,
            seconds: length.as_secs_f64(),
            findings: &findings,
            unseen: &self.unseen,
        };
        let Wanted {
            output,
            format,
            told,
            ..
        } = &self.wanted;
        ending::tell(*output, *format, told, &whole, &mut self.out)?;
        Ok(if self.trace.is_incomplete() {
            Exit::Incomplete
        } else {
            Exit::Done
        })
    }

    fn found(&self) -> Vec<Finding> {
        let Self { trace, names, .. } = self;
        let left = |asked, backend| names.has_left(trace, asked, backend);
        self.diagnoses.findings(&trace.breakdown, &left)
    }

    /// What was found wrong, and nothing else.
    pub(super) fn findings(mut self) -> Result<Exit> {
        let findings = self.found();
        ending::findings(self.wanted.format, &findings, &mut self.out)?;
        self.out.flush()?;
        Ok(if !findings.is_empty() {
            Exit::Problem
        } else if self.trace.is_incomplete() {
            Exit::Incomplete
        } else {
            Exit::Done
        })
    }
}

/// How a trace's rows look; there are none of a page.
fn told_as(output: TraceOutput, zone: Zone) -> Format {
    let output = match output {
        TraceOutput::Json => Output::Json,
        TraceOutput::Text | TraceOutput::Html => Output::Text,
    };
    format(output, zone)
}

/// How `output` looks, with times in `zone`.
pub(super) fn format(output: Output, zone: Zone) -> Format {
    match output {
        Output::Text => Format::Text {
            colour: colour(),
            zone,
        },
        Output::Json => Format::Json,
    }
}

/// On a terminal, unless <https://no-color.org> says otherwise: any value but the empty one.
pub(super) fn colour() -> bool {
    io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
