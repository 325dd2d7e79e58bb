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

use tempfile::TempDir;

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
fn scratch() -> TempDir {
    tempfile::tempdir().expect("there is room for temporary files")
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

/// What of a recording is cut off is missing in the report, which says so; the rest is in it.
#[test]
fn what_is_cut_off_is_said_where_it_is_missing() {
    let scratch = scratch();
    let copied = Command::new("cp")
        .arg("-r")
        .args([&stories().join("failures_by_cause"), scratch.path()])
        .status();
    assert!(copied.is_ok_and(|status| status.success()));
    let dir = scratch.path().join("failures_by_cause");
    let events = segments(&dir.join("events"));
    let [first, ..] = events.as_slice() else {
        panic!("no segments in {}", dir.display());
    };
    let bytes = fs::read(first).expect("it was copied");
    fs::write(first, &bytes[..bytes.len() / 2]).expect("it was copied");
    for words in ["--summary", "--summary --output json", "--output html"] {
        let output = report(&dir, words);
        let (told, said) = (String::from_utf8_lossy(&output.stderr), said(&output));
        assert_eq!(output.status.code(), Some(3), "{told}");
        let warning = told.lines().find(|line| line.contains("warning: "));
        let warning = warning.and_then(|line| line.split_once("warning: "));
        let (_, warning) = warning.expect("what is cut off is told");
        assert!(
            said.contains(&format!("what could not be read: {warning}")),
            "{said}"
        );
    }
}

/// The segments below `dir`, by name.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).expect("it is there").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(segments(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
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
