//! Services and EndpointSlices of every kind, generated: each is about one thing, and everything else of it is
//! drawn by a generator that draws the same each time.

use serde_json::{Value, json};

use super::world::{Place, ZONES};

/// The namespace they are in.
pub(crate) const NAMESPACE: &str = "generated";

const HEADLESS: &str = "service.kubernetes.io/headless";

/// Services for each subject.
const EACH: usize = 3;

/// What a Service is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Plain,
    NoEndpoints,
    NodePort,
    NodePortLocal,
    LoadBalancer,
    LoadBalancerLocal,
    Ranges,
    External,
    ExternalLocal,
    InternalLocal,
    Affinity,
    OnlyTerminating,
    SomeTerminating,
    ZoneHints,
    NodeHints,
    SomeHints,
    TwoProtocols,
    NamedPorts,
    OtherProxy,
    HeadlessLabel,
    OneFamilyOfTwo,
    /// A pod that is never ready is published all the same.
    Early,
}

const SUBJECTS: [Subject; 21] = [
    Subject::Plain,
    Subject::NoEndpoints,
    Subject::NodePort,
    Subject::NodePortLocal,
    Subject::LoadBalancer,
    Subject::LoadBalancerLocal,
    Subject::Ranges,
    Subject::External,
    Subject::ExternalLocal,
    Subject::InternalLocal,
    Subject::Affinity,
    Subject::OnlyTerminating,
    Subject::SomeTerminating,
    Subject::ZoneHints,
    Subject::NodeHints,
    Subject::SomeHints,
    Subject::TwoProtocols,
    Subject::NamedPorts,
    Subject::OtherProxy,
    Subject::HeadlessLabel,
    Subject::OneFamilyOfTwo,
];

/// One Service, as the API server is to have it.
pub(crate) struct Made {
    pub(crate) subject: Subject,
    pub(crate) name: String,
    pub(crate) service: Value,
    /// What a load balancer's controller would write; empty without one.
    pub(crate) ingress: Vec<String>,
    pub(crate) slices: Vec<Value>,
}

/// SplitMix64: <https://prng.di.unimi.it/splitmix64.c>.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of `sides`, from 0.
    fn throw(&mut self, sides: usize) -> usize {
        let sides = u64::try_from(sides).expect("they are few");
        usize::try_from(self.next() % sides).expect("it is small")
    }

    fn one_in(&mut self, sides: usize) -> bool {
        self.throw(sides) == 0
    }
}

/// An endpoint's conditions.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Ready,
    NotReady,
    Serving,
    Ended,
}

struct Endpoint<'a> {
    place: &'a Place,
    state: State,
    hints: Value,
    /// It listens elsewhere than the others.
    other_port: bool,
}

/// All of them, of this seed, with endpoints among `places`.
pub(crate) fn all(seed: u64, places: &[Place]) -> Vec<Made> {
    let mut dice = Dice(seed);
    let mut all = Vec::new();
    for round in 0..EACH {
        for subject in SUBJECTS {
            let number = all.len() + 1;
            let name = format!("s{number}");
            let made = one(&mut dice, subject, name, (round, number), places);
            all.push(made);
        }
    }
    all
}

fn families(dice: &mut Dice, subject: Subject, round: usize) -> Vec<&'static str> {
    let drawn = match (subject, round) {
        (Subject::OneFamilyOfTwo, _) => 2,
        // Clients with addresses of their own are of IPv4.
        (Subject::Affinity, _) | (_, 0) => 0,
        _ => dice.throw(4),
    };
    match drawn {
        0 => vec!["IPv4"],
        1 => vec!["IPv6"],
        _ => vec!["IPv4", "IPv6"],
    }
}

fn one(
    dice: &mut Dice,
    subject: Subject,
    name: String,
    (round, number): (usize, usize),
    places: &[Place],
) -> Made {
    let families = families(dice, subject, round);
    let protocols = match subject {
        Subject::TwoProtocols => vec!["TCP", "UDP"],
        _ if dice.one_in(3) => vec!["UDP"],
        _ => vec!["TCP"],
    };
    let port = 80 + dice.throw(400);
    let names = match protocols.len() {
        1 if dice.one_in(3) && subject != Subject::NamedPorts => vec![""],
        1 => vec!["http"],
        _ => vec!["dns-tcp", "dns"],
    };
    let ports = names.iter().zip(&protocols);
    let ports = ports.map(|(name, protocol)| {
        json!({"name": name, "port": port, "protocol": protocol, "targetPort": 8080})
    });
    let mut spec = json!({
        "ports": ports.collect::<Vec<_>>(),
        "ipFamilies": families,
        "ipFamilyPolicy": if families.len() == 2 { "RequireDualStack" } else { "SingleStack" },
    });
    let mut metadata = json!({"name": name, "namespace": NAMESPACE});
    let ingress = reach(dice, subject, number, &families, &mut spec);
    match subject {
        Subject::OtherProxy => {
            metadata["labels"] = json!({"service.kubernetes.io/service-proxy-name": "other"});
        }
        Subject::HeadlessLabel => {
            metadata["labels"] = json!({HEADLESS: ""});
        }
        _ => {}
    }
    let endpoints = endpoints(dice, subject, places);
    let served: &[&str] = match subject {
        Subject::OneFamilyOfTwo => &families[..1],
        _ => &families,
    };
    let slices = served.iter().flat_map(|family| {
        let halves = [false, true].map(|other| {
            let of = endpoints.iter().filter(|one| one.other_port == other);
            slice(&name, family, &of.collect::<Vec<_>>(), &names, &protocols)
        });
        halves.into_iter().flatten()
    });
    let mut slices: Vec<_> = slices.collect();
    if subject == Subject::HeadlessLabel && round > 0 {
        // kube-proxy leaves such slices alone, and serves the Service without them.
        for slice in &mut slices {
            slice["metadata"]["labels"][HEADLESS] = json!("");
        }
    }
    Made {
        slices,
        service: json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}),
        subject,
        name,
        ingress,
    }
}

/// Addresses beside the cluster IP and who may come there; what a load balancer's controller would write.
fn reach(
    dice: &mut Dice,
    subject: Subject,
    number: usize,
    families: &[&str],
    spec: &mut Value,
) -> Vec<String> {
    let address = |family: &&str, high: usize| match *family {
        "IPv4" => format!("198.51.100.{}", high + number),
        _ => format!("2001:db8:51::{:x}", high + number),
    };
    let mut ingress = Vec::new();
    match subject {
        Subject::NodePort | Subject::NodePortLocal => spec["type"] = json!("NodePort"),
        Subject::LoadBalancer | Subject::LoadBalancerLocal | Subject::Ranges => {
            spec["type"] = json!("LoadBalancer");
            ingress = families.iter().map(|family| address(family, 1)).collect();
        }
        Subject::External | Subject::ExternalLocal => {
            let all: Vec<_> = families.iter().map(|family| address(family, 100)).collect();
            spec["externalIPs"] = json!(all);
        }
        // The rest may be reached from outside too, or not.
        Subject::Plain | Subject::OtherProxy | Subject::HeadlessLabel => {}
        _ if dice.one_in(3) => spec["type"] = json!("NodePort"),
        _ if dice.one_in(3) => {
            let all: Vec<_> = families.iter().map(|family| address(family, 100)).collect();
            spec["externalIPs"] = json!(all);
        }
        _ => {}
    }
    let outer = !spec["type"].is_null() || !spec["externalIPs"].is_null();
    let local = matches!(
        subject,
        Subject::NodePortLocal | Subject::LoadBalancerLocal | Subject::ExternalLocal
    );
    if outer && (local || dice.one_in(4)) {
        spec["externalTrafficPolicy"] = json!("Local");
    }
    if subject == Subject::InternalLocal || dice.one_in(8) {
        spec["internalTrafficPolicy"] = json!("Local");
    }
    if subject == Subject::Ranges {
        let ranges = families.iter().map(|family| match *family {
            "IPv4" => "192.0.2.192/28",
            _ => "2001:db8::c0/124",
        });
        let mut ranges: Vec<_> = ranges.collect();
        if dice.one_in(2) && families.contains(&"IPv4") {
            ranges.push("10.244.1.0/24");
        }
        spec["loadBalancerSourceRanges"] = json!(ranges);
    }
    if subject == Subject::Affinity {
        spec["sessionAffinity"] = json!("ClientIP");
        let seconds = [10_800, 600, 30][dice.throw(3)];
        spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": seconds}});
    }
    ingress
}

/// Which places serve, in which state, and for whom.
fn endpoints<'a>(dice: &mut Dice, subject: Subject, places: &'a [Place]) -> Vec<Endpoint<'a>> {
    let mut endpoints = Vec::new();
    for (index, place) in places.iter().enumerate() {
        let last = index + 1 == places.len() && endpoints.is_empty();
        if dice.one_in(3) && !last {
            continue;
        }
        let state = match (subject, dice.throw(8)) {
            (Subject::NoEndpoints, 0..4) => State::NotReady,
            (Subject::NoEndpoints, 4..6) => State::Ended,
            (Subject::NoEndpoints, _) => continue,
            (Subject::OnlyTerminating, 0..6) | (Subject::SomeTerminating, 0..4) => State::Serving,
            (Subject::OnlyTerminating, _) => State::Ended,
            (_, 0) if !last => State::NotReady,
            _ => State::Ready,
        };
        let zone = || json!({"forZones": [{"name": ZONES[place.node]}]});
        let node = || json!({"forNodes": [{"name": place.node_name()}]});
        let hints = match subject {
            Subject::ZoneHints => zone(),
            Subject::NodeHints => node(),
            Subject::SomeHints => match dice.throw(3) {
                0 => zone(),
                1 => node(),
                _ => Value::Null,
            },
            _ => Value::Null,
        };
        endpoints.push(Endpoint {
            place,
            state,
            hints,
            other_port: subject == Subject::NamedPorts && dice.one_in(2),
        });
    }
    endpoints
}

fn slice(
    service: &str,
    family: &str,
    endpoints: &[&Endpoint<'_>],
    names: &[&str],
    protocols: &[&str],
) -> Option<Value> {
    let first = endpoints.first()?;
    let number = if first.other_port { 9090 } else { 8080 };
    let ports = names.iter().zip(protocols);
    let ports =
        ports.map(|(name, protocol)| json!({"name": name, "protocol": protocol, "port": number}));
    let of = endpoints.iter().map(|one| {
        let address = one.place.address(family == "IPv4");
        let mut object = json!({
            "addresses": [address],
            "nodeName": one.place.node_name(),
            "conditions": {
                "ready": one.state == State::Ready,
                "serving": matches!(one.state, State::Ready | State::Serving),
                "terminating": matches!(one.state, State::Serving | State::Ended),
            },
        });
        if !one.hints.is_null() {
            object["hints"] = one.hints.clone();
        }
        object
    });
    let name = format!("{service}-{}-{number}", family.to_ascii_lowercase());
    Some(json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": {
                "kubernetes.io/service-name": service,
                "endpointslice.kubernetes.io/managed-by": "test",
            },
        },
        "addressType": family,
        "ports": ports.collect::<Vec<_>>(),
        "endpoints": of.collect::<Vec<_>>(),
    }))
}

/// Two Services that select a pod which is never ready, of which one wants such pods.
pub(crate) fn of_never_ready() -> [Made; 2] {
    let made = |name: &str, subject, publish: bool| Made {
        subject,
        name: name.to_owned(),
        service: json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "selector": {"app": "never-ready"},
                "publishNotReadyAddresses": publish,
                "type": "NodePort",
                "ipFamilyPolicy": "RequireDualStack",
                "ports": [{"port": 80, "targetPort": 8080}],
            },
        }),
        ingress: Vec::new(),
        slices: Vec::new(),
    };
    [
        made("early", Subject::Early, true),
        made("late", Subject::NoEndpoints, false),
    ]
}

/// The same with a place instead of the pod, and slices as the controller makes them of such a pod.
pub(crate) fn of_place_never_ready(place: &Place) -> [Made; 2] {
    let mut made = of_never_ready();
    for (one, ready) in made.iter_mut().zip([true, false]) {
        let endpoint = Endpoint {
            place,
            state: State::NotReady,
            hints: Value::Null,
            other_port: false,
        };
        let slices = ["IPv4", "IPv6"]
            .iter()
            .filter_map(|family| slice(&one.name, family, &[&endpoint], &[""], &["TCP"]));
        one.slices = slices.collect();
        for slice in &mut one.slices {
            slice["endpoints"][0]["conditions"]["ready"] = json!(ready);
        }
    }
    made
}
