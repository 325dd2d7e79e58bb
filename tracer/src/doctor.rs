//! `tracer doctor`: what is wrong on this node before a packet moves. Looks once at files, netlink,
//! local ports and the API server (`seen`), then judges what was seen, check by check; changes
//! nothing. A check is one question, and knows three answers.

mod causes;
mod cni;
mod coredns;
mod kube_proxy;
mod node;
mod passage;
mod print;
mod root;
mod seen;

use std::{io, path::PathBuf};

use anyhow::{Result, bail};

pub use self::{passage::Rules, root::Root, seen::Seen};
use crate::model::{Severity, verified::Verified};

/// One question about the node.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Its name, which `--only` and `tracer explain` take.
    pub name: &'static str,
    /// What it is about: `node`, `cni`, `coredns` or `kube_proxy`; `--only` takes that too.
    pub subject: &'static str,
    /// Why it matters, in one sentence without the full stop.
    pub why: &'static str,
    /// Judges what was seen.
    pub run: fn(&Seen) -> Answer,
}

/// All checks, by subject, in the order in which a person would look.
pub const ALL: &[&[Check]] = &[
    node::CHECKS,
    cni::CHECKS,
    coredns::CHECKS,
    kube_proxy::CHECKS,
];

/// What a check came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It is as it should be; what was seen.
    Holds(String),
    /// It is not; one problem or more.
    Fails(Vec<Problem>),
    /// Nobody could look, and why.
    Unknown(String),
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Names of checks, each of which, where it fails, brings this about; empty where nothing else does.
    pub follows: &'static [&'static str],
    /// The object or file concerned, such as `ConfigMap kube-system/coredns, line 7`.
    pub object: String,
    /// What is wrong, in one sentence without the full stop.
    pub sentence: String,
    /// What was seen that says so, a line each.
    pub evidence: Vec<String>,
    /// What to do, as a command or an edit.
    pub remedy: String,
}

impl Answer {
    /// Holds with `seen` when there is no problem.
    fn of(problems: Vec<Problem>, seen: impl FnOnce() -> String) -> Self {
        if problems.is_empty() {
            Self::Holds(seen())
        } else {
            Self::Fails(problems)
        }
    }

    /// The word for it where it stands alone: `good`, `warning`, `broken` or `unknown`.
    pub fn verdict(&self) -> &'static str {
        match self {
            Self::Holds(_) => "good",
            Self::Fails(problems) => {
                let worst = problems.iter().map(|problem| problem.severity).max();
                worst.map_or("good", Severity::name)
            }
            Self::Unknown(_) => "unknown",
        }
    }
}

/// The first `most` of `names`, and how many more there are: `a, b and 3 more`.
fn listed(names: impl IntoIterator<Item = String>, most: usize) -> String {
    let mut names = names.into_iter();
    let first: Vec<_> = names.by_ref().take(most).collect();
    let first = first.join(", ");
    match names.count() {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// What to look at, and how to say it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names of checks or subjects; empty for all.
    pub only: Vec<String>,
    /// Where the node's files are.
    pub root: PathBuf,
    /// JSON lines instead of a table.
    pub json: bool,
    /// With ANSI colours.
    pub colour: bool,
}

/// The checks that `only` names, all when it names none.
///
/// # Errors
/// A name that no check and no subject has.
pub fn chosen(only: &[String]) -> Result<Vec<Check>> {
    let all = || ALL.iter().copied().flatten().copied();
    for name in only {
        if !all().any(|check| check.is(name)) {
            let mut subjects: Vec<_> = all().map(|check| check.subject).collect();
            subjects.dedup();
            let names: Vec<_> = all().map(|check| check.name).collect();
            bail!(
                "no check and no subject is called {name}: subjects are {}; checks are {}",
                subjects.join(", "),
                names.join(", ")
            );
        }
    }
    let wanted = |check: &Check| only.is_empty() || only.iter().any(|name| check.is(name));
    Ok(all().filter(wanted).collect())
}

impl Check {
    fn is(&self, name: &str) -> bool {
        self.name == name || self.subject == name
    }
}

/// Looks once and prints what each chosen check came to; whether there is a problem. `verified` is what came of
/// judging all rules of Services, or why that was not done.
///
/// # Errors
/// An unknown name in `only`, or `out` cannot be written to.
pub async fn look(
    options: &Options,
    verified: Result<Verified, String>,
    out: &mut impl io::Write,
) -> Result<bool> {
    let checks = chosen(&options.only)?;
    let mut seen = Box::pin(Seen::look(Root::new(&options.root))).await;
    seen.verified = verified;
    let answers: Vec<_> = checks
        .iter()
        .map(|check| (*check, (check.run)(&seen)))
        .collect();
    if options.json {
        print::json(&answers, out)?;
    } else {
        print::text(&answers, options.colour, out)?;
    }
    out.flush()?;
    let fails = |(_, answer): &(Check, Answer)| matches!(answer, Answer::Fails(_));
    Ok(answers.iter().any(fails))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_no_subject() {
        let checks = chosen(&[]).unwrap();
        for (index, check) in checks.iter().enumerate() {
            assert!(
                checks[index + 1..]
                    .iter()
                    .all(|other| other.name != check.name)
            );
            assert!(checks.iter().all(|other| other.subject != check.name));
        }
    }

    #[test]
    fn a_subject_chooses_its_checks_and_a_wrong_name_is_told() {
        let node = chosen(&["node".to_owned()]).unwrap();
        assert!(node.len() > 3 && node.iter().all(|check| check.subject == "node"));
        let wrong = chosen(&["nodes".to_owned()]).unwrap_err().to_string();
        assert!(wrong.starts_with("no check and no subject is called nodes"));
    }
}
