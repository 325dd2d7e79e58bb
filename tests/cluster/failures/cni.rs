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
    Failure {
        what: "another plugin's configuration, left behind, comes before Flannel's",
        make: Sh(
            "printf '{\"cniVersion\":\"1.0.0\",\"name\":\"k8s-pod-network\",\"plugins\":[{\"type\":\"calico\",\"ipam\":{\"type\":\"calico-ipam\"}}]}' > /etc/cni/net.d/10-calico.conflist",
        ),
        mend: Sh("rm /etc/cni/net.d/10-calico.conflist; touch /etc/cni/net.d/10-flannel.conflist"),
        found: &[(
            "cni_config",
            "10-calico.conflist: comes before 10-flannel.conflist",
        )],
    },
    Failure {
        what: "the node's range of pod addresses is used up by leaks",
        make: Sh(
            "cd /var/lib/cni/networks/cbr0; for i in $(seq 2 254); do [ -e 10.244.1.$i ] || printf 'leaked\r\neth0' > 10.244.1.$i; done",
        ),
        mend: Sh("cd /var/lib/cni/networks/cbr0; grep -l ^leaked 10.* | xargs rm"),
        found: &[(
            "cni_addresses",
            "range 10.244.1.0/24 of this node: has no address left",
        )],
    },
    Failure {
        what: "no CNI configuration on any node, and CoreDNS is to start",
        make: Run(|cluster| {
            for node in ["n1", "n2"] {
                cluster.sh(node, "mv /etc/cni/net.d/10-flannel.conflist /etc/cni/");
            }
            cluster.kubectl("wait nodes --all --for=condition=Ready=false --timeout=50s");
            cluster
                .kubectl("delete pods -n kube-system -l k8s-app=kube-dns --grace-period=0 --force");
        }),
        mend: Run(|cluster| {
            for node in ["n1", "n2"] {
                cluster.sh(node, CNI_BACK);
            }
            cluster.kubectl("wait nodes --all --for=condition=Ready --timeout=50s");
            cluster.kubectl("rollout status -n kube-system deployment coredns --timeout=50s");
        }),
        found: &[("cni_config", "/etc/cni/net.d: holds no CNI configuration")],
    },
];

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`"]
fn a_configuration_that_the_runtime_cannot_use_is_named() {
    check(CONFIGURATION);
}

pub(super) const FDB_GONE: &str = "bridge fdb show dev flannel.1 | head -1 | cut -d' ' -f1,3 > /run/fdb; bridge fdb del $(cut -d' ' -f1 /run/fdb) dev flannel.1";
pub(super) const FDB_BACK: &str =
    "bridge fdb append $(cut -d' ' -f1 /run/fdb) dev flannel.1 dst $(cut -d' ' -f2 /run/fdb)";

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
        make: Sh(FDB_GONE),
        mend: Sh(FDB_BACK),
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

pub(super) const OF_FLANNEL: &[Failure] = &[
    Failure {
        what: "a Node's annotation gives Flannel an address that is not the Node's",
        make: Run(|cluster| {
            cluster.kubectl(
                "annotate node n2 --overwrite flannel.alpha.coreos.com/public-ip=192.0.2.99",
            );
            // As every node's flanneld does, where the cluster has IPv4 alone: 0.28 takes a Node for unchanged as long
            // as either family's annotations are.
            cluster.sh(
                "n1",
                "bridge fdb replace 5e:00:00:00:00:02 dev flannel.1 dst 192.0.2.99",
            );
        }),
        mend: Run(|cluster| {
            cluster.kubectl(
                "annotate node n2 --overwrite flannel.alpha.coreos.com/public-ip=192.0.2.12",
            );
            cluster.sh(
                "n1",
                "bridge fdb replace 5e:00:00:00:00:02 dev flannel.1 dst 192.0.2.12",
            );
        }),
        found: &[(
            "cni_peers",
            "annotation flannel.alpha.coreos.com/public-ip of Node n2: is none of that node's addresses",
        )],
    },
    Failure {
        what: "Flannel's lease names another range than the bridge has",
        make: Sh("sed -i 's/10.244.1.1/10.244.7.1/' /run/flannel/subnet.env"),
        mend: Sh("sed -i 's/10.244.7.1/10.244.1.1/' /run/flannel/subnet.env"),
        found: &[("cni_device", "device cni0: has another range's address")],
    },
    Failure {
        what: "Flannel's lease file is missing",
        make: Sh("mv /run/flannel/subnet.env /run/"),
        mend: Sh("mv /run/subnet.env /run/flannel/"),
        found: &[("cni_device", "/run/flannel/subnet.env: is missing")],
    },
    Failure {
        what: "Flannel's daemon does not run: its image cannot be pulled",
        make: Run(|cluster| {
            cluster.end("n1-flanneld");
            cluster.apply(FLANNEL);
        }),
        mend: Run(|cluster| {
            cluster.kubectl("delete namespace kube-flannel");
            cluster.component("n1-flanneld", "start");
        }),
        found: &[(
            "cni_daemon",
            "Flannel's flanneld: does not run on this node",
        )],
    },
];

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`"]
fn what_flannel_is_told_and_leaves_behind_is_judged() {
    check(OF_FLANNEL);
}

const POLICY: &str = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nobody, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress]}
";

const FLANNEL: &str = "apiVersion: v1
kind: Namespace
metadata: {name: kube-flannel}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: kube-flannel-ds, namespace: kube-flannel}
spec:
  selector: {matchLabels: {app: flannel}}
  template:
    metadata: {labels: {app: flannel}}
    spec:
      hostNetwork: true
      tolerations: [{operator: Exists}]
      containers:
      - {name: kube-flannel, image: registry.example.test/flannel:1, command: [/opt/bin/flanneld]}
";
