//! One recording, split as if two nodes had made it, with clocks far apart: together they tell what the whole tells.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use tracer::model::{Fact, KtimeNs, Name, NetnsInode, WallNs};
use tracer::record::{Keep, Recorded, Recorder, Recording, Session};

use crate::{report, said, scratch, stories};

const STORY: &str = "failures_by_cause";

/// By how much the second node's clock is ahead, and its boot later.
const AHEAD: i64 = 5_250_000_000;
const BOOTED: u64 = 1_000_000_000_000;

/// What of `event` the node has that `has` those namespaces; `None` of nothing.
fn part(event: &Recorded, has: impl Fn(NetnsInode) -> bool) -> Option<Recorded> {
    let netns = match event {
        Recorded::Fact(Fact::Packet(packet)) => packet.netns,
        Recorded::Fact(Fact::Socket(socket)) => socket.netns,
        Recorded::Fact(Fact::SocketIo(io)) => io.netns,
        Recorded::Fact(Fact::Insert(insert)) => insert.netns,
        Recorded::Name(Name::Device { netns, .. }) => *netns,
        _ => return Some(event.clone()),
    };
    has(netns).then(|| event.clone())
}

/// The event as the second node's clocks would have it.
fn later(event: Recorded) -> Recorded {
    let ktime = |at: &mut KtimeNs| at.0 -= BOOTED;
    match event {
        Recorded::Tick { ktime, wall } => Recorded::Tick {
            ktime: KtimeNs(ktime.0 - BOOTED),
            wall: WallNs(wall.0 + AHEAD),
        },
        Recorded::Fact(mut fact) => {
            match &mut fact {
                Fact::Packet(packet) => ktime(&mut packet.ktime),
                Fact::Socket(socket) => ktime(&mut socket.ktime),
                Fact::SocketIo(io) => ktime(&mut io.ktime),
                Fact::Insert(insert) => ktime(&mut insert.ktime),
            }
            Recorded::Fact(fact)
        }
        other => other,
    }
}

/// Writes the recording's parts: clients and the node on one, servers on the other.
fn split(scratch: &TempDir) -> [PathBuf; 2] {
    let read = || {
        let recording = Recording::open(&[stories().join(STORY)]).expect("it can be read");
        recording
            .sessions
            .into_iter()
            .next()
            .expect("it has a session")
    };
    let servers: BTreeSet<_> = read()
        .filter_map(|event| match event {
            Recorded::Name(Name::Device { netns, name, .. }) => Some((netns, name)),
            _ => None,
        })
        .filter(|(_, name)| !name.contains("client") && !name.ends_with("node"))
        .map(|(netns, _)| netns)
        .collect();
    assert!(servers.len() >= 3, "{servers:?}");
    let write = |node: &str, of_servers: bool| {
        let dir = scratch.path().join(node);
        let session = Session {
            node: node.to_owned(),
            ..read().session
        };
        let recorder = Recorder::start(&dir, session, Keep::default());
        let mut recorder = recorder.expect("it is a directory of the test's own");
        for event in read() {
            if let Some(event) = part(&event, |netns| servers.contains(&netns) == of_servers) {
                recorder.again(if of_servers { later(event) } else { event });
            }
        }
        assert_eq!(recorder.finish().total(), 0);
        dir
    };
    [write("n1", false), write("n2", true)]
}

/// `tracer report` of both.
fn together(dirs: &[PathBuf], words: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tracer"))
        .arg("report")
        .args(dirs)
        .args(words.split_whitespace())
        .output()
        .expect("cargo built it");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    said(&output)
}

fn json(text: &str) -> Vec<Value> {
    let lines = text.lines().map(serde_json::from_str);
    lines.map(|line| line.expect("lines are JSON")).collect()
}

/// Rows of DNS over UDP, as they began.
fn dns(lines: &[Value]) -> Vec<&Value> {
    let mut rows: Vec<_> = lines
        .iter()
        .filter(|line| line["type"] == "dns" && line["protocol"] == "udp")
        .collect();
    rows.sort_by_key(|row| row["time"].to_string());
    rows
}

/// Legs and stages of a row, and how long each took.
fn stages(row: &Value) -> Vec<(String, f64)> {
    let stages = row["journey"]["stages"].as_array().into_iter().flatten();
    let stages = stages.map(|stage| {
        let name = |key: &str| stage[key].as_str().unwrap_or_default().to_owned();
        let took = stage["duration_us"].as_f64().unwrap_or_default();
        (format!("{} {}", name("leg"), name("stage")), took)
    });
    stages.collect()
}

fn whole() -> Vec<Value> {
    let dir: &Path = &stories().join(STORY);
    json(&said(&report(dir, "--output json")))
}

#[test]
fn two_nodes_tell_one_story_by_one_clock() {
    let scratch = scratch();
    let dirs = split(&scratch);
    let (whole, joined) = (whole(), json(&together(&dirs, "--output json")));
    let (whole, rows) = (dns(&whole), dns(&joined));
    assert_eq!(whole.len(), rows.len(), "each exchange once");
    let mut answered = 0;
    for (whole, row) in whole.iter().zip(&rows) {
        for same in [
            "time",
            "name",
            "outcome",
            "rcode",
            "latency_us",
            "client",
            "asked",
        ] {
            assert_eq!(whole[same], row[same], "{same} of {row}");
        }
        assert_eq!(whole["backend"]["ip"], row["backend"]["ip"]);
        let (before, after) = (stages(whole), stages(row));
        let sum = |stages: &[(String, f64)]| stages.iter().map(|(_, took)| took).sum::<f64>();
        // Without an answer back nothing bounds what lies between two clocks but their offset's doubt.
        let doubt = if row["outcome"] == "answered" {
            0.01
        } else {
            50.0
        };
        let off = (sum(&before) - sum(&after)).abs();
        assert!(off < doubt, "{before:?}\n{after:?}");
        if row["outcome"] != "answered" {
            continue;
        }
        answered += 1;
        // What one node saw by itself is as it was: the server's own time, and each queue.
        for (stage, took) in &before {
            let same = after.iter().find(|(name, _)| name == stage);
            let ends_on_a_wire = stage.ends_with("_link") && stage.contains("backend");
            let after = same.map_or(f64::NAN, |(_, after)| *after);
            assert!(
                ends_on_a_wire || (after - took).abs() < 0.01,
                "{stage}: {took} {after}"
            );
        }
        let wires: Vec<_> = after
            .iter()
            .filter(|(name, _)| name.ends_with(" wire"))
            .collect();
        assert_eq!(wires.len(), 2, "there and back: {after:?}");
        let there = row["journey"]["stages"].to_string();
        assert!(
            there.contains("n2/st-dns"),
            "places of the other node are its own: {there}"
        );
    }
    assert!(answered >= 4);
    let summary = joined.last().expect("a summary ends it");
    let clock = &summary["clocks"][0];
    assert_eq!(
        (&clock["node"], &clock["reference"]),
        (&"n2".into(), &"n1".into())
    );
    let (least, most) = (&clock["ahead_us"]["least"], &clock["ahead_us"]["most"]);
    assert_eq!(least, most, "{clock}");
    let error = least.as_f64().unwrap_or_default()
        - f64::from(u32::try_from(AHEAD / 1000).expect("it is some seconds"));
    let doubt = clock["uncertainty_us"].as_f64().unwrap_or_default();
    assert!(
        error.abs() <= doubt && doubt < 50.0,
        "off by {error} µs: {clock}"
    );
}

#[test]
fn a_connection_is_told_through_both_nodes_there_and_back_each_time() {
    let scratch = scratch();
    let dirs = split(&scratch);
    let joined = json(&together(&dirs, "--output json"));
    let connections = |lines: &[Value]| -> Vec<Value> {
        let of = lines.iter().filter(|line| line["type"] == "connection");
        of.cloned().collect()
    };
    let (whole, rows) = (connections(&whole()), connections(&joined));
    assert_eq!(whole.len(), rows.len(), "each connection once: {rows:?}");
    let answered = |rows: &[Value]| {
        let good = rows.iter().find(|row| row["outcome"] == "answered");
        good.expect("one was answered").clone()
    };
    let (whole, row) = (answered(&whole), answered(&rows));
    for same in ["time", "client", "asked", "latency_us", "first_byte_us"] {
        assert_eq!(whole[same], row[same], "{same} of {row}");
    }
    assert_eq!(whole["backend"]["ip"], row["backend"]["ip"]);
    let (before, after) = (stages(&whole), stages(&row));
    let sum = |stages: &[(String, f64)]| stages.iter().map(|(_, took)| took).sum::<f64>();
    assert!(
        (sum(&before) - sum(&after)).abs() < 0.01,
        "{before:?}\n{after:?}"
    );
    // What lies between the nodes is the way to the backend; the server's own time is as it was.
    let names: Vec<_> = after.iter().map(|(name, _)| name.as_str()).collect();
    let wires: Vec<_> = names
        .iter()
        .filter(|name| name.ends_with(" wire"))
        .collect();
    assert_eq!(
        wires,
        [
            &"syn wire",
            &"syn_ack wire",
            &"request wire",
            &"response wire"
        ],
        "{names:?}"
    );
    for own in ["syn_ack backend", "response backend"] {
        let took = |stages: &[(String, f64)]| {
            let stage = stages.iter().find(|(name, _)| name == own);
            stage.map_or(f64::NAN, |(_, took)| *took)
        };
        assert!(
            (took(&before) - took(&after)).abs() < 0.01,
            "{own}: {before:?}\n{after:?}"
        );
    }
    // Alone, the node of the backend has nothing to tell: no service was asked there.
    let alone = json(&said(&report(&dirs[1], "--output json")));
    assert!(
        connections(&alone)
            .iter()
            .all(|row| row["outcome"] != "answered")
    );
}

#[test]
fn what_the_other_node_saw_of_a_failure_is_its_cause() {
    let scratch = scratch();
    let dirs = split(&scratch);
    let joined = json(&together(&dirs, "--output json"));
    let silent = |lines: &[Value]| {
        let rows = dns(lines);
        let silent = rows
            .into_iter()
            .find(|row| row["name"] == "silent.lab.test");
        silent.expect("it was asked").clone()
    };
    // Alone, the client's node knows that the query left, and no more.
    let alone = json(&said(&report(&dirs[0], "--output json")));
    assert!(
        !silent(&alone)["cause"]
            .to_string()
            .contains("read the query")
    );
    let cause = silent(&joined)["cause"].to_string();
    assert!(
        cause.starts_with("\"on n2: ") && cause.contains("read the query"),
        "{cause}"
    );
    let text = together(&dirs, "--summary");
    assert!(
        text.contains("clocks: n2 is 5.25 s ahead of n1, ± "),
        "{text}"
    );
    assert_eq!(
        together(&dirs, "--report all"),
        together(&dirs, "--report all")
    );
    fs::remove_dir_all(&dirs[1]).expect("it is the test's own");
}
