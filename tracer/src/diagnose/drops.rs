//! Failures that the kernel was seen to cause: by its reason for the drop, and by the place.

use super::{At, Claim, Diagnosis, Judge, Object, State, cause};
use crate::model::{
    Named, Row, Severity,
    cause::{Drop, dropped},
    drops::is_netfilter,
};

/// A diagnosis told from a drop alone.
const fn of(
    name: &'static str,
    sentence: &'static str,
    texts: [&'static str; 4],
    claim: Judge,
) -> Diagnosis {
    let [wire, cause, remedy, refuted_by] = texts;
    Diagnosis {
        name,
        severity: Severity::Broken,
        sentence,
        wire,
        cause,
        remedy,
        refuted_by,
        least: 1,
        claim: Some(claim),
    }
}

pub(super) const RP_FILTER: Diagnosis = of(
    "rp_filter",
    "drops packets because they come in by another device than their answers would leave by",
    [
        "the packet is received and freed with reason IP_RPFILTER; dmesg tells of a martian source where log_martians is on",
        "reverse path filtering is strict on the device, and routing is not symmetric: two uplinks, a policy route, a tunnel whose route is missing",
        "mend the route back; or sysctl -w net.ipv4.conf.DEVICE.rp_filter=2 and net.ipv4.conf.all.rp_filter=2",
        "",
    ],
    |row, _, _| {
        with_reason(row, &["IP_RPFILTER"], |_| {
            Object("rp_filter of this node", At::Here)
        })
    },
);

pub(super) const RCVBUF_FULL: Diagnosis = of(
    "rcvbuf_full",
    "drops datagrams, for its receive buffer is full: it reads too slowly",
    [
        "the query reaches the server's namespace and is freed with reason SOCKET_RCVBUFF; UdpRcvbufErrors grows",
        "the server has too little processor time (a cpu limit that throttles it), or a burst is larger than its buffer",
        "raise CoreDNS's cpu limit or its replicas; NodeLocal DNSCache; sysctl net.core.rmem_default",
        "",
    ],
    |row, _, _| with_reason(row, &["SOCKET_RCVBUFF", "PROTO_MEM"], server),
);

pub(super) const BAD_CHECKSUM: Diagnosis = of(
    "bad_checksum",
    "sends packets whose checksum is wrong, and the receiver drops them",
    [
        "the packet arrives and is freed with reason UDP_CSUM, TCP_CSUM or IP_CSUM; across nodes only",
        "the tunnel's checksum offload is at fault (fixed in Linux 5.10 and kube-proxy 1.18; some network cards still)",
        "ethtool -K flannel.1 tx-checksum-ip-generic off (or vxlan.calico) on the sending node",
        "packets between pods of one node have it too",
    ],
    |row, _, _| {
        with_reason(row, &["UDP_CSUM", "TCP_CSUM", "IP_CSUM"], |_| {
            Object("way to this node", At::Here)
        })
    },
);

pub(super) const NEIGHBOURS_FULL: Diagnosis = of(
    "neighbours_full",
    "is full: packets for addresses that were not spoken to lately are dropped",
    [
        "the packet is freed with reason NEIGH_CREATEFAIL; dmesg says `neighbour: arp_cache: neighbor table overflow!`",
        "more addresses are spoken to than net.ipv4.neigh.default.gc_thresh3, which is 1024 and shared by all namespaces of the node: many pods on a flat network, or a scan",
        "sysctl -w net.ipv4.neigh.default.gc_thresh3=8192, gc_thresh2=4096 and gc_thresh1=1024; for IPv6 those of net.ipv6.neigh.default",
        "table_fulls in /proc/net/stat/arp_cache and ndisc_cache does not grow",
    ],
    |row, _, _| {
        with_reason(row, &["NEIGH_CREATEFAIL"], |_| {
            Object("neighbour table of this node", At::Here)
        })
    },
);

pub(super) const NO_NEIGHBOUR: Diagnosis = of(
    "no_neighbour",
    "does not answer ARP or neighbour discovery, so packets for it are dropped",
    [
        "the packet waits on the node and is freed with reason NEIGH_FAILED after about three seconds",
        "the backend is a pod that is gone, or the CNI plugin's neighbour entry for the other node is missing",
        "tracer doctor --only cni_peers; if the pod is gone: conntrack -D -p udp --orig-dst VIP",
        "",
    ],
    |row, _, _| with_reason(row, &["NEIGH_"], address),
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
        "the packet is freed with reason IP_OUTNOROUTES or IP_INNOROUTES",
        "the CNI plugin's route to the other node's pods is missing, or the Service's address was never translated",
        "tracer doctor --only cni_peers and --only kube_proxy",
        "ip route get ADDRESS finds one",
    ],
    |row, _, _| with_reason(row, &["IP_OUTNOROUTES", "IP_INNOROUTES"], address),
);

pub(super) const TOO_BIG: Diagnosis = of(
    "mtu",
    "carries packets that are too big for it, and they are dropped or their fragments do not come",
    [
        "small answers come and large ones do not; freed with reason PKT_TOO_BIG, FRAG_TOO_FAR or FRAG_REASM_TIMEOUT",
        "the pods' MTU leaves no room for the tunnel's header, or a firewall drops fragments",
        "tracer doctor --only cni_mtu; for DNS: bufsize 1232 in the Corefile",
        "",
    ],
    |row, _, _| {
        with_reason(row, &["PKT_TOO_BIG", "FRAG_"], |_| {
            Object("a link on the way", At::Here)
        })
    },
);

pub(super) const CONNTRACK_FULL: Diagnosis = of(
    "conntrack_full",
    "is full: new flows are dropped while old ones go on",
    [
        "first packets of new flows are freed in nf_conntrack_in; dmesg says `nf_conntrack: table full, dropping packet`",
        "more flows than net.netfilter.nf_conntrack_max: many short connections, or UDP entries that live 30 to 120 s each",
        "sysctl -w net.netfilter.nf_conntrack_max=…, and conntrack.min in kube-proxy's configuration",
        "nf_conntrack_count is far below nf_conntrack_max: tracer doctor --only conntrack_table",
    ],
    |row, _, _| {
        let full = cause(row).contains("conntrack's table was full")
            || cause(row).contains(" drop within that second");
        let object = Object("conntrack's table of this node", At::Here);
        let claim = by_place(row, &["nf_conntrack_in", "init_conntrack"], object);
        claim.or_else(|| full.then(|| shown(row, object)))
    },
);

pub(super) const SNAT_PORTS: Diagnosis = of(
    "snat_ports",
    "finds no port of its own for a further flow, or gives two the same, and drops the first packet of one",
    [
        "first packets of new flows are freed at POSTROUTING; conntrack -S: insert_failed grows",
        "many clients share one node address towards one destination, or masquerading chooses ports without --random-fully and two collide",
        "masquerade with --random-fully; more node addresses; fewer short connections (keep-alive)",
        "",
    ],
    |row, _, _| {
        let object = Object("masquerading of this node", At::Here);
        // Which packets raced is seen where the kernel allows probes of functions; what is counted
        // in that second otherwise.
        let raced = cause(row).contains(" clashed with that of ");
        let counted = cause(row).contains(" insert_failed within that second");
        if (raced || counted) && netfilter(row).is_some() {
            return Some(shown(row, object));
        }
        by_place(
            row,
            &["nf_nat_masquerade", "nf_nat_setup_info", "nf_nat_inet_fn"],
            object,
        )
    },
);

pub(super) const LATE_ANSWER: Diagnosis = Diagnosis {
    severity: Severity::Warning,
    ..of(
        "late_answer",
        "answers after the client has given up and closed its socket",
        [
            "the answer reaches the client's namespace and is freed with reason NO_SOCKET; ICMP port unreachable goes back to the server",
            "the server, or its upstream server, takes longer than the client waits; nothing was lost",
            "tracer trace --dns --path tells in which stage the time goes; give the server processor time, or a nearer upstream server",
            "",
        ],
        late,
    )
};

pub(super) const FORWARD_DROP: Diagnosis = of(
    "forward_drop",
    "drops what pods send through this node",
    [
        "the packet is received from the pod's device and freed with NETFILTER_DROP in FORWARD; what the node itself sends passes",
        "the chain FORWARD's policy is DROP (Docker sets it) and nothing accepts pods' packets, or a rule or NetworkPolicy drops them",
        "iptables -S FORWARD | head -1 and its rules; iptables -P FORWARD ACCEPT, or let the CNI plugin add its accepting rules; kubectl get networkpolicy -A",
        "",
    ],
    |row, _, _| {
        let drop = netfilter(row)?;
        let object = Object("netfilter's hook FORWARD", At::Here);
        drop.reason.contains("FORWARD").then(|| shown(row, object))
    },
);

pub(super) const POLICY_DROP: Diagnosis = of(
    "policy_drop",
    "is dropped by a rule",
    [
        "the packet is freed with NETFILTER_DROP, or by a program of tc or XDP, and nobody is told",
        "a NetworkPolicy, a firewall rule, or a Service without local endpoints under a Local traffic policy",
        "kubectl get networkpolicy -A; iptables-save -c | grep DROP, nft list ruleset | grep drop on the node",
        "",
    ],
    |row, _, _| {
        let drop = dropped(cause(row))?;
        let by_rule = [
            "TC_INGRESS",
            "TC_EGRESS",
            "XDP",
            "BPF_CGROUP_EGRESS",
            "SOCKET_FILTER",
        ];
        let with_reason = by_rule.iter().any(|reason| drop.reason.starts_with(reason));
        (with_reason || netfilter(row).is_some())
            .then(|| shown(row, Object::asked("traffic to", row)))
    },
);

pub(super) const ANSWER_UNREAD: Diagnosis = Diagnosis {
    severity: Severity::Warning,
    least: 10,
    ..of(
        "answer_unread",
        "answers clients that close their socket without reading",
        [
            "the answer lies in the client's socket when that is closed, and is freed with it",
            "the client asks several servers at once and takes the first answer, or gives up just then, or ends",
            "none, where it asks several servers; else its own time-out against the latency of the answers",
            "",
        ],
        |row, _, _| {
            let drop = dropped(cause(row)).filter(|drop| &*drop.what == "answer")?;
            // net/ipv4/udp.c and net/core/skbuff.c, as a socket is closed.
            ["udp_destruct", "inet_sock_destruct", "skb_queue_purge"]
                .iter()
                .any(|function| drop.place.starts_with(function))
                .then(|| shown(row, server(row)))
        },
    )
};

pub(super) const KERNEL_DROP: Diagnosis = of(
    "kernel_drop",
    "is dropped by the kernel",
    [
        "the packet is freed before delivery, for the reason shown",
        "what the kernel's reason says (include/net/dropreason-core.h)",
        "tracer drops --every 5s tells how many and where",
        "",
    ],
    |row, _, _| {
        dropped(cause(row))?;
        Some(shown(row, Object::asked("traffic to", row)))
    },
);

fn server(row: &Row) -> Object {
    Object::server("server", row)
}

fn address(row: &Row) -> Object {
    Object::address("address", row)
}

/// A claim that shows the row's cause.
fn shown(row: &Row, object: Object) -> Claim {
    Claim {
        object,
        shown: cause(row).to_owned(),
    }
}

/// A drop by netfilter: before Linux 5.17 no reason says so, and the place does.
fn netfilter(row: &Row) -> Option<Drop> {
    dropped(cause(row)).filter(|drop| {
        drop.reason.starts_with("NETFILTER_DROP") || is_netfilter(&drop.reason, Some(&drop.place))
    })
}

/// A drop whose reason begins with one of `reasons`.
fn with_reason(row: &Row, reasons: &[&str], object: fn(&Row) -> Object) -> Option<Claim> {
    let drop = dropped(cause(row))?;
    reasons
        .iter()
        .any(|reason| drop.reason.starts_with(reason))
        .then(|| shown(row, object(row)))
}

/// A drop in one of `functions`.
fn by_place(row: &Row, functions: &[&str], object: Object) -> Option<Claim> {
    let drop = dropped(cause(row))?;
    functions
        .iter()
        .any(|function| drop.place.starts_with(function))
        .then(|| shown(row, object))
}

/// An answer that nobody waited for any more, or a row that says that its answer came late.
fn late(row: &Row, _: &Named, _: &State) -> Option<Claim> {
    let cause = match row {
        Row::Dns(dns) => dns.cause.as_deref().unwrap_or_default(),
        Row::Connection(_) => return None,
    };
    let closed = dropped(cause)
        .is_some_and(|drop| &*drop.what == "answer" && drop.reason.starts_with("NO_SOCKET"));
    let said = cause.contains("the answer came late") || cause.contains("had closed its socket");
    (closed || said).then(|| Claim {
        object: server(row),
        shown: cause.to_owned(),
    })
}
