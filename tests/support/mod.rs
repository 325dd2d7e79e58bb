//! Shared by the tests that need root: ad-hoc topologies of namespaces, commands inside them, DNS that lies.
//!
//! Everything made here is removed on drop, also when a test panics. Addresses are the test's own choice.

pub(crate) mod api;
pub(crate) mod behaviours;
pub(crate) mod client;
pub(crate) mod foretold;
pub(crate) mod generated;
pub(crate) mod probe;
pub(crate) mod raw;
pub(crate) mod routed;
pub(crate) mod tally;
pub(crate) mod trace;

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};
use tracer::lab::{Lab, Lie, Options};

/// Network namespaces of one test and the links between them.
pub(crate) struct Topology {
    prefix: String,
    names: Vec<String>,
}

/// One end of a veth pair.
pub(crate) struct End<'a> {
    /// Namespace, as [`Topology::netns`] returned it.
    pub(crate) netns: &'a str,
    /// Name of the device there.
    pub(crate) device: &'a str,
    /// Addresses with prefix lengths, of either family.
    pub(crate) addresses: &'a [&'a str],
}

impl Topology {
    /// An empty topology; `test` keeps its namespaces apart from those of tests running beside it.
    pub(crate) fn new(test: &str) -> Self {
        Self {
            prefix: format!("t{}-{test}-", std::process::id()),
            names: Vec::new(),
        }
    }

    /// Adds a namespace with its loopback up and returns its full name.
    pub(crate) fn netns(&mut self, name: &str) -> String {
        let netns = format!("{}{name}", self.prefix);
        ip(&["netns", "add", &netns]);
        self.names.push(netns.clone());
        ip(&["-n", &netns, "link", "set", "lo", "up"]);
        netns
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        for netns in &self.names {
            // A panic here would hide the one that failed the test.
            drop(Command::new("ip").args(["netns", "delete", netns]).status());
        }
    }
}

/// Joins two namespaces by a veth pair, both ends up, without duplicate address detection.
pub(crate) fn veth(a: &End<'_>, b: &End<'_>) {
    let peer = ["type", "veth", "peer", "name", b.device, "netns", b.netns];
    let add = ["-n", a.netns, "link", "add", a.device];
    ip(&[add.as_slice(), &peer].concat());
    for end in [a, b] {
        ip(&["-n", end.netns, "link", "set", end.device, "up"]);
        for address in end.addresses {
            let add = [
                "-n", end.netns, "address", "add", address, "dev", end.device,
            ];
            let nodad = address.contains(':').then_some("nodad");
            ip(&add.into_iter().chain(nodad).collect::<Vec<_>>());
        }
    }
}

/// A device like a wire to nowhere, up: it takes packets, and the kernel is not seen to drop any (`ifb_xmit`,
/// drivers/net/ifb.c; `dummy_xmit`, drivers/net/dummy.c, where Debian's cloud kernels have no ifb).
pub(crate) fn wire_to_nowhere(netns: &str, device: &str) {
    let added = ["ifb", "dummy"].iter().any(|kind| {
        let words = ["-n", netns, "link", "add", device, "type", kind];
        let output = Command::new("ip").args(words).output();
        output.is_ok_and(|output| output.status.success())
    });
    assert!(added, "neither ifb nor dummy is in this kernel");
    ip(&["-n", netns, "link", "set", device, "up"]);
}

/// The program under test: `TRACER_BIN`, for an optimised one, or the one cargo built beside the tests.
pub(crate) fn program() -> PathBuf {
    env::var_os("TRACER_BIN").map_or_else(|| env!("CARGO_BIN_EXE_tracer").into(), PathBuf::from)
}

/// A lab of this test alone.
pub(crate) fn lab(test: &str) -> Lab {
    let options = Options {
        prefix: format!("t{}-{test}-", std::process::id()),
        program: program(),
    };
    Lab::build(&options).unwrap_or_else(|error| panic!("{error:?}"))
}

/// Says why this kernel cannot show what the test is about, for the tier to tell; the test returns next.
pub(crate) fn cannot(reason: &str) {
    // Not by `eprintln!`, which libtest keeps for itself.
    let said = writeln!(std::io::stderr(), "cannot: {reason}");
    assert!(said.is_ok(), "standard error is open");
}

/// Whether the kernel has IPVS, in these modules, which are loaded; else that is said for the tier to tell.
pub(crate) fn has_ipvs(modules: &[&str]) -> bool {
    let loaded = Command::new("modprobe").arg("-qa").args(modules).status();
    let has = loaded.is_ok_and(|status| status.success());
    if !has {
        cannot("this kernel has no ip_vs");
    }
    has
}

/// Asks once from `netns`, two seconds at most; `words` are dig's. Returns what it printed.
pub(crate) fn dig(netns: &str, words: &str) -> String {
    let command = format!("dig +tries=1 +time=2 {words}");
    text_of(netns, &command.split(' ').collect::<Vec<_>>())
}

/// A DNS server in a namespace that misbehaves as told; killed on drop.
pub(crate) struct LyingDns(Child);

impl LyingDns {
    /// Starts it on `listen` (address and port) and waits until its sockets are open.
    /// `more` are further options of `lab-serve dns`.
    pub(crate) fn start(netns: &str, listen: &str, lie: Lie, more: &[&str]) -> Self {
        let lie = lie.to_possible_value().expect("no lie is skipped");
        Self::spawn(netns, listen, &[&["--lie", lie.get_name()], more].concat())
    }

    /// Starts one with such options of `lab-serve dns`.
    pub(crate) fn start_with(netns: &str, listen: &str, options: &[&str]) -> Self {
        Self::spawn(netns, listen, options)
    }

    /// Starts one that tells the truth.
    pub(crate) fn honest(netns: &str, listen: &str) -> Self {
        Self::spawn(netns, listen, &[])
    }

    fn spawn(netns: &str, listen: &str, more: &[&str]) -> Self {
        let child = Command::new("ip")
            .args(["netns", "exec", netns])
            .arg(program())
            .args(["lab-serve", "--with-parent", "dns", "--listen", listen])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("ip is installed");
        let mut server = Self(child);
        let stdout = server.0.stdout.as_mut().expect("stdout is a pipe");
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        assert!(read.is_ok() && line == "ready\n", "lying dns said {line:?}");
        server
    }
}

impl LyingDns {
    /// Sends it `signal`.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("it runs");
    }
}

impl Drop for LyingDns {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Runs `words` in `netns` to the end, whatever its status.
pub(crate) fn run_in(netns: &str, words: &[&str]) -> Output {
    Command::new("ip")
        .args(["netns", "exec", netns])
        .args(words)
        .output()
        .expect("ip is installed")
}

/// What `words` printed in `netns`, standard output and then standard error.
pub(crate) fn text_of(netns: &str, words: &[&str]) -> String {
    let output = run_in(netns, words);
    let both = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Loads `rules` in `netns` by iptables-restore.
pub(crate) fn iptables_restore(netns: &str, rules: &str) {
    let mut child = Command::new("ip")
        .args(["netns", "exec", netns, "iptables-restore"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("ip is installed");
    let stdin = child.stdin.take().expect("stdin is a pipe");
    { stdin }
        .write_all(rules.as_bytes())
        .expect("rules are read");
    assert!(child.wait().is_ok_and(|status| status.success()), "{rules}");
}

pub(crate) fn ip(words: &[&str]) {
    let status = Command::new("ip").args(words).status();
    assert!(status.is_ok_and(|status| status.success()), "ip {words:?}");
}

/// Two namespaces of a topology, `client` at 192.0.2.1 and `server` at 192.0.2.2 and 192.0.2.3.
pub(crate) fn client_and_server(test: &str) -> (Topology, String, String) {
    let mut topology = Topology::new(test);
    let (client, server) = (topology.netns("client"), topology.netns("server"));
    veth(
        &End {
            netns: &client,
            device: "eth0",
            addresses: &["192.0.2.1/24"],
        },
        &End {
            netns: &server,
            device: "eth0",
            addresses: &["192.0.2.2/24", "192.0.2.3/24"],
        },
    );
    (topology, client, server)
}
