//! The command line, as types; no behaviour but parsing.

mod names;
mod plugin;
mod pod;
mod record;

pub use self::{
    names::{NameArgs, ObjectFilter, RowArgs, ServiceFilter, WorkloadFilter},
    plugin::{PluginArgs, PluginCli, PluginCommand},
    pod::{AliveArgs, PodArgs},
    record::{
        DiagnoseArgs, ExportArgs, RecordArgs, RecordingArgs, RedactArgs, ReplayArgs, ReportArgs,
        Secret,
    },
};

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, builder::PossibleValuesParser};
use tracer_ebpf::config::DNS_PORTS;

use crate::{
    lab::{Options as LabOptions, ServeArgs},
    report,
};

/// Shows where DNS queries and service connections stall on a Kubernetes node.
///
/// Exit codes: 0 done, 1 found a problem when asked to judge, 2 could not run, 3 done but
/// incomplete (records were lost).
#[derive(Debug, Parser)]
#[command(name = "tracer", version, max_term_width = 100)]
pub struct Cli {
    /// Log more, the kernel programs' own log included; twice for everything
    #[arg(short, long, action = ArgAction::Count, global = true, display_order = 100)]
    pub verbose: u8,
    /// End when nobody attends: for `kubectl tracer`, which writes to standard input
    #[arg(long, global = true, hide = true)]
    pub attended: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Trace DNS queries and service connections on this node, a line each as it ends
    Trace(TraceArgs),
    /// Trace, and keep all that was seen in a directory, to be read on any machine
    Record(RecordArgs),
    /// Read what was recorded, and print what a trace would have; times are UTC
    Report(ReportArgs),
    /// Write what was recorded for others: packets for Wireshark, with pod, Service and stage; or a
    /// recording with other names and addresses
    Export(ExportArgs),
    /// Read what was recorded, and tell only what went wrong with its packets, and why
    ///
    /// Exit code 1 when anything is found.
    Diagnose(DiagnoseArgs),
    /// Count what the kernel drops on this node, by reason, place, namespace and service
    Drops(DropsArgs),
    /// Walk a packet through this node's live rules, by evaluating them: each rule it meets, and
    /// what becomes of it
    Verify(VerifyArgs),
    /// Build a small network of namespaces, send traffic through it, some broken on purpose, and trace it
    Lab(LabArgs),
    /// Print what completes this program's commands and options in a shell
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Tell for each probe whether this kernel takes it, and what goes unseen without it
    Probes {
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Tell what is wrong with this node's kernel, CNI, CoreDNS and kube-proxy; changes nothing
    ///
    /// Exit code 1 when there is a warning or something is broken.
    Doctor(DoctorArgs),
    /// Print the page behind a finding's name: what its packets look like, what is behind it, the remedy
    Explain {
        /// Name of a finding or of a check of `tracer doctor`; without it, all names
        name: Option<String>,
    },
    /// Tell whether the trace that writes a file by --alive goes on; exit code 1 when it does not
    Alive(AliveArgs),
    /// Serve inside the lab's namespaces
    #[command(hide = true)]
    LabServe(ServeArgs),
}

/// What `tracer trace` takes.
#[derive(Clone, Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub struct TraceArgs {
    /// Only DNS queries; with --connections, both
    #[arg(long)]
    pub dns: bool,
    /// Only connections to services; with --dns, both
    #[arg(long)]
    pub connections: bool,
    /// Only what clients in this network namespace ask: its name or inode; may be repeated
    #[arg(long, value_name = "NAME")]
    pub netns: Vec<String>,
    /// Show the way of each exchange's packets, stage by stage; those of DNS over UDP into their
    /// sockets, with who reads them
    #[arg(long)]
    pub path: bool,
    /// End after this long, such as 30s or 5m; else at Ctrl-C
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub duration: Option<Duration>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: TraceOutput,
    /// Print the summary at the end, and no line for each query and connection
    #[arg(long)]
    pub summary: bool,
    /// What is told at the end beyond the summary.
    #[command(flatten)]
    pub told: ToldArgs,
    /// Port that carries DNS; may be repeated, up to four times
    #[arg(long, value_name = "PORT", default_value = "53", value_parser = clap::value_parser!(u16).range(1..))]
    pub dns_port: Vec<u16>,
    /// Service addresses, such as 10.96.0.0/12: connections to them are shown also where nothing
    /// translates them, and failures to other addresses are not; may be repeated
    #[arg(long, value_name = "CIDR", value_parser = cidr)]
    pub vip: Vec<(IpAddr, u8)>,
    /// A query is unanswered after this long
    #[arg(long, value_name = "DURATION", default_value = "6s", value_parser = duration)]
    pub unanswered_after: Duration,
    /// Most queries, and most connections, followed at once
    #[arg(long, value_name = "COUNT", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(16..=16_777_216))]
    pub tracked: u32,
    /// Memory for records on their way from the kernel, in KiB, a power of two
    #[arg(long, value_name = "KIB", default_value_t = 4096, value_parser = ring_kib)]
    pub ring_kib: u32,
    /// Where names come from.
    #[command(flatten)]
    pub names: NameArgs,
    /// Which rows are wanted.
    #[command(flatten)]
    pub rows: RowArgs,
    /// Keep all that was seen in this directory, too, whichever rows are wanted
    #[arg(long, value_name = "DIR", help_heading = "Recording")]
    pub record: Option<PathBuf>,
    /// How it is kept.
    #[command(flatten)]
    pub recording: RecordingArgs,
    /// How a pod's probes are answered.
    #[command(flatten)]
    pub pod: PodArgs,
}

impl TraceArgs {
    /// Whether DNS is to be shown.
    pub fn wants_dns(&self) -> bool {
        self.dns || !self.connections
    }

    /// Whether connections are to be shown.
    pub fn wants_connections(&self) -> bool {
        self.connections || !self.dns
    }

    /// What the types alone cannot forbid, in words that name the remedy.
    pub fn fault(&self) -> Option<String> {
        let names = &self.names;
        let needs_api = [
            ("selector", !self.rows.selector.is_empty()),
            ("node", !self.rows.node.is_empty()),
            ("workload", !self.rows.workload.is_empty()),
        ];
        if let Some((option, _)) = needs_api.iter().find(|(_, given)| *given && names.no_api) {
            return Some(format!(
                "--{option} goes by what the API server says: leave --no-api out"
            ));
        }
        (self.dns_port.len() > DNS_PORTS).then(|| {
            format!(
                "--dns-port was given {} times: {DNS_PORTS} ports can be watched at once",
                self.dns_port.len()
            )
        })
    }
}

/// What is told of a whole trace.
#[derive(Clone, Debug, Default, Args)]
pub struct ToldArgs {
    /// Print this report at the end, or all; may be repeated
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(report_names()))]
    pub report: Vec<String>,
    /// Draw charts into this directory at the end
    #[arg(long, value_name = "DIR")]
    pub charts: Option<PathBuf>,
    /// Format of the charts
    #[arg(long, value_enum, default_value_t, requires = "charts")]
    pub chart_format: ChartFormat,
    /// Colours of the charts; without it, SVG has those that the browser asks for, and PNG is light
    #[arg(long, value_enum, requires = "charts")]
    pub chart_theme: Option<ChartTheme>,
}

/// Format of a chart's file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ChartFormat {
    /// Scalable
    #[default]
    Svg,
    /// 1600 pixels wide
    Png,
}

/// Colours of charts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ChartTheme {
    /// Dark on white
    Light,
    /// Light on black
    Dark,
}

/// How a whole trace is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TraceOutput {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
    /// One page at the end, with every report and chart, and nothing before it
    Html,
}

impl ToldArgs {
    /// Names of the reports wanted.
    pub fn reports(&self) -> Vec<&str> {
        let named = |name: &str| {
            self.report
                .iter()
                .any(|wanted| wanted == name || wanted == "all")
        };
        let names = report::ALL.iter().map(|report| report.name);
        names.filter(|name| named(name)).collect()
    }
}

fn report_names() -> impl Iterator<Item = &'static str> {
    report::ALL.iter().map(|report| report.name).chain(["all"])
}

/// What `tracer drops` takes.
#[derive(Clone, Debug, Args)]
pub struct DropsArgs {
    /// Print what was counted each time this long has passed, such as 5s; else once at the end
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub every: Option<Duration>,
    /// End after this long, such as 30s or 5m; else at Ctrl-C
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Only drops in this network namespace: its name or inode; may be repeated
    #[arg(long, value_name = "NAME")]
    pub netns: Vec<String>,
    /// Service addresses, such as 10.96.0.0/12: drops on the way to them are told apart by
    /// service also where nothing translates them; may be repeated
    #[arg(long, value_name = "CIDR", value_parser = cidr)]
    pub vip: Vec<(IpAddr, u8)>,
    /// Where names come from.
    #[command(flatten)]
    pub names: NameArgs,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// What `tracer doctor` takes.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Only this check, or the checks of this subject (node, cni, coredns, kube_proxy); may be
    /// repeated, or several with commas between them
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Then send one DNS query and one connection to the API server's VIP from within this pod
    /// (NAMESPACE/NAME), process id or namespace of `ip netns`, and follow them on their way
    #[arg(long, value_name = "WHOM", conflicts_with_all = ["watch", "root"])]
    pub probe: Option<String>,
    /// Look again each time this long has passed, such as 30s, until Ctrl-C
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub watch: Option<Duration>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
    /// Where the node's files are; another directory than / is judged by its files alone
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
}

/// What `tracer verify` takes.
#[derive(Clone, Debug, Default, Args)]
pub struct VerifyArgs {
    /// Walk one packet instead; who sends it: an address, or `node` for this node itself
    #[arg(long, value_name = "WHO", requires = "to", help_heading = "One packet")]
    pub from: Option<String>,
    /// To whom: a Service's port as shop/web:80, or an address and port
    #[arg(
        long,
        value_name = "WHOM",
        requires = "from",
        help_heading = "One packet"
    )]
    pub to: Option<String>,
    /// By UDP; else by TCP
    #[arg(long, requires = "from", help_heading = "One packet")]
    pub udp: bool,
    /// What the API objects are, instead of asking the API server: files as `kubectl get
    /// services,endpointslices,nodes,pods -A -o json` writes them
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["from", "kubeconfig"])]
    pub objects: Vec<PathBuf>,
    /// How to reach the API server; else KUBECONFIG, a pod's service account, ~/.kube/config, and the
    /// kubelet's own configuration are looked for, in this order
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    pub kubeconfig: Option<PathBuf>,
    /// What the API server said before, as `tracer trace --keep-names` keeps it, for when it is not heard
    #[arg(long, value_name = "FILE", default_value = names::NAMES_FILE, conflicts_with_all = ["from", "objects"])]
    pub names_file: PathBuf,
    /// Which Node this is; else the one that has this machine's addresses
    #[arg(long, value_name = "NAME", conflicts_with = "from")]
    pub node: Option<String>,
    /// Go on until Ctrl-C, and print what is newly found and what is mended
    #[arg(long, conflicts_with_all = ["from", "objects"])]
    pub watch: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// What `tracer lab` takes: all that `trace` does, and what concerns the lab.
#[derive(Debug, Args)]
pub struct LabArgs {
    /// How it is traced.
    #[command(flatten)]
    pub trace: TraceArgs,
    /// What the names of the lab's namespaces start with
    #[arg(long, default_value = LabOptions::DEFAULT_PREFIX)]
    pub prefix: String,
    /// Build the network and its servers, send nothing and trace nothing
    #[arg(long)]
    pub idle: bool,
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map(jiff::SignedDuration::from_secs);
    let parsed = seconds.or_else(|_| text.parse::<jiff::SignedDuration>());
    let duration = parsed
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok());
    duration
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "not a duration: write 30s, 5m or 1h30m".to_owned())
}

fn ring_kib(text: &str) -> Result<u32, String> {
    let kib: Result<u32, _> = text.parse();
    kib.ok()
        .filter(|kib| kib.is_power_of_two() && (4..=1 << 20).contains(kib))
        .ok_or_else(|| "not a power of two between 4 and 1048576".to_owned())
}

fn cidr(text: &str) -> Result<(IpAddr, u8), String> {
    let wrong = || "not a prefix: write 10.96.0.0/12 or fd00:10:96::/112".to_owned();
    let (address, bits) = text.split_once('/').unwrap_or((text, ""));
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = if bits.is_empty() {
        most
    } else {
        bits.parse().map_err(|_| wrong())?
    };
    if bits > most {
        Err(wrong())
    } else {
        Ok((address, bits))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert!(duration("-3s").is_err());
        assert!(duration("soon").is_err());
        assert!(duration("0s").is_err());
    }

    #[test]
    fn prefixes_are_checked_against_their_family() {
        assert_eq!(cidr("10.96.0.0/12"), Ok((IpAddr::from([10, 96, 0, 0]), 12)));
        assert_eq!(cidr("10.96.0.10"), Ok((IpAddr::from([10, 96, 0, 10]), 32)));
        assert!(cidr("10.96.0.0/33").is_err());
        assert!(cidr("here/8").is_err());
    }
}
