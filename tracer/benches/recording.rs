//! A recording of a million exchanges: how long it takes to write and to replay, in how much memory, and how
//! large its files are.
//!
//! `cargo xtask bench report`. It fails when a core replays less than a million facts a second.
#![expect(clippy::print_stdout, reason = "a benchmark's output is its purpose")]
#![expect(clippy::cast_precision_loss, reason = "what is printed is rounded")]

#[path = "exchange/facts.rs"]
mod facts;
#[path = "exchange/steady.rs"]
mod steady;

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use facts::HOPS;
use steady::steady;
use tracer::{
    model::{Event, Fact, Flow, KtimeNs, Packet, WallNs},
    record::{Asked, Keep, Recorded, Recorder, Session},
};

const EXCHANGES: u64 = 1_000_000;
/// Between two exchanges.
const PERIOD: Duration = Duration::from_micros(200);
/// Exchanges between two ticks.
const EACH_TICK: u64 = 100;
/// Client ports in use, and names asked.
const PORTS: u16 = 20_000;
const NAMES: u64 = 2_000;
/// 2026-11-25 20:11:30 UTC
const START: i64 = 1_795_637_490_000_000_000;

/// Facts that a core is to replay in a second.
const FACTS: f64 = 1e6;

fn main() -> io::Result<ExitCode> {
    let directory = tempfile::tempdir()?;
    write(directory.path())?;
    measure(directory.path())
}

/// Writes the recording.
fn write(directory: &Path) -> io::Result<()> {
    let session = Session {
        id: "20261125T201130000Z".to_owned(),
        node: "n1".to_owned(),
        asked: Asked {
            dns: true,
            connections: true,
            paths: true,
            dns_ports: vec![53],
            unanswered_after_ns: 6_000_000_000,
            tracked: 65_536,
            ..Asked::default()
        },
        ..Session::default()
    };
    let names: Vec<_> = (0..NAMES)
        .map(|name| format!("host{name}.shop.svc.cluster.local"))
        .collect();
    let begin = Instant::now();
    let recorder = Recorder::start(directory, session, Keep::default());
    let mut recorder = recorder.map_err(io::Error::other)?;
    let mut now = KtimeNs(1_000_000_000);
    let tick = |ktime: KtimeNs| Recorded::Tick {
        ktime,
        wall: WallNs(START + ktime.0.cast_signed()),
    };
    recorder.again(tick(now));
    for number in 0..EXCHANGES {
        let name = names.get((number % NAMES) as usize);
        for mut fact in steady(number, PORTS, name.map_or("", |name| name)).facts(now) {
            if let Fact::Packet(packet) = &mut fact {
                packet.headers = headers(packet);
            }
            recorder.again(Event::Fact(&fact).into());
        }
        now = now.plus(PERIOD);
        if number % EACH_TICK == EACH_TICK - 1 {
            recorder.again(tick(now));
            recorder.flush_all();
        }
    }
    recorder.again(tick(now.plus(Duration::from_secs(20))));
    recorder.flush_all();
    let lost = recorder.finish().total();
    let files = files(directory)?;
    let bytes: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    let facts = EXCHANGES * HOPS as u64;
    println!(
        "written: {facts} facts in {:.2} s, {} files of {} MB, {:.1} bytes a fact, {lost} lost",
        begin.elapsed().as_secs_f64(),
        files.len(),
        bytes / 1_000_000,
        bytes as f64 / facts as f64
    );
    Ok(())
}

/// IPv4 and UDP headers as they are captured (RFC 791, section 3.1; RFC 768), without checksums.
fn headers(packet: &Packet) -> Bytes {
    let Flow { src, dst } = packet.flow;
    let ports = [src.port(), dst.port()].map(u16::to_be_bytes).concat();
    let addresses: Vec<_> = [src.ip(), dst.ip()]
        .iter()
        .flat_map(|ip| match ip {
            IpAddr::V4(ip) => ip.octets(),
            IpAddr::V6(_) => [0; 4],
        })
        .collect();
    let udp = u16::try_from(packet.payload_len + 8).unwrap_or(u16::MAX);
    let [len, udp] = [udp.saturating_add(20), udp].map(u16::to_be_bytes);
    let ip = [0x45, 0, len[0], len[1], 0, 0, 0x40, 0, 64, 17, 0, 0];
    [&ip[..], &addresses, &ports, &udp, &[0, 0]].concat().into()
}

fn files(directory: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(self::files(&path)?);
        } else {
            let bytes = fs::metadata(&path)?.len();
            files.push((path, bytes));
        }
    }
    Ok(files)
}

/// Replays it in all ways.
fn measure(directory: &Path) -> io::Result<ExitCode> {
    let charts = directory.join("charts").display().to_string();
    let capture = directory.join("all.pcapng").display().to_string();
    let facts = (EXCHANGES * HOPS as u64) as f64;
    let mut slow = false;
    for (what, words) in [
        ("report --summary", vec!["report", "--summary"]),
        (
            "report --report all",
            vec!["report", "--summary", "--report", "all"],
        ),
        (
            "report --charts (SVG)",
            vec!["report", "--summary", "--charts", &charts],
        ),
        ("report -o html", vec!["report", "-o", "html"]),
        ("report -o json", vec!["report", "-o", "json"]),
        ("export --pcapng", vec!["export", "--pcapng", &capture]),
        (
            "report --redact names,addresses",
            vec!["report", "--summary", "--redact", "names,addresses"],
        ),
    ] {
        let ran = run(directory, &words)?;
        let speed = facts / ran.cpu_seconds;
        println!(
            "{what:<32} {:6.2} s, {:6.2} s of a core, {:5.2} million facts/s a core, {:4} MB at most, {} KB printed",
            ran.seconds,
            ran.cpu_seconds,
            speed / 1e6,
            ran.memory_kb / 1_000,
            ran.printed / 1_000
        );
        // The others do more than to replay.
        slow |= what == "report --summary" && speed < FACTS;
    }
    if slow {
        println!("limit: {:.0} million facts/s", FACTS / 1e6);
    }
    Ok(if slow {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

struct Ran {
    seconds: f64,
    /// Of one processor, whatever else ran beside.
    cpu_seconds: f64,
    memory_kb: u64,
    printed: u64,
}

/// Runs `tracer WORDS DIR`.
fn run(directory: &Path, words: &[&str]) -> io::Result<Ran> {
    let output = directory.join("output");
    let begin = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(words)
        .arg(directory)
        .stdout(fs::File::create(&output)?)
        .stderr(Stdio::null())
        .spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let stat = format!("/proc/{}/stat", child.id());
    let (mut memory_kb, mut ticks) = (0, 0);
    let ended = loop {
        // A process that has ended has no memory any more.
        let peak = fs::read_to_string(&status).ok().and_then(|status| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("VmHWM:"))?;
            line.split_whitespace().next()?.parse().ok()
        });
        memory_kb = peak.unwrap_or(memory_kb).max(memory_kb);
        // utime and stime, of which the name in parentheses may look like any field (proc_pid_stat(5)).
        let spent = fs::read_to_string(&stat).ok().and_then(|stat| {
            let (_, fields) = stat.rsplit_once(") ")?;
            let mut fields = fields.split(' ').skip(11);
            let mut next = || fields.next()?.parse::<u32>().ok();
            Some(next()? + next()?)
        });
        ticks = spent.unwrap_or(ticks).max(ticks);
        if let Some(ended) = child.try_wait()? {
            break ended;
        }
        thread::sleep(Duration::from_millis(5));
    };
    let seconds = begin.elapsed().as_secs_f64();
    if !ended.success() {
        let words = words.join(" ");
        return Err(io::Error::other(format!("tracer {words}: {ended}")));
    }
    let printed = fs::metadata(&output)?.len();
    fs::remove_file(output)?;
    Ok(Ran {
        seconds,
        // USER_HZ is 100 on every Linux (include/asm-generic/param.h).
        cpu_seconds: f64::from(ticks.max(1)) / 100.0,
        memory_kb,
        printed,
    })
}
