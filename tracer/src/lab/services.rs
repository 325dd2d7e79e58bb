//! The lab's pods and Services, as plain values: addresses, ports, who stands behind what.
//!
//! Rules, DNS zone, traffic and tests all read this one list; nothing here touches the machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Addresses of all pods; kube-proxy's `--cluster-cidr`, IPv4 half.
pub const CLUSTER_CIDR_V4: &str = "10.244.0.0/16";
/// Addresses of all pods; kube-proxy's `--cluster-cidr`, IPv6 half.
pub const CLUSTER_CIDR_V6: &str = "fd00:10:244::/48";
/// The node's address on the bridge `cni0`: the pods' gateway.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
/// The node's IPv6 address on the bridge `cni0`.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 1);

/// A pod of the lab: one network namespace with one interface `eth0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pod {
    /// Name, also of its namespace (after the lab's prefix) and its veth in the node (`veth-NAME`).
    pub name: &'static str,
    /// Last group of both addresses: `10.244.0.N` and `fd00:10:244::N`, written alike.
    pub host: u8,
}

impl Pod {
    /// Address on the bridge's /24.
    pub fn v4(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, 0, self.host)
    }

    /// Address on the bridge's /64; its last group reads as the IPv4 one does (`.21`, `::21`).
    pub fn v6(self) -> Ipv6Addr {
        let digits = u16::from(self.host / 10) * 16 + u16::from(self.host % 10);
        Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, digits)
    }

    /// The address of the same family as `vip`.
    pub fn address_like(self, vip: IpAddr) -> IpAddr {
        match vip {
            IpAddr::V4(_) => IpAddr::V4(self.v4()),
            IpAddr::V6(_) => IpAddr::V6(self.v6()),
        }
    }
}

/// Pod that sends traffic.
pub const CLIENT1: Pod = pod("client1", 11);
/// Second pod that sends traffic.
pub const CLIENT2: Pod = pod("client2", 12);
/// DNS server.
pub const DNS1: Pod = pod("dns1", 21);
/// DNS server.
pub const DNS2: Pod = pod("dns2", 22);
/// Web server, and the UDP echo.
pub const WEB1: Pod = pod("web1", 31);
/// Web server.
pub const WEB2: Pod = pod("web2", 32);
/// Web server.
pub const WEB3: Pod = pod("web3", 33);
/// Receives queries and never answers.
pub const SILENT: Pod = pod("silent", 41);

/// All pods, in the order they are built.
pub const PODS: &[Pod] = &[CLIENT1, CLIENT2, DNS1, DNS2, WEB1, WEB2, WEB3, SILENT];

const fn pod(name: &'static str, host: u8) -> Pod {
    Pod { name, host }
}

/// Transport protocol of a Service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Lower-case name, as iptables and kube-proxy's chain hashes take it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// One port of a [`Service`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServicePort {
    /// `spec.ports[].name`; empty when the Service's only port has none.
    pub name: &'static str,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port on the VIP.
    pub port: u16,
    /// Port on the backends.
    pub target: u16,
}

/// A ClusterIP Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// Namespace in the sense of Kubernetes.
    pub namespace: &'static str,
    /// Name.
    pub name: &'static str,
    /// ClusterIP.
    pub v4: Ipv4Addr,
    /// Second ClusterIP of a dual-stack Service; `None` for one of IPv4 alone.
    pub v6: Option<Ipv6Addr>,
    /// Ports, never empty.
    pub ports: &'static [ServicePort],
    /// Ready backends; empty when there is none, and the rules REJECT.
    pub backends: &'static [Pod],
    /// Whether a rule in the node's FORWARD chain drops what is sent to it, as a NetworkPolicy does.
    pub filtered: bool,
}

impl Service {
    /// All ClusterIPs, IPv4 first.
    pub fn vips(&self) -> impl Iterator<Item = IpAddr> {
        [Some(IpAddr::V4(self.v4)), self.v6.map(IpAddr::V6)]
            .into_iter()
            .flatten()
    }

    /// `NAME.NAMESPACE.svc.cluster.local`, without a final dot.
    pub fn dns_name(&self) -> String {
        format!("{}.{}.svc.cluster.local", self.name, self.namespace)
    }

    /// The IPv4 VIP at this Service's first port.
    pub fn socket(&self) -> SocketAddr {
        SocketAddr::from((self.v4, self.ports[0].port))
    }
}

const DNS_PORTS: &[ServicePort] = &[
    port("dns", Protocol::Udp, 53, 53),
    port("dns-tcp", Protocol::Tcp, 53, 53),
];

const fn port(name: &'static str, protocol: Protocol, port: u16, target: u16) -> ServicePort {
    ServicePort {
        name,
        protocol,
        port,
        target,
    }
}

/// Works: two DNS servers, dual stack.
pub const KUBE_DNS: Service = Service {
    namespace: "kube-system",
    name: "kube-dns",
    v4: Ipv4Addr::new(10, 96, 0, 10),
    v6: Some(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0xa)),
    ports: DNS_PORTS,
    backends: &[DNS1, DNS2],
    filtered: false,
};

/// Works: three web servers, dual stack.
pub const WEB: Service = Service {
    namespace: "default",
    name: "web",
    v4: Ipv4Addr::new(10, 96, 0, 80),
    v6: Some(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x50)),
    ports: &[port("", Protocol::Tcp, 80, 8080)],
    backends: &[WEB1, WEB2, WEB3],
    filtered: false,
};

/// Works: a UDP echo.
pub const ECHO: Service = Service {
    namespace: "default",
    name: "echo",
    v4: Ipv4Addr::new(10, 96, 0, 81),
    v6: None,
    ports: &[port("", Protocol::Udp, 7, 7777)],
    backends: &[WEB1],
    filtered: false,
};

/// Broken: its backend reads the query and never answers.
pub const SILENT_DNS: Service = Service {
    namespace: "kube-system",
    name: "silent-dns",
    v4: Ipv4Addr::new(10, 96, 0, 11),
    v6: None,
    ports: DNS_PORTS,
    backends: &[SILENT],
    filtered: false,
};

/// Broken: no endpoints, so the node REJECTs.
pub const EMPTY: Service = Service {
    namespace: "default",
    name: "empty",
    v4: Ipv4Addr::new(10, 96, 0, 12),
    v6: None,
    ports: &[
        port("dns", Protocol::Udp, 53, 53),
        port("http", Protocol::Tcp, 80, 8080),
    ],
    backends: &[],
    filtered: false,
};

/// Broken: a rule on the way drops the query.
pub const FILTERED_DNS: Service = Service {
    namespace: "kube-system",
    name: "filtered-dns",
    v4: Ipv4Addr::new(10, 96, 0, 13),
    v6: None,
    ports: DNS_PORTS,
    backends: &[DNS1],
    filtered: true,
};

/// All Services, in the order of their rules.
pub const SERVICES: &[Service] = &[KUBE_DNS, WEB, ECHO, SILENT_DNS, EMPTY, FILTERED_DNS];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_addresses_of_a_pod_end_in_the_same_digits() {
        assert_eq!(WEB3.v4().to_string(), "10.244.0.33");
        assert_eq!(WEB3.v6().to_string(), "fd00:10:244::33");
    }

    #[test]
    fn vips_of_a_dual_stack_service_start_with_ipv4() {
        let vips: Vec<String> = WEB.vips().map(|vip| vip.to_string()).collect();
        assert_eq!(vips, ["10.96.0.80", "fd00:10:96::50"]);
    }
}
