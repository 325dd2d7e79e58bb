//! The load: dnsperf at saturation through the lab's VIP, and the CPU time a query took.
//!
//! CPU time is the whole machine's busy time from /proc/stat, the kernel's work for packets
//! (softirq) included, which no process's own account has. So nothing else should run meanwhile.

use std::{fs, path::Path, process::Command, thread::available_parallelism};

use anyhow::{Context, Result, bail, ensure};

use crate::sh;

/// Where the lab's client asks, and whom.
const CLIENT: &str = "lab-client1";
const VIP: &str = "10.96.0.10";

/// On which processors the two sides run, as `taskset --cpu-list` takes them.
pub(super) struct Processors {
    pub(super) servers: String,
    dnsperf: String,
}

impl Processors {
    /// One for each side.
    pub(super) fn apart() -> Self {
        Self {
            servers: "0".to_owned(),
            dnsperf: "1".to_owned(),
        }
    }

    /// Any for both.
    ///
    /// # Errors
    /// The machine does not say how many it has.
    pub(super) fn shared() -> Result<Self> {
        let all = format!("0-{}", available_parallelism()?.get() - 1);
        Ok(Self {
            servers: all.clone(),
            dnsperf: all,
        })
    }
}

/// Sockets of dnsperf, each of which is translated to one of two backends by lot. Of four, all went to one
/// server now and then, and two to each at other times: those runs differ by a fifth.
const SOCKETS: &str = "32";

/// Ticks of /proc/stat are 10 ms on every Linux: USER_HZ, include/asm-generic/param.h.
const TICK_US: f64 = 10_000.0;

/// What one run measured.
pub(super) struct Run {
    /// Queries answered a second.
    pub(super) per_second: f64,
    /// Busy time of all processors for each answered query, in µs.
    pub(super) cpu_us: f64,
}

/// dnsperf's input: the lab's names in turn, always the same.
pub(super) fn queries() -> String {
    (1..=100)
        .map(|host| format!("host{host}.lab.test A"))
        .collect::<Vec<_>>()
        .join("\n")
        + "\n"
}

/// Asks for `seconds` as fast as answers come.
///
/// # Errors
/// dnsperf cannot run in the lab, or not on its processors, or got no answer.
pub(super) fn run(queries: &Path, seconds: u32, on: &Processors) -> Result<Run> {
    let before = busy_ticks(&fs::read_to_string("/proc/stat")?)?;
    let said = sh::output(
        Command::new("timeout")
            .args(["--kill-after=5", &(seconds + 20).to_string()])
            .args(["ip", "netns", "exec", CLIENT])
            .args(["taskset", "--cpu-list", &on.dnsperf, "dnsperf", "-s", VIP])
            // Enough in flight to keep both sides busy, few enough to overflow no receive buffer.
            .args(["-c", SOCKETS, "-q", "100", "-t", "2"])
            .args(["-l", &seconds.to_string(), "-d"])
            .arg(queries),
    )
    .context("run dnsperf in the lab")?;
    let after = busy_ticks(&fs::read_to_string("/proc/stat")?)?;
    let answered = field(&said, "Queries completed:")?;
    ensure!(answered > 0.0, "dnsperf got no answer through {VIP}");
    Ok(Run {
        per_second: field(&said, "Queries per second:")?,
        cpu_us: (after - before) * TICK_US / answered,
    })
}

/// The number after `name` in dnsperf's statistics.
fn field(said: &str, name: &str) -> Result<f64> {
    said.lines()
        .find_map(|line| line.trim().strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("dnsperf says nothing of \"{name}\""))
}

/// Ticks all processors have been busy: user, nice, system, irq, softirq; proc_stat(5).
fn busy_ticks(stat: &str) -> Result<f64> {
    let first = stat.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = first
        .split_whitespace()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks[..] else {
        bail!("/proc/stat does not begin with the processors' ticks");
    };
    Ok(user + nice + system + irq + softirq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_leaves_out_idle_and_iowait() {
        let stat = "cpu  1 2 4 1000 2000 8 16 5 0 0\ncpu0 1 1 1 1\n";
        assert!((busy_ticks(stat).unwrap() - 31.0).abs() < f64::EPSILON);
        assert!(busy_ticks("intr 1\n").is_err());
    }

    #[test]
    fn dnsperfs_statistics_are_read_by_name() {
        let said = "Statistics:\n\n  Queries completed:    100 (99.50%)\n  Queries per second:   71234.5\n";
        assert!((field(said, "Queries completed:").unwrap() - 100.0).abs() < f64::EPSILON);
        assert!((field(said, "Queries per second:").unwrap() - 71234.5).abs() < f64::EPSILON);
        assert!(field(said, "Queries lost:").is_err());
    }

    #[test]
    fn a_hundred_names_are_asked_in_turn() {
        assert_eq!(queries().lines().count(), 100);
        assert!(queries().starts_with("host1.lab.test A\nhost2.lab.test A\n"));
    }
}
