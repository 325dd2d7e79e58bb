//! Whether the rules that kube-proxy wrote lead a pod's query for kube-dns to its endpoints: they are
//! evaluated, in whatever mode they were written. `tracer verify` walks any other packet.

use std::net::{IpAddr, SocketAddr};

use super::{Answer, Check, Problem, Seen, process::mode_found};
use crate::{
    cluster::objects::Service,
    doctor::passage::{Rules, Way},
    model::{Severity, cluster::PortProtocol},
    rules::TableFamily,
};

pub(super) const DNS_RULES: Check = Check {
    name: "kube_dns_rules",
    subject: "kube_proxy",
    why: "these rules are what makes the address of kube-dns lead to CoreDNS; old ones lead to pods that are gone",
    run,
};

pub(super) const LEFTOVERS: Check = Check {
    name: "kube_proxy_leftovers",
    subject: "kube_proxy",
    why: "what another mode left behind goes on translating: packets meet the rules of both, and nobody keeps the old ones true",
    run: leftovers,
};

const REMEDY: &str = "tracer doctor --only kube_proxy; kubectl -n kube-system logs of this node's kube-proxy; delete that pod to have the rules written anew";

fn run(seen: &Seen) -> Answer {
    let rules = match &seen.rules {
        Ok(rules) => rules,
        Err(why) => return Answer::Unknown(why.clone()),
    };
    let objects = match &seen.objects {
        Ok(objects) => objects,
        Err(why) => return Answer::Unknown(why.clone()),
    };
    let (services, endpoints) = match (&objects.dns_services, &objects.dns_endpoints) {
        (Ok(services), Ok(endpoints)) => (services, endpoints),
        (Err(why), _) | (_, Err(why)) => return Answer::Unknown(why.clone()),
    };
    if rules.ruleset.services().is_empty() && seen.process(super::NAME).is_none() {
        if let Some(why) = seen.unplaced(super::NAME) {
            return Answer::Unknown(why);
        }
        return Answer::Unknown(
            "no rules of kube-proxy are here, and it does not run: another program serves Services"
                .to_owned(),
        );
    }
    let ready: Vec<IpAddr> = endpoints
        .iter()
        .filter_map(|(address, ready)| ready.then_some(*address))
        .collect();
    let asked: Vec<_> = services.iter().flat_map(addresses).collect();
    if asked.is_empty() {
        return Answer::Unknown("there is no Service kube-dns with an address".to_owned());
    }
    let mut said = Vec::new();
    let mut problems: Vec<Problem> = Vec::new();
    for (at, protocol) in asked {
        // A Service without an endpoint that is ready is another check's concern.
        if !ready.iter().any(|ip| ip.is_ipv4() == at.is_ipv4()) {
            continue;
        }
        match judged(rules, at, protocol, &ready) {
            Ok(1) => said.push(format!("{at}/{} to 1 endpoint", protocol.name())),
            Ok(count) => said.push(format!("{at}/{} to {count} endpoints", protocol.name())),
            Err((sentence, evidence)) => problems.push(Problem {
                severity: Severity::Broken,
                follows: &[],
                object: format!("kube-dns at {at}/{}", protocol.name()),
                sentence,
                evidence: vec![evidence],
                remedy: REMEDY.to_owned(),
            }),
        }
    }
    Answer::of(problems, || match said.len() {
        0 => "no endpoint is ready that they could lead to".to_owned(),
        _ => said.join(", "),
    })
}

/// What each mode leaves in the kernel, in words; `None` where there is nothing of it.
fn traces(seen: &Seen, rules: &Rules) -> [(&'static str, Option<String>); 3] {
    let tables = &rules.ruleset.tables;
    let own = [TableFamily::Ip, TableFamily::Ip6]
        .into_iter()
        .find_map(|family| rules.ruleset.table(family, super::NAME));
    let nftables = own.map(|table| format!("nftables' table {table}"));
    let chains = tables.iter().flat_map(|table| {
        let chains = table.chains.iter();
        chains.filter_map(move |chain| {
            let is = &*chain.name == "KUBE-SERVICES" && !chain.rules.is_empty();
            is.then(|| {
                let rules = chain.rules.len();
                format!("chain KUBE-SERVICES of {table}, {rules} rules")
            })
        })
    });
    let iptables = chains.into_iter().next();
    let network = seen.network.as_ref().ok();
    let dummy = network.and_then(|network| network.link("kube-ipvs0"));
    let ipvs = dummy.map(|link| format!("device {}", link.name));
    [
        ("iptables", iptables),
        ("nftables", nftables),
        ("ipvs", ipvs),
    ]
}

fn leftovers(seen: &Seen) -> Answer {
    let rules = match &seen.rules {
        Ok(rules) => rules,
        Err(why) => return Answer::Unknown(why.clone()),
    };
    let found = match mode_found(seen) {
        Ok(found) => found,
        Err(why) => return Answer::Unknown(why),
    };
    // In ipvs mode it writes iptables' chains, too.
    let is_own = |mode| mode == found || mode == "iptables" && found == "ipvs";
    let left = traces(seen, rules)
        .into_iter()
        .filter(|(mode, _)| !is_own(*mode));
    let left = left.filter_map(|(mode, trace)| Some((mode, trace?)));
    let problems = left.map(|(mode, trace)| Problem {
        severity: Severity::Warning,
        follows: &[],
        object: trace,
        sentence: format!("is what mode {mode} left behind; kube-proxy runs in mode {found}"),
        evidence: Vec::new(),
        remedy: "kube-proxy --cleanup on this node, then restart kube-proxy".to_owned(),
    });
    Answer::of(problems.collect(), || {
        format!("nothing of another mode than {found} is there")
    })
}

/// Where DNS is asked: each address, over UDP and TCP.
fn addresses(service: &Service) -> Vec<(SocketAddr, PortProtocol)> {
    let ports =
        service
            .ports
            .iter()
            .filter(|(_, port, _)| *port == 53)
            .map(|(_, port, protocol)| match protocol.as_str() {
                "UDP" => (*port, PortProtocol::Udp),
                _ => (*port, PortProtocol::Tcp),
            });
    let ports: Vec<_> = ports.collect();
    let each = service.cluster_ips.iter().flat_map(|ip| {
        ports
            .iter()
            .map(|(port, protocol)| (SocketAddr::new(*ip, *port), *protocol))
    });
    each.collect()
}

/// How many endpoints the rules lead to; or what is wrong, and what says so.
///
/// This node itself asks: rules for pods differ by masquerading alone.
fn judged(
    rules: &Rules,
    at: SocketAddr,
    protocol: PortProtocol,
    ready: &[IpAddr],
) -> Result<usize, (String, String)> {
    let Some(source) = rules.host.source_for(at.ip()).or_else(|| {
        let mut own = rules.host.addresses();
        own.find(|ip| ip.is_ipv4() == at.is_ipv4() && !ip.is_loopback())
    }) else {
        return Ok(0);
    };
    match rules.way(source, at, protocol, None) {
        Way::Unknown(_) => Ok(0),
        Way::Shut(rule) => Err((
            "is refused or dropped by this node's rules, though endpoints are ready".to_owned(),
            rule,
        )),
        Way::Open(to) if to.contains(&at) => Err((
            "is translated to nothing by this node's rules".to_owned(),
            format!("a packet for {at} leaves as it is"),
        )),
        Way::Open(to) => {
            let gone: Vec<_> = to.iter().filter(|to| !ready.contains(&to.ip())).collect();
            match gone.first() {
                None => Ok(to.len()),
                Some(first) => Err((
                    "is led to an address that is no ready endpoint: the rules are old".to_owned(),
                    format!("{first}; ready are {}", words(ready)),
                )),
            }
        }
    }
}

fn words(ips: &[IpAddr]) -> String {
    let ips: Vec<_> = ips.iter().map(ToString::to_string).collect();
    ips.join(", ")
}
