//! What doctor found, as a table for people or as JSON lines. What is wrong has its evidence and
//! remedy under it; README.md describes the JSON key by key.

use std::io::{self, Write};

use serde::Serialize;

use super::{
    Answer, Check, Problem,
    causes::{self, Answers},
};
use crate::model::Severity;

/// A heading for each subject, a line for each check.
pub(super) fn text(answers: &Answers, colour: bool, out: &mut impl Write) -> io::Result<()> {
    let width = answers.iter().map(|(check, _)| check.name.len()).max();
    let width = width.unwrap_or_default();
    let paint = |code: &str, text: &str| {
        if colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    };
    let mut subject = "";
    for (check, answer) in answers {
        if check.subject != subject {
            subject = check.subject;
            writeln!(out, "{}", paint("1", subject))?;
        }
        let name = check.name;
        match answer {
            Answer::Holds(seen) => writeln!(out, "    {name:<width$}  {seen}")?,
            Answer::Unknown(why) => {
                let said = format!("could not look: {why}");
                writeln!(out, "  ? {name:<width$}  {}", paint("2", &said))?;
            }
            Answer::Fails(problems) => {
                let mut follows = causes::consequences(answers, check);
                for problem in problems {
                    if let Some(cause) = causes::cause(answers, problem) {
                        let said = format!("follows from {cause}: see there");
                        writeln!(out, "  ↳ {name:<width$}  {}", paint("2", &said))?;
                        continue;
                    }
                    let (mark, code) = match causes::severity(answers, check, problem) {
                        Severity::Warning => ("!", "33"),
                        Severity::Broken => ("✗", "31"),
                    };
                    let said = format!("{}: {}", problem.object, problem.sentence);
                    let mark = paint(code, mark);
                    writeln!(out, "  {mark} {name:<width$}  {}", paint(code, &said))?;
                    let indent = width + 6;
                    for line in &problem.evidence {
                        writeln!(out, "{:indent$}seen: {line}", "")?;
                    }
                    writeln!(out, "{:indent$}why: {}", "", check.why)?;
                    for (_, problem) in follows.by_ref() {
                        let (object, sentence) = (&problem.object, &problem.sentence);
                        writeln!(out, "{:indent$}so: {object}: {sentence}", "")?;
                    }
                    writeln!(out, "{:indent$}remedy: {}", "", problem.remedy)?;
                }
            }
        }
    }
    let tally = Tally::of(answers);
    let consequences = match tally.consequence {
        0 => String::new(),
        1 => "1 consequence, ".to_owned(),
        several => format!("{several} consequences, "),
    };
    writeln!(
        out,
        "{} checks: {} good, {} warnings, {} broken, {consequences}{} could not look",
        answers.len(),
        tally.good,
        tally.warning,
        tally.broken,
        tally.unknown
    )
}

#[derive(Serialize)]
struct CheckLine<'a> {
    r#type: &'static str,
    name: &'static str,
    subject: &'static str,
    why: &'static str,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seen: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    could_not_look: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    problems: Vec<ProblemLine<'a>>,
}

#[derive(Serialize)]
struct ProblemLine<'a> {
    severity: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    follows_from: Option<&'static str>,
    object: &'a str,
    sentence: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    evidence: &'a [String],
    remedy: &'a str,
}

impl<'a> ProblemLine<'a> {
    fn of(answers: &Answers, check: &Check, problem: &'a Problem) -> Self {
        Self {
            severity: causes::severity(answers, check, problem).name(),
            follows_from: causes::cause(answers, problem),
            object: &problem.object,
            sentence: &problem.sentence,
            evidence: &problem.evidence,
            remedy: &problem.remedy,
        }
    }
}

#[derive(Default, Serialize)]
struct Tally {
    r#type: &'static str,
    schema: u32,
    good: usize,
    warning: usize,
    broken: usize,
    consequence: usize,
    unknown: usize,
}

impl Tally {
    fn of(answers: &Answers) -> Self {
        let mut tally = Self {
            r#type: "doctor",
            schema: 1,
            ..Self::default()
        };
        for (check, answer) in answers {
            *match causes::verdict(answers, check, answer) {
                "good" => &mut tally.good,
                "warning" => &mut tally.warning,
                "broken" => &mut tally.broken,
                "consequence" => &mut tally.consequence,
                _ => &mut tally.unknown,
            } += 1;
        }
        tally
    }
}

/// One object for each check, the count of verdicts last.
pub(super) fn json(answers: &Answers, out: &mut impl Write) -> io::Result<()> {
    for (check, answer) in answers {
        let mut line = CheckLine {
            r#type: "check",
            name: check.name,
            subject: check.subject,
            why: check.why,
            verdict: causes::verdict(answers, check, answer),
            seen: None,
            could_not_look: None,
            problems: Vec::new(),
        };
        match answer {
            Answer::Holds(seen) => line.seen = Some(seen),
            Answer::Unknown(why) => line.could_not_look = Some(why),
            Answer::Fails(problems) => {
                let lines = problems.iter();
                line.problems = lines
                    .map(|problem| ProblemLine::of(answers, check, problem))
                    .collect();
            }
        }
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")?;
    }
    serde_json::to_writer(&mut *out, &Tally::of(answers))?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> Vec<(Check, Answer)> {
        let check = |name| Check {
            name,
            subject: "node",
            why: "nothing else forwards",
            run: |_| Answer::Unknown(String::new()),
        };
        let problem = Problem {
            severity: Severity::Broken,
            follows: &[],
            object: "net.ipv4.ip_forward".to_owned(),
            sentence: "is 0".to_owned(),
            evidence: vec!["/proc/sys/net/ipv4/ip_forward: 0".to_owned()],
            remedy: "sysctl -w net.ipv4.ip_forward=1".to_owned(),
        };
        vec![
            (check("kernel"), Answer::Holds("Linux 6.18".to_owned())),
            (check("sysctls"), Answer::Fails(vec![problem])),
            (check("clock"), Answer::Unknown("no API server".to_owned())),
        ]
    }

    #[test]
    fn a_problem_shows_what_was_seen_why_it_matters_and_the_remedy() {
        let mut out = Vec::new();
        text(&answers(), false, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "node
    kernel   Linux 6.18
  ✗ sysctls  net.ipv4.ip_forward: is 0
             seen: /proc/sys/net/ipv4/ip_forward: 0
             why: nothing else forwards
             remedy: sysctl -w net.ipv4.ip_forward=1
  ? clock    could not look: no API server
3 checks: 1 good, 0 warnings, 1 broken, 1 could not look
"
        );
    }

    #[test]
    fn what_follows_is_told_with_its_cause() {
        let mut answers = answers();
        let (check, cause) = answers[1].clone();
        let Answer::Fails(mut problems) = cause else {
            panic!("it is off");
        };
        problems[0].object = "pods".to_owned();
        problems[0].sentence = "reach nobody".to_owned();
        problems[0].follows = &["sysctls"];
        let pods = Check {
            name: "pods",
            ..check
        };
        answers.push((pods, Answer::Fails(problems)));
        let mut out = Vec::new();
        text(&answers[1..], false, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "node
  ✗ sysctls  net.ipv4.ip_forward: is 0
             seen: /proc/sys/net/ipv4/ip_forward: 0
             why: nothing else forwards
             so: pods: reach nobody
             remedy: sysctl -w net.ipv4.ip_forward=1
  ? clock    could not look: no API server
  ↳ pods     follows from sysctls: see there
3 checks: 0 good, 0 warnings, 1 broken, 1 consequence, 1 could not look
"
        );
        let mut out = Vec::new();
        json(&answers, &mut out).unwrap();
        let lines = String::from_utf8(out).unwrap();
        assert!(lines.contains(r#""follows_from":"sysctls""#), "{lines}");
        assert!(lines.contains(r#""broken":1,"consequence":1,"#), "{lines}");
    }

    #[test]
    fn json_leaves_out_what_does_not_apply() {
        let mut out = Vec::new();
        json(&answers(), &mut out).unwrap();
        let lines = String::from_utf8(out).unwrap();
        let lines: Vec<serde_json::Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines[0]["seen"], "Linux 6.18");
        assert!(lines[0].get("problems").is_none());
        assert_eq!(lines[1]["problems"][0]["severity"], "broken");
        assert_eq!(lines[2]["could_not_look"], "no API server");
        assert_eq!(lines[3]["type"], "doctor");
        assert_eq!(lines[3]["unknown"], 1);
    }
}
