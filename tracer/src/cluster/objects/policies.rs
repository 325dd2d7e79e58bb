//! NetworkPolicies, and what they choose by: labels of namespaces, and the pods of one node. What they choose is
//! asked for only where there are any.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::{
    api::{
        core::v1::{Namespace, Pod},
        networking::v1::{
            self, IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
        },
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use kube::{Api, Client, api::ListParams};

use super::{
    Got, Policies,
    read::list,
    trim::{pod, protocol},
};
use crate::model::{
    policy::{Labels, Peer, Policy, Ports, Rule, Which},
    prefix,
    selector::{Requirement, Selector},
};

/// All of it; `node` is the Node whose pods are wanted, as far as it is known.
///
/// # Errors
/// In words: NetworkPolicies may not be read.
pub(super) async fn get(client: &Client, node: Option<&str>) -> Got<Policies> {
    let all = ListParams::default;
    let policies = list(Api::<NetworkPolicy>::all(client.clone()), all()).await?;
    if policies.is_empty() {
        return Ok(Policies::default());
    }
    let namespaces = list(Api::<Namespace>::all(client.clone()), all());
    let pods = async {
        let node = node.ok_or("no Node has an address of this machine")?;
        let there = all().fields(&format!("spec.nodeName={node}"));
        list(Api::<Pod>::all(client.clone()), there).await
    };
    let (namespaces, pods) = futures::join!(namespaces, pods);
    Ok(Policies {
        policies: policies.into_iter().map(policy).collect(),
        namespaces: namespaces.map(labels),
        pods: pods.map(|pods| pods.iter().map(pod).collect()),
    })
}

fn labels(namespaces: Vec<Namespace>) -> BTreeMap<String, Labels> {
    let named = namespaces.into_iter().filter_map(|namespace| {
        let meta = namespace.metadata;
        Some((meta.name?, meta.labels.unwrap_or_default()))
    });
    named.collect()
}

/// Where `policyTypes` is absent it isolates what is sent to pods, and what they send if it has rules for that
/// (`NetworkPolicySpec`).
fn policy(policy: NetworkPolicy) -> Policy {
    let meta = policy.metadata;
    let NetworkPolicySpec {
        pod_selector,
        policy_types,
        egress,
        ingress,
    } = policy.spec.unwrap_or_default();
    let isolates = |direction: &str, otherwise: bool| match &policy_types {
        Some(types) if !types.is_empty() => types.iter().any(|of| of == direction),
        _ => otherwise,
    };
    let sends = isolates(
        "Egress",
        egress.as_ref().is_some_and(|rules| !rules.is_empty()),
    );
    let receives = isolates("Ingress", true);
    let egress = egress.unwrap_or_default().into_iter();
    let ingress = ingress.unwrap_or_default().into_iter();
    Policy {
        namespace: meta.namespace.unwrap_or_default(),
        name: meta.name.unwrap_or_default(),
        pods: selector(pod_selector.unwrap_or_default()),
        egress: sends.then(|| {
            egress
                .map(|rule: v1::NetworkPolicyEgressRule| allowed(rule.to, rule.ports))
                .collect()
        }),
        ingress: receives.then(|| {
            ingress
                .map(|rule: v1::NetworkPolicyIngressRule| allowed(rule.from, rule.ports))
                .collect()
        }),
    }
}

fn allowed(peers: Option<Vec<NetworkPolicyPeer>>, ports: Option<Vec<NetworkPolicyPort>>) -> Rule {
    Rule {
        peers: peers.into_iter().flatten().filter_map(peer).collect(),
        ports: ports.into_iter().flatten().filter_map(port).collect(),
    }
}

fn peer(peer: NetworkPolicyPeer) -> Option<Peer> {
    if let Some(IPBlock { cidr, except }) = peer.ip_block {
        let except = except.into_iter().flatten();
        return Some(Peer::Range {
            range: prefix::parse(&cidr)?,
            except: except.filter_map(|range| prefix::parse(&range)).collect(),
        });
    }
    Some(Peer::Pods {
        namespaces: peer.namespace_selector.map(selector),
        pods: selector(peer.pod_selector.unwrap_or_default()),
    })
}

fn port(port: NetworkPolicyPort) -> Option<Ports> {
    let number = |number: i32| u16::try_from(number).ok();
    let which = match port.port {
        None => None,
        Some(IntOrString::String(name)) => Some(Which::Name(name)),
        Some(IntOrString::Int(first)) => {
            let last = port.end_port.unwrap_or(first);
            Some(Which::Numbers(number(first)?, number(last)?))
        }
    };
    Some(Ports {
        protocol: protocol(port.protocol.as_ref()),
        which,
    })
}

fn selector(selector: LabelSelector) -> Selector {
    let labels = selector.match_labels.into_iter().flatten();
    let labels = labels.map(|(key, value)| Requirement::In(key, vec![value]));
    let expressions = selector.match_expressions.into_iter().flatten();
    let expressions = expressions.map(|expression| {
        let (key, values) = (expression.key, expression.values.unwrap_or_default());
        // The API server takes no other operator.
        match expression.operator.as_str() {
            "NotIn" => Requirement::NotIn(key, values),
            "Exists" => Requirement::Exists(key),
            "DoesNotExist" => Requirement::Absent(key),
            _ => Requirement::In(key, values),
        }
    });
    Selector::of(labels.chain(expressions).collect())
}

/// The Node that has one of `own` addresses.
pub(super) fn of_node<'a>(
    nodes: &'a Got<Vec<super::NodeObject>>,
    own: &[IpAddr],
) -> Option<&'a str> {
    let mut nodes = nodes.as_ref().ok()?.iter();
    let node = nodes.find(|node| node.addresses.iter().any(|address| own.contains(address)))?;
    Some(&node.name)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(spec: &Value) -> Policy {
        let object = json!({"metadata": {"namespace": "shop", "name": "one"}, "spec": spec});
        policy(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn directions_are_those_of_policy_types_and_without_them_those_that_have_rules() {
        let check = |spec: Value, egress: bool, ingress: bool| {
            let policy = of(&spec);
            let isolates = (policy.egress.is_some(), policy.ingress.is_some());
            assert_eq!(isolates, (egress, ingress), "{policy:?}");
        };
        check(json!({"podSelector": {}}), false, true);
        check(json!({"podSelector": {}, "egress": []}), false, true);
        check(json!({"podSelector": {}, "egress": [{}]}), true, true);
        check(
            json!({"podSelector": {}, "policyTypes": ["Egress"]}),
            true,
            false,
        );
        check(
            json!({"podSelector": {}, "policyTypes": ["Ingress"], "egress": [{}]}),
            false,
            true,
        );
    }

    #[test]
    fn a_port_without_a_protocol_is_tcps() {
        let policy = of(&json!({
            "podSelector": {},
            "policyTypes": ["Egress"],
            "egress": [{
                "to": [
                    {"podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}},
                    {"namespaceSelector": {}},
                    {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
                ],
                "ports": [{"port": 53}, {"port": 8000, "endPort": 8010, "protocol": "UDP"}, {"port": "dns"}, {}],
            }],
        }));
        let rule = &policy.egress.unwrap()[0];
        let exists = Selector::of(vec![Requirement::Exists("app".to_owned())]);
        let pods = |namespaces, pods| Peer::Pods { namespaces, pods };
        let range = Peer::Range {
            range: ("10.0.0.0".parse().unwrap(), 8),
            except: vec![("10.1.0.0".parse().unwrap(), 16)],
        };
        let all = Selector::default();
        let peers = [pods(None, exists), pods(Some(all.clone()), all), range];
        assert_eq!(rule.peers, peers);
        let ports = |protocol: &str, which| Ports {
            protocol: protocol.to_owned(),
            which,
        };
        let expected = [
            ports("TCP", Some(Which::Numbers(53, 53))),
            ports("UDP", Some(Which::Numbers(8000, 8010))),
            ports("TCP", Some(Which::Name("dns".to_owned()))),
            ports("TCP", None),
        ];
        assert_eq!(rule.ports, expected);
    }
}
