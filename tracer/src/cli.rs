//! The command line, as types; no behaviour.

use clap::{Args, Parser, Subcommand};

use crate::lab::{Options, ServeArgs};

/// Shows where DNS queries and service connections stall on a Kubernetes node.
#[derive(Debug, Parser)]
#[command(name = "tracer", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build a small network of namespaces and send traffic through it, some of it broken
    Lab(LabArgs),
    /// Serve inside the lab's namespaces
    #[command(hide = true)]
    LabServe(ServeArgs),
}

/// What `tracer lab` takes.
#[derive(Debug, Args)]
pub struct LabArgs {
    /// What the names of the lab's namespaces start with
    #[arg(long, default_value = Options::DEFAULT_PREFIX)]
    pub prefix: String,
    /// End after so many seconds instead of at Ctrl-C
    #[arg(long = "for", value_name = "SECONDS")]
    pub seconds: Option<u64>,
    /// Build the network and its servers, but send nothing
    #[arg(long)]
    pub quiet: bool,
}
