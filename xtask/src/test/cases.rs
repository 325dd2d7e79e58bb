//! Which tests are ignored, why, and how to run one of them by itself.
//!
//! A test that needs something is ignored, and its reason names the tiers that run it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::sh;

/// Tiers that run ignored tests; a reason names them, as `cargo xtask test TIER`.
const TIERS: [&str; 3] = ["kernel", "vm", "cluster"];

/// Longest a test may take on this machine before it is killed.
const LIMIT: Duration = Duration::from_mins(3);

/// What `cargo test -p tracer --no-run` built.
pub(super) struct Built {
    /// The `tracer` program, whose path the tests have compiled in.
    pub(super) tracer: PathBuf,
    binaries: Vec<Binary>,
}

struct Binary {
    target: String,
    path: PathBuf,
}

/// One ignored test.
#[derive(Debug, PartialEq)]
pub(super) struct Case {
    target: String,
    pub(super) binary: PathBuf,
    pub(super) name: String,
    reason: String,
}

/// Which tests there are to be built.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Where {
    /// Those in `tests/` alone, which takes half the time: vm's and cluster's are all there.
    Tests,
    /// And those beside the code.
    Everywhere,
}

/// Builds tracer and its tests with optimizations: an emulated processor makes up for none that
/// are missing, and what is measured is near what is shipped.
///
/// # Errors
/// They do not build.
pub(super) fn build(tests: Where) -> Result<Built> {
    let mut command = Command::new("cargo");
    command.args([
        "test",
        "--package",
        "tracer",
        "--no-run",
        "--profile",
        "tests",
        "--quiet",
    ]);
    command.arg("--message-format=json-render-diagnostics");
    if tests == Where::Tests {
        command.args(["--test", "*"]);
    }
    let mut artifacts = Vec::new();
    sh::lines(&mut command, |line| artifacts.extend(artifact(line)))?;
    let mut tracer = None;
    let mut binaries = Vec::new();
    for Artifact {
        kind,
        target,
        path,
        test,
    } in artifacts
    {
        match (kind.as_str(), test) {
            ("bin", false) if target == "tracer" => tracer = Some(path),
            (_, true) => binaries.push(Binary { target, path }),
            _ => {}
        }
    }
    Ok(Built {
        tracer: tracer
            .context("cargo built no tracer program: it has no test outside its own code")?,
        binaries,
    })
}

struct Artifact {
    kind: String,
    target: String,
    path: PathBuf,
    test: bool,
}

/// One message of cargo's, if it tells of an executable.
fn artifact(line: &str) -> Option<Artifact> {
    let message: Value = serde_json::from_str(line).ok()?;
    Some(Artifact {
        kind: message["target"]["kind"][0].as_str()?.to_owned(),
        target: message["target"]["name"].as_str()?.to_owned(),
        path: PathBuf::from(message["executable"].as_str()?),
        test: message["profile"]["test"].as_bool()?,
    })
}

impl Built {
    /// The ignored tests whose reason says that `cargo xtask test TIER` runs them, and whose name holds `only`.
    ///
    /// # Errors
    /// A test is ignored for a reason that names no tier, so that it would never run.
    pub(super) fn of_tier(&self, tier: &str, only: &str) -> Result<Vec<Case>> {
        let mut cases = Vec::new();
        for Binary { target, path } in &self.binaries {
            let listing = sh::output(
                Command::new(path)
                    .args(["--list", "--format", "json", "-Z", "unstable-options"])
                    .env("RUSTC_BOOTSTRAP", "1"),
            )?;
            cases.extend(
                listing
                    .lines()
                    .filter_map(|line| ignored(line, target, path)),
            );
        }
        for case in &cases {
            ensure!(
                TIERS.iter().any(|tier| case.is_of(tier)),
                "{} is ignored for {:?}, a reason that names no tier",
                case.shown(),
                case.reason
            );
        }
        cases.retain(|case| case.is_of(tier));
        if cases.is_empty() {
            bail!("no test is ignored with a reason that names `cargo xtask test {tier}`");
        }
        cases.retain(|case| case.shown().contains(only));
        ensure!(
            !cases.is_empty(),
            "no test of {tier} has {only:?} in its name"
        );
        Ok(cases)
    }
}

fn ignored(line: &str, target: &str, binary: &Path) -> Option<Case> {
    let test: Value = serde_json::from_str(line).ok()?;
    test["ignore"].as_bool()?.then_some(())?;
    Some(Case {
        target: target.to_owned(),
        binary: binary.to_owned(),
        name: test["name"].as_str()?.to_owned(),
        reason: test["ignore_message"].as_str()?.to_owned(),
    })
}

impl Case {
    /// Whether its reason says that this tier runs it.
    fn is_of(&self, tier: &str) -> bool {
        self.reason.contains(&format!("cargo xtask test {tier}`"))
    }

    /// Whether it is to run in each mode of kube-proxy, not in the first alone.
    pub(super) fn is_of_each_mode(&self) -> bool {
        self.reason.ends_with("in each mode")
    }

    /// Where in the workspace and which.
    pub(super) fn shown(&self) -> String {
        format!("{}::{}", self.target, self.name)
    }

    /// The test by itself, as cargo would run it, killed when it takes too long.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=5", &LIMIT.as_secs().to_string()])
            .arg(&self.binary)
            .args(["--ignored", "--exact", &self.name, "--test-threads=1"])
            .current_dir(working_dir());
        command
    }
}

/// Where cargo runs tracer's tests.
pub(super) fn working_dir() -> PathBuf {
    sh::root().join("tracer")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Option<(&str, &str)>) {
        let case = ignored(line, "kernel", Path::new("/t/kernel-1"));
        let found = case
            .as_ref()
            .map(|case| (case.name.as_str(), case.reason.as_str()));
        assert_eq!(found, expected);
    }

    #[test]
    fn an_ignored_test_comes_with_its_reason() {
        check(
            r#"{"type":"test","event":"discovered","name":"a::b","ignore":true,"ignore_message":"needs root"}"#,
            Some(("a::b", "needs root")),
        );
    }

    #[test]
    fn what_is_not_ignored_is_no_case() {
        check(
            r#"{"type":"test","name":"a","ignore":false,"ignore_message":""}"#,
            None,
        );
        check(r#"{"type":"suite","event":"discovery"}"#, None);
    }
}
