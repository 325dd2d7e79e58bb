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
];

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`"]
fn a_node_that_is_set_wrong_is_named_by_its_setting() {
    check(FAILURES);
}
