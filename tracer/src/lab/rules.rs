//! The node's Service rules as kube-proxy writes them in iptables mode, one text for each family.
//!
//! Layout and names follow pkg/proxy/iptables/proxier.go of Kubernetes 1.33, without NodePorts,
//! external addresses and session affinity, which the lab's Services do not have. Renders text only.

mod names;

use std::fmt::{Arguments, Write};
use std::net::{IpAddr, SocketAddr};

use super::services::{CLUSTER_CIDR_V4, CLUSTER_CIDR_V6, SERVICES, Service, ServicePort};

pub use names::{endpoint_chain, port_name, service_chain};

/// IP family of a set of rules: kube-proxy runs one proxier for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// iptables.
    V4,
    /// ip6tables.
    V6,
}

impl Family {
    /// The program that loads this family's rules.
    pub fn restore_program(self) -> &'static str {
        match self {
            Self::V4 => "iptables-restore",
            Self::V6 => "ip6tables-restore",
        }
    }

    fn cluster_cidr(self) -> &'static str {
        match self {
            Self::V4 => CLUSTER_CIDR_V4,
            Self::V6 => CLUSTER_CIDR_V6,
        }
    }

    fn has(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }
}

/// One VIP at one port of a Service: what kube-proxy calls a service port.
struct Portal<'a> {
    service: &'a Service,
    port: &'a ServicePort,
    vip: IpAddr,
    /// `NAMESPACE/NAME:PORT`, see [`port_name`].
    name: String,
}

/// Text for [`Family::restore_program`]: all tables, to be loaded at once into an empty node.
pub fn restore_text(family: Family) -> String {
    let portals: Vec<Portal<'_>> = portals(family).collect();
    let mut text = String::new();
    line(&mut text, format_args!("{MANGLE}"));
    line(&mut text, format_args!("{FILTER_HEAD}"));
    for portal in &portals {
        filter_rules(&mut text, portal);
    }
    line(&mut text, format_args!("COMMIT"));
    nat_table(&mut text, family, &portals);
    text
}

fn portals(family: Family) -> impl Iterator<Item = Portal<'static>> {
    SERVICES.iter().flat_map(move |service| {
        let vips = service.vips().filter(move |vip| family.has(*vip));
        vips.flat_map(move |vip| {
            service.ports.iter().map(move |port| Portal {
                service,
                port,
                vip,
                name: port_name(service.namespace, service.name, port.name),
            })
        })
    })
}

impl Portal<'_> {
    fn chain(&self) -> String {
        service_chain(&self.name, self.port.protocol)
    }

    /// Matches a packet to this VIP and port.
    fn to_vip(&self) -> String {
        let protocol = self.port.protocol.name();
        format!(
            "-m {protocol} -p {protocol} -d {} --dport {}",
            self.vip, self.port.port
        )
    }

    /// Backends with their ports, in the order of the endpoints.
    fn endpoints(&self) -> impl Iterator<Item = SocketAddr> {
        let (vip, target) = (self.vip, self.port.target);
        self.service
            .backends
            .iter()
            .map(move |pod| SocketAddr::new(pod.address_like(vip), target))
    }
}

/// kubelet's hint of the backend in use, and the canaries both use to notice a flush.
const MANGLE: &str = "*mangle
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-PROXY-CANARY - [0:0]
COMMIT";

/// The filter table's chains and jumps. LAB-POLICY stands where a network-policy engine hooks in.
const FILTER_HEAD: &str = r#"*filter
:KUBE-PROXY-CANARY - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:LAB-POLICY - [0:0]
-A INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-A FORWARD -m comment --comment "lab network policy" -j LAB-POLICY
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x00004000/0x00004000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"#;

/// The nat table's chains, jumps and masquerading, without those of single Services.
const NAT_HEAD: &str = r#"*nat
:KUBE-PROXY-CANARY - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-POSTROUTING -m mark ! --mark 0x00004000/0x00004000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x00004000
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --or-mark 0x00004000"#;

fn filter_rules(text: &mut String, portal: &Portal<'_>) {
    let (name, to_vip) = (&portal.name, portal.to_vip());
    if portal.service.backends.is_empty() {
        line(
            text,
            format_args!(
                "-A KUBE-SERVICES -m comment --comment \"{name} has no endpoints\" {to_vip} -j REJECT"
            ),
        );
    }
    if portal.service.filtered {
        // After DNAT only conntrack still knows the VIP; the backend also serves an unfiltered Service.
        line(
            text,
            format_args!(
                "-A LAB-POLICY -m comment --comment \"{name} denied\" -p {} -m conntrack --ctorigdst {} --ctorigdstport {} -j DROP",
                portal.port.protocol.name(),
                portal.vip,
                portal.port.port
            ),
        );
    }
}

fn nat_table(text: &mut String, family: Family, portals: &[Portal<'_>]) {
    line(text, format_args!("{NAT_HEAD}"));
    for portal in portals {
        nat_chains(text, portal);
    }
    for portal in portals {
        nat_rules(text, family, portal);
    }
    line(
        text,
        format_args!(
            "-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the \
             last rule in this chain\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\nCOMMIT"
        ),
    );
}

fn nat_chains(text: &mut String, portal: &Portal<'_>) {
    for (index, endpoint) in portal.endpoints().enumerate() {
        if index == 0 {
            line(text, format_args!(":{} - [0:0]", portal.chain()));
        }
        let chain = endpoint_chain(&portal.name, portal.port.protocol, endpoint);
        line(text, format_args!(":{chain} - [0:0]"));
    }
}

/// Rules of one VIP and port, none without endpoints:
/// 1. from KUBE-SERVICES into its own chain, which masquerades what comes from outside the cluster;
/// 2. to the i-th of n endpoints with probability 1/(n-i), to the last unconditionally;
/// 3. at the endpoint: masquerade what the backend sent to itself, then DNAT.
fn nat_rules(text: &mut String, family: Family, portal: &Portal<'_>) {
    let Portal { name, port, .. } = portal;
    let (chain, to_vip) = (portal.chain(), portal.to_vip());
    let (protocol, cidr) = (port.protocol.name(), family.cluster_cidr());
    let count = portal.service.backends.len();
    for (index, endpoint) in portal.endpoints().enumerate() {
        if index == 0 {
            let comment = format!("-m comment --comment \"{name} cluster IP\"");
            line(
                text,
                format_args!("-A KUBE-SERVICES {comment} {to_vip} -j {chain}"),
            );
            line(
                text,
                format_args!("-A {chain} {comment} {to_vip} ! -s {cidr} -j KUBE-MARK-MASQ"),
            );
        }
        let to = endpoint_chain(name, port.protocol, endpoint);
        line(
            text,
            format_args!(
                "-A {chain} -m comment --comment \"{name} -> {endpoint}\" {}-j {to}",
                probability(count - index)
            ),
        );
        line(
            text,
            format_args!(
                "-A {to} -m comment --comment \"{name}\" -s {} -j KUBE-MARK-MASQ",
                endpoint.ip()
            ),
        );
        line(
            text,
            format_args!(
                "-A {to} -m comment --comment \"{name}\" -m {protocol} -p {protocol} -j DNAT --to-destination {endpoint}"
            ),
        );
    }
}

/// Match for one of `remaining` endpoints; empty for the last. Ten digits, computeProbability in proxier.go.
fn probability(remaining: usize) -> String {
    match u32::try_from(remaining) {
        Ok(remaining @ 2..) => format!(
            "-m statistic --mode random --probability {:.10} ",
            1.0 / f64::from(remaining)
        ),
        _ => String::new(),
    }
}

fn line(text: &mut String, words: Arguments<'_>) {
    // Writing into a String cannot fail.
    let written = writeln!(text, "{words}");
    debug_assert!(written.is_ok(), "a String takes every line");
}

#[cfg(test)]
mod tests;
