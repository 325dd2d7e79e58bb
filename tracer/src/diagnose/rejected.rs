//! Failures of which somebody told: ICMP errors and TCP resets.

use std::net::IpAddr;

use super::{At, Claim, Diagnosis, Object, State, cause};
use crate::model::{Named, Outcome, Row, Severity};

pub(super) const NO_ENDPOINTS: Diagnosis = Diagnosis {
    name: "no_endpoints",
    severity: Severity::Broken,
    sentence: "turns away whoever asks, for the Service has no endpoint that is ready",
    wire: "the packet to the VIP is translated to no backend; within microseconds the node itself answers ICMP port unreachable, and the application gets ECONNREFUSED",
    cause: "kube-proxy writes a REJECT rule for a Service without ready endpoints: its selector chooses no pod, its pods are not ready, or there are none",
    remedy: "kubectl get endpointslices -A -l kubernetes.io/service-name=NAME; compare the Service's selector with the pods' labels, and see why the pods are not ready",
    refuted_by: "its EndpointSlices list a ready endpoint: then kube-proxy's rules are old, see tracer doctor --only kube_proxy",
    least: 1,
    claim: Some(no_endpoints),
};

pub(super) const BACKEND_REFUSES: Diagnosis = Diagnosis {
    name: "backend_refuses",
    severity: Severity::Broken,
    sentence: "refuses: nobody listens on that port there",
    wire: "the packet reaches the backend, which answers with a TCP reset or with ICMP port unreachable from its own address",
    cause: "the server has crashed or is still starting, or targetPort is another port than it listens on",
    remedy: "kubectl get pod -o wide of that address; its logs; targetPort of the Service against the port it listens on; a readinessProbe, so that it gets no traffic before it listens",
    refuted_by: "something listens on that port in the pod's namespace: ss -lntu",
    least: 1,
    claim: Some(backend_refuses),
};

pub(super) const POLICY_REJECT: Diagnosis = Diagnosis {
    name: "policy_reject",
    severity: Severity::Broken,
    sentence: "is forbidden by a rule that says so",
    wire: "an ICMP administratively prohibited comes instead of an answer",
    cause: "a firewall or NetworkPolicy rejects the packet",
    remedy: "iptables-save | grep icmp-admin-prohibited, nft list ruleset | grep admin-prohibited on the node that sent it",
    refuted_by: "",
    least: 1,
    claim: Some(policy_reject),
};

pub(super) const UNREACHABLE: Diagnosis = Diagnosis {
    name: "unreachable",
    severity: Severity::Broken,
    sentence: "cannot be reached, as a router on the way says",
    wire: "an ICMP host unreachable comes instead of an answer: at once, or after three seconds in which ARP is not answered",
    cause: "an unreachable route leads there, or a router that this tracer does not see finds no neighbour: the backend is a pod that is gone and conntrack or old rules still lead there, or the CNI plugin's route or neighbour entry is missing",
    remedy: "tracer doctor --only cni; if the pod is gone: conntrack -D -p udp --orig-dst VIP, and tracer doctor --only kube_proxy",
    refuted_by: "the address answers a ping from the node",
    least: 1,
    claim: Some(unreachable),
};

/// Who sent the ICMP error that the cause tells of.
fn icmp_from(cause: &str, what: &str) -> Option<IpAddr> {
    let (_, after) = cause.split_once(what)?;
    let from = after
        .strip_prefix(" from ")?
        .split([';', ' ', ','])
        .next()?;
    from.parse().ok()
}

/// Rejected by the node for an address that nothing translated.
fn no_endpoints(row: &Row, _: &Named, state: &State) -> Option<Claim> {
    if row.outcome() != Outcome::Rejected || row.backend().is_some() {
        return None;
    }
    let cause = cause(row);
    let asked = row.asked();
    // What was lost on its way comes from whoever sends it all the same.
    let told = cause.contains("port unreachable was sent");
    let from = icmp_from(cause, "port unreachable");
    let by_node = told || from.is_some_and(|from| from != asked.ip());
    // An address that answers others has somebody behind it.
    if !by_node || state.answers(asked) && from.is_none() {
        return None;
    }
    Some(Claim {
        object: Object("Service", At::Address(asked.ip())),
        shown: cause.to_owned(),
    })
}

/// How the kubelet is called, alone or with others in one process.
const KUBELETS: [&str; 4] = ["kubelet", "k3s-server", "k3s-agent", "kubelite"];

/// A pod that is starting refuses its probes, and is not ready for that; nobody else is led to it yet.
fn is_probe(row: &Row) -> bool {
    let sender = row.client().sender.as_ref();
    let of_kubelet = sender.is_some_and(|sender| {
        let comm = sender.comm.to_string();
        KUBELETS.contains(&comm.as_str())
    });
    of_kubelet && row.backend().is_none()
}

fn backend_refuses(row: &Row, _: &Named, _: &State) -> Option<Claim> {
    if is_probe(row) {
        return None;
    }
    let there = row.backend().unwrap_or(row.asked());
    let refused = match row {
        Row::Connection(connection) => {
            connection.outcome == Outcome::Reset && connection.latency.is_none()
        }
        Row::Dns(_) => false,
    };
    let from = icmp_from(cause(row), "port unreachable");
    // Conntrack turns the error's source back into the address asked, as it does an answer's.
    let there_or_asked = [there.ip(), row.asked().ip()];
    let by_backend = row.outcome() == Outcome::Rejected
        && from.is_some_and(|from| there_or_asked.contains(&from));
    (refused || by_backend).then(|| Claim {
        object: Object("backend", At::Socket(there)),
        shown: match cause(row) {
            "" => "reset to the first packet".to_owned(),
            cause => cause.to_owned(),
        },
    })
}

fn policy_reject(row: &Row, _: &Named, _: &State) -> Option<Claim> {
    let cause = cause(row);
    cause
        .contains("administratively prohibited")
        .then(|| Claim {
            object: Object::asked("traffic to", row),
            shown: cause.to_owned(),
        })
}

fn unreachable(row: &Row, _: &Named, _: &State) -> Option<Claim> {
    let cause = cause(row);
    let said = cause.contains("host unreachable");
    (said && row.outcome() == Outcome::Rejected).then(|| Claim {
        object: Object::address("address", row),
        shown: cause.to_owned(),
    })
}
