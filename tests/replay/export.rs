//! What is exported, as tshark reads it; and that of redacted recordings nothing is left.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pcap_file::pcapng::{Block, PcapNgReader};
use serde_json::Value;
use tempfile::TempDir;
use tracer::model::{Fact, Packet};
use tracer::record::{Recorded, Recording};

use crate::{report, said, scratch, stories, tracer};

const STORY: &str = "failures_by_cause";

/// What all of the recording's own secrets have in them.
const SECRETS: &[&str] = &[
    "lab.test",
    "host1",
    "client1",
    "dns1",
    "st-node",
    "10.244.0.",
    "10.96.0.",
    "isc-net",
];

/// The packets that a recording holds, and when they were seen, in nanoseconds since 1970: by the tick
/// before.
fn recorded(dir: &Path) -> Vec<(Packet, i64)> {
    let recording = Recording::open(&[dir.to_owned()]).expect("it can be read");
    let mut clock = (0, 0);
    let mut packets = Vec::new();
    for event in recording.sessions.into_iter().flatten() {
        match event {
            Recorded::Tick { ktime, wall } => clock = (ktime.0, wall.0),
            Recorded::Fact(Fact::Packet(packet)) => {
                let since = packet.ktime.0.wrapping_sub(clock.0).cast_signed();
                packets.push((packet, clock.1 + since));
            }
            _ => {}
        }
    }
    packets
}

/// The recording as a capture.
fn export(scratch: &TempDir, name: &str, words: &str) -> PathBuf {
    let file = scratch.path().join(name);
    let dir = stories().join(STORY);
    let output = tracer(
        "export",
        &dir,
        &format!("--pcapng {} {words}", file.display()),
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    file
}

/// Fields of each packet, as tshark reads them; several values of one are joined by a bar.
fn tshark(file: &Path, fields: &[&str]) -> Vec<Vec<String>> {
    let mut command = Command::new("tshark");
    command
        .arg("-r")
        .arg(file)
        .args(["-T", "fields", "-E", "aggregator=|"]);
    for check in ["ip", "udp", "tcp"] {
        command.args(["-o", &format!("{check}.check_checksum:TRUE")]);
    }
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command
        .output()
        .expect("tshark is installed by `cargo xtask setup`");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("it is UTF-8");
    let words = |line: &str| line.split('\t').map(str::to_owned).collect();
    text.lines().map(words).collect()
}

#[test]
fn a_capture_is_what_was_captured_byte_for_byte() {
    let scratch = scratch();
    let file = fs::File::open(export(&scratch, "a.pcapng", "")).expect("it was written");
    let mut reader = PcapNgReader::new(file).expect("it is a pcapng file");
    let mut exported = Vec::new();
    while let Some(block) = reader.next_block() {
        let (block, _) = block.expect("each block is whole");
        if let Block::EnhancedPacket(packet) = block {
            exported.push(packet.into_owned());
        }
    }
    let recorded = recorded(&stories().join(STORY));
    assert_eq!(exported.len(), recorded.len());
    assert!(recorded.len() > 100);
    let mut truncated = 0;
    for (exported, (recorded, wall)) in exported.iter().zip(&recorded) {
        let since_1970 = Duration::from_nanos(u64::try_from(*wall).expect("it is after 1970"));
        assert_eq!(exported.timestamp, since_1970, "to the nanosecond");
        let bytes = [&recorded.headers[..], &recorded.payload].concat();
        assert_eq!(exported.data, bytes);
        let whole = recorded.headers.len() + recorded.payload_len as usize;
        assert_eq!(exported.original_len as usize, whole);
        truncated += usize::from(whole > bytes.len());
    }
    assert!(
        truncated > 0,
        "of TCP other than DNS headers alone are captured"
    );
}

#[test]
fn tshark_shows_names_interfaces_and_stages_and_finds_nothing_malformed() {
    let scratch = scratch();
    let file = export(&scratch, "a.pcapng", "");
    let fields = [
        "frame.interface_name",
        "frame.comment",
        "dns.qry.name",
        "_ws.malformed",
        "frame.protocols",
        "frame.packet_flags_direction",
    ];
    let rows = tshark(&file, &fields);
    assert_eq!(rows.len(), recorded(&stories().join(STORY)).len());
    let of = |name: &'static str| rows.iter().filter(move |row| row[2].contains(name));
    let first = of("host1.lab.test").next().expect("it was asked");
    assert_eq!(first[0], "st-client1/eth0");
    assert_eq!(first[5], "0x00000002", "outbound");
    for words in [
        "exchange 1: ",
        "⇒ 10.244.0.21:53",
        "NOERROR, 1 answer",
        "|first seen here",
    ] {
        assert!(first[1].contains(words), "{words}: {}", first[1]);
    }
    let way: Vec<_> = of("host1.lab.test")
        .filter_map(|row| row[1].split("|stage ").nth(1)?.split(':').next())
        .collect();
    assert_eq!(
        way,
        [
            "query client_link",
            "query node",
            "query backend_link",
            "answer backend",
            "answer backend_link",
            "answer node",
            "answer client_link"
        ]
    );
    let drops: Vec<_> = of("dropped.lab.test")
        .filter(|row| row[1].contains("dropped here: NETFILTER_DROP at nft_do_chain+"))
        .collect();
    assert_eq!(drops.len(), 1);
    assert!(rows.iter().all(|row| row[3].is_empty()), "malformed");
    assert!(rows.iter().all(|row| row[4].starts_with("raw:ip")));
    assert!(
        rows.iter()
            .all(|row| row[1].starts_with("exchange") || row[1].starts_with("connection"))
    );
}

#[test]
fn several_recordings_are_sections_of_one_file() {
    let scratch = scratch();
    let dir = stories().join(STORY);
    let words = format!(
        "{} --pcapng {}",
        copy(&scratch, "").display(),
        scratch.path().join("a.pcapng").display()
    );
    let output = tracer("export", &dir, &words);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let rows = tshark(
        &scratch.path().join("a.pcapng"),
        &["frame.section_number", "frame.interface_name"],
    );
    let packets = recorded(&dir).len();
    // The copy is of the same session: it is one recording, not two.
    assert_eq!(rows.len(), packets);
    let other = scratch.path().join("other");
    let output = tracer(
        "export",
        &dir,
        &format!("--recording {} --redact names", other.display()),
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let words = format!(
        "{} --pcapng {}",
        other.display(),
        scratch.path().join("b.pcapng").display()
    );
    assert_eq!(tracer("export", &dir, &words).status.code(), Some(0));
    let rows = tshark(
        &scratch.path().join("b.pcapng"),
        &["frame.section_number", "frame.interface_name"],
    );
    assert_eq!(rows.len(), 2 * packets);
    let sections: BTreeSet<_> = rows.iter().map(|row| row[0].clone()).collect();
    assert_eq!(sections.len(), 2);
}

#[test]
fn rows_that_are_wanted_choose_packets() {
    let scratch = scratch();
    let file = export(&scratch, "a.pcapng", "--namespace nobody");
    assert!(tshark(&file, &["frame.number"]).is_empty());
}

/// A copy of the recording.
fn copy(scratch: &TempDir, words: &str) -> PathBuf {
    let dir = scratch.path().join("copy");
    let words = format!("--recording {} {words}", dir.display());
    let output = tracer("export", &stories().join(STORY), &words);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    dir
}

#[test]
fn a_copy_tells_what_the_recording_tells() {
    let scratch = scratch();
    let copy = copy(&scratch, "");
    let original = stories().join(STORY);
    for words in ["--report all", "--report all --output json"] {
        assert_eq!(said(&report(&copy, words)), said(&report(&original, words)));
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("it is a directory").flatten();
    let files = entries.flat_map(|entry| {
        let path = entry.path();
        if path.is_dir() {
            files(&path)
        } else {
            vec![path]
        }
    });
    files.collect()
}

#[test]
fn of_a_redacted_recording_no_name_and_no_address_is_left_and_the_story_is() {
    let scratch = scratch();
    let words = "--redact names,addresses --redact-key test";
    let copy = copy(&scratch, words);
    let told = said(&report(&copy, "--report all --output json"));
    let capture = export(&scratch, "a.pcapng", words);
    let mut texts = vec![
        told.clone(),
        said(&report(&copy, "--report all")),
        said(&report(&copy, "--output html")),
        String::from_utf8_lossy(&fs::read(capture).expect("it was written")).into_owned(),
    ];
    // What files hold is compressed; what is read of it is not.
    for (packet, _) in recorded(&copy) {
        texts.push(String::from_utf8_lossy(&packet.payload).into_owned());
        texts.push(packet.flow.src.to_string());
        assert!(
            !packet.headers.windows(2).any(|two| two == [10, 244]),
            "{packet:?}"
        );
    }
    for file in files(&copy) {
        texts.push(
            file.display()
                .to_string()
                .split_off(copy.display().to_string().len()),
        );
    }
    for text in &texts {
        for secret in SECRETS {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
    // A report may redact, too, and with the same key says the same.
    let words = format!("--report all --output json {words}");
    assert_eq!(said(&report(&stories().join(STORY), &words)), told);

    let rows = |text: &str| -> Vec<Value> {
        let rows = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        rows.filter(|row: &Value| row["type"] == "dns" || row["type"] == "connection")
            .collect()
    };
    let original = said(&report(&stories().join(STORY), "--output json"));
    let (before, after) = (rows(&original), rows(&told));
    assert_eq!(before.len(), after.len());
    let mut names = BTreeMap::new();
    for (before, after) in before.iter().zip(&after) {
        for kept in [
            "type",
            "outcome",
            "rcode",
            "latency_us",
            "qtype",
            "id",
            "time",
        ] {
            assert_eq!(before[kept], after[kept], "{kept}");
        }
        let other = names.entry(before["client"]["address"].to_string());
        let other = other.or_insert_with(|| after["client"]["address"].clone());
        assert_eq!(*other, after["client"]["address"], "always by the same");
    }
    let others: BTreeSet<_> = names.values().map(Value::to_string).collect();
    assert_eq!(others.len(), names.len(), "and by no other's");
}

#[test]
fn redacted_packets_are_as_valid_as_before() {
    let scratch = scratch();
    let before = export(&scratch, "before.pcapng", "");
    let after = export(&scratch, "after.pcapng", "--redact names,addresses");
    let kept = [
        "frame.len",
        "frame.cap_len",
        "frame.protocols",
        "ip.checksum.status",
        "udp.checksum.status",
        "udp.srcport",
        "udp.dstport",
        "tcp.srcport",
        "tcp.dstport",
        "tcp.flags",
        "dns.id",
        "dns.flags.rcode",
        "dns.count.answers",
        "dns.qry.type",
        "icmp.type",
        "icmp.checksum.status",
        "_ws.malformed",
        "frame.time_epoch",
    ];
    let (was, is) = (tshark(&before, &kept), tshark(&after, &kept));
    assert_eq!(was.len(), is.len());
    for (was, is) in was.iter().zip(&is) {
        assert_eq!(was, is);
    }
    let names = ["dns.qry.name", "dns.a", "ip.src", "ip.dst"];
    let (was, is) = (tshark(&before, &names), tshark(&after, &names));
    let mut known = BTreeMap::new();
    for (was, is) in was.iter().flatten().zip(is.iter().flatten()) {
        for (was, is) in was.split('|').zip(is.split('|')) {
            assert_eq!(was.len(), is.len());
            assert!(was.is_empty() || was != is, "{was}");
            assert_eq!(*known.entry(was.to_owned()).or_insert(is.to_owned()), is);
        }
    }
}
