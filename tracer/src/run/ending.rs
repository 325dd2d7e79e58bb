//! What is told at the end of a trace, live or replayed: what was found wrong, the summary, and the
//! reports wanted.

use std::io::{self, Write};

use crate::{
    cli::ToldArgs,
    diagnose,
    report::{self, Format, Whole},
};

/// Writes findings, summary and reports. In JSON the summary is the last line; in text the last thing said is
/// what was not seen, which ends both.
pub(super) fn tell(
    format: Format,
    told: &ToldArgs,
    whole: &Whole<'_>,
    out: &mut impl Write,
) -> io::Result<()> {
    let summary =
        |out: &mut _| report::summary(format, whole.trace, whole.seconds, whole.unseen, out);
    let reports = told.reports();
    let sought: Vec<_> = diagnose::ALL
        .iter()
        .map(|diagnosis| diagnosis.name)
        .collect();
    report::findings(format, whole.findings, &sought, out)?;
    if format != Format::Json {
        summary(out)?;
    }
    if !reports.is_empty() {
        report::reports(format, &reports, whole, out)?;
    }
    if format == Format::Json {
        summary(out)?;
    }
    Ok(())
}
