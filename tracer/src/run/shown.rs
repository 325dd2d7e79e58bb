//! Rows on their way out: chosen, named, added up, printed.

use std::{
    env,
    io::{self, BufWriter, IsTerminal as _, Write},
    time::Duration,
};

use anyhow::Result;

use super::{Exit, ending, filter::Filter, names::Names, tell};
use crate::{
    cli::{Output, ToldArgs, TraceArgs, TraceOutput},
    diagnose::Diagnoses,
    model::{Named, Row, Trace},
    report::{self, Format, Whole},
};

/// Most rows that are held back until names are known.
const HELD: usize = 16_384;

pub(super) struct Shown {
    dns: bool,
    connections: bool,
    netns: Vec<String>,
    filter: Filter,
    each: bool,
    output: TraceOutput,
    told: ToldArgs,
    pub(super) names: Names,
    pub(super) trace: Trace,
    diagnoses: Diagnoses,
    format: Format,
    unseen: Vec<String>,
    out: BufWriter<io::Stdout>,
}

impl Shown {
    pub(super) fn new(args: &TraceArgs, names: Names, unseen: Vec<String>) -> Self {
        Self {
            dns: args.wants_dns(),
            connections: args.wants_connections(),
            netns: args.netns.clone(),
            filter: Filter::new(&args.names),
            each: !args.summary && args.output != TraceOutput::Html,
            output: args.output,
            told: args.told.clone(),
            names,
            trace: Trace::default(),
            diagnoses: Diagnoses::default(),
            format: format(match args.output {
                TraceOutput::Json => Output::Json,
                TraceOutput::Text | TraceOutput::Html => Output::Text,
            }),
            unseen,
            out: BufWriter::with_capacity(64 << 10, io::stdout()),
        }
    }

    /// Whether nothing is printed before the end.
    pub(super) fn is_silent(&self) -> bool {
        !self.each
    }

    /// A namespace may yet come, so its name may be right; more likely it is not.
    pub(super) fn warn_of_unknown_netns(&mut self) {
        for name in &self.netns {
            if !self.names.node.knows_netns(name) {
                tell(&format!(
                    "no network namespace is called {name} now: see `ip netns`"
                ));
            }
        }
    }

    /// Shows `rows`; leaves them for a moment at the start, until names are known.
    pub(super) fn rows(&mut self, rows: &mut Vec<Row>) -> io::Result<()> {
        if rows.is_empty() || (rows.len() < HELD && !self.names.are_settled()) {
            return Ok(());
        }
        self.all_rows(rows)
    }

    /// Shows `rows`, whatever is known.
    pub(super) fn all_rows(&mut self, rows: &mut Vec<Row>) -> io::Result<()> {
        for row in rows.drain(..) {
            let mut named = self.names.name(&row);
            if self.wants(&row, &named) {
                named.sites = self.names.node.sites(&row);
                self.trace.add(&row, &named);
                self.diagnoses.add(&row, &named);
                if self.each {
                    report::row(self.format, &row, &named, &mut self.out)?;
                }
            }
        }
        self.out.flush()
    }

    fn wants(&self, row: &Row, named: &Named) -> bool {
        let kind = match row {
            Row::Dns(_) => self.dns,
            Row::Connection(_) => self.connections,
        };
        let inode = row.client().netns.map(|inode| inode.0.to_string());
        let from = |wanted: &String| {
            named.netns.as_deref() == Some(wanted) || inode.as_ref() == Some(wanted)
        };
        kind && (self.netns.is_empty() || self.netns.iter().any(from))
            && self.filter.wants(row, named)
    }

    pub(super) fn summary(mut self, length: Duration) -> Result<Exit> {
        self.trace.api = self.names.api();
        self.trace.spreads = self.names.spreads(&self.trace);
        let findings = self.diagnoses.findings(&self.trace.breakdown);
        let whole = Whole {
            trace: &self.trace,
            seconds: length.as_secs_f64(),
            findings: &findings,
            unseen: &self.unseen,
        };
        ending::tell(self.output, self.format, &self.told, &whole, &mut self.out)?;
        Ok(if self.trace.is_incomplete() {
            Exit::Incomplete
        } else {
            Exit::Done
        })
    }
}

pub(super) fn format(output: Output) -> Format {
    match output {
        Output::Text => Format::Text { colour: colour() },
        Output::Json => Format::Json,
    }
}

/// On a terminal, unless <https://no-color.org> says otherwise: any value but the empty one.
pub(super) fn colour() -> bool {
    io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
