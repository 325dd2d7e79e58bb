//! What of the house's rules a scan of the text can tell: lengths, first lines, imports, words.
//!
//! The tables below are the rules; `scan` judges one file, `imports` reads who imports whom.
//! No rule needs the code to be parsed, so each can be wrong about clever code: write it plainly.

mod imports;
mod scan;

use std::{fmt, fs, process::Command};

use anyhow::{Context, Result};

use crate::sh;

/// Where a word is at home: allowed below these paths only, anywhere else a finding.
/// A path stands for `PATH.rs`, and for everything below `PATH/`.
const AT_HOME: &[(&str, &[&str])] = &[
    (
        "aya",
        &["tracer/src/kernel", "tracer/src/probes", "tracer-ebpf"],
    ),
    ("kube", &["tracer/src/cluster", "tracer/src/plugin"]),
    ("k8s_openapi", &["tracer/src/cluster", "tracer/src/plugin"]),
    ("plotters", &["tracer/src/report/chart"]),
];

/// Where a text may not stand: time comes from records there, and nothing waits.
const BANNED: &[(&str, &[&str])] = &[
    ("SystemTime::now", PURE),
    ("Instant::now", PURE),
    ("tokio::", PURE),
    ("todo!", &[""]),
    ("allow(dead_code", &[""]),
];
const PURE: &[&str] = &[
    "tracer/src/correlate",
    "tracer/src/report",
    "tracer/src/model",
];

/// Which modules of tracer a module may name, beside itself. One without a row may name any.
const IMPORTS: &[(&str, &[&str])] = &[
    ("kernel", &["model", "probes"]),
    ("probes", &["model"]),
    ("cluster", &["model"]),
    ("node", &["model"]),
    ("correlate", &["model"]),
    ("rules", &["model", "kernel"]),
    ("verify", &["rules", "model"]),
    ("diagnose", &["model", "rules"]),
    ("report", &["model", "diagnose"]),
    ("record", &["model"]),
    ("redact", &["model", "record"]),
    ("join", &["model"]),
    ("export", &["model"]),
    ("model", &[]),
    (
        "doctor",
        &[
            "model", "kernel", "cluster", "node", "rules", "verify", "diagnose",
        ],
    ),
    ("lab", &["cli"]),
    ("plugin", &["cli", "run"]),
];

/// Lines of code in a file, tests apart.
const AIM: usize = 300;
const LIMIT: usize = 400;

/// One thing found.
#[derive(Debug, PartialEq)]
pub(crate) struct Finding {
    /// Path from the workspace's root.
    file: String,
    /// From 1; 0 when it is about the whole file.
    line: usize,
    what: String,
    /// False for a warning.
    pub(crate) fails: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let warning = if self.fails { "" } else { "warning: " };
        write!(out, "{}:{}: {warning}{}", self.file, self.line, self.what)
    }
}

/// Scans every Rust file that is or could be committed, and the README.
///
/// # Errors
/// A file cannot be read; what is found is no error.
pub(crate) fn run() -> Result<Vec<Finding>> {
    let root = sh::root();
    let files = sh::output(
        Command::new("git")
            .args([
                "ls-files",
                "--cached",
                "--others",
                "--exclude-standard",
                "*.rs",
            ])
            .current_dir(&root),
    )?;
    let mut found = Vec::new();
    for file in files.lines().filter(|file| root.join(file).exists()) {
        let text = fs::read_to_string(root.join(file)).with_context(|| format!("read {file}"))?;
        found.extend(scan::file(file, &text));
        found.extend(imports::file(file, &text));
    }
    let readme = root.join("README.md");
    if readme.exists() {
        found.extend(scan::readme(
            &fs::read_to_string(readme)?,
            &crate::subcommands(),
        ));
    }
    Ok(found)
}

/// Whether `file` is `home.rs` or lies below `home/`; the empty home is everywhere.
fn below(file: &str, home: &str) -> bool {
    file.strip_prefix(home)
        .is_some_and(|rest| home.is_empty() || rest.starts_with('/') || rest == ".rs")
}
