//! `cargo xtask`: sets the machine up, runs the lab, every tier of tests and the benchmarks.
//!
//! Knows how the workspace is built and tested; knows nothing of what is in it.

mod setup;
mod sh;

use std::process::{Command, ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

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
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            sh::say(&format!("xtask: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Setup => setup::all(),
        Task::Lab { args } => {
            setup::all()?;
            sh::run(
                Command::new("cargo")
                    .args([
                        "run",
                        "--release",
                        "--quiet",
                        "--package",
                        "tracer",
                        "--",
                        "lab",
                    ])
                    .args(args),
            )
        }
    }
}
