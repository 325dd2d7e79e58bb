//! Whether NetworkPolicies let this node's pods ask CoreDNS: a pod that any of them isolates may send only to whom
//! they name, and the cluster's DNS is not named by itself. One that may send to nobody at all is meant to ask nobody.

use std::collections::{BTreeMap, BTreeSet};

use super::{Answer, Check, LABEL, Problem, Seen, pods::is_coredns};
use crate::{
    cluster::objects::{Objects, PodObject, Policies},
    doctor::{
        cni::{Enforced, enforced},
        listed,
    },
    model::{
        Severity,
        policy::{Direction, End, Labels, Policy, Ports, Rule, Which},
    },
};

pub(super) const POLICIES: Check = Check {
    name: "dns_policies",
    subject: "coredns",
    why: "a pod that an egress policy isolates may ask only whom its policies name, and CoreDNS is not named by itself: no name resolves",
    run,
};

/// UDP first: nearly all is asked over it.
const PROTOCOLS: [&str; 2] = ["UDP", "TCP"];

/// Most pods that are named.
const NAMED: usize = 10;

/// NodeLocal DNSCache's pods.
const LOCAL: (&str, &str) = ("k8s-app", "node-local-dns");

/// A protocol, and the port at CoreDNS's pods.
type Target = (&'static str, u16);

/// What pods that are kept alike have in common: direction, names of the policies, over what they may not ask.
type Alike = (Direction, Vec<String>, Vec<Target>);

/// Pods that are kept from CoreDNS alike.
#[derive(Default)]
struct Kept<'a> {
    pods: BTreeSet<String>,
    /// What nearly lets them through.
    near: BTreeSet<String>,
    policies: Vec<&'a Policy>,
}

/// All that are kept, and those that may send to nobody.
#[derive(Default)]
struct AllKept<'a> {
    kept: BTreeMap<Alike, Kept<'a>>,
    mute: BTreeSet<String>,
}

fn run(seen: &Seen) -> Answer {
    match judge(seen) {
        Ok(answer) => answer,
        Err(why) => Answer::Unknown(why),
    }
}

fn judge(seen: &Seen) -> Result<Answer, String> {
    let objects = seen.objects.as_ref().map_err(Clone::clone)?;
    let found = objects.network_policies.as_ref().map_err(Clone::clone)?;
    if found.policies.is_empty() {
        return Ok(Answer::Holds("there are no NetworkPolicies".to_owned()));
    }
    if let Enforced::Not(why) = enforced(seen)? {
        return Ok(Answer::Holds(format!("none keeps anybody away: {why}")));
    }
    let servers = servers(objects)?;
    let targets = targets(objects);
    let namespaces = found.namespaces.as_ref().map_err(Clone::clone)?;
    let clients = found.pods.as_ref().map_err(Clone::clone)?;
    let clients: Vec<_> = clients.iter().filter(|pod| asks(pod)).collect();
    let mut all = AllKept::default();
    for pod in &clients {
        let name = format!("{}/{}", pod.namespace, pod.name);
        let pod = end(pod, namespaces);
        for server in &servers {
            all.add(found, (&name, pod), end(server, namespaces), targets);
        }
    }
    let AllKept { kept, mute } = all;
    let kept = kept.into_iter();
    let problems = kept.map(|(alike, kept)| problem(alike, kept));
    Ok(Answer::of(problems.collect(), || {
        let may = pods(clients.len() - mute.len());
        let words = format!("no NetworkPolicy keeps {may} from CoreDNS");
        if mute.is_empty() {
            words
        } else {
            format!("{words}; to nobody at all may send {}", listed(mute, NAMED))
        }
    }))
}

/// CoreDNS's pods.
///
/// # Errors
/// In words: they are not known, or policies say nothing of them.
fn servers(objects: &Objects) -> Result<Vec<&PodObject>, String> {
    let pods = objects.pods.as_ref().map_err(Clone::clone)?;
    if pods.iter().any(|pod| has_label(pod, LOCAL)) {
        return Err(
            "pods ask NodeLocal DNSCache of their own node, of which policies say nothing"
                .to_owned(),
        );
    }
    let servers: Vec<_> = pods
        .iter()
        .filter(|pod| is_coredns(pod) && pod.ready && !pod.host_network)
        .collect();
    if servers.is_empty() {
        return Err("CoreDNS has no pod that is ready and has an address of its own".to_owned());
    }
    Ok(servers)
}

/// Policies say nothing of pods in their node's own network.
fn asks(pod: &PodObject) -> bool {
    let lives = ["Pending", "Running"].contains(&pod.phase.as_str());
    lives && !pod.host_network && !has_label(pod, LABEL)
}

fn has_label(pod: &PodObject, (key, value): (&str, &str)) -> bool {
    pod.labels.get(key).is_some_and(|label| label == value)
}

fn end<'a>(pod: &'a PodObject, namespaces: &'a BTreeMap<String, Labels>) -> End<'a> {
    static NONE: Labels = Labels::new();
    End {
        namespace: &pod.namespace,
        of_namespace: namespaces.get(&pod.namespace).unwrap_or(&NONE),
        labels: &pod.labels,
        addresses: &pod.addresses,
        ports: &pod.ports,
    }
}

/// The port at CoreDNS's pods to which the Service's port 53 leads, by protocol.
fn targets(objects: &Objects) -> [Target; 2] {
    let services = objects.dns_services.iter().flatten();
    let ports: Vec<_> = services.flat_map(|service| &service.ports).collect();
    PROTOCOLS.map(|protocol| {
        let asked = ports
            .iter()
            .find(|(_, port, of)| *port == 53 && of == protocol);
        let mut targets = objects.dns_targets.iter().flatten();
        let target = asked.and_then(|(name, ..)| {
            targets.find(|(called, _, of)| called == name && of == protocol)
        });
        (protocol, target.map_or(53, |(_, number, _)| *number))
    })
}

impl<'a> AllKept<'a> {
    /// Adds the ways on which `pod` is kept from `server`.
    fn add(
        &mut self,
        found: &'a Policies,
        (name, pod): (&str, End<'_>),
        server: End<'_>,
        targets: [Target; 2],
    ) {
        for direction in [Direction::Egress, Direction::Ingress] {
            let (own, other) = match direction {
                Direction::Egress => (pod, server),
                Direction::Ingress => (server, pod),
            };
            let policies = found.policies.iter();
            let policies: Vec<_> = policies
                .filter(|policy| policy.isolates(own, direction))
                .collect();
            let shut = |target: &Target| {
                let mut policies = policies.iter();
                !policies.any(|policy| policy.allows(direction, other, *target, server))
            };
            let over: Vec<_> = targets.into_iter().filter(shut).collect();
            if policies.is_empty() || over.is_empty() {
                continue;
            }
            if direction == Direction::Egress
                && !policies.iter().any(|policy| policy.has_rules(direction))
            {
                self.mute.insert(name.to_owned());
                continue;
            }
            let names = policies.iter().map(|policy| policy.full_name()).collect();
            let near = near(&policies, direction, other, server, &over);
            let kept = self.kept.entry((direction, names, over)).or_default();
            kept.pods.insert(name.to_owned());
            kept.near.extend(near);
            kept.policies = policies;
        }
    }
}

/// Rules that nearly let `other` through, in words.
fn near(
    policies: &[&Policy],
    direction: Direction,
    other: End<'_>,
    server: End<'_>,
    over: &[Target],
) -> Vec<String> {
    let of = |policy: &&Policy| {
        let rules = policy.rules(direction).unwrap_or_default();
        let hints = rules.iter().filter_map(|rule| {
            let opens = |(protocol, port): &Target| rule.opens(protocol, *port, server);
            let there = rule.names(&policy.namespace, other);
            let elsewhere = !there && rule.names(other.namespace, other);
            if there && !over.iter().any(opens) {
                Some(format!(
                    "{} has a rule for {} at {} alone",
                    policy.full_name(),
                    if direction == Direction::Egress { "CoreDNS's pods" } else { "them" },
                    ports(rule)
                ))
            } else if elsewhere {
                Some(format!(
                    "{} has a rule whose podSelector has their labels, and means pods of {}: it has no namespaceSelector",
                    policy.full_name(),
                    policy.namespace
                ))
            } else {
                None
            }
        });
        hints.collect::<Vec<_>>()
    };
    policies.iter().flat_map(of).collect()
}

/// As `TCP 53, UDP 8000-8010`.
fn ports(rule: &Rule) -> String {
    let one = |ports: &Ports| {
        let protocol = &ports.protocol;
        match &ports.which {
            None => format!("any port of {protocol}"),
            Some(Which::Name(name)) => format!("{protocol} {name}"),
            Some(Which::Numbers(first, last)) if first == last => format!("{protocol} {first}"),
            Some(Which::Numbers(first, last)) => format!("{protocol} {first}-{last}"),
        }
    };
    rule.ports.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn problem((direction, names, over): Alike, kept: Kept<'_>) -> Problem {
    let kind = if names.len() == 1 {
        "NetworkPolicy"
    } else {
        "NetworkPolicies"
    };
    let ways: Vec<_> = over
        .iter()
        .map(|(protocol, port)| format!("{protocol} {port}"))
        .collect();
    let ways = ways.join(" and ");
    let over_udp = over.iter().any(|(protocol, _)| *protocol == "UDP");
    let pods = pods(kept.pods.len());
    let whose = match direction {
        Direction::Egress => format!("no rule lets {pods} send to CoreDNS's at {ways}"),
        Direction::Ingress => format!("no rule lets CoreDNS's pods be sent to by {pods} at {ways}"),
    };
    let then = if over_udp {
        "no name resolves there"
    } else {
        "an answer that is too long for UDP is lost there"
    };
    let mut evidence = vec![format!("pods: {}", listed(kept.pods, NAMED))];
    evidence.extend(kept.near);
    evidence.push(
        "by NetworkPolicies alone: policies of another kind, as Calico's own, may let them through"
            .to_owned(),
    );
    Problem {
        severity: if over_udp {
            Severity::Broken
        } else {
            Severity::Warning
        },
        follows: &[],
        object: format!("{kind} {}", names.join(", ")),
        sentence: format!("{whose}: {then}"),
        evidence,
        remedy: remedy(direction, &kept.policies, &over),
    }
}

/// As `1 pod of this node`.
fn pods(count: usize) -> String {
    format!(
        "{count} pod{} of this node",
        if count == 1 { "" } else { "s" }
    )
}

/// A rule more for the first of the policies that has any.
fn remedy(direction: Direction, policies: &[&Policy], over: &[Target]) -> String {
    let mut all = policies.iter();
    let first = all.find(|policy| policy.has_rules(direction));
    let Some(policy) = first.or(policies.first()) else {
        return String::new();
    };
    let ports: Vec<_> = over
        .iter()
        .map(|(protocol, port)| format!(r#"{{"protocol":"{protocol}","port":{port}}}"#))
        .collect();
    let (word, peers) = match direction {
        Direction::Egress => (
            "egress",
            format!(
                r#""to":[{{"namespaceSelector":{{"matchLabels":{{"kubernetes.io/metadata.name":"kube-system"}}}},"podSelector":{{"matchLabels":{{"{}":"{}"}}}}}}]"#,
                LABEL.0, LABEL.1
            ),
        ),
        Direction::Ingress => ("ingress", r#""from":[{"namespaceSelector":{}}]"#.to_owned()),
    };
    let rule = format!(r#"{{{peers},"ports":[{}]}}"#, ports.join(","));
    let (path, value) = if policy.has_rules(direction) {
        (format!("/spec/{word}/-"), rule)
    } else {
        (format!("/spec/{word}"), format!("[{rule}]"))
    };
    format!(
        r#"kubectl -n {} patch networkpolicy {} --type json -p '[{{"op":"add","path":"{path}","value":{value}}}]'"#,
        policy.namespace, policy.name
    )
}

#[cfg(test)]
mod tests;
