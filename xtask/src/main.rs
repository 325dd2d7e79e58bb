//! `cargo xtask`: sets the machine up, runs the lab, every tier of tests and the benchmarks.
//!
//! Knows how the workspace is built and tested; knows nothing of what is in it.

mod bench;
mod cluster;
mod debian;
mod image;
mod setup;
mod sh;
mod test;
mod tidy;
mod vm;

use std::{
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set-up, lab, tests and benchmarks")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the machine lacks: packages, standard library sources, bpf-linker
    Setup,
    /// Set up, build, and run `tracer lab`
    Lab {
        /// Passed on to `tracer lab`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Set up and bring a real Kubernetes cluster up on this machine, or end it
    Cluster {
        #[command(subcommand)]
        what: cluster::Cluster,
    },
    /// Set up and build the container image: one static program, as an OCI archive
    Image(image::Options),
    /// Set up and run tests: all of CI, or the tiers named
    Test {
        /// lint, unit, doc, kernel, vm, cluster; after vm: 5.10, 6.1, 6.12, newest
        #[arg(value_name = "TIER")]
        tiers: Vec<String>,
        /// Of kernel, vm and cluster, only tests whose name holds this
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
    },
    /// Set up and measure
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
}

#[derive(Subcommand)]
enum Bench {
    /// Throughput and CPU time tracing takes from a DNS server under full load
    Overhead(bench::Overhead),
    /// Time and memory from a million exchanges to all charts and the page; the same of a recording of as
    /// many, written and replayed; and the files' sizes
    Report,
    /// Time and memory that the names of a large cluster take: 5,000 nodes, 150,000 pods, 20,000 Services
    Names,
    /// Time and memory that `tracer verify` takes for the rules of a large cluster
    Verify(bench::Verify),
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(status) => status,
        Err(error) => {
            sh::say(&format!("xtask: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs benchmarks of the tracer's own.
fn benches(names: &[&str]) -> Result<()> {
    for name in names {
        let words = ["bench", "--quiet", "--package", "tracer", "--bench", name];
        sh::run(Command::new("cargo").args(words))?;
    }
    Ok(())
}

fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Setup => setup::all()?,
        Task::Lab { args } => lab(&args)?,
        Task::Cluster { what } => {
            setup::all()?;
            cluster::run(&what)?;
        }
        Task::Image(options) => {
            setup::all()?;
            image::run(&options)?;
        }
        Task::Test { tiers, only } => {
            return test::run(&tiers, only.as_deref().unwrap_or_default());
        }
        Task::Bench { what } => {
            setup::all()?;
            match what {
                Bench::Overhead(options) => bench::overhead(&options)?,
                Bench::Verify(options) => bench::verify(&options)?,
                Bench::Report => benches(&["charts", "recording"])?,
                Bench::Names => benches(&["names"])?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Becomes the lab once it is built: Ctrl-C and the exit code are then the tracer's own.
fn lab(args: &[String]) -> Result<()> {
    setup::all()?;
    sh::run(Command::new("cargo").args(["build", "--release", "--package", "tracer"]))?;
    let tracer = sh::target().join("release/tracer");
    let error = Command::new(&tracer).arg("lab").args(args).exec();
    Err(error).with_context(|| format!("start {}", tracer.display()))
}

/// Names that `cargo xtask` takes, for tidy to hold the README against.
fn subcommands() -> Vec<String> {
    Cli::command()
        .get_subcommands()
        .map(|task| task.get_name().to_owned())
        .collect()
}
