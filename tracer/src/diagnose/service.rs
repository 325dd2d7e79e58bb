//! Failures of a Service's translation, and of connections that were made.

use super::{Claim, Diagnosis, Object, cause};
use crate::model::{Outcome, Protocol, Row, Severity, asked::Via, journey::Side, verdict::Verdict};

pub(super) const HAIRPIN: Diagnosis = Diagnosis {
    name: "hairpin",
    severity: Severity::Broken,
    sentence: "cannot reach itself through its Service",
    wire: "the VIP is translated to the client's own address; the packet comes back to it from itself, or not at all",
    cause: "the packet must be masqueraded (kube-proxy's KUBE-MARK-MASQ for a backend that asks itself), and the bridge's port must send it back to where it came from (hairpin mode, or a bridge that is promiscuous)",
    remedy: "bridge link show dev VETH on the node: hairpin on; `hairpinMode` in the CNI configuration; tracer doctor --only kube_proxy",
    refuted_by: "other pods cannot reach it either",
    least: 1,
    claim: Some(|row, _, _| {
        let own = row.backend()?.ip() == row.client().address.ip();
        (own && !row.outcome().is_good()).then(|| Claim {
            object: Object::address("pod", row),
            shown: cause(row).to_owned(),
        })
    }),
};

pub(super) const STALE_RULES: Diagnosis = Diagnosis {
    name: "stale_rules",
    severity: Severity::Broken,
    sentence: "leads new connections to what is no endpoint of it any more",
    wire: "the SYN is translated to an address that left the Service's EndpointSlices more than two seconds before, or was never in them, and no handshake comes about",
    cause: "kube-proxy on this node does not follow: it hangs, cannot reach the API server, or fails to write its rules",
    remedy: "tracer doctor --only kube_proxy; restart kube-proxy on this node; tracer verify tells which Services are concerned",
    refuted_by: "a connection made now goes to an endpoint: kube-proxy was late and has caught up",
    least: 3,
    claim: Some(|row, named, _| {
        let gone = matches!(named.verdict?, Verdict::Stale(_) | Verdict::NotAnEndpoint);
        // A TCP connection asks the rules; a UDP socket may go on with an old conntrack entry.
        let new =
            matches!(row, Row::Connection(connection) if connection.protocol == Protocol::Tcp);
        (gone && new && !row.outcome().is_good()).then(|| Claim {
            object: Object::asked("Service", row),
            shown: format!(
                "to {}: {}",
                row.backend()
                    .map_or_else(String::new, |backend| backend.to_string()),
                cause(row)
            ),
        })
    }),
};

pub(super) const UNTRANSLATED: Diagnosis = Diagnosis {
    name: "untranslated",
    severity: Severity::Broken,
    sentence: "is a Service's address, and packets for it leave untranslated, for nowhere",
    wire: "the packet leaves the node with the VIP still its destination, and nothing comes back",
    cause: "kube-proxy has written no rules for it (it does not run, or cannot read the API server), or the flow's conntrack entry was made before the rules were, and is kept alive by each retry",
    remedy: "tracer doctor --only kube_proxy; tracer verify; for one flow: conntrack -D --orig-dst VIP",
    refuted_by: "the Service is served without netfilter, by a program in the kernel that this tracer does not see at work",
    least: 1,
    claim: Some(|row, named, state| {
        // Where nobody knows of a Service, what was translated for others shows that there is one.
        let of_rules = match &named.asked.service {
            Some(service) => !matches!(service.port.via, Via::Headless),
            None => state.is_translated(row.asked()) && leaves(row),
        };
        let silent = row.outcome() == Outcome::Unanswered && row.backend().is_none();
        // The sight of its translation may have been lost; and what did not leave the node may be translated and
        // wait for its next hop.
        let lost = cause(row).contains("records were lost");
        let within = row.stopped().is_some_and(|stopped| {
            matches!(stopped.at.side, Side::Received)
                && Some(stopped.at.netns) != row.client().netns
        });
        (of_rules && silent && !lost && !within).then(|| Claim {
            object: Object::asked("address", row),
            shown: cause(row).to_owned(),
        })
    }),
};

/// Whether the packet was seen to leave for the address asked itself.
fn leaves(row: &Row) -> bool {
    let left = format!("last seen leaving for {},", row.asked().ip());
    cause(row).contains(&left)
}

pub(super) const UNTRANSLATED_ENTRY: Diagnosis = Diagnosis {
    name: "untranslated_entry",
    severity: Severity::Broken,
    sentence: "is a Service's address that is translated for others, while some sockets' packets leave untranslated",
    wire: "one client port goes on to the VIP itself and gets nothing; new ports are translated, and answered",
    cause: "the flow's conntrack entry was made before kube-proxy wrote the Service's rules; NAT is decided with the first packet of a flow, and each retry keeps the entry alive",
    remedy: "conntrack -D -p udp --orig-dst VIP; or the client takes a new socket",
    refuted_by: "conntrack -L -p udp --orig-dst VIP shows no entry whose reply comes from the VIP itself",
    least: 1,
    // What all rows of an address add up to tells it from a Service without rules.
    claim: None,
};

pub(super) const ENDED_EARLY: Diagnosis = Diagnosis {
    name: "ended_early",
    severity: Severity::Warning,
    sentence: "ended before the nodes had heard that it is no endpoint any more, and what was sent to it meanwhile is lost",
    wire: "a backend that answered refuses or falls silent for a moment, then nobody is led to it any more; its EndpointSlices call it terminating, or have it no more",
    cause: "a pod that is deleted is told to end and taken from the EndpointSlices at one time; kube-proxy on each node follows a moment later, and a server that ends at once does not wait for that",
    remedy: "for CoreDNS: health { lameduck 5s } in the Corefile; for others a preStop hook that sleeps some seconds, and terminationGracePeriodSeconds above that",
    refuted_by: "the pod was not deleted, but crashed: kubectl get events",
    least: 1,
    // Only at the end is it known which backends left.
    claim: None,
};

pub(super) const STALLED: Diagnosis = Diagnosis {
    name: "stalled",
    severity: Severity::Broken,
    sentence: "takes connections, and then no data gets through",
    wire: "the handshake is completed; data is sent again and again, without an acknowledgement",
    cause: "large packets do not pass where small ones do: an MTU without room for the tunnel's header, and a firewall that drops ICMP fragmentation needed; or the server's node went away",
    remedy: "tracer doctor --only cni_mtu; ping -M do -s 1400 ADDRESS between the pods' nodes",
    refuted_by: "small requests stall as well",
    least: 1,
    claim: Some(|row, _, _| {
        cause(row)
            .contains("connected, and then nothing came")
            .then(|| Claim {
                object: Object::server("server", row),
                shown: crate::model::cause::of(row).unwrap_or_default(),
            })
    }),
};

pub(super) const RESET: Diagnosis = Diagnosis {
    name: "reset_midway",
    severity: Severity::Warning,
    sentence: "resets connections that it had taken",
    wire: "the handshake is completed, and a TCP reset comes from the server's side before either side has closed",
    cause: "the server crashes or closes with data unread, its queue of connections is full, or packets of the connection were not translated (conntrack calls them INVALID)",
    remedy: "the server's log; kubectl get pod, for restarts; iptables-save -c | grep INVALID on the node",
    refuted_by: "",
    least: 3,
    claim: Some(|row, _, _| {
        let Row::Connection(connection) = row else {
            return None;
        };
        let reset = connection.outcome == Outcome::Reset && connection.latency.is_some();
        reset.then(|| Claim {
            object: Object::server("server", row),
            shown: cause(row).to_owned(),
        })
    }),
};
