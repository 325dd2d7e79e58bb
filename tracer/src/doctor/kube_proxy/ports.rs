//! Node ports: whether a program of the node listens on one. kube-proxy's rules take the port's packets before a
//! socket could get them, and since 1.23 (and 1.22 in ipvs mode) it opens no socket that would keep others off.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use super::{Answer, Check, NAME, Problem, Seen};
use crate::{
    doctor::listed,
    model::{Severity, Via, cluster::PortProtocol},
    node::{Waiting, has_one_of},
    rules::RuleService,
};

pub(super) const NODE_PORTS: Check = Check {
    name: "node_ports",
    subject: "kube_proxy",
    why: "a program that listens on a Service's node port is told of no error, and is not reached: the rules lead the port's packets to the Service's endpoints",
    run,
};

/// Ports told.
const SHOWN: usize = 6;

fn run(seen: &Seen) -> Answer {
    let rules = match &seen.rules {
        Ok(rules) => rules,
        Err(why) => return Answer::Unknown(why.clone()),
    };
    let services = rules.ruleset.services();
    let of_nodes = services
        .iter()
        .filter(|service| service.via == Via::NodePort);
    let ports: BTreeMap<_, _> = of_nodes
        .map(|service| ((service.port, service.protocol), service))
        .collect();
    if ports.is_empty() {
        return Answer::Holds("no Service has one".to_owned());
    }
    let sockets = match sockets(seen) {
        Ok(sockets) => sockets,
        Err(error) => {
            return Answer::Unknown(format!("the node's sockets cannot be read: {error}"));
        }
    };
    let problems = ports.iter().filter_map(|((port, protocol), service)| {
        let taken = sockets.iter().filter(|(by, socket)| {
            by == protocol && socket.at.port() == *port && !socket.at.ip().is_loopback()
        });
        let taken = taken.map(|(_, socket)| socket);
        problem(seen, service, &taken.collect::<Vec<_>>())
    });
    Answer::of(problems.collect(), || {
        let told = ports.keys();
        let told = told.map(|(port, protocol)| format!("{port}/{}", protocol.name()));
        let told = listed(told, SHOWN);
        format!("{told}: no program of the node listens there")
    })
}

/// `None` where nobody listens but kube-proxy, which before 1.23 kept the port for itself so.
fn problem(seen: &Seen, service: &RuleService, taken: &[&Waiting]) -> Option<Problem> {
    let first = taken.first()?;
    let inodes: BTreeSet<_> = taken.iter().map(|socket| socket.inode.clone()).collect();
    let holder = seen.processes.iter().find(|process| {
        let dir = seen.root.path(&format!("/proc/{}", process.pid));
        has_one_of(&dir, &inodes)
    });
    if holder.is_some_and(|process| process.comm == NAME) {
        return None;
    }
    let who = holder.map_or_else(
        || "a program".to_owned(),
        |process| format!("{}[{}]", process.comm, process.pid),
    );
    let protocol = service.protocol.name();
    let of = service
        .name
        .as_ref()
        .map_or(String::new(), |name| format!(" of Service {name}"));
    Some(Problem {
        severity: Severity::Warning,
        follows: &[],
        object: format!("node port {}/{protocol}{of}", service.port),
        sentence: format!(
            "is a port that {who} listens on as well: nobody reaches it there, for kube-proxy's rules take the packets"
        ),
        evidence: vec![format!("a socket of {protocol} is at {}", first.at)],
        remedy: format!(
            "have it listen on another port, or give the Service another nodePort; ss -lnp 'sport = :{}' tells more",
            service.port
        ),
    })
}

/// Those that wait for whoever comes.
fn sockets(seen: &Seen) -> io::Result<Vec<(PortProtocol, Waiting)>> {
    let mut sockets = Vec::new();
    for (table, protocol) in [
        ("tcp", PortProtocol::Tcp),
        ("tcp6", PortProtocol::Tcp),
        ("udp", PortProtocol::Udp),
        ("udp6", PortProtocol::Udp),
    ] {
        let text = match seen.root.read(&format!("/proc/net/{table}")) {
            // A kernel without IPv6 has none of its tables.
            Err(error) if error.kind() == io::ErrorKind::NotFound && table.ends_with('6') => {
                continue;
            }
            text => text?,
        };
        let waiting = text.lines().filter_map(Waiting::of);
        sockets.extend(waiting.map(|socket| (protocol, socket)));
    }
    Ok(sockets)
}
