//! Failures of which nobody told: nothing came, and the kernel was not seen to drop anything.

use super::{
    At, Claim, Diagnosis, Left, Object, State, cause,
    service::{ENDED_EARLY, UNTRANSLATED, UNTRANSLATED_ENTRY},
};
use crate::model::{Outcome, Row, Severity};

pub(super) const SERVER_PAUSED: Diagnosis = Diagnosis {
    name: "server_paused",
    severity: Severity::Broken,
    sentence: "does not run: its process is stopped or frozen, and what it is sent lies unread",
    wire: "the query comes into the server's namespace and is never read; /proc says that the process whose socket it is in is stopped (T), or its cgroup's freezer says FROZEN",
    cause: "somebody stopped it by a signal (SIGSTOP, a debugger), paused its container (ctr task pause, docker pause), or froze its cgroup: a checkpoint, a node about to sleep",
    remedy: "kill -CONT PID; ctr -n k8s.io task resume CONTAINER; or delete the pod, whose Deployment makes another; a livenessProbe would have had it started again",
    refuted_by: "",
    least: 1,
    claim: Some(|row, named, _| {
        let held = named.held.as_deref()?;
        (!is_throttled(held)).then(|| Claim {
            object: Object::server("server", row),
            shown: held.to_owned(),
        })
    }),
};

pub(super) const SERVER_THROTTLED: Diagnosis = Diagnosis {
    name: "server_throttled",
    severity: Severity::Broken,
    sentence: "is held back by its CPU limit, and what is sent to it waits",
    wire: "the query lies in the server's socket, or with the server, until its cgroup may run again (seen with --path); cpu.stat of the cgroup counts nr_throttled",
    cause: "resources.limits.cpu of the container, or of its pod, is below what the load needs: several threads at once use up their part of each 100 ms at its beginning, and stand still for the rest",
    remedy: "raise or remove the limit, for CoreDNS: kubectl -n kube-system set resources deployment coredns --limits=cpu=1; more replicas; NodeLocal DNSCache",
    refuted_by: "nr_throttled in cpu.stat of its cgroup does not grow",
    least: 1,
    claim: Some(|row, named, _| {
        let held = named.held.as_deref().filter(|held| is_throttled(held))?;
        // Who waits for another server would wait for it without a limit, too.
        let forwards = matches!(row, Row::Dns(dns) if dns.upstream.is_some());
        let waits = ["lies unread", "read the query", "SOCKET_RCVBUFF"];
        let waits = waits.iter().any(|words| cause(row).contains(words));
        (row.slow_server().is_some() || waits && !forwards).then(|| Claim {
            object: Object::server("server", row),
            shown: held.to_owned(),
        })
    }),
};

/// Whether what holds a server is its CPU limit.
fn is_throttled(held: &str) -> bool {
    held.contains(" is held back by its CPU limit")
}

pub(super) const SERVER_OVERLOADED: Diagnosis = Diagnosis {
    name: "server_overloaded",
    severity: Severity::Broken,
    sentence: "does not read what lies in its socket",
    wire: "the query is put into the server's socket and never read (seen with --path)",
    cause: "the server has no processor time (throttled by its cpu limit), hangs, or has ended its readers",
    remedy: "kubectl top pod; its cpu limit and throttling (cpu.stat of its cgroup); more replicas",
    refuted_by: "",
    least: 1,
    claim: Some(|row, _, _| {
        cause(row).contains("lies unread").then(|| Claim {
            object: Object::server("server", row),
            shown: cause(row).to_owned(),
        })
    }),
};

pub(super) const SERVER_SILENT: Diagnosis = Diagnosis {
    name: "server_silent",
    severity: Severity::Broken,
    sentence: "reads queries and sends no answer",
    wire: "the server reads the query from its socket and sends nothing (seen with --path)",
    cause: "it waits for an upstream server or for the API server, or it drops the query by its own rules (acl, rate limit)",
    remedy: "the server's log; for CoreDNS: the plugins errors and log, and what forward names",
    refuted_by: "",
    least: 1,
    claim: Some(|row, _, _| {
        let cause = cause(row);
        (cause.contains("read the query") && cause.contains("sent none")).then(|| Claim {
            object: Object::server("server", row),
            shown: crate::model::cause::of(row).unwrap_or_default(),
        })
    }),
};

pub(super) const TUNNEL_SILENT: Diagnosis = Diagnosis {
    name: "tunnel_silent",
    severity: Severity::Broken,
    sentence: "is sent packets through the tunnel, and nothing comes back",
    wire: "the packet is seen to leave inside the tunnel for the other node, and no answer inside it",
    cause: "a firewall drops the tunnel's port (UDP 8472, 4789, 6783 or 6784), the other node does not deliver, or this node's forwarding entry leads to the wrong one",
    remedy: "run tracer trace on that node: if the packet does not arrive there, open the tunnel's port between the nodes; else tracer doctor --only cni there",
    refuted_by: "other pods of that node answer through the same tunnel",
    least: 1,
    claim: Some(|row, _, _| {
        let (_, after) = cause(row).split_once("it left by ")?;
        let (kind, node) = after.split_once(" for ")?;
        let node = node.split(' ').next()?;
        Some(Claim {
            object: Object("node", At::Address(node.parse().ok()?)),
            shown: format!("left by {kind} for {node}, and nothing came back"),
        })
    }),
};

pub(super) const STALE_CONNTRACK: Diagnosis = Diagnosis {
    name: "stale_conntrack",
    severity: Severity::Broken,
    sentence: "is gone, and old conntrack entries still lead sockets there, while others are answered elsewhere",
    wire: "one client port keeps going to one backend that never answers; new ports go to other backends and are answered",
    cause: "a UDP entry made before the backend went is refreshed by each retry; kube-proxy deletes such entries, unless the Service had no endpoint left, or kube-proxy does not run",
    remedy: "conntrack -D -p udp --orig-dst VIP; then tracer doctor --only kube_proxy",
    refuted_by: "the address belongs to a ready endpoint of the Service",
    least: 2,
    // What all rows of a backend add up to tells it from a backend that is merely silent.
    claim: None,
};

pub(super) const BACKEND_SILENT: Diagnosis = Diagnosis {
    name: "backend_silent",
    severity: Severity::Broken,
    sentence: "does not answer what is translated to it",
    wire: "the packet is translated to this backend and leaves for it; no answer is seen, and no drop",
    cause: "the pod is gone, hangs, or its node is out of reach",
    remedy: "kubectl get pod -A -o wide | grep ADDRESS; tracer doctor --only cni on both nodes",
    refuted_by: "it answers others meanwhile: then look at the way there",
    least: 2,
    claim: Some(|row, _, _| {
        row.backend()?;
        (row.outcome() == Outcome::Unanswered).then(|| Claim {
            object: Object::address("backend", row),
            shown: cause(row).to_owned(),
        })
    }),
};

pub(super) const UNANSWERED: Diagnosis = Diagnosis {
    name: "unanswered",
    severity: Severity::Broken,
    sentence: "does not answer",
    wire: "the packet leaves, nothing translates it, and nothing comes back",
    cause: "nobody has the address, a firewall on the way drops in silence, or the server is down",
    remedy: "for a Service's address: tracer doctor --only kube_proxy, for nothing translates it; else look on the way there",
    refuted_by: "others get answers from it",
    least: 3,
    claim: Some(|row, _, state| {
        let silent = row.outcome() == Outcome::Unanswered && row.backend().is_none();
        (silent && !state.answers(row.asked())).then(|| Claim {
            object: Object::asked("address", row),
            shown: cause(row).to_owned(),
        })
    }),
};

pub(super) const ANSWER_LOST: Diagnosis = Diagnosis {
    name: "answer_lost",
    severity: Severity::Broken,
    sentence: "answers, and the answers do not come back",
    wire: "the server's answer is seen on its way, and never where the client is; no drop is seen",
    cause: "the way back differs from the way there: a route back is missing or leads elsewhere, the client's address was not masqueraded, or a device on the way loses packets",
    remedy: "ip route get CLIENT from SERVER on each node on the way; tracer doctor --only cni",
    refuted_by: "",
    least: 1,
    claim: Some(|row, _, _| {
        let cause = cause(row);
        let lost = cause.contains("the answer was lost on its way back")
            || cause.contains("the server's answer was seen on its way back");
        lost.then(|| Claim {
            object: Object::server("server", row),
            shown: crate::model::cause::of(row).unwrap_or_default(),
        })
    }),
};

pub(super) const SERVER_SLOW: Diagnosis = Diagnosis {
    name: "server_slow",
    severity: Severity::Warning,
    sentence: "takes a second and longer to answer",
    wire: "the query reaches the server at once, and its answer leaves it late; it asks nobody else meanwhile",
    cause: "too little processor time (a cpu limit that throttles it), or work that takes that long",
    remedy: "kubectl top pod; its cpu limit and throttling (cpu.stat of its cgroup); more replicas",
    refuted_by: "",
    least: 3,
    claim: Some(|row, _, _| {
        row.slow_server()?;
        Some(Claim {
            object: Object::server("server", row),
            shown: "more than half of the time passes at the server".to_owned(),
        })
    }),
};

/// What a backend that has ended is found to do.
const ENDS: &[&str] = &[
    "backend_refuses",
    "backend_silent",
    "unreachable",
    "no_neighbour",
    "no_route",
    "server_silent",
    "server_overloaded",
    "answer_lost",
];

/// What a finding is once all rows are known: a backend that is silent or out of reach may be gone;
/// `None` when what was claimed does not hold.
///
/// 1. It answered nobody, one socket asked it again and again, no new ones come, or the API server says that it is no
///    endpoint, and the Service answers otherwise.
/// 2. A backend that answered has left since: it ended before all had heard.
/// 3. An address that is translated for others has rules: an entry is older than they are.
/// 4. An address that answered somebody later is not silent.
pub(super) fn settled(
    diagnosis: &'static Diagnosis,
    object: Object,
    state: &State,
    left: &Left<'_>,
) -> Option<(&'static Diagnosis, Object)> {
    let may_be_gone = ["backend_silent", "unreachable", "no_neighbour", "no_route"];
    if let (true, Some(backend)) = (may_be_gone.contains(&diagnosis.name), object.ip()) {
        let did = state.did(backend);
        if did.answered == 0 && did.again > 0 && did.is_left() && state.others_answer(backend) {
            return Some((&STALE_CONNTRACK, object));
        }
    }
    if let (true, Some(backend)) = (ENDS.contains(&diagnosis.name), object.ip())
        && state.has_left(backend, left)
    {
        let object = Object("backend", At::Address(backend));
        return Some((&ENDED_EARLY, object));
    }
    if let (true, At::Socket(asked)) = (diagnosis.name == UNTRANSLATED.name, object.1)
        && state.is_astray(asked)
    {
        return Some((&UNTRANSLATED_ENTRY, object));
    }
    if let (true, At::Socket(asked)) = (diagnosis.name == UNANSWERED.name, object.1) {
        return (!state.answers(asked)).then_some((diagnosis, object));
    }
    Some((diagnosis, object))
}
