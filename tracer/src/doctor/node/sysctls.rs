//! Sysctls that pods' traffic depends on: forwarding, and netfilter for what a bridge carries.

use super::{Answer, Check, Problem, Seen};
use crate::{doctor::seen::network::LinkKind, model::Severity};

pub(super) const FORWARDING: Check = Check {
    name: "forwarding",
    subject: "node",
    why: "a node that does not forward drops every packet between its pods and anything outside",
    run: forwarding,
};

pub(super) const BRIDGE: Check = Check {
    name: "bridge_netfilter",
    subject: "node",
    why: "without it an answer between two pods of one bridge bypasses conntrack, keeps the pod's address instead of the Service's, and the asker discards it",
    run: bridge,
};

const FORWARD_V4: &str = "/proc/sys/net/ipv4/ip_forward";
const FORWARD_V6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
const BRIDGE_V4: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

fn problem(sysctl: &str, sentence: &str, seen: String, remedy: String) -> Problem {
    Problem {
        severity: Severity::Broken,
        follows: &[],
        object: format!("sysctl {sysctl}"),
        sentence: sentence.to_owned(),
        evidence: vec![seen],
        remedy,
    }
}

fn set(sysctl: &str) -> String {
    format!("sysctl -w {sysctl}=1, and {sysctl} = 1 in /etc/sysctl.d/99-kubernetes.conf")
}

fn forwarding(seen: &Seen) -> Answer {
    let root = &seen.root;
    let Some(v4) = root.number(FORWARD_V4) else {
        return Answer::Unknown(format!("{FORWARD_V4} cannot be read"));
    };
    let mut problems = Vec::new();
    if v4 == 0 {
        problems.push(problem(
            "net.ipv4.ip_forward",
            "is off, so this node forwards nothing for its pods",
            format!("{FORWARD_V4} is 0"),
            set("net.ipv4.ip_forward"),
        ));
    }
    let v6 = root.number(FORWARD_V6);
    if v6 == Some(0) && pods_have_v6(seen) {
        problems.push(problem(
            "net.ipv6.conf.all.forwarding",
            "is off, and this node's pods have IPv6 addresses",
            format!("{FORWARD_V6} is 0"),
            set("net.ipv6.conf.all.forwarding"),
        ));
    }
    Answer::of(problems, || match v6 {
        Some(0) => "on for IPv4, off for IPv6, which this node's pods do not use".to_owned(),
        Some(_) => "on for IPv4 and IPv6".to_owned(),
        None => "on for IPv4; the kernel has no IPv6".to_owned(),
    })
}

/// An address that a CNI plugin gave has a colon, or the configuration has an IPv6 range.
fn pods_have_v6(seen: &Seen) -> bool {
    let networks = seen.root.list("/var/lib/cni/networks");
    networks.iter().any(|network| {
        let addresses = seen.root.list(&format!("/var/lib/cni/networks/{network}"));
        // host-local writes an address's colons as they are; its lock file has none.
        addresses.iter().any(|address| address.contains(':'))
    })
}

fn bridge(seen: &Seen) -> Answer {
    let root = &seen.root;
    let network = match &seen.network {
        Ok(network) => network,
        Err(why) => return Answer::Unknown(why.clone()),
    };
    let bridges = network.links.iter().filter(|link| {
        let has_port = network
            .links
            .iter()
            .any(|port| port.master == Some(link.index));
        link.kind == LinkKind::Bridge && has_port
    });
    let bridges: Vec<_> = bridges.map(|link| link.name.as_str()).collect();
    if bridges.is_empty() {
        return Answer::Holds("no pods hang on a bridge, so it does not matter".to_owned());
    }
    let on = bridges.join(", ");
    match root.number(BRIDGE_V4) {
        Some(0) => Answer::Fails(vec![problem(
            "net.bridge.bridge-nf-call-iptables",
            "is off, so answers between pods of one bridge keep the backend's address and are discarded",
            format!("{BRIDGE_V4} is 0, and bridges with ports are {on}"),
            set("net.bridge.bridge-nf-call-iptables"),
        )]),
        Some(_) => Answer::Holds(format!("on; bridges with ports: {on}")),
        None => Answer::Fails(vec![problem(
            "net.bridge.bridge-nf-call-iptables",
            "does not exist, for br_netfilter is not loaded: answers between pods of one bridge keep the backend's address and are discarded",
            format!("{BRIDGE_V4} is missing, and bridges with ports are {on}"),
            "modprobe br_netfilter, and br_netfilter in /etc/modules-load.d/kubernetes.conf"
                .to_owned(),
        )]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        doctor::{
            Root,
            seen::network::{Link, Network},
        },
        node::scratch::Scratch,
    };

    fn check(files: &[(&str, &str)], network: Network, run: fn(&Seen) -> Answer, expected: &str) {
        let root = Scratch::new(files);
        let mut seen = Seen::of(Root::new(root.path()));
        seen.network = Ok(network);
        let said = match run(&seen) {
            Answer::Holds(seen) => format!("holds: {seen}"),
            Answer::Unknown(why) => format!("unknown: {why}"),
            Answer::Fails(problems) => format!("fails: {}", problems[0].object),
        };
        assert_eq!(said, expected);
    }

    #[test]
    fn forwarding_must_be_on_for_the_families_that_pods_have() {
        let v4 = "proc/sys/net/ipv4/ip_forward";
        let v6 = "proc/sys/net/ipv6/conf/all/forwarding";
        let check = |files: &[_], expected| check(files, Network::default(), forwarding, expected);
        check(&[(v4, "1\n"), (v6, "1\n")], "holds: on for IPv4 and IPv6");
        check(&[(v4, "0\n")], "fails: sysctl net.ipv4.ip_forward");
        let address = "var/lib/cni/networks/cbr0/fd00:10:244:1::5";
        check(
            &[(v4, "1\n"), (v6, "0\n"), (address, "id\r\neth0")],
            "fails: sysctl net.ipv6.conf.all.forwarding",
        );
    }

    fn link(index: u32, name: &str, kind: LinkKind, master: Option<u32>) -> Link {
        Link {
            index,
            name: name.to_owned(),
            kind,
            mtu: 1450,
            up: true,
            mac: None,
            master,
            tx_dropped: 0,
        }
    }

    #[test]
    fn bridge_netfilter_matters_where_pods_hang_on_a_bridge() {
        let with_pods = || Network {
            links: vec![
                link(3, "cni0", LinkKind::Bridge, None),
                link(4, "veth1", LinkKind::Veth, Some(3)),
            ],
            ..Network::default()
        };
        let sysctl = "proc/sys/net/bridge/bridge-nf-call-iptables";
        let holds = "holds: on; bridges with ports: cni0";
        check(&[(sysctl, "1\n")], with_pods(), bridge, holds);
        let fails = "fails: sysctl net.bridge.bridge-nf-call-iptables";
        check(&[(sysctl, "0\n")], with_pods(), bridge, fails);
        check(&[], with_pods(), bridge, fails);
        let none = "holds: no pods hang on a bridge, so it does not matter";
        check(&[], Network::default(), bridge, none);
    }
}
