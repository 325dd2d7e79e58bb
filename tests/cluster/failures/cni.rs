//! The CNI plugin's configuration, and what Flannel lays between the nodes.

use super::Step::{Run, Sh};
use super::{Failure, check};

/// By writing: containerd does not notice a file that is moved there.
const CNI_BACK: &str =
    "cp /etc/cni/10-flannel.conflist /etc/cni/net.d/; rm /etc/cni/10-flannel.conflist";

pub(super) const CONFIGURATION: &[Failure] = &[
    Failure {
        what: "no CNI configuration",
        make: Sh("mv /etc/cni/net.d/10-flannel.conflist /etc/cni/"),
        mend: Sh(CNI_BACK),
        found: &[("cni_config", "/etc/cni/net.d")],
    },
    Failure {
        what: "the CNI configuration is no JSON",
        make: Sh(
            "cd /etc/cni/net.d; cp 10-flannel.conflist ..; sed -i '2s/,$//' 10-flannel.conflist",
        ),
        mend: Sh(CNI_BACK),
        found: &[("cni_config", "10-flannel.conflist")],
    },
    Failure {
        what: "a CNI plugin's program is missing",
        make: Sh("mv /opt/cni/bin/portmap /opt/cni/"),
        mend: Sh("mv /opt/cni/portmap /opt/cni/bin/"),
        found: &[("cni_binaries", "portmap")],
    },
];

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`"]
fn a_configuration_that_the_runtime_cannot_use_is_named() {
    check(CONFIGURATION);
}

pub(super) const OVERLAY: &[Failure] = &[
    Failure {
        what: "flannel.1 is down",
        // Its routes go with it; the rest stays.
        make: Sh(
            "for v in 4 6; do ip -$v route show dev flannel.1 > /run/routes$v; done; ip link set flannel.1 down",
        ),
        mend: Sh(
            "ip link set flannel.1 up; ip neigh replace 10.244.2.0 lladdr 5e:00:00:00:00:02 dev flannel.1 nud permanent; for v in 4 6; do grep -v ^fe80 /run/routes$v | while read -r route; do ip -$v route replace $route dev flannel.1; done; done",
        ),
        found: &[("cni_device", "flannel.1")],
    },
    Failure {
        what: "flannel.1 has no forwarding entry for the other node",
        make: Sh(
            "bridge fdb show dev flannel.1 | head -1 | cut -d' ' -f1,3 > /run/fdb; bridge fdb del $(cut -d' ' -f1 /run/fdb) dev flannel.1",
        ),
        mend: Sh(
            "bridge fdb append $(cut -d' ' -f1 /run/fdb) dev flannel.1 dst $(cut -d' ' -f2 /run/fdb)",
        ),
        found: &[(
            "cni_peers",
            "10.244.2.0 dev flannel.1: has no forwarding entry",
        )],
    },
    Failure {
        what: "flannel.1 has no neighbour entry for the other node",
        make: Sh("ip neigh del 10.244.2.0 dev flannel.1"),
        mend: Sh(
            "ip neigh replace 10.244.2.0 lladdr 5e:00:00:00:00:02 dev flannel.1 nud permanent",
        ),
        found: &[("cni_peers", "has no neighbour entry for its next hop")],
    },
    Failure {
        what: "no route to the other node's pods",
        make: Sh("ip route show 10.244.2.0/24 > /run/route; ip route del 10.244.2.0/24"),
        mend: Sh("ip route add $(cat /run/route)"),
        found: &[("cni_peers", "route to Node n2 (10.244.2.0/24): is missing")],
    },
    Failure {
        what: "the network between the nodes carries less than the overlay's MTU and headers",
        make: Sh("ip link set eth0 mtu 1450"),
        mend: Sh("ip link set eth0 mtu 1500"),
        found: &[
            ("cni_mtu", "device flannel.1: has an MTU too large for eth0"),
            (
                "cni_mtu",
                "device flannel-v6.1: has an MTU too large for eth0",
            ),
        ],
    },
    Failure {
        what: "iptables' FORWARD policy is DROP",
        make: Sh("iptables -P FORWARD DROP"),
        mend: Sh("iptables -P FORWARD ACCEPT"),
        found: &[("forward_rules", "FORWARD")],
    },
    Failure {
        what: "the overlay's UDP port is blocked",
        make: Sh("iptables -A INPUT -p udp --dport 8472 -j DROP"),
        mend: Sh("iptables -D INPUT -p udp --dport 8472 -j DROP"),
        found: &[("tunnel_port", "8472")],
    },
    Failure {
        what: "NetworkPolicies under Flannel, which ignores them",
        make: Run(|cluster| cluster.apply(POLICY)),
        mend: Run(|cluster| {
            cluster.kubectl("delete networkpolicy -n shop nobody");
        }),
        found: &[("network_policies", "shop/nobody")],
    },
];

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`"]
fn what_is_wrong_on_the_way_to_the_other_node_is_named() {
    check(OVERLAY);
}

const POLICY: &str = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nobody, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress]}
";
