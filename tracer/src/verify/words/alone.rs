//! Findings that stand for themselves: about addresses of two Services, and about the rules as a
//! whole.

use std::net::SocketAddr;

use crate::{
    model::{
        cluster::{Node, PortProtocol},
        finding::{Finding, Severity},
    },
    rules::{Backend, Ruleset},
};

/// Two Services ask for one address.
pub(in crate::verify) fn conflict(
    at: SocketAddr,
    protocol: PortProtocol,
    objects: &[String],
) -> Finding {
    Finding {
        name: "address_conflict",
        severity: Severity::Warning,
        object: format!("{at}/{}", protocol.name()),
        sentence: format!("is claimed by {}", objects.join(" and ")),
        stage: None,
        evidence: vec!["which of them gets its packets is left to chance".to_owned()],
        since: None,
        share: None,
        remedy:
            "take the address from all but one of them (spec.externalIPs, loadBalancerIP, nodePort)"
                .to_owned(),
        refuted_by: String::new(),
    }
}

/// kube-proxy has written nothing.
pub(in crate::verify) fn no_rules(node: &Node) -> Finding {
    Finding {
        name: "no_rules",
        severity: Severity::Broken,
        object: format!("Node {}", node.name),
        sentence: "the kernel holds no rule of kube-proxy's: no Service can be reached through it".to_owned(),
        stage: None,
        evidence: vec!["neither a table kube-proxy, nor chains KUBE-SERVICES, nor virtual servers of IPVS".to_owned()],
        since: None,
        share: None,
        remedy: "start kube-proxy (tracer doctor --only kube_proxy tells what keeps it); nothing is wrong where another program serves Services in its place".to_owned(),
        refuted_by: "an eBPF program that serves Services, such as Cilium's: it writes no rules".to_owned(),
    }
}

/// Rules of two modes at once.
pub(in crate::verify) fn two_modes(modes: &[&str]) -> Finding {
    Finding {
        name: "two_modes",
        severity: Severity::Warning,
        object: "kube-proxy".to_owned(),
        sentence: format!(
            "rules of several modes are in the kernel: {}",
            modes.join(", ")
        ),
        stage: None,
        evidence: vec![
            "whichever comes first serves a packet; the other's grow old and stay".to_owned(),
        ],
        since: None,
        share: None,
        remedy: "after a change of mode run `kube-proxy --cleanup` once on the node, or reboot it"
            .to_owned(),
        refuted_by: String::new(),
    }
}

/// Rules of iptables over nf_tables and of legacy iptables at once.
pub(in crate::verify) fn two_backends(ruleset: &Ruleset) -> Option<Finding> {
    let of = |backend| {
        let tables = ruleset.tables.iter().filter(move |table| {
            let mut chains = table.chains.iter();
            table.backend == backend && chains.any(|chain| !chain.rules.is_empty())
        });
        tables.map(ToString::to_string).collect::<Vec<_>>()
    };
    let (nft, legacy) = (of(Backend::IptablesNft), of(Backend::IptablesLegacy));
    (!nft.is_empty() && !legacy.is_empty()).then(|| Finding {
        name: "two_backends",
        severity: Severity::Warning,
        object: "iptables".to_owned(),
        sentence: "both of its backends have rules: packets pass the rules of both".to_owned(),
        stage: None,
        evidence: vec![
            format!("iptables over nf_tables: {}", nft.join(", ")),
            format!("iptables-legacy: {}", legacy.join(", ")),
        ],
        since: None,
        share: None,
        remedy: "iptables-nft-save and iptables-legacy-save list them; have all programs of this node use one backend (update-alternatives --config iptables, or kube-proxy's image), and flush the other's or reboot".to_owned(),
        refuted_by: String::new(),
    })
}
