//! What is told at the end of a trace, live or replayed: what was found wrong, the summary and the reports
//! wanted, or a page; and charts.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use anyhow::{Context as _, Result};

use crate::{
    cli::{ChartFormat, ChartTheme, ToldArgs, TraceOutput},
    diagnose,
    model::Finding,
    report::{
        self, Format, Whole,
        chart::{Theme, charts},
    },
};

/// Writes a page, or summary and reports; and draws charts.
pub(super) fn tell(
    output: TraceOutput,
    format: Format,
    told: &ToldArgs,
    whole: &Whole<'_>,
    out: &mut impl Write,
) -> Result<()> {
    match output {
        TraceOutput::Html => report::page(whole, out)?,
        TraceOutput::Text | TraceOutput::Json => words(format, told, whole, out)?,
    }
    out.flush()?;
    match &told.charts {
        Some(directory) => draw(directory, told, whole),
        None => Ok(()),
    }
}

/// Findings, summary and reports. In JSON the summary is the last line; in text the last thing said is
/// what was not seen, which ends both.
fn words(
    format: Format,
    told: &ToldArgs,
    whole: &Whole<'_>,
    out: &mut impl Write,
) -> io::Result<()> {
    let summary =
        |out: &mut _| report::summary(format, whole.trace, whole.seconds, whole.unseen, out);
    let reports = told.reports();
    findings(format, whole.findings, out)?;
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

/// What was found wrong, or what was looked for.
pub(super) fn findings(
    format: Format,
    findings: &[Finding],
    out: &mut impl Write,
) -> io::Result<()> {
    let sought: Vec<_> = diagnose::ALL
        .iter()
        .map(|diagnosis| diagnosis.name)
        .collect();
    report::findings(format, findings, &sought, out)
}

fn draw(directory: &Path, told: &ToldArgs, whole: &Whole<'_>) -> Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("make the directory {}", directory.display()))?;
    let theme = told.chart_theme.map(|theme| match theme {
        ChartTheme::Light => Theme::Light,
        ChartTheme::Dark => Theme::Dark,
    });
    for chart in charts(whole) {
        let name = |ending| directory.join(format!("{}.{ending}", chart.name));
        let (path, drawn) = match told.chart_format {
            ChartFormat::Svg => {
                let path = name("svg");
                let drawn = fs::write(&path, chart.svg(theme));
                (path, drawn)
            }
            ChartFormat::Png => {
                let path = name("png");
                let drawn = chart.png(theme.unwrap_or_default(), &path);
                (path, drawn)
            }
        };
        drawn.with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}
