//! Failures that the kernel was seen to cause: by its reason for the drop, and by the place.

use super::{At, Claim, Diagnosis, Judge, Object, State, cause, policy::by_rule};
use crate::model::{
    Named, Protocol, Row, Severity,
    cause::{Drop, dropped},
    drops::is_netfilter,
};

/// A diagnosis told from a drop alone.
pub(super) const fn of(
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
        let object = Object("way to this node", At::Here);
        // A datagram is INVALID to conntrack by its checksum, or by its length.
        let invalid = is_invalid(row) && row.protocol() == Protocol::Udp;
        let dropped = with_reason(row, &["UDP_CSUM", "TCP_CSUM", "IP_CSUM"], |_| {
            Object("way to this node", At::Here)
        });
        dropped.or_else(|| invalid.then(|| shown(row, object)))
    },
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

pub(super) const INVALID_DROP: Diagnosis = of(
    "invalid_drop",
    "meets a node whose conntrack calls its packets INVALID, and a rule there drops them",
    [
        "packets of an open connection are freed in FORWARD without a conntrack entry, while its first one had one; conntrack's counter `invalid` grows, and the data is sent again and again",
        "the node sees one direction only (the answers take another way), or the segments lie outside the window that conntrack followed; kube-proxy's KUBE-FORWARD and Calico's chains drop what is INVALID",
        "let both directions pass by this node: ip route get on both ends; or let conntrack be liberal, for which kube-proxy then leaves its rule away: sysctl -w net.netfilter.nf_conntrack_tcp_be_liberal=1, conntrack.tcpBeLiberal: true in kube-proxy's configuration",
        "",
    ],
    |row, _, _| {
        let tcp = row.protocol() == Protocol::Tcp;
        (tcp && is_invalid(row)).then(|| shown(row, Object::server("connections to", row)))
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
    |row, named, _| {
        let drop = netfilter(row)?;
        drop.reason.contains("FORWARD").then(|| Claim {
            object: Object("netfilter's hook FORWARD", At::Here),
            shown: by_rule(row, named),
        })
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
    |row, named, _| {
        let drop = dropped(cause(row))?;
        let by_program = [
            "TC_INGRESS",
            "TC_EGRESS",
            "XDP",
            "BPF_CGROUP_EGRESS",
            "SOCKET_FILTER",
        ];
        let with_reason = by_program
            .iter()
            .any(|reason| drop.reason.starts_with(reason));
        (with_reason || netfilter(row).is_some()).then(|| Claim {
            object: Object::asked("traffic to", row),
            shown: by_rule(row, named),
        })
    },
);

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

/// A claim that shows the row's cause.
pub(super) fn shown(row: &Row, object: Object) -> Claim {
    Claim {
        object,
        shown: cause(row).to_owned(),
    }
}

/// Whether conntrack called the row's packet INVALID, and a rule dropped it for that.
fn is_invalid(row: &Row) -> bool {
    cause(row).contains(" invalid within that second")
}

/// A drop by netfilter: before Linux 5.17 no reason says so, and the place does.
fn netfilter(row: &Row) -> Option<Drop> {
    dropped(cause(row)).filter(|drop| {
        drop.reason.starts_with("NETFILTER_DROP") || is_netfilter(&drop.reason, Some(&drop.place))
    })
}

/// A drop whose reason begins with one of `reasons`.
pub(super) fn with_reason(
    row: &Row,
    reasons: &[&str],
    object: fn(&Row) -> Object,
) -> Option<Claim> {
    let drop = dropped(cause(row))?;
    reasons
        .iter()
        .any(|reason| drop.reason.starts_with(reason))
        .then(|| shown(row, object(row)))
}

/// A drop in one of `functions`.
pub(super) fn by_place(row: &Row, functions: &[&str], object: Object) -> Option<Claim> {
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
