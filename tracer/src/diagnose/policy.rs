//! What a NetworkPolicy keeps away. The kernel says that netfilter drops a packet; which of this node's rules
//! does it says who wrote it.

use super::{At, Claim, Diagnosis, Object, cause};
use crate::{
    model::{Named, Row, Severity},
    rules::PolicyEngine,
};

pub(super) const NETWORK_POLICY: Diagnosis = Diagnosis {
    name: "network_policy",
    severity: Severity::Broken,
    sentence: "is not allowed by the NetworkPolicies that select the pod, and their engine turns it away",
    wire: "the packet is dropped or rejected in FORWARD of the pod's node, by a rule of the engine's own: Calico's cali-tw- and cali-fw- chains, Weave Net's last rule for device weave, kube-router's KUBE-POD-FW- chains",
    cause: "a NetworkPolicy selects the pod, and none of those that do allows this peer and port; or the engine has no chain for the pod yet, and its rules end in a drop",
    remedy: "kubectl get networkpolicy -n NAMESPACE, and describe those whose podSelector chooses the pod: an ingress rule for the client and the port; for egress one for DNS too, port 53 over UDP and TCP to kube-system: tracer doctor --only dns_policies tells who lacks it, and the command that adds it",
    refuted_by: "no NetworkPolicy selects the pod: then the engine's daemon on this node does not follow, see tracer doctor --only cni_daemon",
    least: 1,
    claim: Some(|row, named, _| {
        let rule = named.rule.as_deref()?;
        let client = named.pod.as_ref().map(|named| &named.pod);
        let client = client.map(|pod| (&*pod.namespace, &*pod.name));
        let engine = PolicyEngine::of_rule(rule, client)?;
        let object = if engine.egress {
            Object("traffic of pod", At::Address(row.client().address.ip()))
        } else {
            Object::server("traffic to", row)
        };
        Some(Claim {
            object,
            shown: format!("by {}: {rule}; {}", engine.name, cause(row)),
        })
    }),
};

/// What a rule adds to the cause of a drop.
pub(super) fn by_rule(row: &Row, named: &Named) -> String {
    match &named.rule {
        Some(rule) => format!("{}; the rule is {rule}", cause(row)),
        None => cause(row).to_owned(),
    }
}
