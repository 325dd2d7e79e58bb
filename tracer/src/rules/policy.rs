//! Who turns packets away on behalf of NetworkPolicies: each engine names its chains and devices in its own way.

/// A program that enforces NetworkPolicies by rules, as one of its rules tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyEngine {
    /// Its name, as `Calico`.
    pub name: &'static str,
    /// The rule is about what a pod sends, not about what it gets.
    pub egress: bool,
}

impl PolicyEngine {
    /// The engine that wrote a rule, by `TABLE CHAIN: TEXT` ([`super::Ruleset::line`]), as [`Self::of`] tells it.
    pub fn of_rule(line: &str, client: Option<(&str, &str)>) -> Option<Self> {
        let (place, text) = line.split_once(": ")?;
        Self::of(place.rsplit(' ').next()?, || text, client)
    }

    /// The engine that wrote a rule, by the name of its chain, and its text where that alone does not tell; `None` for a
    /// rule of nobody's that is known. `client` is namespace and name of the pod that sent the packet.
    ///
    /// 1. Calico: `cali-fw-DEVICE` is from a pod, `cali-tw-DEVICE` to one (felix/rules/rule_defs.go).
    /// 2. Weave Net: `WEAVE-NPC-EGRESS` from a pod; else its chains, or the last rule of FORWARD for its bridge
    ///    (prog/weave-npc/main.go).
    /// 3. kube-router: `KUBE-POD-FW-HASH`, whose comment names the pod: from it, where that is the client
    ///    (pkg/controllers/netpol/pod.go).
    pub fn of<T: AsRef<str>>(
        chain: &str,
        text: impl FnOnce() -> T,
        client: Option<(&str, &str)>,
    ) -> Option<Self> {
        let of = |name, egress| Some(Self { name, egress });
        if chain.starts_with("cali-") {
            let from = ["cali-fw-", "cali-from-wl"];
            return of("Calico", from.iter().any(|from| chain.starts_with(from)));
        }
        if chain.starts_with("WEAVE-NPC") {
            return of("Weave Net", chain.starts_with("WEAVE-NPC-EGRESS"));
        }
        if chain == "FORWARD" {
            return of("Weave Net", false).filter(|_| text().as_ref().contains("-o weave -j DROP"));
        }
        if is_kube_routers(chain) {
            let is_of = |(namespace, name): (&str, &str)| {
                text()
                    .as_ref()
                    .contains(&format!("POD name:{name} namespace: {namespace}\""))
            };
            return of("kube-router", client.is_some_and(is_of));
        }
        None
    }
}

/// Whether kube-router wrote a chain, by its name, which begins as those of kube-proxy do.
pub fn is_kube_routers(chain: &str) -> bool {
    let prefixes = ["KUBE-ROUTER-", "KUBE-POD-FW-", "KUBE-NWPLCY-"];
    prefixes.iter().any(|prefix| chain.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_engines_rules_are_known_by_their_chains() {
        let check = |rule: &str, expected: Option<(&'static str, bool)>| {
            let expected = expected.map(|(name, egress)| PolicyEngine { name, egress });
            let client = Some(("shop", "client-0"));
            assert_eq!(PolicyEngine::of_rule(rule, client), expected, "{rule}");
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
        let of_kube_router = |pod: &str| {
            format!(
                "ip filter KUBE-POD-FW-24CAQJ4LYSAY3PHB: -A KUBE-POD-FW-24CAQJ4LYSAY3PHB -m comment --comment \"rule to REJECT traffic destined for POD name:{pod} namespace: shop\" -m mark ! --mark 0x10000/0x10000 -j REJECT --reject-with icmp-port-unreachable"
            )
        };
        check(&of_kube_router("web-0"), Some(("kube-router", false)));
        check(&of_kube_router("client-0"), Some(("kube-router", true)));
        check("ip filter FORWARD: -A FORWARD -p udp -j DROP", None);
        check(
            "ip filter KUBE-FORWARD: -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
            None,
        );
    }
}
