//! Failures of the way from hop to hop: routes, neighbours, tunnels' targets, queues of devices. A router on the way
//! tells of some by an ICMP error, which may be lost or limited; the kernel's reason for the drop says the same.

use super::{
    At, Diagnosis, Object, cause,
    drops::{by_place, of, shown, with_reason},
};
use crate::model::{Outcome, Row, cause::dropped};

pub(super) const NEIGHBOURS_FULL: Diagnosis = of(
    "neighbours_full",
    "is full: packets for addresses that were not spoken to lately are dropped",
    [
        "the packet is freed with reason NEIGH_CREATEFAIL, or on Linux before 5.17 by ip_finish_output2; dmesg says `neighbour: arp_cache: neighbor table overflow!`",
        "more addresses are spoken to than net.ipv4.neigh.default.gc_thresh3, which is 1024 and shared by all namespaces of the node: many pods on a flat network, or a scan",
        "sysctl -w net.ipv4.neigh.default.gc_thresh3=8192, gc_thresh2=4096 and gc_thresh1=1024; for IPv6 those of net.ipv6.neigh.default",
        "table_fulls in /proc/net/stat/arp_cache and ndisc_cache does not grow",
    ],
    |row, _, _| {
        let table = |_: &Row| Object("neighbour table of this node", At::Here);
        let told = with_reason(row, &["NEIGH_CREATEFAIL"], table);
        told.or_else(|| {
            // Linux before 5.17 tells no reason, and frees a packet here for no other.
            let drop =
                dropped(cause(row)).filter(|drop| drop.reason.starts_with("reason not told"));
            drop.and_then(|_| {
                by_place(
                    row,
                    &["ip_finish_output2", "ip6_finish_output2"],
                    table(row),
                )
            })
        })
    },
);

pub(super) const NO_NEIGHBOUR: Diagnosis = of(
    "no_neighbour",
    "has no neighbour entry that is right, so packets for it are dropped",
    [
        "the packet waits on the node and is freed with reason NEIGH_FAILED after about three seconds; an ICMP host unreachable tells the client, unless such are limited or filtered; or it goes to a MAC address that is another's, or nobody's any more, a bridge floods it, and who gets it frees it with reason OTHERHOST",
        "the backend is a pod that is gone; or the CNI plugin's neighbour entry for the other node is missing, or has the MAC address of a flannel.1 that was made anew since",
        "tracer doctor --only cni_peers; ip neighbour show ADDRESS against ip link there; if the pod is gone: conntrack -D -p udp --orig-dst VIP",
        "",
    ],
    |row, _, _| {
        let told = row.outcome() == Outcome::Rejected
            && cause(row).contains("did not answer ARP or neighbour discovery");
        let dropped = with_reason(row, &["NEIGH_", "OTHERHOST"], address);
        dropped.or_else(|| told.then(|| shown(row, address(row))))
    },
);

pub(super) const TUNNEL_TARGET: Diagnosis = of(
    "tunnel_target",
    "is on a node that the tunnel does not know, so packets for it are dropped",
    [
        "the packet reaches the tunnel's device, as flannel.1, and is freed there with reason NO_TX_TARGET, which was VXLAN_NO_REMOTE in Linux 6.12",
        "the forwarding entry for the other node is missing: the CNI plugin's daemon does not run on this node, or never heard of that one",
        "tracer doctor --only cni_peers; bridge fdb show dev flannel.1; restart the CNI plugin's pod on this node",
        "bridge fdb show lists the other node",
    ],
    |row, _, _| with_reason(row, &["NO_TX_TARGET", "VXLAN_NO_REMOTE"], address),
);

pub(super) const NO_ROUTE: Diagnosis = of(
    "no_route",
    "has no route on the node, so packets for it are dropped",
    [
        "the packet is freed with reason IP_OUTNOROUTES or IP_INNOROUTES, and an ICMP no route tells the client, unless such are limited or filtered; where a blackhole route leads it is freed in ip_error, and nobody is told",
        "the CNI plugin's route to the other node's pods is missing, the pod is gone (Calico's own addresses without a pod lead into a blackhole), or the Service's address was never translated",
        "ip route get ADDRESS on the node; tracer doctor --only cni_peers and --only kube_proxy",
        "ip route get ADDRESS finds one",
    ],
    |row, _, _| {
        let told = row.outcome() == Outcome::Rejected && cause(row).contains("no route");
        let dropped = with_reason(row, &["IP_OUTNOROUTES", "IP_INNOROUTES"], address);
        // A blackhole is an error of its own, for which the kernel gives no reason: ip_error, net/ipv4/route.c.
        let blackhole = || in_ip_error(row, "NOT_SPECIFIED");
        dropped.or_else(|| (told || blackhole()).then(|| shown(row, address(row))))
    },
);

pub(super) const FORWARDING: Diagnosis = of(
    "forwarding",
    "is off, and what is not for the node itself is dropped",
    [
        "the packet is received from the pod's device and freed in ip_error with reason IP_INADDRERRORS; nobody is told",
        "net.ipv4.ip_forward is 0, or that of the pod's device is: a file of /etc/sysctl.d or a hardening tool set it back after the kubelet or the CNI plugin had set it",
        "sysctl -w net.ipv4.ip_forward=1, and the same in /etc/sysctl.d; tracer doctor --only forwarding",
        "net.ipv4.ip_forward and net.ipv4.conf.DEVICE.forwarding are 1",
    ],
    |row, _, _| {
        let object = Object("forwarding of this node", At::Here);
        in_ip_error(row, "IP_INADDRERRORS").then(|| shown(row, object))
    },
);

pub(super) const ROUTING_LOOP: Diagnosis = of(
    "routing_loop",
    "is led to in a circle: routers hand packets for it to each other until their hops are used up",
    [
        "the packet passes the same devices again and again with a smaller TTL; the last router frees it with reason IP_INHDR, and an ICMP time exceeded tells the client",
        "two nodes or routers each take the other for the way there: a route to a range of pods that no node has any more, or a Service's address that nothing translates and that the default route leads out",
        "ip route get ADDRESS on each router on the way; tracer doctor --only cni_peers; for a Service's address tracer doctor --only kube_proxy",
        "somebody ran traceroute, to which each router on the way answers so",
    ],
    |row, _, _| {
        let forward = ["ip_forward+", "ip6_forward+"];
        let dropped = dropped(cause(row)).is_some_and(|drop| {
            drop.reason.starts_with("IP_INHDR")
                && forward
                    .iter()
                    .any(|function| drop.place.starts_with(function))
        });
        let told = row.outcome() == Outcome::Rejected && cause(row).contains("time exceeded");
        (dropped || told).then(|| shown(row, address(row)))
    },
);

pub(super) const QUEUE_FULL: Diagnosis = of(
    "queue_full",
    "is full, or its rate is used up, and packets are dropped",
    [
        "the packet is freed as it is handed to a device, with a reason that begins with QDISC_",
        "the pod's bandwidth is limited (annotations kubernetes.io/ingress-bandwidth and egress-bandwidth, which the CNI plugin bandwidth makes with tbf), or more is sent than the link carries",
        "tc -s qdisc show on the node: which device drops; raise or remove the pod's annotation, and make the pod anew",
        "dropped of tc -s qdisc does not grow",
    ],
    |row, _, _| {
        with_reason(row, &["QDISC_"], |_| {
            Object("queue of a device on the way", At::Here)
        })
    },
);

fn address(row: &Row) -> Object {
    Object::address("address", row)
}

/// Whether the packet was freed for its route, which is an error: for `reason`.
fn in_ip_error(row: &Row, reason: &str) -> bool {
    dropped(cause(row))
        .is_some_and(|drop| drop.place.starts_with("ip_error+") && &*drop.reason == reason)
}
