//! `Seen`: all that doctor looks at, looked at once. What can be read from files alone is read by
//! the check that wants it; here is what takes time, or the kernel, or somebody's answer.

mod counters;
pub(super) mod http;
pub(super) mod network;
pub(super) mod process;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

pub(super) use self::counters::Counters;
use self::{http::Page, network::Network, process::Process};
use super::{Root, kube_proxy, passage::Rules};
use crate::{
    cluster::objects::{self, NodeObject, Objects},
    kernel::{Kernel, Options, Status},
    model::verified::Verified,
    node::Throttled,
};

/// Shortest time between the two looks at counters.
const APART: Duration = Duration::from_secs(1);

/// All that was looked at.
#[derive(Debug)]
pub struct Seen {
    /// The node's files.
    pub root: Root,
    /// What the kernel has counted since it started, as first looked at.
    pub before: Counters,
    /// The same at least a second later.
    pub after: Counters,
    /// Devices, routes, neighbours; or why they could not be read.
    pub network: Result<Network, String>,
    /// The rules and routes that packets pass; or why they could not be read.
    pub rules: Result<Rules, String>,
    /// Processes in this node's own network, and those of which nobody may know.
    pub processes: Vec<Process>,
    /// What a CPU limit did to CoreDNS's processes on this node: since they began, and within the two looks; `None`
    /// where none is set.
    pub coredns: Vec<(u32, Option<[Throttled; 2]>)>,
    /// What local ports answered, by `ADDRESS/PATH`; or why they did not.
    pub http: BTreeMap<String, Result<Page, String>>,
    /// Metrics of CoreDNS's pods, asked a second time, and how much later that was.
    pub later: (BTreeMap<String, Result<Page, String>>, Duration),
    /// What the API server said; or why it could not be asked.
    pub objects: Result<Objects, String>,
    /// The API server in kube-proxy's kubeconfig, and whether it accepts connections; `None` when
    /// there is no such file.
    pub proxy_server: Option<(String, Result<(), String>)>,
    /// What came of judging all rules of Services; or why that could not be done.
    pub verified: Result<Verified, String>,
    /// Probes that the kernel does not take, each with what goes unseen without it; or why none
    /// could be tried.
    pub unseen: Result<Vec<String>, String>,
}

impl Seen {
    /// The files of `root` alone: nothing else has been looked at.
    pub fn of(root: Root) -> Self {
        let counters = Counters::read(&root);
        let elsewhere = || "this is a directory, not the node".to_owned();
        Self {
            before: counters,
            after: counters,
            network: Err(elsewhere()),
            rules: Err(elsewhere()),
            processes: process::of_node(&root),
            coredns: process::throttled("coredns", &root),
            http: BTreeMap::new(),
            later: (BTreeMap::new(), Duration::ZERO),
            objects: Err(elsewhere()),
            proxy_server: None,
            verified: Err(elsewhere()),
            unseen: Err(elsewhere()),
            root,
        }
    }

    /// Looks, for a few seconds at most.
    pub async fn look(root: Root) -> Self {
        let start = Instant::now();
        let mut seen = Self::of(root);
        if !seen.root.is_live() {
            return seen;
        }
        let ports = PORTS.iter().map(|port| (*port).to_owned()).collect();
        seen.network = Network::read().await;
        let network = seen.network.iter().flat_map(|network| &network.addresses);
        let own: Vec<_> = network.map(|(_, address, _)| *address).collect();
        let (objects, http, server) =
            futures::join!(objects::get(&own), ask(ports), proxy_server(&seen));
        seen.rules = Rules::read();
        seen.objects = objects;
        seen.http = http;
        seen.proxy_server = server;
        let endpoints = seen
            .objects
            .iter()
            .flat_map(|objects| &objects.dns_endpoints);
        let endpoints = endpoints.flatten().take(ENDPOINTS);
        // A pod's own address of the first family is enough; 9153 is the plugin's usual port.
        let metrics = endpoints
            .filter(|(address, _)| address.is_ipv4())
            .map(|(address, _)| format!("{address}:9153/metrics"));
        let metrics: Vec<_> = metrics.collect();
        let asked = Instant::now();
        let first = ask(metrics.clone()).await;
        seen.http.extend(first);
        seen.unseen = unseen();
        tokio::time::sleep(APART.saturating_sub(start.elapsed().min(asked.elapsed()))).await;
        seen.after = Counters::read(&seen.root);
        process::look_again(&mut seen.coredns, &seen.root);
        let apart = asked.elapsed();
        seen.later = (ask(metrics).await, apart);
        seen
    }
}

impl Seen {
    /// A process of the node's own network, by its name.
    pub fn process(&self, comm: &str) -> Option<&Process> {
        let mut processes = self.processes.iter().filter(|process| process.here);
        processes.find(|process| process.comm == comm)
    }

    /// Why it is not known whether a process of that name is the node's own; `None` when it is known.
    pub fn unplaced(&self, comm: &str) -> Option<String> {
        if self.process(comm).is_some() {
            return None;
        }
        let mut processes = self.processes.iter().filter(|process| !process.here);
        let process = processes.find(|process| process.comm == comm)?;
        Some(format!(
            "process {} is called {comm}, and in which network it runs nobody may see without CAP_SYS_PTRACE",
            process.pid
        ))
    }

    /// The Node object of this node: the one whose address a device here has.
    pub fn this_node(&self) -> Option<&NodeObject> {
        let nodes = self.objects.as_ref().ok()?.nodes.as_ref().ok()?;
        nodes.iter().find(|node| self.is_here(node))
    }

    /// The other Nodes.
    ///
    /// # Errors
    /// In words: they are not known, or which of them this one is.
    pub fn other_nodes(&self) -> Result<Vec<&NodeObject>, String> {
        let nodes = self.objects.as_ref().map_err(Clone::clone)?;
        let nodes = nodes.nodes.as_ref().map_err(Clone::clone)?;
        let others: Vec<_> = nodes.iter().filter(|node| !self.is_here(node)).collect();
        if others.len() == nodes.len() {
            return Err("no Node has an address of this machine".to_owned());
        }
        Ok(others)
    }

    fn is_here(&self, node: &NodeObject) -> bool {
        let network = self.network.as_ref();
        network.is_ok_and(|network| {
            let mut addresses = node.addresses.iter();
            addresses.any(|address| network.holder(*address).is_some())
        })
    }
}

/// Local ports of CNI plugins' daemons and of kube-proxy.
const PORTS: &[&str] = &[
    "127.0.0.1:6784/status/connections",
    "127.0.0.1:6784/status/ipam",
    "127.0.0.1:8081/healthz",
    "127.0.0.1:9099/readiness",
    "127.0.0.1:10249/proxyMode",
    "127.0.0.1:10249/metrics",
    "127.0.0.1:10256/healthz",
];

/// Most pods of CoreDNS that are asked for their metrics.
const ENDPOINTS: usize = 8;

/// Asks each of `ports`, all at once.
async fn ask(ports: Vec<String>) -> BTreeMap<String, Result<Page, String>> {
    let asked = ports.into_iter().filter_map(|port| {
        let (at, path) = port.split_once('/')?;
        let at: SocketAddr = at.parse().ok()?;
        let path = format!("/{path}");
        Some(async move { (port, http::get(at, &path).await) })
    });
    futures::future::join_all(asked).await.into_iter().collect()
}

/// Connects to the API server that kube-proxy's kubeconfig names, and hangs up.
async fn proxy_server(seen: &Seen) -> Option<(String, Result<(), String>)> {
    let process = seen.process("kube-proxy")?;
    let (_, kubeconfig) = kube_proxy::kubeconfig_of(&seen.root, process).ok()?;
    let (url, at) = kube_proxy::server(&kubeconfig)?;
    Some((url, http::connect(at).await))
}

/// Tries every probe.
fn unseen() -> Result<Vec<String>, String> {
    let options = Options {
        dns_ports: vec![53],
        connections: true,
        paths: true,
        headers: false,
        vips: Vec::new(),
        ring_bytes: 4096,
        log: false,
    };
    let (kernel, _stream) = Kernel::load(&options).map_err(|error| error.to_string())?;
    let probes = kernel.probes().iter().filter_map(|state| {
        let why = match &state.status {
            Status::Attached { .. } => return None,
            Status::NotInKernel => "not in this kernel",
            Status::Refused(why) => why,
        };
        Some(format!(
            "{} ({why}): without it go unseen {}",
            state.probe.name, state.probe.unseen
        ))
    });
    Ok(probes.chain(kernel.blind_spots()).collect())
}
