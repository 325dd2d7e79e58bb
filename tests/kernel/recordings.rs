//! Recordings of live traffic: what a replay prints is what the trace printed, and a recorder that is
//! killed loses the last second at most.

use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::{scope, sleep};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;
use tracer::lab::services::{CLIENT1, CLIENT2};

use super::load::Questions;
use crate::support::trace::Tracer;
use crate::support::{dig, lab, program};

/// Recorders that are killed, and how many of them run at once.
const KILLED: usize = 50;
const AT_ONCE: usize = 5;

/// A directory that goes with its test.
fn scratch() -> TempDir {
    tempfile::tempdir().expect("there is room for temporary files")
}

fn report(dir: &Path, words: &str) -> Output {
    let output = Command::new(program())
        .arg("report")
        .arg(dir)
        .args(words.split_whitespace())
        .output();
    output.expect("the program was built")
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn a_replay_prints_what_the_trace_printed() {
    let (lab, scratch) = (lab("replay"), scratch());
    let [client, other] = [CLIENT1, CLIENT2].map(|pod| lab.netns(pod));
    let dir = scratch.path().display();
    let mut tracer = Tracer::start(&format!(
        "--no-api --path --record {dir} --recorded-as n1 --netns {client}"
    ));
    dig(&other, "@10.96.0.10 host3.lab.test");
    dig(&client, "@10.96.0.10 host1.lab.test");
    dig(&client, "+tcp @10.96.0.10 host2.lab.test");
    dig(&client, "@10.96.0.12 host1.lab.test");
    dig(&client, "@10.96.0.13 host1.lab.test");
    tracer.wait_for(4);
    let traced = tracer.stop();
    let output = report(scratch.path(), &format!("--output json --netns {client}"));
    let said = String::from_utf8_lossy(&output.stdout);
    let mut lines: Vec<_> = said.lines().collect();
    let summary = lines.pop().expect("a summary ends it");
    let is_finding = |line: &&str| line.starts_with("{\"type\":\"finding");
    let (findings, rows): (Vec<_>, Vec<_>) = lines.into_iter().partition(is_finding);
    assert_eq!(rows, traced.lines());
    // The last one tells what was sought.
    assert_eq!(findings.len(), traced.findings.len() + 1);
    for (replayed, live) in findings.iter().zip(&traced.findings) {
        let replayed: serde_json::Value = serde_json::from_str(replayed).expect("lines are JSON");
        assert_eq!(replayed, *live);
    }
    let summary: serde_json::Value = serde_json::from_str(summary).expect("lines are JSON");
    assert_eq!(summary, traced.summary);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), traced.code);
    // All rows are in it, whichever the trace showed.
    let all = report(scratch.path(), "--output json");
    assert!(said.len() < all.stdout.len());
}

/// dnsperf, asking from a namespace until it is dropped.
struct Load(
    Child,
    #[expect(dead_code, reason = "its file is read meanwhile")] Questions,
);

impl Load {
    fn start(netns: &str, rate: u32) -> Self {
        let questions = Questions::new();
        let child = Command::new("ip")
            .args(["netns", "exec", netns, "dnsperf", "-s", "10.96.0.10"])
            .args(["-l", "300", "-Q", &rate.to_string(), "-d"])
            .arg(questions.path())
            .stdout(Stdio::null())
            .spawn();
        Self(child.expect("ip is installed"), questions)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Seconds since 1970 of the last moment that a recording without end has, by its warning.
fn end_of(warnings: &str) -> f64 {
    let time = warnings
        .split_once("within a second after ")
        .and_then(|(_, rest)| rest.split_once(' '));
    let (time, _) = time.unwrap_or_else(|| panic!("it has no end, and says: {warnings}"));
    let time: jiff::Timestamp = time.parse().expect("it is RFC 3339");
    time.as_duration().as_secs_f64()
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_recorder_that_is_killed_loses_the_last_second_at_most() {
    let lab = lab("killed");
    let client = lab.netns(CLIENT1);
    let _load = Load::start(&client, 5000);
    scope(|threads| {
        for thread in 0..AT_ONCE {
            threads.spawn(move || {
                for number in 0..KILLED / AT_ONCE {
                    kill_one(&format!("killed-{thread}-{number}"));
                }
            });
        }
    });
}

/// Kills one at a random moment, and reads what it left.
fn kill_one(name: &str) {
    let scratch = scratch();
    let dir = scratch.path().display();
    let tracer = Tracer::start(&format!(
        "--no-api --summary --ring-kib 65536 --record {dir}"
    ));
    let random = RandomState::new().hash_one(name);
    sleep(Duration::from_millis(1100 + random % 1500));
    let killed = SystemTime::now().duration_since(UNIX_EPOCH);
    tracer.kill();
    let output = report(scratch.path(), "--summary --output json");
    let warnings = String::from_utf8_lossy(&output.stderr);
    let lost = killed.expect("it is after 1970").as_secs_f64() - end_of(&warnings);
    // A segment is begun each second, and takes a moment to be written.
    assert!(lost < 1.25, "{lost} s are missing: {warnings}");
    assert_eq!(output.status.code(), Some(3), "{warnings}");
    let said = String::from_utf8_lossy(&output.stdout);
    let last = said.lines().last().unwrap_or_default();
    let summary: serde_json::Value = serde_json::from_str(last).expect("it is an object");
    assert_eq!(summary["lost"]["total"], 0, "{summary}");
    let dns = summary["dns"].as_array().into_iter().flatten();
    let queries: u64 = dns.filter_map(|dns| dns["queries"].as_u64()).sum();
    assert!(queries > 1000, "{summary}");
}
