//! NetworkPolicies of a node's pods and of CoreDNS, and what the check says of them.

use super::*;
use crate::{
    cluster::objects::Service,
    doctor::cni::fixtures::{self, Node},
    model::{
        policy::Peer,
        selector::{Requirement, Selector},
    },
};

fn labels(key: &str, value: &str) -> Labels {
    Labels::from([(key.to_owned(), value.to_owned())])
}

fn is(key: &str, value: &str) -> Selector {
    let (key, value) = (key.to_owned(), value.to_owned());
    Selector::of(vec![Requirement::In(key, vec![value])])
}

fn pod(namespace: &str, name: &str, labels: Labels) -> PodObject {
    PodObject {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        labels,
        phase: "Running".to_owned(),
        ready: true,
        addresses: vec!["10.244.1.2".parse().unwrap()],
        ..PodObject::default()
    }
}

/// Of pods of shop whose app is client, in one direction.
fn policy(direction: Direction, rules: Vec<Rule>) -> Policy {
    let policy = Policy {
        namespace: "shop".to_owned(),
        name: "of-client".to_owned(),
        pods: is("app", "client"),
        ..Policy::default()
    };
    match direction {
        Direction::Egress => Policy {
            egress: Some(rules),
            ..policy
        },
        Direction::Ingress => Policy {
            namespace: "kube-system".to_owned(),
            name: "of-dns".to_owned(),
            pods: is(LABEL.0, LABEL.1),
            ingress: Some(rules),
            ..policy
        },
    }
}

fn rule(peer: Peer, ports: &[(&str, u16)]) -> Rule {
    let ports = ports.iter().map(|(protocol, port)| Ports {
        protocol: (*protocol).to_owned(),
        which: Some(Which::Numbers(*port, *port)),
    });
    Rule {
        peers: vec![peer],
        ports: ports.collect(),
    }
}

/// CoreDNS's labels, in some namespaces or in the policy's own.
fn dns(namespaces: Option<Selector>) -> Peer {
    Peer::Pods {
        namespaces,
        pods: is(LABEL.0, LABEL.1),
    }
}

/// CoreDNS's pods.
fn any() -> Peer {
    dns(Some(Selector::default()))
}

/// A node of Calico's with a client and another pod, and CoreDNS.
fn node(policies: Vec<Policy>) -> Node {
    let mut node = fixtures::calico();
    let objects = node.seen.objects.as_mut().unwrap();
    let server = pod("kube-system", "coredns-1", labels(LABEL.0, LABEL.1));
    objects.pods = Ok(vec![server.clone()]);
    let mut host = pod("shop", "host", labels("app", "client"));
    host.host_network = true;
    let mut over = pod("shop", "over", labels("app", "client"));
    over.phase = "Succeeded".to_owned();
    let namespaces = ["shop", "kube-system"].map(|name| {
        let labels = labels("kubernetes.io/metadata.name", name);
        (name.to_owned(), labels)
    });
    objects.network_policies = Ok(Policies {
        policies,
        namespaces: Ok(namespaces.into()),
        pods: Ok(vec![
            pod("shop", "client-1", labels("app", "client")),
            pod("shop", "web-1", labels("app", "web")),
            server,
            host,
            over,
        ]),
    });
    node
}

/// The one problem.
fn found(node: &Node) -> Problem {
    match run(&node.seen) {
        Answer::Fails(problems) => {
            let [problem] = &problems[..] else {
                panic!("there is one: {problems:#?}");
            };
            problem.clone()
        }
        other => panic!("it fails: {other:?}"),
    }
}

/// Egress to the web servers alone.
fn to_web() -> Policy {
    let web = Peer::Pods {
        namespaces: None,
        pods: is("app", "web"),
    };
    policy(Direction::Egress, vec![rule(web, &[("TCP", 8080)])])
}

#[test]
fn who_may_ask_others_alone_may_not_ask_coredns_and_the_remedy_lets_it() {
    let denies = Policy {
        name: "all".to_owned(),
        pods: Selector::default(),
        ..policy(Direction::Egress, Vec::new())
    };
    let problem = found(&node(vec![denies, to_web()]));
    assert_eq!(problem.severity, Severity::Broken);
    assert_eq!(problem.object, "NetworkPolicies shop/all, shop/of-client");
    assert_eq!(
        problem.sentence,
        "no rule lets 1 pod of this node send to CoreDNS's at UDP 53 and TCP 53: no name resolves there"
    );
    assert_eq!(problem.evidence[0], "pods: shop/client-1");
    let value = r#"{"to":[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"kube-system"}},"podSelector":{"matchLabels":{"k8s-app":"kube-dns"}}}],"ports":[{"protocol":"UDP","port":53},{"protocol":"TCP","port":53}]}"#;
    assert_eq!(
        problem.remedy,
        format!(
            r#"kubectl -n shop patch networkpolicy of-client --type json -p '[{{"op":"add","path":"/spec/egress/-","value":{value}}}]'"#
        )
    );
}

#[test]
fn who_may_send_to_nobody_is_told_and_no_problem() {
    match run(&node(vec![policy(Direction::Egress, Vec::new())]).seen) {
        Answer::Holds(seen) => assert_eq!(
            seen,
            "no NetworkPolicy keeps 1 pod of this node from CoreDNS; to nobody at all may send shop/client-1"
        ),
        other => panic!("it holds: {other:?}"),
    }
}

#[test]
fn who_is_let_to_coredns_by_any_policy_is_no_problem() {
    let both = [("UDP", 53), ("TCP", 53)];
    let check = |policies: Vec<Policy>| {
        let answer = run(&node(policies).seen);
        assert_eq!(answer.verdict(), "good", "{answer:?}");
    };
    let egress = |rules| policy(Direction::Egress, rules);
    check(Vec::new());
    check(vec![egress(vec![rule(any(), &both)])]);
    check(vec![egress(Vec::new()), egress(vec![Rule::default()])]);
    check(vec![Policy {
        pods: is("app", "nobody"),
        ..egress(Vec::new())
    }]);
    let from = |app| Peer::Pods {
        namespaces: Some(is("kubernetes.io/metadata.name", "shop")),
        pods: is("app", app),
    };
    check(vec![policy(
        Direction::Ingress,
        vec![rule(from("client"), &both), rule(from("web"), &both)],
    )]);
}

#[test]
fn tcp_alone_is_what_a_port_without_a_protocol_means() {
    let rules = vec![rule(any(), &[("TCP", 53)])];
    let problem = found(&node(vec![policy(Direction::Egress, rules)]));
    assert!(
        problem.sentence.contains("at UDP 53: no name"),
        "{}",
        problem.sentence
    );
    assert_eq!(
        problem.evidence[1],
        "shop/of-client has a rule for CoreDNS's pods at TCP 53 alone"
    );
    assert!(
        problem.remedy.contains(r#""path":"/spec/egress/-""#),
        "{}",
        problem.remedy
    );
}

#[test]
fn udp_alone_is_a_warning() {
    let rules = vec![rule(any(), &[("UDP", 53)])];
    let problem = found(&node(vec![policy(Direction::Egress, rules)]));
    assert_eq!(problem.severity, Severity::Warning);
    assert!(
        problem.sentence.contains("at TCP 53: an answer"),
        "{}",
        problem.sentence
    );
}

#[test]
fn a_pod_selector_that_means_the_policys_own_namespace_is_told() {
    let rules = vec![rule(dns(None), &[("UDP", 53), ("TCP", 53)])];
    let problem = found(&node(vec![policy(Direction::Egress, rules)]));
    assert!(
        problem.evidence[1].contains("means pods of shop: it has no namespaceSelector"),
        "{:?}",
        problem.evidence
    );
}

#[test]
fn who_may_not_be_asked_by_anybody_is_told_with_whom_it_keeps_away() {
    let problem = found(&node(vec![policy(Direction::Ingress, Vec::new())]));
    assert_eq!(problem.object, "NetworkPolicy kube-system/of-dns");
    assert!(
        problem
            .sentence
            .contains("be sent to by 2 pods of this node at UDP 53 and TCP 53"),
        "{}",
        problem.sentence
    );
    assert_eq!(problem.evidence[0], "pods: shop/client-1, shop/web-1");
}

#[test]
fn ports_are_those_of_coredns_where_the_service_leads_to_others() {
    let rules = vec![rule(any(), &[("UDP", 53), ("TCP", 53)])];
    let mut node = node(vec![policy(Direction::Egress, rules)]);
    let objects = node.seen.objects.as_mut().unwrap();
    objects.dns_services = Ok(vec![Service {
        name: "kube-dns".to_owned(),
        ports: vec![("dns".to_owned(), 53, "UDP".to_owned())],
        ..Service::default()
    }]);
    objects.dns_targets = Ok(vec![("dns".to_owned(), 8053, "UDP".to_owned())]);
    let problem = found(&node);
    assert!(
        problem.sentence.contains("at UDP 8053"),
        "{}",
        problem.sentence
    );
}

#[test]
fn where_nobody_enforces_them_or_a_local_cache_is_asked_policies_keep_nobody_away() {
    let mut node = node(vec![to_web()]);
    let network_policies = node.seen.objects.as_ref().unwrap().network_policies.clone();
    let cache = pod("kube-system", "cache", labels(LOCAL.0, LOCAL.1));
    let objects = node.seen.objects.as_mut().unwrap();
    objects.pods.as_mut().unwrap().push(cache);
    assert_eq!(run(&node.seen).verdict(), "unknown");
    let mut flannel = fixtures::flannel();
    flannel.seen.objects.as_mut().unwrap().network_policies = network_policies;
    assert_eq!(run(&flannel.seen).verdict(), "good");
}
