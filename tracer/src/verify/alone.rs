//! What kube-proxy's rules contradict by themselves, where nobody says what they are to do: a packet that some of
//! its chances lead nowhere, shares that differ, jumps to what is not there, endpoints that do not answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use super::compare::EVEN;
use crate::{
    model::{
        finding::{Finding, Severity},
        ids::WallNs,
        verified::{Objects, Verified},
    },
    rules::{
        CLIENT_PORT, ChainId, Front, Host, Origin, Packet, RuleService, Ruleset, Spread,
        service_of_port,
    },
};

/// Chances that differ by less are the same: the kernel keeps 31 bits.
const SAME: f64 = 1e-6;

/// Judges the rules by themselves. `silent` are addresses that do not answer ARP or neighbour discovery.
pub fn judge_alone(ruleset: &Ruleset, host: &Host, silent: &[IpAddr]) -> Verified {
    let services = ruleset.services();
    let names: BTreeSet<_> = services.iter().map(name).collect();
    let mut verified = Verified {
        node: "this node".to_owned(),
        objects: Objects::None,
        taken: WallNs(0),
        services: names.len(),
        ports: services.len(),
        changing: 0,
        packets: 0,
        rules: ruleset.rule_count(),
        findings: missing_chains(ruleset),
        kept_away: Vec::new(),
        modes: ruleset.proxy_modes(),
    };
    let judge = ruleset.judges(host);
    let mut told = BTreeSet::new();
    for service in &services {
        let Some(at) = at(service, host) else {
            continue;
        };
        // From wherever packets are translated: source ranges and policies let not all pass.
        for (source, origin) in sources(at, host) {
            let packet = Packet {
                source: SocketAddr::new(source, CLIENT_PORT),
                destination: at,
                protocol: service.protocol,
            };
            verified.packets += 1;
            let spread = judge.judge(packet, origin, false);
            if let Some(finding) = of_spread(service, at, &spread)
                && told.insert((finding.name, finding.object.clone()))
            {
                verified.findings.push(finding);
            }
        }
    }
    verified.findings.extend(unanswered(&services, silent));
    verified
}

/// Where it is asked.
fn at(service: &RuleService, host: &Host) -> Option<SocketAddr> {
    let address = match service.front {
        Front::Address(address) => address,
        Front::NodePort => {
            let v4 = service.backends.first().is_none_or(SocketAddr::is_ipv4);
            let mut own = host.addresses();
            own.find(|one| one.is_ipv4() == v4)?
        }
    };
    Some(SocketAddr::new(address, service.port))
}

fn sources(at: SocketAddr, host: &Host) -> Vec<(IpAddr, Origin)> {
    // Of the addresses for documentation, RFC 5737 and RFC 3849.
    let outside: IpAddr = match at {
        SocketAddr::V4(_) => [203, 0, 113, 250].into(),
        SocketAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0xfa).into(),
    };
    let own = host.source_for(at.ip()).map(|own| (own, Origin::Host));
    let led = host.route_to(outside).is_some();
    let outside = led.then(|| (outside, host.origin_of(outside)));
    own.into_iter().chain(outside).collect()
}

/// `shop/web`, or what tells it from others where the rules do not name it.
fn name(service: &RuleService) -> String {
    match (&service.name, service.front) {
        (Some(name), _) => service_of_port(name).to_owned(),
        (None, Front::Address(address)) => address.to_string(),
        (None, Front::NodePort) => object(service),
    }
}

/// `Service shop/web:http`, or its address where the rules do not name it.
fn object(service: &RuleService) -> String {
    match (&service.name, service.front) {
        (Some(name), _) => format!("Service {name}"),
        (None, Front::Address(address)) => SocketAddr::new(address, service.port).to_string(),
        (None, Front::NodePort) => format!("node port {}", service.port),
    }
}

/// What its own rules contradict.
fn of_spread(service: &RuleService, at: SocketAddr, spread: &Spread) -> Option<Finding> {
    let mut shares: BTreeMap<SocketAddr, f64> = BTreeMap::new();
    let mut lost = 0.0;
    for branch in &spread.branches {
        let to = branch.outcome.destination;
        if to == at {
            lost += branch.high;
        } else {
            *shares.entry(to).or_insert(0.0) += branch.high;
        }
    }
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    // Where all are lost, it is not by chance: policies and source ranges let not all in.
    if lost > SAME && !shares.is_empty() {
        let listed = listed(&shares);
        return Some(finding(
            "chances_missing",
            service,
            format!(
                "leaves {} of the packets to {at} untranslated: the chances of its rules do not add up",
                percent(lost)
            ),
            format!("found     {listed}, and {} to nobody", percent(lost)),
        ));
    }
    let even = 1.0 / f64::from(u32::try_from(shares.len()).ok()?);
    let worst = shares
        .iter()
        .find(|(_, share)| (*share - even).abs() / even > EVEN);
    let (to, share) = worst?;
    Some(finding(
        "uneven_spread",
        service,
        format!(
            "sends {} of the packets to {at} to {to}, where {} were even",
            percent(*share),
            percent(even)
        ),
        format!("found     {}", listed(&shares)),
    ))
}

fn listed(shares: &BTreeMap<SocketAddr, f64>) -> String {
    let each = shares
        .iter()
        .map(|(to, share)| format!("{:.1} % to {to}", share * 100.0));
    each.collect::<Vec<_>>().join(", ")
}

fn finding(name: &'static str, service: &RuleService, sentence: String, found: String) -> Finding {
    Finding {
        name,
        severity: Severity::Broken,
        object: object(service),
        sentence,
        stage: None,
        evidence: vec![
            "expected  each alike: kube-proxy writes no other rules".to_owned(),
            found,
        ],
        since: None,
        share: None,
        remedy: super::words::RESTART.to_owned(),
        refuted_by: super::words::LAG.to_owned(),
    }
}

/// Rules that jump to a chain that is not there, and kube-proxy's chains to endpoints that have no rule.
fn missing_chains(ruleset: &Ruleset) -> Vec<Finding> {
    let mut findings = Vec::new();
    for table in &ruleset.tables {
        let mut empty = BTreeSet::new();
        for id in table.leads_to() {
            let chain = (id != ChainId::MISSING).then(|| table.chains.get(id.0 as usize));
            match chain.flatten() {
                None => drop(empty.insert("a chain that is not there".to_owned())),
                Some(chain) if chain.rules.is_empty() && is_of_endpoints(&chain.name) => {
                    empty.insert(format!("{}, which has no rule", chain.name));
                }
                Some(_) => {}
            }
        }
        findings.extend(empty.into_iter().map(|what| Finding {
            name: "missing_chain",
            severity: Severity::Broken,
            object: format!("table {table}"),
            sentence: format!("has a rule that leads to {what}: its packets are not translated"),
            stage: None,
            evidence: Vec::new(),
            since: None,
            share: None,
            remedy: super::words::RESTART.to_owned(),
            refuted_by: String::new(),
        }));
    }
    findings
}

/// A chain of these is there for its rules alone.
fn is_of_endpoints(chain: &str) -> bool {
    const PREFIXES: [&str; 4] = ["KUBE-SEP-", "KUBE-SVC-", "KUBE-SVL-", "KUBE-XLB-"];
    let of_nftables = ["service-", "endpoint-", "local-"];
    PREFIXES.iter().any(|prefix| chain.starts_with(prefix))
        || of_nftables.iter().any(|prefix| chain.starts_with(prefix)) && chain.contains('/')
}

/// Endpoints that do not answer for their address, and whose they are.
fn unanswered(services: &[RuleService], silent: &[IpAddr]) -> Vec<Finding> {
    let mut by_address: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
    for service in services {
        for backend in service.backends.iter().map(SocketAddr::ip) {
            if silent.contains(&backend) {
                by_address
                    .entry(backend)
                    .or_default()
                    .insert(object(service));
            }
        }
    }
    let all = by_address.into_iter();
    all.map(|(address, objects)| Finding {
        name: "silent_endpoint",
        severity: Severity::Broken,
        object: format!("endpoint {address}"),
        sentence: format!(
            "does not answer {}, and rules lead there",
            if address.is_ipv4() { "ARP" } else { "neighbour discovery" }
        ),
        stage: None,
        evidence: vec![format!("of        {}", objects.into_iter().collect::<Vec<_>>().join(", "))],
        since: None,
        share: None,
        remedy: "see whether its pod still runs (kubectl get pods -A -o wide; crictl pods on this node); kube-proxy removes its rules when it hears the API server".to_owned(),
        refuted_by: "a pod that was silent a moment ago and answers again".to_owned(),
    })
    .collect()
}
