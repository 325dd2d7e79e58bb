//! What was found wrong, at the end of a trace: the worst first, each with its evidence and remedy;
//! or what was looked for, where nothing was.

use std::io::{self, Write};

use serde::Serialize;

use super::{Format, text::Paint};
use crate::model::{Finding, Severity};

/// Writes `findings`; `sought` are the names of all that could have been found.
///
/// # Errors
/// `out` cannot be written to.
pub fn findings(
    format: Format,
    findings: &[Finding],
    sought: &[&str],
    out: &mut impl Write,
) -> io::Result<()> {
    match format {
        Format::Text { colour, .. } => text(findings, sought, Paint(colour), out),
        Format::Json => json(findings, sought, out),
    }
}

fn text(
    findings: &[Finding],
    sought: &[&str],
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    if findings.is_empty() {
        let sought = lines(sought);
        return writeln!(
            out,
            "{} nothing; looked for\n{sought}",
            paint.strong("found")
        );
    }
    for finding in findings {
        one(finding, paint, out)?;
        let page = format!("    more: tracer explain {}", finding.name);
        writeln!(out, "{}", paint.dim(page))?;
    }
    Ok(())
}

/// A finding with its evidence and remedy.
pub(super) fn one(finding: &Finding, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let mark = match finding.severity {
        Severity::Broken => "✗",
        Severity::Warning => "!",
    };
    let said = format!("{mark} {} {}", finding.object, finding.sentence);
    writeln!(out, "{} {}", paint.strong("found"), paint.bad(said))?;
    for (index, line) in finding.evidence.iter().enumerate() {
        let label = if index == 0 { "seen:" } else { "     " };
        writeln!(out, "    {label} {line}")?;
    }
    writeln!(out, "    remedy: {}", finding.remedy)?;
    if !finding.refuted_by.is_empty() {
        writeln!(out, "    not this if: {}", finding.refuted_by)?;
    }
    Ok(())
}

/// Widest line of names.
const WIDTH: usize = 100;

/// Names in lines, each indented.
fn lines(names: &[&str]) -> String {
    let mut lines = String::new();
    let mut width = WIDTH;
    for (index, name) in names.iter().enumerate() {
        if width + name.len() + 2 > WIDTH {
            lines.push_str(if index == 0 { "    " } else { "\n    " });
            width = 4;
        }
        lines.push_str(name);
        width += name.len();
        if index + 1 < names.len() {
            lines.push_str(", ");
            width += 2;
        }
    }
    // A name that begins a line leaves a blank behind the one before.
    lines.replace(" \n", "\n")
}

#[derive(Serialize)]
struct FindingLine<'a> {
    r#type: &'static str,
    name: &'static str,
    severity: &'static str,
    object: &'a str,
    sentence: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<StageLine>,
    evidence: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<f64>,
    remedy: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    refuted_by: &'a str,
}

#[derive(Serialize)]
struct StageLine {
    leg: &'static str,
    stage: &'static str,
}

#[derive(Serialize)]
struct FindingsLine<'a> {
    r#type: &'static str,
    found: usize,
    sought: &'a [&'a str],
}

fn json(findings: &[Finding], sought: &[&str], out: &mut impl Write) -> io::Result<()> {
    for finding in findings {
        one_line(finding, out)?;
    }
    let line = FindingsLine {
        r#type: "findings",
        found: findings.len(),
        sought,
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

/// A finding as one object.
pub(super) fn one_line(finding: &Finding, out: &mut impl Write) -> io::Result<()> {
    let line = FindingLine {
        r#type: "finding",
        name: finding.name,
        severity: finding.severity.name(),
        object: &finding.object,
        sentence: &finding.sentence,
        stage: finding.stage.map(|step| StageLine {
            leg: step.leg.name(),
            stage: step.stage.name(),
        }),
        evidence: &finding.evidence,
        share: finding.share,
        remedy: &finding.remedy,
        refuted_by: &finding.refuted_by,
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(findings: &[Finding], json: bool) -> String {
        let format = if json {
            Format::Json
        } else {
            Format::Text {
                colour: false,
                zone: crate::report::Zone::Utc,
            }
        };
        let mut out = Vec::new();
        super::findings(format, findings, &["no_endpoints", "ndots"], &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn finding() -> Finding {
        Finding {
            name: "no_endpoints",
            severity: Severity::Broken,
            object: "Service at 10.96.0.12".to_owned(),
            sentence: "turns away whoever asks".to_owned(),
            stage: None,
            evidence: vec!["3 of 9 queries".to_owned()],
            since: None,
            share: Some(0.33),
            remedy: "give it endpoints".to_owned(),
            refuted_by: String::new(),
        }
    }

    #[test]
    fn nothing_found_says_what_was_looked_for() {
        assert_eq!(
            told(&[], false),
            "found nothing; looked for\n    no_endpoints, ndots\n"
        );
        assert_eq!(
            told(&[], true),
            "{\"type\":\"findings\",\"found\":0,\"sought\":[\"no_endpoints\",\"ndots\"]}\n"
        );
    }

    #[test]
    fn a_finding_has_its_evidence_remedy_and_page() {
        assert_eq!(
            told(&[finding()], false),
            "found ✗ Service at 10.96.0.12 turns away whoever asks
    seen: 3 of 9 queries
    remedy: give it endpoints
    more: tracer explain no_endpoints
"
        );
        let line = told(&[finding()], true);
        let line: serde_json::Value = serde_json::from_str(line.lines().next().unwrap()).unwrap();
        assert_eq!(line["name"], "no_endpoints");
        assert!(line.get("refuted_by").is_none());
    }
}
