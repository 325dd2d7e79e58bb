//! The command line of the same program under the name `kubectl-tracer`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

use super::duration;

/// Runs the tracer on a node of the cluster, and prints here what it prints there.
///
/// Exit codes are the tracer's own.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-tracer",
    bin_name = "kubectl tracer",
    version,
    max_term_width = 100
)]
pub struct PluginCli {
    /// What to do.
    #[command(subcommand)]
    pub command: PluginCommand,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Run the tracer on a node: in the DaemonSet's pod there, else in a debugging pod that ends with it
    Node(PluginArgs),
}

/// What `kubectl tracer node` takes.
#[derive(Clone, Debug, Args)]
pub struct PluginArgs {
    /// The node's name
    pub node: String,
    /// Run a debugging pod of this image, also where the DaemonSet has one
    #[arg(long, value_name = "NAME")]
    pub image: Option<String>,
    /// Namespace of the DaemonSet, or of the debugging pod; else any that has the DaemonSet, and for the
    /// pod `tracer` where there is one, else the kubeconfig's
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// How to reach the API server; else KUBECONFIG and ~/.kube/config, as kubectl does
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; else its current one
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// The debugging pod is ended after this long, come what may
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    pub at_most: Duration,
    /// The tracer's command and its options, such as `trace --dns`
    #[arg(last = true, value_name = "COMMAND", default_values = ["trace"], allow_hyphen_values = true)]
    pub command: Vec<String>,
}
