//! Under load: every query that dnsperf counts is a row, and the tracer stays small.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use tempfile::NamedTempFile;
use tracer::lab::services::CLIENT1;

use crate::support::trace::Tracer;
use crate::support::{lab, text_of};

/// Questions for dnsperf, removed on drop.
pub(super) struct Questions(NamedTempFile);

impl Questions {
    /// A and AAAA of the hundred hosts of the lab's zone.
    pub(super) fn new() -> Self {
        let mut lines = String::new();
        for host in 1..=100 {
            let lines = &mut lines;
            let written = writeln!(lines, "host{host}.lab.test A\nhost{host}.lab.test AAAA");
            assert!(written.is_ok(), "a String takes every line");
        }
        let file = NamedTempFile::new().expect("there is room for temporary files");
        fs::write(&file, lines).expect("there is room for temporary files");
        Self(file)
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// What dnsperf counted: `Queries sent: N`, `Queries completed: N (100.00%)`.
fn counted(said: &str, what: &str) -> usize {
    let line = said.lines().find_map(|line| line.trim().strip_prefix(what));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.unwrap_or_else(|| panic!("dnsperf says no {what:?}: {said}"))
}

/// Runs dnsperf against `vip` with `words` and compares; returns its number of queries and the tracer's peak
/// resident memory in KiB.
fn check(test: &str, vip: &str, words: &str) -> (usize, u64) {
    let lab = lab(test);
    let netns = lab.netns(CLIENT1);
    let questions = Questions::new();
    let tracer = Tracer::start(&format!("--netns {netns}"));
    let path = questions.path().to_str().expect("it is of our making");
    let mut command = vec!["dnsperf", "-s", vip, "-d", path];
    command.extend(words.split_whitespace());
    let said = text_of(&netns, &command);
    let peak = tracer.peak_kib();
    let traced = tracer.stop();

    let sent = counted(&said, "Queries sent:");
    assert_eq!(counted(&said, "Queries completed:"), sent, "{said}");
    let shown = format!("\"asked\":{{\"ip\":\"{vip}\",\"port\":53}},\"backend\":{{");
    assert_eq!(traced.count(&shown), sent, "{}", traced.summary);
    assert_eq!(traced.count("\"outcome\":\"answered\""), sent);
    assert_eq!(traced.summary["dns"][0]["queries"], sent);
    assert_eq!(traced.summary["dns"][0]["answered"], sent);
    traced.assert_whole();
    (sent, peak)
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn every_query_of_dnsperf_over_ipv4_is_a_row() {
    let (queries, _) = check("perf4", "10.96.0.10", "-n 20 -c 4 -Q 4000");
    assert_eq!(queries, 4000);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn every_query_of_dnsperf_over_ipv6_is_a_row() {
    let (queries, _) = check("perf6", "fd00:10:96::a", "-f inet6 -n 20 -c 4 -Q 4000");
    assert_eq!(queries, 4000);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn every_query_of_dnsperf_over_tcp_is_a_row() {
    let (queries, _) = check("perftcp", "10.96.0.10", "-m tcp -n 20 -c 4 -Q 2000");
    assert_eq!(queries, 4000);
}

/// Processors' lanes have room for some hundreds of them.
#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn what_happens_while_the_tracer_is_held_up_is_told_later() {
    let lab = lab("heldup");
    let netns = lab.netns(CLIENT1);
    let questions = Questions::new();
    let path = questions.path().to_str().expect("it is of our making");
    let tracer = Tracer::start(&format!("--ring-kib 16384 --netns {netns}"));
    tracer.held_up(|| {
        let command = ["dnsperf", "-s", "10.96.0.10", "-d", path];
        let limits = ["-n", "10", "-Q", "2000"];
        let said = text_of(&netns, &[&command[..], &limits].concat());
        assert_eq!(counted(&said, "Queries completed:"), 2000, "{said}");
    });
    let traced = tracer.stop();
    assert_eq!(traced.summary["dns"][0]["answered"], 2000);
    // Whether its records came by a lane, by the ring, or by one each.
    let translated = "\"backend\":{";
    assert_eq!(traced.count(translated), 2000, "{}", traced.summary);
    traced.assert_whole();
}

/// On a guest without KVM, where the kernel tier sets `host_dns`, a hundredth of it: dnsperf and the servers
/// would not reach more.
#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn ten_thousand_queries_a_second_for_half_a_minute_lose_nothing_and_take_less_than_40_mb() {
    let emulated = std::env::var_os("host_dns").is_some();
    let rate = if emulated { 100 } else { 10_000 };
    let words = format!("-c 8 -l 30 -Q {rate}");
    let (queries, peak) = check("tenk", "10.96.0.10", &words);
    assert!(queries * 100 >= rate * 30 * 95, "only {queries} were sent");
    assert!(peak < 40 * 1024, "{peak} KiB at the peak");
}
