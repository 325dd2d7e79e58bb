//! The command itself on a live kernel: whom it shows, how it ends, what it needs, what it leaves.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tracer::lab::services::{CLIENT1, CLIENT2};

use crate::support::trace::Tracer;
use crate::support::{LyingDns, client_and_server, dig, lab, program};

const PATIENCE: Duration = Duration::from_secs(20);

fn tracer(words: &[&str]) -> Output {
    let output = Command::new(program()).args(words).output();
    output.expect("the program was built")
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn only_the_clients_of_the_namespace_asked_for_are_shown() {
    let lab = lab("netns");
    let [one, two] = [CLIENT1, CLIENT2].map(|pod| lab.netns(pod));
    let mut tracer = Tracer::start(&format!("--netns {one}"));
    dig(&two, "@10.96.0.10 host2.lab.test");
    dig(&one, "@10.96.0.10 host1.lab.test");
    tracer.wait_for(1);
    assert_eq!(
        tracer.stop().briefs(),
        ["udp 10.96.0.10:53 host1.lab.test A answered NOERROR 1"]
    );
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn the_ports_asked_for_are_the_ports_of_dns_and_others_are_not() {
    let (_topology, client, server) = client_and_server("ports");
    let _servers =
        [53, 5421, 5422].map(|port| LyingDns::honest(&server, &format!("192.0.2.2:{port}")));
    let mut tracer = Tracer::start(&format!("--dns-port 5421 --dns-port 5422 --netns {client}"));
    for port in [53, 5421, 5422] {
        dig(&client, &format!("-p {port} @192.0.2.2 host1.lab.test"));
    }
    tracer.wait_for(2);
    assert_eq!(
        tracer.stop().briefs(),
        [
            "udp 192.0.2.2:5421 host1.lab.test A answered NOERROR 1",
            "udp 192.0.2.2:5422 host1.lab.test A answered NOERROR 1",
        ]
    );
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn either_signal_ends_a_trace_with_its_summary_and_success() {
    for signal in [Signal::INT, Signal::TERM] {
        let traced = Tracer::start("--dns --dns-port 5423").stop_now(signal);
        assert_eq!(traced.code, Some(0), "{}", traced.summary);
        assert_eq!(traced.briefs(), [""; 0]);
    }
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_trace_ends_when_its_time_is_up() {
    let began = Instant::now();
    let output = tracer(&[
        "trace",
        "--dns",
        "--dns-port",
        "5424",
        "--for",
        "1s",
        "-o",
        "json",
    ]);
    assert_eq!(output.status.code(), Some(0));
    assert!((1..5).contains(&began.elapsed().as_secs()));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let [findings, summary] = said.lines().collect::<Vec<_>>()[..] else {
        panic!("not two lines: {said}");
    };
    assert!(
        findings.starts_with("{\"type\":\"findings\",\"found\":0,"),
        "{said}"
    );
    let summary: Value = serde_json::from_str(summary).expect("lines are JSON");
    assert_eq!(summary["schema"], 1);
    let seconds = summary["seconds"].as_f64().expect("it is a number");
    assert!((1.0..2.0).contains(&seconds), "{seconds}");
}

/// Waits for the end of `child`, doing `meanwhile` again and again.
fn end_of(child: &mut Child, meanwhile: impl Fn()) -> Option<i32> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().expect("it is our child") {
            return status.code();
        }
        meanwhile();
        sleep(Duration::from_millis(50));
    }
    drop(child.kill());
    drop(child.wait());
    panic!("it did not end");
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_reader_that_has_read_enough_ends_the_trace_with_success() {
    let (_topology, client, server) = client_and_server("pipe");
    let _server = LyingDns::honest(&server, "192.0.2.2:5425");
    for format in ["text", "json"] {
        let mut child = Command::new(program())
            .args(["trace", "--no-api", "--dns-port", "5425", "-o", format])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program was built");
        let ask = || drop(dig(&client, "-p 5425 @192.0.2.2 host1.lab.test"));
        let mut reader = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        // As `head -1`: one line is enough.
        let asking = end_of_first_line(&mut reader, ask);
        assert!(asking.contains("host1.lab.test"), "{asking}");
        drop(reader);
        assert_eq!(end_of(&mut child, ask), Some(0));
        let said = std::io::read_to_string(child.stderr.take().expect("stderr is a pipe"));
        assert_eq!(said.ok().as_deref(), Some("tracing\n"));
    }
}

/// The first line that holds a row, asking until there is one.
fn end_of_first_line(reader: &mut (impl BufRead + Send), ask: impl Fn()) -> String {
    let mut line = String::new();
    std::thread::scope(|scope| {
        let read = scope.spawn(|| {
            while !line.contains("host1.lab.test") {
                line.clear();
                assert!(reader.read_line(&mut line).is_ok_and(|read| read > 0));
            }
        });
        let deadline = Instant::now() + PATIENCE;
        while !read.is_finished() {
            assert!(Instant::now() < deadline, "no row came");
            ask();
        }
    });
    line
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn every_probe_attaches() {
    let output = tracer(&["probes", "-o", "json"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8_lossy(&output.stdout);
    let probes: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("lines are JSON"))
        .collect();
    let names: Vec<_> = probes.iter().map(|probe| probe["name"].as_str()).collect();
    let known = tracer::probes::ALL.iter().map(|probe| Some(probe.name));
    assert_eq!(names, known.collect::<Vec<_>>());
    let kprobes = Path::new("/sys/bus/event_source/devices/kprobe").exists();
    for probe in &probes {
        let refused = probe["why"] == "this kernel has no kprobes";
        let expected = if refused && !kprobes {
            "refused"
        } else {
            "attached"
        };
        assert_eq!(probe["status"], expected, "{probe}");
    }
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn without_privilege_one_line_names_what_is_missing() {
    // Where cargo puts programs other users need not be allowed to look.
    let home = tempfile::tempdir().expect("there is room for temporary files");
    // Others may pass.
    let passable = Permissions::from_mode(0o711);
    fs::set_permissions(home.path(), passable).expect("it is ours");
    let copy = home.path().join("tracer");
    fs::copy(program(), &copy).expect("there is room for temporary files");
    for command in ["trace", "drops", "probes", "lab"] {
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .args(["--inh-caps=-all", "--bounding-set=-all"])
            .arg(&copy)
            .arg(command)
            .output()
            .expect("setpriv is installed");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command}: {said}");
        assert_eq!(said.lines().count(), 1, "{command}: {said}");
        if command != "lab" {
            assert_eq!(
                said,
                "tracer: loading BPF programs needs CAP_BPF and CAP_PERFMON: \
                 run as root, or grant the capability\n"
            );
        }
        assert!(output.stdout.is_empty());
    }
}

/// BPF programs of the tracer's names that are in the kernel, by address.
fn programs() -> BTreeSet<String> {
    let symbols = fs::read_to_string("/proc/kallsyms").expect("we are root");
    let ours = |line: &&str| {
        tracer::probes::ALL.iter().any(|probe| {
            line.contains("bpf_prog_") && line.trim_end_matches("\t[bpf]").contains(probe.name)
        })
    };
    symbols.lines().filter(ours).map(str::to_owned).collect()
}

fn pinned() -> BTreeSet<String> {
    let entries = fs::read_dir("/sys/fs/bpf").into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path().display().to_string())
        .collect()
}

/// The host's own rules without comments and counters, which time changes.
fn host_rules() -> String {
    let mut rules = String::new();
    for program in ["iptables-save", "ip6tables-save"] {
        let output = Command::new(program).output().expect("it is installed");
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            if !line.starts_with('#') {
                rules += line.split(" [").next().unwrap_or_default();
                rules.push('\n');
            }
        }
    }
    rules
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn nothing_of_a_trace_is_left_in_the_kernel() {
    let (before, pins) = (programs(), pinned());
    let tracer = Tracer::start("--dns --dns-port 5426");
    let during: BTreeSet<_> = programs().difference(&before).cloned().collect();
    assert!(during.len() >= 5, "{during:?}");
    tracer.stop_now(Signal::INT);
    // The kernel frees programs after a grace period.
    let deadline = Instant::now() + PATIENCE;
    while !programs().is_disjoint(&during) {
        assert!(Instant::now() < deadline, "{during:?} stayed");
        sleep(Duration::from_millis(20));
    }
    assert_eq!(pinned(), pins);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_lab_is_traced_and_leaves_neither_namespaces_nor_rules() {
    let rules = host_rules();
    let prefix = format!("t{}-demo-", std::process::id());
    let output = tracer(&["lab", "--prefix", &prefix, "--for", "3s", "-o", "json"]);
    let text = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
    for shown in [
        "\"outcome\":\"answered\"",
        "\"outcome\":\"rejected\"",
        "\"rcode\":\"NXDOMAIN\"",
        "\"type\":\"connection\"",
        "\"type\":\"summary\"",
    ] {
        assert!(text.contains(shown), "{shown} is missing: {said}");
    }
    for name in ["node", "client1", "dns1"] {
        assert!(
            !Path::new("/run/netns")
                .join(format!("{prefix}{name}"))
                .exists()
        );
    }
    assert_eq!(host_rules(), rules);
}
