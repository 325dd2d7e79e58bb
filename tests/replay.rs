//! Recordings of real traffic, replayed without root: every report of each of them is what is on file.
//!
//! A recording is a directory of tests/data/recordings, named by the story that it tells; beside it lie
//! what `tracer report` prints of it as text (`.txt`) and as JSON lines (`.json`). With UPDATE_EXPECT=1
//! they are written instead of compared. tests/README.md says how a recording is made.

mod replay {
    mod export;
    mod join;
    mod redacted;
    mod sql;
}

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The directory of recordings.
fn stories() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/recordings")
}

/// `tracer report DIR WORDS`, by a machine that is in another zone and has no home.
fn report(dir: &Path, words: &str) -> Output {
    tracer("report", dir, words)
}

/// The same of another command.
fn tracer(command: &str, dir: &Path, words: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tracer"))
        .arg(command)
        .arg(dir)
        .args(words.split_whitespace())
        .env_clear()
        .env("TZ", "Pacific/Chatham")
        .output()
        .expect("cargo built it")
}

/// A directory that goes with its test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let name = format!("tracer-replay-{}-{test}", std::process::id());
        let dir = env::temp_dir().join(name);
        fs::create_dir_all(&dir).expect("it can be made");
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What is printed of the recording `name` is what is on file, and the same again.
fn check(name: &str, words: &str, ending: &str) {
    let dir = stories().join(name);
    let output = report(&dir, words);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        (log.as_str(), output.status.code()),
        ("", Some(0)),
        "{name}"
    );
    let (first, again) = (said(&output), said(&report(&dir, words)));
    assert_eq!(first, again, "{name} {words}");
    let path = stories().join(format!("{name}.{ending}"));
    if env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, &first).expect("the directory is there");
    }
    let expected = fs::read_to_string(&path).expect("it was written with UPDATE_EXPECT=1");
    assert_eq!(
        first, expected,
        "{name} {words}; if it is meant, UPDATE_EXPECT=1"
    );
}

#[test]
fn every_recording_is_told_as_on_file() {
    let entries = fs::read_dir(stories()).expect("it is committed");
    let dirs = entries.flatten().filter(|entry| entry.path().is_dir());
    let mut names: Vec<_> = dirs
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert!(!names.is_empty());
    for name in names {
        check(&name, "--report all", "txt");
        check(&name, "--report all --output json", "json");
    }
}

/// `tracer diagnose` tells what a report tells first, and nothing else; it judges, so it ends with 1.
#[test]
fn a_diagnosis_is_the_findings_of_the_report_alone() {
    let dir = stories().join("failures_by_cause");
    let output = tracer("diagnose", &dir, "");
    assert_eq!(output.status.code(), Some(1));
    let diagnosed = said(&output);
    assert!(diagnosed.starts_with("found ✗ "), "{diagnosed}");
    let summary = said(&report(&dir, "--summary"));
    let rest = summary.strip_prefix(&diagnosed);
    assert!(
        rest.is_some_and(|rest| !rest.contains("found ")),
        "{summary}"
    );

    // Rows are chosen before they are judged.
    let none = tracer("diagnose", &dir, "--netns nowhere --output json");
    assert_eq!(none.status.code(), Some(0));
    assert!(said(&none).starts_with("{\"type\":\"findings\",\"found\":0,"));
}
