//! Node ports: whether a program of the node listens on one. kube-proxy's rules take the port's packets before a
//! socket could get them, and since 1.23 (and 1.22 in ipvs mode) it opens no socket that would keep others off.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::{Answer, Check, NAME, Problem, Seen};
use crate::{
    model::{Severity, Via, cluster::PortProtocol},
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
        let taken = sockets.iter().filter(|socket| {
            socket.protocol == *protocol
                && socket.at.port() == *port
                && !socket.at.ip().is_loopback()
        });
        problem(seen, service, &taken.collect::<Vec<_>>())
    });
    Answer::of(problems.collect(), || {
        let told = ports.keys().take(SHOWN);
        let told = told.map(|(port, protocol)| format!("{port}/{}", protocol.name()));
        let more = match ports.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let told = told.collect::<Vec<_>>().join(", ");
        format!("{told}{more}: no program of the node listens there")
    })
}

/// `None` where nobody listens but kube-proxy, which before 1.23 kept the port for itself so.
fn problem(seen: &Seen, service: &RuleService, taken: &[&Socket]) -> Option<Problem> {
    let first = taken.first()?;
    let inodes: BTreeSet<_> = taken.iter().map(|socket| socket.inode.as_str()).collect();
    let holder = seen.processes.iter().find(|process| {
        let dir = format!("/proc/{}/fd", process.pid);
        let files = seen.root.list(&dir);
        let mut links = files
            .iter()
            .filter_map(|file| seen.root.link(&format!("{dir}/{file}")));
        links.any(|link| {
            let inode = link
                .strip_prefix("socket:[")
                .and_then(|rest| rest.strip_suffix(']'));
            inode.is_some_and(|inode| inodes.contains(inode))
        })
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

/// A socket that waits for whoever comes.
#[derive(Debug, PartialEq)]
struct Socket {
    protocol: PortProtocol,
    at: SocketAddr,
    inode: String,
}

fn sockets(seen: &Seen) -> io::Result<Vec<Socket>> {
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
        sockets.extend(text.lines().filter_map(|line| socket(line, protocol)));
    }
    Ok(sockets)
}

/// A line of /proc/net/tcp or its like: the second word is its address, the third the other's, the tenth the inode
/// (proc_net(5)). `None` of one that is connected, and of the title.
fn socket(line: &str, protocol: PortProtocol) -> Option<Socket> {
    let words: Vec<_> = line.split_whitespace().collect();
    let (address, port) = words.get(1)?.rsplit_once(':')?;
    if !words.get(2)?.ends_with(":0000") {
        return None;
    }
    Some(Socket {
        protocol,
        at: SocketAddr::new(ip(address)?, u16::from_str_radix(port, 16).ok()?),
        inode: (*words.get(9)?).to_owned(),
    })
}

/// An address as words of four bytes in hexadecimal digits, each in the processor's byte order.
fn ip(digits: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = digits.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match digits.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (at, chunk) in bytes.chunks_mut(4).enumerate() {
                chunk.copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_those_that_wait_for_whoever_comes() {
        let tail = "00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0";
        let check = |words: &str, expected: Option<&str>| {
            let found = socket(&format!("   0: {words} 0A {tail}"), PortProtocol::Tcp);
            let found = found.map(|socket| (socket.at.to_string(), socket.inode));
            let expected = expected.map(|at| (at.to_owned(), "4711".to_owned()));
            assert_eq!(found, expected, "{words}");
        };
        check("00000000:7580 00000000:0000", Some("0.0.0.0:30080"));
        check("0B0200C0:7580 00000000:0000", Some("192.0.2.11:30080"));
        check(
            "B80D0120000000000000000001000000:7580 00000000000000000000000000000000:0000",
            Some("[2001:db8::1]:30080"),
        );
        check("0B0200C0:7580 0C0200C0:1F90", None);
        check("junk 00000000:0000", None);
        assert_eq!(
            socket("  sl  local_address rem_address   st", PortProtocol::Tcp),
            None
        );
    }
}
