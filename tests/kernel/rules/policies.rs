//! What NetworkPolicies keep away: rules as their engines write them, beside kube-proxy's.

use super::judged::{Fixture, network};
use super::proxy::{Mode, feed};

/// What kube-router 2.1 wrote in the real cluster for a pod with a policy that lets one client in, here for an endpoint
/// of `shop/web`, its set of clients left out. It marks what a policy allows, and rejects the rest.
const KUBE_ROUTER: &str = r#"*filter
:KUBE-ROUTER-FORWARD - [0:0]
:KUBE-POD-FW-7YPRNYZKKM7D2NFR - [0:0]
:KUBE-NWPLCY-IOHZH4WTD6MIMF5G - [0:0]
-I FORWARD -m comment --comment "kube-router netpol - TEMCG2JMHZYE7H7T" -j KUBE-ROUTER-FORWARD
-A KUBE-ROUTER-FORWARD -d 10.244.1.1/32 -m comment --comment "rule to jump traffic destined to POD name:web-0 namespace: shop to chain KUBE-POD-FW-7YPRNYZKKM7D2NFR" -j KUBE-POD-FW-7YPRNYZKKM7D2NFR
-A KUBE-ROUTER-FORWARD -m comment --comment "rule to explicitly ACCEPT traffic that comply to network policies" -m mark --mark 0x20000/0x20000 -j ACCEPT
-A KUBE-POD-FW-7YPRNYZKKM7D2NFR -m comment --comment "rule for stateful firewall for pod" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-POD-FW-7YPRNYZKKM7D2NFR -d 10.244.1.1/32 -m comment --comment "run through nw policy web-from-client" -j KUBE-NWPLCY-IOHZH4WTD6MIMF5G
-A KUBE-NWPLCY-IOHZH4WTD6MIMF5G -s 10.244.1.9/32 -p tcp -m tcp --dport 8080 -j MARK --set-xmark 0x10000/0x10000
-A KUBE-POD-FW-7YPRNYZKKM7D2NFR -m comment --comment "rule to REJECT traffic destined for POD name:web-0 namespace: shop" -m mark ! --mark 0x10000/0x10000 -j REJECT --reject-with icmp-port-unreachable
-A KUBE-POD-FW-7YPRNYZKKM7D2NFR -j MARK --set-xmark 0x0/0x10000
-A KUBE-POD-FW-7YPRNYZKKM7D2NFR -m comment --comment "set mark to ACCEPT traffic that comply to network policies" -j MARK --set-xmark 0x20000/0x20000
COMMIT
"#;

/// Calico's end of a pod's chain, where no policy let the packet pass.
const CALICO: &str = r#"*filter
:cali-tw-cali7e5f0a8c2b1 - [0:0]
-I FORWARD -d 10.244.1.1/32 -m conntrack --ctstate NEW -j cali-tw-cali7e5f0a8c2b1
-A cali-tw-cali7e5f0a8c2b1 -m comment --comment "cali:x Drop if no policies passed packet" -j DROP
COMMIT
"#;

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn what_policies_keep_away_is_told_and_is_no_finding_and_of_a_chain_of_nobodys_it_is_one() {
    for mode in [Mode::Iptables, Mode::Nftables] {
        let network = network(match mode {
            Mode::Nftables => "kpn",
            _ => "kpi",
        });
        let fixture = Fixture::of(mode);
        for (engine, rules) in [("kube-router", KUBE_ROUTER), ("Calico", CALICO)] {
            let judged = |rules: &str| {
                fixture.load(&network);
                feed(&network.node, &["iptables-restore", "--noflush"], rules);
                fixture.judge(&network)
            };
            let verified = judged(rules);
            assert_eq!(verified.findings, [], "{engine}");
            let [kept] = verified.kept_away.as_slice() else {
                panic!("{engine}: {:?}", verified.kept_away);
            };
            assert_eq!(kept.engine, engine);
            assert!(kept.ports > 1 && kept.packets > kept.ports, "{kept:?}");
            let own = rules
                .replace("KUBE-POD-FW-", "SOMEBODYS-")
                .replace("cali-", "own-");
            let verified = judged(&own);
            assert_eq!(verified.kept_away, [], "{engine}");
            let names = verified.findings.iter().map(|finding| finding.name);
            let expected = if engine == "Calico" {
                "dropped"
            } else {
                "rejected"
            };
            assert!(
                names.clone().any(|name| name == expected),
                "{engine}: {:?}",
                names.collect::<Vec<_>>()
            );
        }
    }
}
