//! What an address is called at a time, change by change.

use super::*;
use crate::model::{
    Pod, Via,
    change::RuleClaim,
    cluster::{
        Endpoint, EndpointPort, EndpointSlice, LoadBalancerIp, Node, PortProtocol, ServicePort,
        ServiceType, TrafficPolicy, Workload,
    },
};

const S: i64 = 1_000_000_000;

fn s(seconds: i64) -> WallNs {
    WallNs(seconds * S)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn name(text: &str) -> ObjectName {
    let (namespace, name) = text.split_once('/').unwrap();
    ObjectName {
        namespace: namespace.into(),
        name: name.into(),
    }
}

/// A pod `shop/NAME` with uid `uid-NAME`, started at `started`.
fn pod(name: &str, address: &str, started: i64) -> PodObject {
    PodObject {
        pod: Arc::new(Pod {
            namespace: "shop".into(),
            name: name.into(),
            uid: Some(format!("uid-{name}").into()),
        }),
        ips: vec![ip(address)],
        node: Some("n1".into()),
        host_network: false,
        workload: Some(Workload {
            kind: "Deployment".into(),
            name: "web".into(),
        }),
        labels: Vec::new(),
        ready: true,
        created: s(started),
        deleted: None,
        started: Some(s(started)),
        ended: None,
        config_hash: None,
    }
}

fn service(of: &str, cluster_ip: &str) -> Service {
    Service {
        name: name(of),
        uid: "".into(),
        r#type: ServiceType::ClusterIp,
        cluster_ips: vec![ip(cluster_ip)],
        headless: false,
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        ports: vec![ServicePort {
            name: "http".into(),
            protocol: PortProtocol::Tcp,
            port: 80,
            node_port: None,
        }],
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        health_check_node_port: None,
        affinity: None,
        publish_not_ready: false,
        traffic_distribution: None,
        proxy_name: None,
        selector: Vec::new(),
        created: s(1),
    }
}

fn slice(service: &str, address: &str, pod: Option<&str>) -> EndpointSlice {
    let of = name(service);
    EndpointSlice {
        name: name(&format!("{service}-abc")),
        service: of.name,
        headless: false,
        endpoints: vec![Endpoint {
            addresses: vec![ip(address)],
            ready: true,
            serving: true,
            terminating: false,
            node: None,
            zone: None,
            zone_hints: Vec::new(),
            node_hints: Vec::new(),
            pod: pod.map(name),
        }],
        ports: vec![EndpointPort {
            name: "http".into(),
            protocol: PortProtocol::Tcp,
            port: Some(8080),
        }],
    }
}

fn node(name: &str, address: &str) -> Object {
    Object::Node(Arc::new(Node {
        name: name.into(),
        addresses: vec![ip(address)],
        pod_cidrs: Vec::new(),
        zone: None,
        ready: true,
        annotations: Vec::new(),
    }))
}

fn apply(index: &mut Index, at: i64, what: Change) {
    index.apply(ClusterChange { at: s(at), what });
}

fn set_pod(index: &mut Index, at: i64, pod: PodObject) {
    apply(index, at, Change::Set(Object::Pod(Arc::new(pod))));
}

fn list(index: &mut Index, at: i64, kind: Kind, objects: Vec<Object>) {
    apply(index, at, Change::Listing { kind, own: false });
    for object in objects {
        apply(index, at, Change::Set(object));
    }
    apply(index, at, Change::Listed(kind));
}

/// The pod that had `address` at second `at`.
fn at(index: &Index, address: &str, at: i64) -> Option<String> {
    let named = index.pod_at(ip(address), s(at), s(1000))?;
    Some(named.pod.name.to_string())
}

/// What `address` was at second `at`, and by which address of the Service.
fn asked(index: &Index, address: &str, at: i64) -> Option<(String, Via)> {
    let address = address.parse().unwrap();
    let named = index.service_at(address, Protocol::Tcp, s(at), s(1000))?;
    Some((named.port.to_string(), named.port.via))
}

#[test]
fn an_address_used_again_is_the_pods_that_had_it_then() {
    let mut index = Index::default();
    set_pod(&mut index, 11, pod("a", "10.244.1.5", 10));
    apply(&mut index, 20, Change::Gone(Key::Pod("uid-a".into())));
    set_pod(&mut index, 31, pod("b", "10.244.1.5", 30));
    let had = |when| at(&index, "10.244.1.5", when);
    assert_eq!(had(9), None);
    assert_eq!(had(15).as_deref(), Some("a"));
    assert_eq!(had(25), None);
    assert_eq!(had(30).as_deref(), Some("b"));
}

#[test]
fn a_pod_created_before_its_address_was_free_has_it_from_then_on() {
    let mut index = Index::default();
    set_pod(&mut index, 11, pod("a", "10.244.1.5", 10));
    // It waited for its image, say.
    let mut ended = pod("a", "10.244.1.5", 10);
    ended.ended = Some(s(20));
    set_pod(&mut index, 22, ended);
    set_pod(&mut index, 24, pod("b", "10.244.1.5", 15));
    assert_eq!(at(&index, "10.244.1.5", 18).as_deref(), Some("a"));
    assert_eq!(at(&index, "10.244.1.5", 23).as_deref(), Some("b"));
}

#[test]
fn a_pod_whose_end_is_told_late_does_not_keep_its_address_from_the_next_one() {
    let mut index = Index::default();
    set_pod(&mut index, 11, pod("a", "10.244.1.5", 10));
    set_pod(&mut index, 31, pod("b", "10.244.1.5", 30));
    apply(&mut index, 40, Change::Gone(Key::Pod("uid-a".into())));
    assert_eq!(at(&index, "10.244.1.5", 25).as_deref(), Some("a"));
    assert_eq!(at(&index, "10.244.1.5", 35).as_deref(), Some("b"));
    assert_eq!(at(&index, "10.244.1.5", 45).as_deref(), Some("b"));
}

#[test]
fn who_is_gone_is_remembered_for_two_minutes() {
    let mut index = Index::default();
    set_pod(&mut index, 11, pod("a", "10.244.1.5", 10));
    apply(&mut index, 20, Change::Gone(Key::Pod("uid-a".into())));
    apply(&mut index, 139, Change::Heard(Kind::Pods));
    assert!(index.pod("uid-a", s(139)).is_some());
    apply(&mut index, 141, Change::Heard(Kind::Pods));
    assert_eq!(index.pod("uid-a", s(141)), None);
    assert_eq!(at(&index, "10.244.1.5", 15), None);
}

#[test]
fn what_a_new_list_does_not_hold_has_gone() {
    let mut index = Index::default();
    let object = |name, address| Object::Pod(Arc::new(pod(name, address, 10)));
    let (a, b) = (object("a", "10.244.1.5"), object("b", "10.244.1.6"));
    list(&mut index, 20, Kind::Pods, vec![a, b.clone()]);
    list(&mut index, 40, Kind::Pods, vec![b]);
    assert_eq!(at(&index, "10.244.1.5", 30).as_deref(), Some("a"));
    assert_eq!(at(&index, "10.244.1.5", 41), None);
    assert_eq!(at(&index, "10.244.1.6", 41).as_deref(), Some("b"));
}

#[test]
fn pods_in_a_nodes_network_do_not_have_its_address() {
    let mut index = Index::default();
    let mut agent = pod("agent", "192.0.2.1", 10);
    agent.host_network = true;
    set_pod(&mut index, 11, agent);
    apply(&mut index, 11, Change::Set(node("n1", "192.0.2.1")));
    assert_eq!(at(&index, "192.0.2.1", 20), None);
    assert_eq!(index.node_at(ip("192.0.2.1")).map(|of| &**of), Some("n1"));
    // Its container tells it.
    assert!(index.pod("uid-agent", s(20)).is_some());
    // So does the Service that it serves.
    let slice = slice("shop/agents", "192.0.2.1", Some("shop/agent"));
    apply(&mut index, 12, Change::Set(Object::Slice(Arc::new(slice))));
    let backend = "192.0.2.1:8080".parse().unwrap();
    let named = index
        .endpoint(&name("shop/agents"), backend, s(20))
        .unwrap();
    assert_eq!(&*named.pod.name, "agent");
    assert!(named.object.is_some());
    let other = "192.0.2.1:9090".parse().unwrap();
    assert_eq!(index.endpoint(&name("shop/agents"), other, s(20)), None);
}

#[test]
fn a_static_pod_is_known_by_the_hash_in_its_cgroup() {
    let mut index = Index::default();
    let mut mirror = pod("etcd-n1", "192.0.2.1", 10);
    mirror.config_hash = Some("0123456789abcdef0123456789abcdef".into());
    set_pod(&mut index, 11, mirror);
    let named = index
        .pod("0123456789abcdef0123456789abcdef", s(20))
        .unwrap();
    assert_eq!(&*named.pod.name, "etcd-n1");
}

#[test]
fn a_service_is_named_by_whichever_of_its_addresses_was_asked() {
    let mut index = Index::default();
    let mut web = service("shop/web", "10.96.1.1");
    web.external_ips.push(ip("198.51.100.7"));
    web.load_balancer_ips.push(LoadBalancerIp {
        ip: ip("203.0.113.9"),
        proxied: false,
    });
    web.ports[0].node_port = Some(30080);
    apply(&mut index, 5, Change::Set(Object::Service(Arc::new(web))));
    apply(&mut index, 5, Change::Set(node("n1", "192.0.2.1")));
    let check = |address: &str, via: Option<Via>| {
        let expected = via.map(|via| ("shop/web:http".to_owned(), via));
        assert_eq!(asked(&index, address, 10), expected, "{address}");
    };
    check("10.96.1.1:80", Some(Via::ClusterIp));
    check("198.51.100.7:80", Some(Via::ExternalIp));
    check("203.0.113.9:80", Some(Via::LoadBalancer));
    check("192.0.2.1:30080", Some(Via::NodePort));
    // Not a node's.
    check("192.0.2.99:30080", None);
    check("10.96.1.1:81", None);
}

#[test]
fn a_headless_service_is_asked_by_its_pods_addresses() {
    let mut index = Index::default();
    let mut db = slice("shop/db", "10.244.1.5", Some("shop/db-0"));
    db.headless = true;
    let of = Arc::new(db.clone());
    apply(&mut index, 5, Change::Set(Object::Slice(of)));
    let expected = Some(("shop/db:http".to_owned(), Via::Headless));
    assert_eq!(asked(&index, "10.244.1.5:8080", 10), expected);
    db.endpoints.clear();
    apply(&mut index, 20, Change::Set(Object::Slice(Arc::new(db))));
    assert_eq!(asked(&index, "10.244.1.5:8080", 10), expected);
    assert_eq!(asked(&index, "10.244.1.5:8080", 30), None);
}

#[test]
fn a_cluster_ip_given_to_another_service_is_named_by_its_time() {
    let mut index = Index::default();
    let old = Object::Service(Arc::new(service("shop/old", "10.96.1.1")));
    apply(&mut index, 5, Change::Set(old));
    apply(&mut index, 20, Change::Gone(Key::Service(name("shop/old"))));
    let mut new = service("shop/new", "10.96.1.1");
    new.created = s(30);
    apply(&mut index, 30, Change::Set(Object::Service(Arc::new(new))));
    let was = |when| asked(&index, "10.96.1.1:80", when).map(|(name, _)| name);
    assert_eq!(was(10).as_deref(), Some("shop/old:http"));
    assert_eq!(was(25), None);
    assert_eq!(was(35).as_deref(), Some("shop/new:http"));
}

#[test]
fn ready_endpoints_are_told_where_each_is_as_likely_as_the_next() {
    let mut index = Index::default();
    let web = service("shop/web", "10.96.0.80");
    let mut endpoints = slice("shop/web", "10.244.0.31", None);
    let mut unready = endpoints.endpoints[0].clone();
    unready.addresses = vec![ip("10.244.0.32")];
    unready.ready = false;
    endpoints.endpoints.push(unready);
    let port = ServicePortName {
        service: name("shop/web"),
        port: "http".into(),
        via: Via::ClusterIp,
    };
    let ready = |index: &Index| index.ready(&port, ip("10.96.0.80"));
    list(
        &mut index,
        1,
        Kind::Services,
        vec![Object::Service(Arc::new(web.clone()))],
    );
    assert_eq!(ready(&index), None, "slices were not told yet");
    list(
        &mut index,
        1,
        Kind::Slices,
        vec![Object::Slice(Arc::new(endpoints.clone()))],
    );
    assert_eq!(
        ready(&index),
        Some(vec!["10.244.0.31:8080".parse().unwrap()])
    );
    assert_eq!(
        index.ready(&port, ip("2001:db8::80")),
        Some(Vec::new()),
        "of the other family"
    );

    let sticky = Service {
        affinity: Some(Duration::from_hours(3)),
        ..web.clone()
    };
    apply(
        &mut index,
        2,
        Change::Set(Object::Service(Arc::new(sticky))),
    );
    assert_eq!(ready(&index), None, "a client stays with its backend");
    apply(&mut index, 3, Change::Set(Object::Service(Arc::new(web))));
    endpoints.endpoints[0].zone_hints = vec!["a".into()];
    apply(
        &mut index,
        3,
        Change::Set(Object::Slice(Arc::new(endpoints))),
    );
    assert_eq!(ready(&index), None, "hints keep traffic in a zone");
}

#[test]
fn a_name_tells_where_it_comes_from_and_how_old_it_is() {
    let mut before = Index::default();
    set_pod(&mut before, 11, pod("a", "10.244.1.5", 10));
    set_pod(&mut before, 11, pod("b", "10.244.1.6", 10));
    let kept = before.snapshot(s(100));
    let mut index = Index::default();
    for pod in kept.pods {
        apply(&mut index, 100, Change::Kept(Object::Pod(pod)));
    }
    let from = |index: &Index, uid| {
        let named = index.pod(uid, s(160))?;
        Some((named.source, named.age.as_secs()))
    };
    assert_eq!(from(&index, "uid-a"), Some((Source::Snapshot, 60)));
    let a = Object::Pod(Arc::new(pod("a", "10.244.1.5", 10)));
    list(&mut index, 130, Kind::Pods, vec![a]);
    assert_eq!(from(&index, "uid-a"), Some((Source::Api, 0)));
    assert_eq!(index.standing(Kind::Pods), Standing::Watched { own: false });
    for at in [140, 150] {
        let why = "connection refused".into();
        let kind = Kind::Pods;
        apply(&mut index, at, Change::Lost { kind, why });
    }
    assert_eq!(from(&index, "uid-a"), Some((Source::Api, 20)));
    apply(&mut index, 155, Change::Heard(Kind::Pods));
    assert_eq!(from(&index, "uid-a"), Some((Source::Api, 0)));
}

#[test]
fn what_was_kept_names_until_the_api_server_has_listed() {
    let mut index = Index::default();
    let kept = |name: &str, ip: &str| Change::Kept(Object::Pod(Arc::new(pod(name, ip, 10))));
    apply(&mut index, 100, kept("a", "10.244.1.5"));
    set_pod(&mut index, 120, pod("b", "10.244.1.6", 10));
    apply(&mut index, 100, kept("b", "10.244.1.6"));
    let source = |index: &Index, uid| Some(index.pod(uid, s(160))?.source);
    assert_eq!(source(&index, "uid-a"), Some(Source::Snapshot));
    assert_eq!(source(&index, "uid-b"), Some(Source::Api));
    let names = |snapshot: Snapshot| -> Vec<_> {
        let pods = snapshot.pods.iter();
        pods.map(|object| object.pod.name.to_string()).collect()
    };
    assert_eq!(names(index.snapshot(s(130))), ["b"]);
    assert_eq!(names(index.kept().unwrap()), ["a"]);
    let b = Object::Pod(Arc::new(pod("b", "10.244.1.6", 10)));
    list(&mut index, 130, Kind::Pods, vec![b]);
    // It has gone since it was kept.
    apply(&mut index, 100, kept("a", "10.244.1.5"));
    assert!(index.pod_at(ip("10.244.1.5"), s(140), s(160)).is_none());
}

#[test]
fn rules_name_services_where_the_api_server_does_not() {
    let mut index = Index::default();
    let named = |port: &str, via| {
        Arc::new(ServicePortName {
            service: name("shop/web"),
            port: port.into(),
            via,
        })
    };
    let claim = |address: Option<&str>, port, name| RuleClaim {
        address: address.map(ip),
        protocol: PortProtocol::Tcp,
        port,
        name,
    };
    let rules = RuleNames {
        claims: vec![
            claim(Some("10.96.0.80"), 80, named("http", Via::ClusterIp)),
            claim(None, 30080, named("http", Via::NodePort)),
        ],
        own: vec![ip("192.0.2.11")],
    };
    let at = |index: &Index, address: &str| {
        let address = address.parse().unwrap();
        let found = index.service_at(address, Protocol::Tcp, s(100), s(103))?;
        Some((found.source, found.age.as_secs(), found.port.via))
    };
    let kept = service("shop/web", "10.96.0.80");
    apply(
        &mut index,
        50,
        Change::Kept(Object::Service(Arc::new(kept.clone()))),
    );
    let vip = "10.96.0.80:80";
    assert_eq!(
        at(&index, vip),
        Some((Source::Snapshot, 53, Via::ClusterIp))
    );
    apply(&mut index, 101, Change::Rules(Arc::new(rules)));
    assert_eq!(at(&index, vip), Some((Source::Rules, 2, Via::ClusterIp)));
    let node_port = Some((Source::Rules, 2, Via::NodePort));
    assert_eq!(at(&index, "192.0.2.11:30080"), node_port);
    assert_eq!(at(&index, "192.0.2.12:30080"), None, "another node's");
    list(
        &mut index,
        102,
        Kind::Services,
        vec![Object::Service(Arc::new(kept))],
    );
    assert_eq!(at(&index, vip), Some((Source::Api, 0, Via::ClusterIp)));
}
