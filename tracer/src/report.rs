//! What a trace prints: rows as they finish and the summary at the end, as text or as JSON
//! lines. The only stdout of a trace; a pure function of rows and `Trace`.

mod json;
mod names;
mod text;

use std::io::{self, Write};

use crate::model::{Named, Row, Trace};

/// How output looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text {
        /// With ANSI colours.
        colour: bool,
    },
    /// One JSON object a line; see "JSON lines" in README.md.
    Json,
}

/// Writes one row and a newline.
///
/// # Errors
/// `out` cannot be written to.
pub fn row(format: Format, row: &Row, named: &Named, out: &mut impl Write) -> io::Result<()> {
    match format {
        Format::Text { colour } => text::row(row, named, colour, out),
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
        Format::Text { colour } => text::summary(trace, seconds, unseen, colour, out),
        Format::Json => json::summary(trace, seconds, unseen, out),
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
    write!(out, "{mark} {:<20} {:<12}", probe.name, probe.status)?;
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
    /// Tracepoint.
    pub name: &'a str,
    /// `attached`, `not_in_kernel` or `refused`.
    pub status: &'a str,
    /// What the kernel said; `None` when attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<&'a str>,
    /// What it shows, and what goes unseen without it.
    pub shows: &'a str,
}
