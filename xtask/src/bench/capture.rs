//! What runs beside the load: nothing, tcpdump, or the tracer; and what each says it lost.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{child::Child, load::Run};
use crate::sh;

/// Namespace through which every query and answer of the lab passes.
const NODE: &str = "lab-node";

/// How long the tracer gets to load and attach: it does not say when it has.
const ATTACH: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(30);

/// A way of looking at the load.
#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
pub(super) enum Capture {
    #[value(name = "none")]
    Nothing,
    Tcpdump,
    #[value(name = "summary")]
    TracerSummary,
    #[value(name = "path")]
    TracerPath,
    #[value(name = "text")]
    TracerText,
    #[value(name = "json")]
    TracerJson,
}

/// What a capture said at its end.
pub(super) struct Captured {
    /// Records or packets that it saw and could not keep.
    pub(super) lost: u64,
}

impl Capture {
    pub(super) const ALL: [Self; 6] = [
        Self::Nothing,
        Self::Tcpdump,
        Self::TracerSummary,
        Self::TracerPath,
        Self::TracerText,
        Self::TracerJson,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "none (noise)",
            Self::Tcpdump => "tcpdump -w",
            Self::TracerSummary => "tracer --summary",
            Self::TracerPath => "tracer --path",
            Self::TracerText => "tracer -o text",
            Self::TracerJson => "tracer -o json",
        }
    }

    /// Whether a loss is ours to answer for.
    pub(super) fn is_ours(self) -> bool {
        matches!(
            self,
            Self::TracerSummary | Self::TracerPath | Self::TracerText | Self::TracerJson
        )
    }

    /// Runs `load` while this captures.
    ///
    /// # Errors
    /// Either does not run, or the tracer ends with another status than done or done with losses.
    pub(super) fn around(
        self,
        tracer: &Path,
        load: impl Fn() -> Result<Run>,
    ) -> Result<(Run, Captured)> {
        let output = Output::new();
        match self {
            Self::Nothing => Ok((load()?, Captured { lost: 0 })),
            Self::Tcpdump => tcpdump(&output, load),
            Self::TracerSummary => traced(tracer, &["--summary", "-o", "json"], &output, load),
            Self::TracerPath => traced(
                tracer,
                &["--summary", "--path", "-o", "json"],
                &output,
                load,
            ),
            Self::TracerText => traced(tracer, &["-o", "text"], &output, load),
            Self::TracerJson => traced(tracer, &["-o", "json"], &output, load),
        }
    }
}

/// The file a capture writes, removed when it goes out of scope.
struct Output(PathBuf);

impl Output {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("tracer-bench-{}", std::process::id())))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // There is none when nothing captured.
        let _ = fs::remove_file(&self.0);
    }
}

fn tcpdump(output: &Output, load: impl Fn() -> Result<Run>) -> Result<(Run, Captured)> {
    let mut tcpdump = Child::start(
        "tcpdump",
        sh::tied("ip", "KILL")
            .args([
                "netns", "exec", NODE, "tcpdump", "-i", "any", "-s", "0", "-Z", "root", "-w",
            ])
            .arg(&output.0)
            .args(["port", "53"]),
    )?;
    tcpdump.wait_for("listening on", LIMIT)?;
    let run = load()?;
    let (status, said) = tcpdump.interrupt(LIMIT)?;
    ensure!(status.success(), "tcpdump: {status}: {}", said.join(" | "));
    let lost = said.iter().find_map(|line| dropped(line));
    let lost = lost.context("tcpdump does not say what the kernel dropped")?;
    Ok((run, Captured { lost }))
}

/// Of tcpdump's `12 packets dropped by kernel`.
fn dropped(line: &str) -> Option<u64> {
    let (count, what) = line.split_once(' ')?;
    what.ends_with("dropped by kernel")
        .then(|| count.parse().ok())?
}

fn traced(
    tracer: &Path,
    args: &[&str],
    output: &Output,
    load: impl Fn() -> Result<Run>,
) -> Result<(Run, Captured)> {
    let child = Child::start(
        "tracer trace",
        sh::tied(tracer, "KILL")
            .arg("trace")
            .args(args)
            .stdout(Stdio::from(File::create(&output.0)?)),
    )?;
    thread::sleep(ATTACH);
    let run = load()?;
    let (status, said) = child.interrupt(LIMIT)?;
    // Exit statuses are API: 3 is done, but records were lost.
    let lossy = status.code() == Some(3);
    ensure!(
        status.success() || lossy,
        "tracer trace: {status}: {}",
        said.join(" | ")
    );
    let mut lost = u64::from(lossy);
    if args.contains(&"json") {
        let text = fs::read_to_string(&output.0)?;
        let summary = text.lines().rev().find_map(summary);
        let Summary {
            queries,
            lost: counted,
        } = summary.context("the trace has no summary")?;
        // A tracer that sees nothing costs nothing.
        ensure!(queries > 0, "tracer trace saw no query");
        lost = counted;
    }
    Ok((run, Captured { lost }))
}

/// The last line of the tracer's JSON, as far as it matters here.
#[derive(Debug, PartialEq)]
struct Summary {
    queries: u64,
    lost: u64,
}

/// `None` for any other line, and for a summary without the count of what was lost.
fn summary(line: &str) -> Option<Summary> {
    let record: Value = serde_json::from_str(line).ok()?;
    (record["type"] == "summary").then_some(())?;
    let servers = record["dns"].as_array()?;
    Some(Summary {
        queries: servers
            .iter()
            .filter_map(|server| server["queries"].as_u64())
            .sum(),
        lost: record["lost"]["total"].as_u64()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_tells_queries_seen_and_records_lost() {
        let line = r#"{"type":"summary","dns":[{"queries":2},{"queries":3}],"lost":{"total":4,"ring_full":4}}"#;
        assert_eq!(
            summary(line),
            Some(Summary {
                queries: 5,
                lost: 4
            })
        );
        assert_eq!(summary(r#"{"type":"summary","dns":[]}"#), None);
        assert_eq!(
            summary(r#"{"type":"exchange","dns":[],"lost":{"total":1}}"#),
            None
        );
    }

    #[test]
    fn tcpdump_tells_what_the_kernel_dropped() {
        assert_eq!(dropped("12 packets dropped by kernel"), Some(12));
        assert_eq!(dropped("480 packets captured"), None);
    }
}
