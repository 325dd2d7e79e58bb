//! The demo: a small cluster-like network of namespaces with VIPs and real traffic, some of it broken.
//!
//! Building is synchronous and needs root, `ip`, `sysctl` and `iptables-restore`. The host's own
//! network, rules and sysctls stay as they are. Knows nothing of the tracer that watches.

mod command;
mod network;
mod process;
pub mod rules;
pub mod serve;
pub mod services;
mod traffic;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

use network::Network;
use process::Process;
use rules::Family;
use services::{CLIENT1, CLIENT2, DNS1, DNS2, Pod, SILENT, WEB1, WEB2, WEB3};

pub use serve::{Lie, ServeArgs, serve};

/// What can go wrong with a lab.
#[derive(Debug, Error)]
pub enum Error {
    /// The prefix would make names that `ip netns` refuses, or that are someone else's.
    #[error(
        "lab prefix {prefix:?} is not a letter or digit and up to 31 letters, digits, '-' or '_'"
    )]
    Prefix {
        /// As given.
        prefix: String,
    },
    /// A program is missing or could not be executed.
    #[error("start {command}")]
    Start {
        /// Program and arguments.
        command: String,
        /// Cause.
        source: io::Error,
    },
    /// A program ended with another status than 0.
    #[error("{command}: {stderr}")]
    Failed {
        /// Program and arguments.
        command: String,
        /// What it said, in one line; may be empty.
        stderr: String,
    },
    /// A socket of a server could not be opened.
    #[error("listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Cause.
        source: io::Error,
    },
    /// A server's runtime or thread could not be made, or its standard output is closed.
    #[error("start the server")]
    Runtime {
        /// Cause.
        source: io::Error,
    },
    /// The DNS server stopped serving.
    #[error("serve dns")]
    Dns(#[from] hickory_server::net::NetError),
    /// A server that was started does not answer.
    #[error("no answer from {address} over {protocol} after {seconds} s")]
    NotReady {
        /// The backend's address.
        address: SocketAddr,
        /// `udp` or `tcp`.
        protocol: &'static str,
        /// How long it was asked.
        seconds: u64,
    },
}

/// What to build.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the names of the lab's namespaces start with. A lab of the same prefix is replaced.
    pub prefix: String,
    /// This program, which is executed again as servers and clients (`lab-serve`).
    pub program: PathBuf,
}

impl Options {
    /// The prefix used when nobody asks for another.
    pub const DEFAULT_PREFIX: &'static str = "lab-";
}

/// A lab that stands. Dropping it ends its processes and removes its namespaces.
#[derive(Debug)]
pub struct Lab {
    /// Ended before the network is removed: fields drop in this order.
    servers: Vec<Process>,
    network: Network,
    program: PathBuf,
}

/// Clients that send until this is dropped.
#[derive(Debug)]
pub struct Traffic {
    clients: Vec<Process>,
}

impl Lab {
    /// Removes what an earlier lab of this prefix left, then builds; returns once all servers answer.
    pub fn build(options: &Options) -> Result<Self, Error> {
        let mut lab = Self {
            servers: Vec::new(),
            network: Network::build(&options.prefix)?,
            program: options.program.clone(),
        };
        for family in [Family::V4, Family::V6] {
            lab.network.load_rules(family)?;
        }
        for (pod, role, port) in SERVERS {
            let server = lab.start_server(*pod, role, *port)?;
            lab.servers.push(server);
        }
        process::run_in(&lab.netns(CLIENT1), &lab.program, &["probe"])?;
        Ok(lab)
    }

    /// Starts the traffic of both clients: about ten rounds a second each.
    pub fn traffic(&self) -> Result<Traffic, Error> {
        let clients = [CLIENT1, CLIENT2]
            .into_iter()
            .map(|pod| Process::start(&self.netns(pod), &self.program, &["traffic"]))
            .collect::<Result<_, _>>()?;
        Ok(Traffic { clients })
    }

    /// Name of a pod's network namespace, for `ip netns exec`.
    pub fn netns(&self, pod: Pod) -> String {
        self.network.pod(pod)
    }

    /// Name of the node's network namespace.
    pub fn node_netns(&self) -> String {
        self.network.node()
    }

    /// Pids of all servers.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.servers.iter().map(Process::pid)
    }

    /// Removes everything and says what could not be removed, which a drop cannot.
    pub fn remove(self) -> Result<(), Error> {
        drop(self.servers);
        self.network.remove()
    }

    fn start_server(&self, pod: Pod, role: &[&str], port: u16) -> Result<Process, Error> {
        let [v4, v6] = [pod.v4().into(), pod.v6().into()].map(|ip| SocketAddr::new(ip, port));
        let (v4, v6) = (v4.to_string(), v6.to_string());
        let listen = ["--listen", v4.as_str(), "--listen", v6.as_str()];
        Process::start(&self.netns(pod), &self.program, &[role, &listen].concat())
    }
}

impl Traffic {
    /// Pids of the clients.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.clients.iter().map(Process::pid)
    }
}

/// Every server: where, as what, on which port.
const SERVERS: &[(Pod, &[&str], u16)] = &[
    (DNS1, &["dns"], 53),
    (DNS2, &["dns"], 53),
    (SILENT, &["dns", "--silent"], 53),
    (WEB1, &["web"], 8080),
    (WEB2, &["web"], 8080),
    (WEB3, &["web"], 8080),
    (WEB1, &["echo"], 7777),
];
