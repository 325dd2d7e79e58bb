//! Time and memory from a million exchanges to every chart and the page, and how large the files are.
//!
//! `cargo xtask bench report`. It fails when that takes 5 s or 300 MB, or a page of 3 MB.
#![expect(clippy::print_stdout, reason = "a benchmark's output is its purpose")]

#[path = "charts/rows.rs"]
mod rows;

use std::{fs, io, path::Path, process::ExitCode, time::Instant};

use rows::{Cluster, Random};
use tracer::{
    model::Trace,
    report::{
        Whole,
        chart::{Theme, charts},
        page,
    },
};

const EXCHANGES: u64 = 1_000_000;

const SECONDS: f64 = 5.0;
const MEMORY_MB: u64 = 300;
const PAGE_MB: u64 = 3;

fn main() -> io::Result<ExitCode> {
    measure(tempfile::tempdir()?.path())
}

fn measure(directory: &Path) -> io::Result<ExitCode> {
    let (cluster, mut random) = (Cluster::new(), Random(88_172_645_463_325_252));
    let mut trace = Trace::default();
    let begin = Instant::now();
    let mut last = begin;
    let mut step = |what: &str, bytes: Option<u64>| {
        let took = last.elapsed().as_secs_f64();
        last = Instant::now();
        let size = bytes.map(|bytes| format!(", {} KB", bytes / 1_000));
        println!("{what:<40} {took:6.2} s{}", size.unwrap_or_default());
    };
    for serial in 0..EXCHANGES {
        let (row, named) = cluster.row(serial, EXCHANGES, &mut random);
        trace.add(&row, named);
    }
    step("a million exchanges made and added up", None);
    let whole = Whole {
        trace: &trace,
        seconds: 3_600.0,
        findings: &[],
        unseen: &[],
    };
    let charts = charts(&whole);
    let mut bytes = 0;
    for chart in &charts {
        let svg = chart.svg(None);
        bytes += svg.len() as u64;
        fs::write(directory.join(format!("{}.svg", chart.name)), svg)?;
    }
    step(&format!("{} charts as SVG", charts.len()), Some(bytes));
    bytes = 0;
    for chart in &charts {
        let path = directory.join(format!("{}.png", chart.name));
        chart.png(Theme::Light, &path)?;
        bytes += fs::metadata(path)?.len();
    }
    step(&format!("{} charts as PNG", charts.len()), Some(bytes));
    let mut html = Vec::new();
    page(&whole, &mut html)?;
    let page_bytes = html.len() as u64;
    step("the page", Some(page_bytes));
    let (seconds, memory) = (begin.elapsed().as_secs_f64(), peak_kb()? / 1_000);
    println!("all of it {seconds:.2} s, {memory} MB at most");
    let holds = seconds < SECONDS && memory < MEMORY_MB && page_bytes < PAGE_MB * 1_000_000;
    if !holds {
        println!("limits: {SECONDS} s, {MEMORY_MB} MB, {PAGE_MB} MB of page");
    }
    Ok(if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The most memory that this process ever had, in KB.
fn peak_kb() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| io::Error::other("/proc/self/status has no VmHWM"))
}
