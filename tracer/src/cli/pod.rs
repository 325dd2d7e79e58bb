//! What running in a pod takes.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::duration;

/// How a pod's probes are answered.
#[derive(Clone, Debug, Default, Args)]
pub struct PodArgs {
    /// Write to this file each second that the trace goes on, for `tracer alive` to read
    #[arg(long, value_name = "FILE", help_heading = "In a pod")]
    pub alive: Option<PathBuf>,
}

/// What `tracer alive` takes.
#[derive(Clone, Debug, Args)]
pub struct AliveArgs {
    /// What `--alive` was given
    pub file: PathBuf,
    /// How long ago it may have been written at most
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub within: Duration,
}
