//! `cargo xtask bench overhead`: what tracing takes from a DNS server under full load.
//!
//! dnsperf saturates the lab's VIP in turn without and with a capture, so that both runs of a pair
//! meet the machine in the same mood; each pair gives one ratio, and the table their medians. A
//! pair of two runs without anything shows the noise, `tcpdump -w` the yardstick. dnsperf and the lab's servers have a
//! processor each, a capture takes what it gets; with `--shared` all move.

mod capture;
mod child;
mod load;
mod stats;
mod verify;

pub(crate) use self::verify::{Verify, verify};

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use self::{
    capture::{Capture, Captured},
    child::Child,
    load::{Processors, Run},
    stats::Quartiles,
};
use crate::sh::{self, say};

/// What `cargo xtask bench overhead` can be told.
#[derive(clap::Args)]
pub(crate) struct Overhead {
    /// Pairs of runs, without and with, for each capture
    #[arg(long, default_value_t = 9)]
    pairs: u32,
    /// Length of a run in seconds
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Measure this program instead of the workspace's release build
    #[arg(long)]
    tracer: Option<PathBuf>,
    /// Measure this program too, an earlier build say, in the same run
    #[arg(long)]
    against: Option<PathBuf>,
    /// Measure these alone, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Capture::ALL)]
    only: Vec<Capture>,
    /// Let dnsperf and the lab's servers run on any processor: closer to a node, and less steady
    #[arg(long)]
    shared: bool,
}

/// What the lab says on stderr once its servers answer.
const LAB_READY: &str = "lab ready";

/// How long the lab may take to come up and to clean up.
const LAB_LIMIT: Duration = Duration::from_mins(1);

/// One capture's pairs so far.
struct Series {
    capture: Capture,
    name: String,
    /// The program, where the capture is one of the tracer's.
    tracer: PathBuf,
    /// Throughput lost, in percent of the run without.
    loss: Vec<f64>,
    /// CPU time added to a query, in µs.
    cpu: Vec<f64>,
    /// Records or packets the capture says it lost, over all runs.
    lost: u64,
}

/// Measures and prints the table.
///
/// # Errors
/// A program cannot run or says nothing of use, or the tracer lost a record.
pub(crate) fn overhead(options: &Overhead) -> Result<()> {
    ensure!(
        options.pairs > 0 && options.seconds > 0,
        "--pairs and --seconds begin at 1"
    );
    let tracer = match &options.tracer {
        Some(tracer) => tracer.clone(),
        None => built()?,
    };
    let dir = sh::target().join("bench");
    fs::create_dir_all(&dir)?;
    let queries = dir.join("queries.txt");
    fs::write(&queries, load::queries())?;

    let processors = if options.shared {
        Processors::shared()?
    } else {
        Processors::apart()
    };
    let mut lab = Child::start(
        "tracer lab",
        // SIGINT lets it remove its namespaces.
        sh::tied("taskset", "INT")
            .args(["--cpu-list", &processors.servers])
            .arg(&tracer)
            .args(["lab", "--idle"]),
    )?;
    lab.wait_for(LAB_READY, LAB_LIMIT)?;
    let load = |seconds| load::run(&queries, seconds, &processors);
    load(1).context("warm up")?;
    let mut all = series(options, &tracer);
    for pair in 1..=options.pairs {
        for series in &mut all {
            series.measure(|| load(options.seconds))?;
            say(&format!("pair {pair}: {}", series.last()));
        }
    }
    lab.interrupt(LAB_LIMIT)?;

    say("");
    for line in table(&all) {
        say(&line);
    }
    for series in &all {
        ensure!(
            !series.capture.is_ours() || series.lost == 0,
            "{} lost {} records",
            series.name,
            series.lost
        );
    }
    Ok(())
}

/// What is measured, in turn: the two programs next to each other.
fn series(options: &Overhead, tracer: &Path) -> Vec<Series> {
    let mut all = Vec::new();
    for &capture in &options.only {
        all.push(Series::new(capture, capture.name().to_owned(), tracer));
        if let Some(other) = options.against.as_deref().filter(|_| capture.is_ours()) {
            let name = capture.name().replace("tracer", "other ");
            all.push(Series::new(capture, name, other));
        }
    }
    all
}

fn built() -> Result<PathBuf> {
    sh::run(Command::new("cargo").args(["build", "--release", "--quiet", "--package", "tracer"]))?;
    Ok(sh::target().join("release/tracer"))
}

impl Series {
    fn new(capture: Capture, name: String, tracer: &Path) -> Self {
        Self {
            capture,
            name,
            tracer: tracer.to_owned(),
            loss: Vec::new(),
            cpu: Vec::new(),
            lost: 0,
        }
    }

    /// One pair: a run without, then one with the capture.
    fn measure(&mut self, load: impl Fn() -> Result<Run>) -> Result<()> {
        let without = load()?;
        let (with, Captured { lost }) = self.capture.around(&self.tracer, &load)?;
        self.loss
            .push(100.0 * (1.0 - with.per_second / without.per_second));
        self.cpu.push(with.cpu_us - without.cpu_us);
        self.lost += lost;
        Ok(())
    }

    fn last(&self) -> String {
        let last = |values: &[f64]| values.last().copied().unwrap_or_default();
        format!(
            "{:<16} {:6.1} % lost throughput, {:6.2} µs a query added",
            self.name,
            last(&self.loss),
            last(&self.cpu)
        )
    }
}

fn table(all: &[Series]) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<16} {:>24} {:>24} {:>6}",
        "capture", "throughput lost, %", "CPU added, µs/query", "lost"
    )];
    for series in all {
        lines.push(format!(
            "{:<16} {:>24} {:>24} {:>6}",
            series.name,
            Quartiles::of(&series.loss).to_string(),
            Quartiles::of(&series.cpu).to_string(),
            series.lost
        ));
    }
    let pairs = all.first().map_or(0, |series| series.loss.len());
    lines.push(format!(
        "median (25–75 %) of {pairs} pairs; CPU is the whole machine's, from /proc/stat"
    ));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_program_is_measured_next_to_the_first() {
        let options = Overhead {
            pairs: 1,
            seconds: 1,
            tracer: None,
            against: Some(PathBuf::from("before")),
            only: vec![Capture::Tcpdump, Capture::TracerSummary],
            shared: false,
        };
        let all = series(&options, Path::new("now"));
        let told = all
            .iter()
            .map(|series| (series.name.as_str(), series.tracer.to_str().unwrap()));
        assert_eq!(
            told.collect::<Vec<_>>(),
            [
                ("tcpdump -w", "now"),
                ("tracer --summary", "now"),
                ("other  --summary", "before"),
            ]
        );
    }

    #[test]
    fn the_table_gives_median_and_quartiles_of_each_capture() {
        let name = Capture::Tcpdump.name().to_owned();
        let mut series = Series::new(Capture::Tcpdump, name, Path::new("tracer"));
        series.loss = vec![8.0, 12.0, 10.0];
        series.cpu = vec![3.0, 3.5, 2.5];
        series.lost = 2;
        assert_eq!(
            table(&[series])[1..],
            [
                "tcpdump -w              10.0 (9.0 … 11.0)          3.0 (2.8 … 3.2)      2",
                "median (25–75 %) of 3 pairs; CPU is the whole machine's, from /proc/stat",
            ]
        );
    }
}
