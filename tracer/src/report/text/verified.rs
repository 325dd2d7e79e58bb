//! What came of judging a node's rules, for people: one line when all is well, else what is wrong.

use std::io::{self, Write};

use super::{Paint, line::about};
use crate::{
    model::{
        Finding, Severity,
        verified::{Objects, Verified},
    },
    report::findings,
};

pub(in crate::report) fn verified(
    verified: &Verified,
    colour: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    let paint = Paint(colour);
    for found in &verified.findings {
        findings::one(found, paint, out)?;
    }
    let modes = match verified.modes.as_slice() {
        [] => "no".to_owned(),
        modes => modes.join(" and "),
    };
    let changing = match verified.changing {
        0 => String::new(),
        count => format!(" ({count} not judged: their objects have just changed)"),
    };
    let looked = format!(
        "{} Services with {} ports{changing}, {} packets walked through {} rules ({modes} mode) on {}",
        verified.services, verified.ports, verified.packets, verified.rules, verified.node
    );
    for kept in &verified.kept_away {
        let first = kept.first.join("; ");
        let more = match kept.packets - kept.first.len() {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        let line = format!(
            "NetworkPolicies keep {} of the packets away from {} Service {}, by {}'s rules; whether they are to is not judged: ",
            kept.packets,
            kept.ports,
            plural("port", kept.ports),
            kept.engine
        );
        writeln!(out, "{line}{first}{more}")?;
    }
    let of = |severity| {
        let findings = verified.findings.iter();
        findings.filter(|one| one.severity == severity).count()
    };
    match (of(Severity::Broken), of(Severity::Warning)) {
        (0, 0) => match verified.objects {
            Objects::Api | Objects::Files => {
                writeln!(out, "the rules do what the API objects say: {looked}")
            }
            Objects::Kept(age) => {
                let age = about(age);
                writeln!(
                    out,
                    "the rules do what the API objects said {age} ago: {looked}"
                )
            }
            Objects::None => writeln!(
                out,
                "the rules do not contradict themselves, and nobody says what they are to do: {looked}"
            ),
        },
        (broken, warnings) => {
            let line = format!(
                "{broken} broken, {warnings} {}: ",
                plural("warning", warnings)
            );
            let by = match verified.objects {
                Objects::Api | Objects::Files => String::new(),
                Objects::Kept(age) => format!("by what the API server said {} ago: ", about(age)),
                Objects::None => "by the rules alone: ".to_owned(),
            };
            writeln!(out, "{}{by}{looked}", paint.strong(&line))
        }
    }
}

fn plural(word: &str, count: usize) -> String {
    if count == 1 {
        word.to_owned()
    } else {
        format!("{word}s")
    }
}

/// What is found no more.
pub(in crate::report) fn mended(
    finding: &Finding,
    colour: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    let head = Paint(colour).strong("mended").to_string();
    writeln!(out, "{head} ✓ {} {}", finding.object, finding.name)
}
