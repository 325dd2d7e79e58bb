//! The `tracer` program: parses, calls, and maps errors to exit codes.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use tracer::cli::{Cli, Command, LabArgs};
use tracer::lab::{self, Lab, Options};

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("tracer: {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Lab(args) => hold_lab(args),
        Command::LabServe(args) => Ok(lab::serve(args)?),
    }
}

fn hold_lab(args: LabArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let _entered = runtime.enter();
    // From here on a signal ends the lab through its drop, also while it is being built.
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let lab = Lab::build(&Options {
        prefix: args.prefix,
        program: std::env::current_exe()?,
    })
    .context("build the lab")?;
    let traffic = if args.quiet {
        None
    } else {
        Some(lab.traffic()?)
    };
    say(&format!("the lab stands, its node is {}", lab.node_netns()));
    runtime.block_on(async {
        let end = async {
            match args.seconds {
                Some(seconds) => sleep(Duration::from_secs(seconds)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = end => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    });
    drop(traffic);
    lab.remove().context("remove the lab")
}

/// One line to the person at the terminal.
#[expect(clippy::print_stderr, reason = "the one place main talks to its user")]
fn say(line: &str) {
    eprintln!("{line}");
}
