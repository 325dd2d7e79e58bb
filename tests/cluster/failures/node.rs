//! The node's own settings, and what its kubelet tells pods.

use super::Step::Sh;
use super::{Failure, check};

pub(super) const FAILURES: &[Failure] = &[
    Failure {
        what: "the node does not forward",
        make: Sh("sysctl -qw net.ipv4.ip_forward=0"),
        mend: Sh("sysctl -qw net.ipv4.ip_forward=1"),
        found: &[("forwarding", "net.ipv4.ip_forward")],
    },
    Failure {
        what: "bridged packets pass no rules",
        make: Sh("sysctl -qw net.bridge.bridge-nf-call-iptables=0"),
        mend: Sh("sysctl -qw net.bridge.bridge-nf-call-iptables=1"),
        found: &[("bridge_netfilter", "bridge-nf-call-iptables")],
    },
    Failure {
        what: "the kubelet tells pods another DNS address than kube-dns has",
        make: Sh("sed -i 's/10.96.0.10/10.96.0.11/' /var/lib/kubelet/config.yaml"),
        mend: Sh("sed -i 's/10.96.0.11/10.96.0.10/' /var/lib/kubelet/config.yaml"),
        found: &[("cluster_dns_address", "10.96.0.11")],
    },
    Failure {
        what: "the node's resolv.conf, which CoreDNS inherits, names a local stub",
        make: Sh("echo 'nameserver 127.0.0.53' > /etc/resolv.conf"),
        mend: Sh("echo 'nameserver 192.0.2.10' > /etc/resolv.conf"),
        found: &[("resolv_conf", "127.0.0.53")],
    },
    Failure {
        what: "the node's resolv.conf names four servers",
        make: Sh(
            "for n in 10 11 12 13; do echo \"nameserver 192.0.2.$n\"; done > /etc/resolv.conf",
        ),
        mend: Sh("echo 'nameserver 192.0.2.10' > /etc/resolv.conf"),
        found: &[("resolv_conf", "of which resolvers ask the first three")],
    },
    Failure {
        what: "the node's resolv.conf has more search domains than the kubelet hands on",
        make: Sh(
            "{ echo 'nameserver 192.0.2.10'; echo search $(seq -f d%g.test 30); } > /etc/resolv.conf",
        ),
        mend: Sh("echo 'nameserver 192.0.2.10' > /etc/resolv.conf"),
        found: &[("resolv_conf", "has 30 search domains")],
    },
    Failure {
        what: "the kubelet sends pods to NodeLocal DNSCache, which was never deployed",
        make: Sh("sed -i 's/10.96.0.10/169.254.20.10/' /var/lib/kubelet/config.yaml"),
        mend: Sh("sed -i 's/169.254.20.10/10.96.0.10/' /var/lib/kubelet/config.yaml"),
        found: &[("cluster_dns_address", "which no device of this node has")],
    },
    Failure {
        what: "the kubelet sends pods to NodeLocal DNSCache, whose address is there, and which has ended",
        make: Sh(
            "sed -i 's/10.96.0.10/169.254.20.10/' /var/lib/kubelet/config.yaml; ip address add 169.254.20.10/32 dev lo",
        ),
        mend: Sh(
            "ip address del 169.254.20.10/32 dev lo; sed -i 's/169.254.20.10/10.96.0.10/' /var/lib/kubelet/config.yaml",
        ),
        found: &[("cluster_dns_address", "nobody listens there")],
    },
];

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`"]
fn a_node_that_is_set_wrong_is_named_by_its_setting() {
    check(FAILURES);
}
