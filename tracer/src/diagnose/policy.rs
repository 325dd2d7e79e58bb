//! What a NetworkPolicy keeps away. The kernel says that netfilter drops a packet; which of this node's rules
//! does it says who wrote it: each engine names its chains and devices in its own way.

use super::{At, Claim, Diagnosis, Object, cause};
use crate::model::{Named, Row, Severity};

pub(super) const NETWORK_POLICY: Diagnosis = Diagnosis {
    name: "network_policy",
    severity: Severity::Broken,
    sentence: "is not allowed by the NetworkPolicies that select the pod, and their engine turns it away",
    wire: "the packet is dropped or rejected in FORWARD of the pod's node, by a rule of the engine's own: Calico's cali-tw- and cali-fw- chains, Weave Net's last rule for device weave, kube-router's KUBE-POD-FW- chains",
    cause: "a NetworkPolicy selects the pod, and none of those that do allows this peer and port; or the engine has no chain for the pod yet, and its rules end in a drop",
    remedy: "kubectl get networkpolicy -n NAMESPACE, and describe those whose podSelector chooses the pod: an ingress rule for the client and the port; for egress one for DNS too, port 53 over UDP and TCP to kube-system",
    refuted_by: "no NetworkPolicy selects the pod: then the engine's daemon on this node does not follow, see tracer doctor --only cni_daemon",
    least: 1,
    claim: Some(|row, named, _| {
        let rule = named.rule.as_deref()?;
        let engine = engine(rule, named)?;
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

/// Who wrote a rule that turns packets away, for traffic in which direction.
#[derive(Debug, PartialEq, Eq)]
struct Engine {
    name: &'static str,
    egress: bool,
}

/// The engine that wrote a rule, by its chain: `TABLE CHAIN: TEXT`; `None` for a rule of nobody's that is known.
///
/// 1. Calico: `cali-fw-DEVICE` is from a pod, `cali-tw-DEVICE` to one.
/// 2. Weave Net: `WEAVE-NPC-EGRESS` from a pod; else its chains, or the last rule of FORWARD for its bridge.
/// 3. kube-router: `KUBE-POD-FW-HASH`, whose comment names the pod: from it, where that is the client.
fn engine(rule: &str, named: &Named) -> Option<Engine> {
    let (place, text) = rule.split_once(": ")?;
    let chain = place.rsplit(' ').next()?;
    let of = |name, egress| Some(Engine { name, egress });
    if chain.starts_with("cali-") {
        let from = ["cali-fw-", "cali-from-wl"];
        return of("Calico", from.iter().any(|from| chain.starts_with(from)));
    }
    if chain.starts_with("WEAVE-NPC") {
        return of("Weave Net", chain.starts_with("WEAVE-NPC-EGRESS"));
    }
    if chain == "FORWARD" && text.contains("-o weave -j DROP") {
        return of("Weave Net", false);
    }
    if chain.starts_with("KUBE-POD-FW-") || chain.starts_with("KUBE-NWPLCY-") {
        let client = named.pod.as_ref().map(|name| {
            let (namespace, name) = (&name.pod.namespace, &name.pod.name);
            format!("POD name:{name} namespace: {namespace}\"")
        });
        return of(
            "kube-router",
            client.is_some_and(|client| text.contains(&client)),
        );
    }
    None
}

/// What a rule adds to the cause of a drop.
pub(super) fn by_rule(row: &Row, named: &Named) -> String {
    match &named.rule {
        Some(rule) => format!("{}; the rule is {rule}", cause(row)),
        None => cause(row).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_engines_rules_are_known_by_their_chains() {
        let check = |rule: &str, expected: Option<(&'static str, bool)>| {
            let expected = expected.map(|(name, egress)| Engine { name, egress });
            assert_eq!(engine(rule, &Named::default()), expected, "{rule}");
        };
        check(
            "ip filter cali-tw-cali7e5f0a8c2b1: -A cali-tw-cali7e5f0a8c2b1 -m comment --comment \"cali:x Drop if no policies passed packet\" -j DROP",
            Some(("Calico", false)),
        );
        check(
            "ip filter cali-fw-cali7e5f0a8c2b1: -A cali-fw-cali7e5f0a8c2b1 -j DROP",
            Some(("Calico", true)),
        );
        check(
            "ip filter FORWARD: -A FORWARD -o weave -j DROP",
            Some(("Weave Net", false)),
        );
        check(
            "ip filter KUBE-POD-FW-24CAQJ4LYSAY3PHB: -A KUBE-POD-FW-24CAQJ4LYSAY3PHB -m comment --comment \"rule to REJECT traffic destined for POD name:web-0 namespace: shop\" -m mark ! --mark 0x10000/0x10000 -j REJECT --reject-with icmp-port-unreachable",
            Some(("kube-router", false)),
        );
        check("ip filter FORWARD: -A FORWARD -p udp -j DROP", None);
        check(
            "ip filter KUBE-FORWARD: -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
            None,
        );
    }
}
