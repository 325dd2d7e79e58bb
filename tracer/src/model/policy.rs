//! `Policy`: a NetworkPolicy of networking.k8s.io/v1, and whom it lets through, as the API has it
//! (<https://kubernetes.io/docs/concepts/services-networking/network-policies/>); not what an engine makes of it.

use std::{collections::BTreeMap, net::IpAddr};

use super::{prefix, selector::Selector};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// A NetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Pods of that namespace that it isolates.
    pub pods: Selector,
    /// To whom alone they may send; `None` where it does not isolate them in this direction.
    pub egress: Option<Vec<Rule>>,
    /// From whom alone they may be sent to; likewise.
    pub ingress: Option<Vec<Rule>>,
}

/// Seen from the pods that a policy isolates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// What they send.
    Egress,
    /// What is sent to them.
    Ingress,
}

/// One thing that a policy allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// To or from one of these; everybody where there are none.
    pub peers: Vec<Peer>,
    /// At one of these ports of whom is sent to; any where there are none.
    pub ports: Vec<Ports>,
}

/// Who is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Pods.
    Pods {
        /// Of which namespaces; `None` for the policy's own.
        namespaces: Option<Selector>,
        /// Which of them.
        pods: Selector,
    },
    /// Addresses.
    Range {
        /// First address and prefix length.
        range: (IpAddr, u8),
        /// Ranges within it that are not meant.
        except: Vec<(IpAddr, u8)>,
    },
}

/// Ports of one protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Which; `None` for all.
    pub which: Option<Which>,
}

/// Ports by number or by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// From the first to the last.
    Numbers(u16, u16),
    /// The containers' port of this name.
    Name(String),
}

/// A pod, as policies look at it.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// That one's labels.
    pub of_namespace: &'a Labels,
    /// Its own labels.
    pub labels: &'a Labels,
    /// Its addresses.
    pub addresses: &'a [IpAddr],
    /// Ports of its containers that have a name: name, number, protocol.
    pub ports: &'a [(String, u16, String)],
}

impl Policy {
    /// `namespace/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// What it allows in this direction; `None` where it does not isolate.
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Egress => self.egress.as_deref(),
            Direction::Ingress => self.ingress.as_deref(),
        }
    }

    /// Whether it allows anything in this direction.
    pub fn has_rules(&self, direction: Direction) -> bool {
        self.rules(direction).is_some_and(|rules| !rules.is_empty())
    }

    /// Whether it isolates `pod` in this direction.
    pub fn isolates(&self, pod: End<'_>, direction: Direction) -> bool {
        let chosen = self.namespace == pod.namespace && has(&self.pods, pod.labels);
        chosen && self.rules(direction).is_some()
    }

    /// Whether a pod that it isolates may send to, or be sent to by, `other`: at `port` over `protocol` of `at`,
    /// whichever of both is sent to.
    pub fn allows(
        &self,
        direction: Direction,
        other: End<'_>,
        (protocol, port): (&str, u16),
        at: End<'_>,
    ) -> bool {
        let rules = self.rules(direction).unwrap_or_default();
        let mut rules = rules.iter();
        rules.any(|rule| rule.names(&self.namespace, other) && rule.opens(protocol, port, at))
    }
}

impl Rule {
    /// Whether `other` is among its peers; `namespace` is the policy's own.
    pub fn names(&self, namespace: &str, other: End<'_>) -> bool {
        let mut peers = self.peers.iter();
        self.peers.is_empty() || peers.any(|peer| peer.is(namespace, other))
    }

    /// Whether `port` of `at` is among its ports.
    pub fn opens(&self, protocol: &str, port: u16, at: End<'_>) -> bool {
        let is = |ports: &Ports| {
            ports.protocol == protocol
                && match &ports.which {
                    None => true,
                    Some(Which::Numbers(first, last)) => (*first..=*last).contains(&port),
                    Some(Which::Name(name)) => at.ports.iter().any(|(called, number, of)| {
                        (called, *number, of.as_str()) == (name, port, protocol)
                    }),
                }
        };
        self.ports.is_empty() || self.ports.iter().any(is)
    }
}

impl Peer {
    fn is(&self, namespace: &str, other: End<'_>) -> bool {
        match self {
            Self::Pods { namespaces, pods } => {
                let there = match namespaces {
                    None => namespace == other.namespace,
                    Some(namespaces) => has(namespaces, other.of_namespace),
                };
                there && has(pods, other.labels)
            }
            Self::Range { range, except } => other.addresses.iter().any(|address| {
                let within = |range| prefix::contains(range, *address);
                within(*range) && !except.iter().copied().any(within)
            }),
        }
    }
}

fn has(selector: &Selector, labels: &Labels) -> bool {
    selector.matches_by(|key| labels.get(key).map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::selector::Requirement;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let owned = |text: &str| text.to_owned();
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| (owned(key), owned(value)))
            .collect()
    }

    fn is(key: &str, value: &str) -> Selector {
        Selector::of(vec![Requirement::In(
            key.to_owned(),
            vec![value.to_owned()],
        )])
    }

    fn policy(rules: Vec<Rule>) -> Policy {
        Policy {
            namespace: "shop".to_owned(),
            name: "of-client".to_owned(),
            pods: is("app", "client"),
            egress: Some(rules),
            ingress: None,
        }
    }

    /// Whether the policy lets a client ask CoreDNS over UDP.
    fn asks(rule: Rule) -> bool {
        let (system, server) = (
            labels(&[("name", "kube-system")]),
            labels(&[("k8s-app", "kube-dns")]),
        );
        let server = End {
            namespace: "kube-system",
            of_namespace: &system,
            labels: &server,
            addresses: &["10.244.1.2".parse().unwrap()],
            ports: &[("dns".to_owned(), 53, "UDP".to_owned())],
        };
        policy(vec![rule]).allows(Direction::Egress, server, ("UDP", 53), server)
    }

    fn pods(namespaces: Option<Selector>) -> Peer {
        Peer::Pods {
            namespaces,
            pods: is("k8s-app", "kube-dns"),
        }
    }

    fn range(range: &str, except: &[&str]) -> Peer {
        let parse = |text: &str| prefix::parse(text).unwrap();
        Peer::Range {
            range: parse(range),
            except: except.iter().map(|text| parse(text)).collect(),
        }
    }

    #[test]
    fn a_peer_without_a_namespace_selector_is_of_the_policys_own_namespace() {
        let check = |peer: Peer, expected| {
            let rule = Rule {
                peers: vec![peer],
                ports: Vec::new(),
            };
            assert_eq!(asks(rule.clone()), expected, "{rule:?}");
        };
        check(pods(None), false);
        check(pods(Some(Selector::default())), true);
        check(pods(Some(is("name", "kube-system"))), true);
        check(pods(Some(is("name", "shop"))), false);
        check(range("10.244.0.0/16", &[]), true);
        check(range("10.244.0.0/16", &["10.244.1.0/24"]), false);
        check(range("192.0.2.0/24", &[]), false);
    }

    #[test]
    fn ports_are_those_of_the_protocol_by_number_or_name() {
        let check = |protocol: &str, which: Option<Which>, expected| {
            let ports = Ports {
                protocol: protocol.to_owned(),
                which,
            };
            let rule = Rule {
                peers: Vec::new(),
                ports: vec![ports],
            };
            assert_eq!(asks(rule.clone()), expected, "{rule:?}");
        };
        let name = |name: &str| Some(Which::Name(name.to_owned()));
        check("UDP", None, true);
        check("TCP", None, false);
        check("UDP", Some(Which::Numbers(53, 53)), true);
        check("TCP", Some(Which::Numbers(53, 53)), false);
        check("UDP", Some(Which::Numbers(50, 60)), true);
        check("UDP", Some(Which::Numbers(54, 60)), false);
        check("UDP", name("dns"), true);
        check("UDP", name("dns-tcp"), false);
    }

    #[test]
    fn a_policy_isolates_pods_of_its_namespace_in_the_directions_that_it_names() {
        let (client, other) = (labels(&[("app", "client")]), labels(&[("app", "web")]));
        let of_namespace = Labels::new();
        let pod = |namespace, labels| End {
            namespace,
            of_namespace: &of_namespace,
            labels,
            addresses: &[],
            ports: &[],
        };
        let policy = policy(Vec::new());
        assert!(policy.isolates(pod("shop", &client), Direction::Egress));
        assert!(!policy.isolates(pod("shop", &client), Direction::Ingress));
        assert!(!policy.isolates(pod("shop", &other), Direction::Egress));
        assert!(!policy.isolates(pod("default", &client), Direction::Egress));
        assert!(asks(Rule::default()), "a void rule allows all");
    }
}
