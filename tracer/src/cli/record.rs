//! What recording, replay and export take.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{Output, RowArgs, ToldArgs, TraceArgs, TraceOutput, duration};

/// What `tracer record` takes: all that `trace` does, and where to.
#[derive(Debug, Args)]
#[command(mut_arg("record", |arg| arg.hide(true)), mut_arg("summary", |arg| arg.hide(true)))]
pub struct RecordArgs {
    /// Directory to record into; it is made, and may hold other recordings
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// What is recorded.
    #[command(flatten)]
    pub trace: TraceArgs,
}

/// How a recording is kept.
#[derive(Clone, Debug, Default, Args)]
pub struct RecordingArgs {
    /// Of a recording, keep no more than this, such as 500MiB or 2GiB; the oldest goes first
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Recording")]
    pub keep_size: Option<u64>,
    /// Of a recording, keep no longer than this, such as 24h
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Recording")]
    pub keep_for: Option<Duration>,
    /// This node's name in the recording; else the machine's own
    #[arg(
        long,
        value_name = "NAME",
        env = "NODE_NAME",
        hide_env_values = true,
        help_heading = "Recording"
    )]
    pub recorded_as: Option<String>,
}

/// Which recordings are read, and which rows of theirs are wanted.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// Directories that `tracer record` wrote
    #[arg(value_name = "DIR", required = true)]
    pub dirs: Vec<PathBuf>,
    /// Only what clients in this network namespace ask: its name or inode; may be repeated
    #[arg(long, value_name = "NAME")]
    pub netns: Vec<String>,
    /// What is replaced.
    #[command(flatten)]
    pub redact: RedactArgs,
    /// Which rows are wanted.
    #[command(flatten)]
    pub rows: RowArgs,
}

/// What `tracer report` takes.
#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    /// What is read.
    #[command(flatten)]
    pub replay: ReplayArgs,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: TraceOutput,
    /// Print the summary, and no line for each query and connection
    #[arg(long)]
    pub summary: bool,
    /// What is told at the end beyond the summary.
    #[command(flatten)]
    pub told: ToldArgs,
}

/// What `tracer diagnose` takes.
#[derive(Clone, Debug, Args)]
pub struct DiagnoseArgs {
    /// What is read.
    #[command(flatten)]
    pub replay: ReplayArgs,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// What `tracer export` takes.
#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// Directories that `tracer record` wrote
    #[arg(value_name = "DIR", required = true)]
    pub dirs: Vec<PathBuf>,
    /// Write the packets to this file, as they were captured, for Wireshark; `-` is stdout
    #[arg(long, value_name = "FILE", required_unless_present = "recording")]
    pub pcapng: Option<PathBuf>,
    /// Write a recording into this directory, such as a redacted one
    #[arg(long, value_name = "DIR", conflicts_with = "pcapng")]
    pub recording: Option<PathBuf>,
    /// What is replaced.
    #[command(flatten)]
    pub redact: RedactArgs,
    /// Of which rows packets are wanted.
    #[command(flatten)]
    pub rows: RowArgs,
}

/// What is replaced by something else.
#[derive(Clone, Debug, Default, Args)]
pub struct RedactArgs {
    /// Replace these by others, the same always by the same: names, addresses, or both with a comma
    /// between
    #[arg(
        long,
        value_name = "WHAT",
        value_enum,
        value_delimiter = ',',
        help_heading = "Privacy"
    )]
    pub redact: Vec<Secret>,
    /// Replace by what follows from these words, so that recordings of several nodes agree; keep them
    /// secret
    #[arg(
        long,
        value_name = "WORDS",
        requires = "redact",
        help_heading = "Privacy"
    )]
    pub redact_key: Option<String>,
}

/// What not all are to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Secret {
    /// Of pods, Services, nodes, workloads, processes and namespaces, and those in DNS
    Names,
    /// IP addresses, those in DNS messages and in names made of addresses too
    Addresses,
}

impl RedactArgs {
    /// Whether `secret` is to be replaced.
    pub fn has(&self, secret: Secret) -> bool {
        self.redact.contains(&secret)
    }
}

fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 4] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
    ];
    let wrong = || "not a size: write 500MiB or 2GiB".to_owned();
    let parts = UNITS
        .iter()
        .find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
    let (number, unit) = parts.unwrap_or((text, 1));
    let number: u64 = number.trim().parse().map_err(|_| wrong())?;
    number
        .checked_mul(unit)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("500MiB"), Ok(500 << 20));
        assert_eq!(size("4096"), Ok(4096));
        assert!(size("2GB").is_err());
        assert!(size("0").is_err());
    }
}
