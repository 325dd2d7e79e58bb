//! What a trace prints: rows as they finish and the summary at the end, as text or as JSON
//! lines. The only stdout of a trace; a pure function of rows and `Trace`.

pub mod chart;
mod dns;
mod drops;
mod findings;
mod html;
mod json;
pub mod section;
mod services;
mod stalls;
mod text;
mod unseen;
mod whole;

use std::io::{self, Write};

use self::section::Section;
pub use self::{findings::findings, whole::Whole};
use crate::model::{
    Finding, Losses, Named, Row, Trace, WallNs, drops::NamedDrops, lag::LagTotals,
    numbers as names, verified::Verified, walk::Walk,
};

/// How output looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text {
        /// With ANSI colours.
        colour: bool,
        /// Whose time of day.
        zone: Zone,
    },
    /// One JSON object a line; see "JSON lines" in README.md.
    Json,
}

/// Whose time of day is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// This machine's.
    Local,
    /// UTC: the same on every machine.
    Utc,
}

/// A report: what it is called, and what it says.
#[derive(Debug)]
pub struct Report {
    /// What `--report` takes, and the JSON key `report`.
    pub name: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// Tells what it says; drawing is another matter.
    pub build: for<'a> fn(&Whole<'a>) -> Section<'a>,
}

/// All reports, in the order in which they are printed. The last one is printed always.
pub const ALL: &[Report] = &[
    stalls::REPORT,
    dns::REPORT,
    services::REPORT,
    drops::REPORT,
    unseen::REPORT,
];

/// Writes the reports of these names, in their own order; what was not seen is always the last.
///
/// # Errors
/// `out` cannot be written to.
pub fn reports(
    format: Format,
    names: &[&str],
    whole: &Whole<'_>,
    out: &mut impl Write,
) -> io::Result<()> {
    let wanted =
        |report: &&Report| report.name == unseen::REPORT.name || names.contains(&report.name);
    for report in ALL.iter().filter(wanted) {
        let section = (report.build)(whole);
        match format {
            Format::Text { colour, .. } => text::section(report, &section, whole, colour, out)?,
            Format::Json => json::section(report, &section, whole, out)?,
        }
    }
    Ok(())
}

/// Writes a whole page: every report and chart, in one file that needs no other.
///
/// # Errors
/// `out` cannot be written to.
pub fn page(whole: &Whole<'_>, out: &mut impl Write) -> io::Result<()> {
    html::page(whole, out)
}

/// Writes one row and a newline, and in text its journey under it.
///
/// # Errors
/// `out` cannot be written to.
pub fn row(format: Format, row: &Row, named: &Named, out: &mut impl Write) -> io::Result<()> {
    match format {
        Format::Text { colour, zone } => text::row(row, named, colour, zone, out),
        Format::Json => json::row(row, named, out),
    }
}

/// Writes what the trace adds up to. `seconds` is its length; `unseen` is what could not be seen,
/// in words.
///
/// # Errors
/// `out` cannot be written to.
pub fn summary(
    format: Format,
    trace: &Trace,
    seconds: f64,
    unseen: &[String],
    out: &mut impl Write,
) -> io::Result<()> {
    match format {
        Format::Text { colour, .. } => text::summary(trace, seconds, unseen, colour, out),
        Format::Json => json::summary(trace, seconds, unseen, out),
    }
}

/// Writes what was dropped in the `seconds` before `now`.
///
/// # Errors
/// `out` cannot be written to.
pub fn drops(
    format: Format,
    now: WallNs,
    drops: &[NamedDrops],
    seconds: f64,
    out: &mut impl Write,
) -> io::Result<()> {
    match format {
        Format::Text { colour, .. } => text::drops(now, drops, seconds, colour, out),
        Format::Json => json::drops(now, drops, seconds, out),
    }
}

/// What counting drops adds up to.
#[derive(Debug)]
pub struct DropsSummary<'a> {
    /// How long they were counted.
    pub seconds: f64,
    /// All of them, by group.
    pub drops: &'a [NamedDrops],
    /// Packets of groups that were too many to be told apart.
    pub beyond: u64,
    /// What was lost in the kernel.
    pub losses: Losses,
    /// What could not be seen, in words.
    pub unseen: &'a [String],
}

impl DropsSummary<'_> {
    /// Drops that are not among the groups.
    pub fn lost(&self) -> u64 {
        self.beyond + self.losses.ring_full + self.losses.skipped
    }

    /// Packets of the groups that are a loss, and of those that are none by themselves.
    fn packets(&self) -> (u64, u64) {
        let sum = |usual| {
            let groups = self
                .drops
                .iter()
                .filter(|drops| drops.usual.is_some() == usual);
            groups.map(|drops| drops.count.packets).sum()
        };
        (sum(false), sum(true))
    }
}

/// Writes what counting drops adds up to.
///
/// # Errors
/// `out` cannot be written to.
pub fn drops_summary(
    format: Format,
    summary: &DropsSummary<'_>,
    out: &mut impl Write,
) -> io::Result<()> {
    match format {
        Format::Text { colour, .. } => text::drops_summary(summary, colour, out),
        Format::Json => json::drops_summary(summary, out),
    }
}

/// Writes what the rules make of one packet.
///
/// # Errors
/// `out` cannot be written to.
pub fn walk(format: Format, walk: &Walk, out: &mut impl Write) -> io::Result<()> {
    match format {
        Format::Text { colour, .. } => text::walk(walk, colour, out),
        Format::Json => json::walk(walk, out),
    }
}

/// Writes what came of judging a node's rules.
///
/// # Errors
/// `out` cannot be written to.
pub fn verified(format: Format, verified: &Verified, out: &mut impl Write) -> io::Result<()> {
    match format {
        Format::Text { colour, .. } => text::verified(verified, colour, out),
        Format::Json => json::verified(verified, out),
    }
}

/// Writes what is newly found.
///
/// # Errors
/// `out` cannot be written to.
pub fn found(format: Format, finding: &Finding, out: &mut impl Write) -> io::Result<()> {
    match format {
        Format::Text { colour, .. } => findings::one(finding, text::Paint(colour), out),
        Format::Json => findings::one_line(finding, out),
    }
}

/// Writes what is found no more.
///
/// # Errors
/// `out` cannot be written to.
pub fn mended(format: Format, finding: &Finding, out: &mut impl Write) -> io::Result<()> {
    match format {
        Format::Text { colour, .. } => text::mended(finding, colour, out),
        Format::Json => json::mended(finding, out),
    }
}

/// Writes how a watch of the rules went that looked so often.
///
/// # Errors
/// `out` cannot be written to.
pub fn watched(
    format: Format,
    looks: u64,
    findings: usize,
    lag: Option<&LagTotals>,
    out: &mut impl Write,
) -> io::Result<()> {
    match format {
        Format::Text { .. } => text::watched(looks, findings, lag, out),
        Format::Json => json::watched(looks, findings, lag, out),
    }
}

/// Writes one probe, whether it works, and what goes unseen if not.
///
/// # Errors
/// `out` cannot be written to.
pub fn probe(json: bool, probe: &ProbeLine<'_>, out: &mut impl Write) -> io::Result<()> {
    if json {
        serde_json::to_writer(&mut *out, probe)?;
        return out.write_all(b"\n");
    }
    let mark = if probe.status == "attached" {
        " "
    } else {
        "✗"
    };
    let how = probe.by.unwrap_or(probe.status);
    write!(out, "{mark} {:<22} {how:<14} ", probe.name)?;
    match probe.why {
        Some(why) => writeln!(out, "{why}; without it go unseen: {}", probe.shows),
        None => writeln!(out, "shows {}", probe.shows),
    }
}

/// A probe as it is shown.
#[derive(Debug, serde::Serialize)]
pub struct ProbeLine<'a> {
    /// `probe`.
    pub r#type: &'a str,
    /// Tracepoint; function of the kernel, where there is none.
    pub name: &'a str,
    /// `attached`, `not_in_kernel` or `refused`.
    pub status: &'a str,
    /// How it is attached: `btf_tracepoint`, `raw_tracepoint`, `fentry`, `fexit` or `kprobe`;
    /// `None` when it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<&'a str>,
    /// What the kernel said; `None` when attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<&'a str>,
    /// What it shows, and what goes unseen without it.
    pub shows: &'a str,
}

#[cfg(test)]
mod tests;
