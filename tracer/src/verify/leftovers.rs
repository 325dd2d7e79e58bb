//! What is there and ought not to be: addresses that no Service has, chains that serve nothing.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

use super::{
    habits,
    judgement::Case,
    plan::{PortPlan, is_proxied},
    words::DEVICE,
};
use crate::{
    model::{
        Snapshot,
        cluster::{ObjectName, PortProtocol},
        finding::{Finding, Severity},
    },
    rules::{Backend, Chain, Front, RuleService, Ruleset, name_of_chain, service_of_port},
};

/// Evidence lines about one kind of thing.
const SHOWN: usize = 5;

/// Addresses and chains that are left over.
/// A chain of a Service of which `told` tells what is wrong is no finding of its own; of Services that are
/// `changing` nothing is told.
pub(super) fn find(
    case: &Case<'_>,
    snapshot: &Snapshot,
    plans: &[PortPlan<'_>],
    told: &[Finding],
    changing: &HashSet<ObjectName>,
) -> Vec<Finding> {
    let names: HashSet<_> = changing.iter().map(ToString::to_string).collect();
    let there = habits::bound(case.host, DEVICE);
    let mut findings = addresses(case, snapshot, plans, &there, &names);
    // Whose address it was is not known of a Service that has just gone.
    if changing.is_empty() {
        findings.extend(bound(case, plans, &there, &findings));
    }
    findings.extend(chains(case.ruleset, told, &names));
    findings
}

/// Addresses that the rules translate, and that no Service has; those in `there` are on the device for them.
fn addresses(
    case: &Case<'_>,
    snapshot: &Snapshot,
    plans: &[PortPlan<'_>],
    there: &HashSet<IpAddr>,
    changing: &HashSet<String>,
) -> Vec<Finding> {
    let mut claimed: HashSet<(SocketAddr, PortProtocol)> = HashSet::new();
    let mut node_ports: HashSet<(u16, PortProtocol)> = HashSet::new();
    for plan in plans {
        claimed.extend(plan.fronts.iter().map(|one| (one.at, plan.port.protocol)));
        node_ports.extend(plan.port.node_port.map(|port| (port, plan.port.protocol)));
    }
    let mut seen = HashSet::new();
    let mut findings = Vec::new();
    for service in case.ruleset.services() {
        let at = match service.front {
            // Virtual servers of IPVS stand at each of the node's addresses.
            Front::Address(address)
                if node_ports.contains(&(service.port, service.protocol))
                    && case.host.is_local(address)
                    && !there.contains(&address) =>
            {
                continue;
            }
            Front::Address(address) => SocketAddr::new(address, service.port),
            Front::NodePort if node_ports.contains(&(service.port, service.protocol)) => continue,
            Front::NodePort => {
                let mut own = case.node.addresses.iter();
                let Some(address) = own.find(|one| case.host.is_local(**one)) else {
                    continue;
                };
                SocketAddr::new(*address, service.port)
            }
        };
        if claimed.contains(&(at, service.protocol)) || !seen.insert((at, service.protocol)) {
            continue;
        }
        if service_name(&service).is_some_and(|name| changing.contains(name)) {
            continue;
        }
        let leads = case.leads(at, service.protocol);
        if !leads.is_empty() {
            findings.push(leftover(&service, at, &leads, snapshot));
        }
    }
    findings
}

/// Addresses on the device for those of Services that no Service has: this node keeps their packets to itself.
fn bound(
    case: &Case<'_>,
    plans: &[PortPlan<'_>],
    there: &HashSet<IpAddr>,
    told: &[Finding],
) -> Option<Finding> {
    let claimed = plans.iter().flat_map(|plan| &plan.fronts);
    let claimed: HashSet<IpAddr> = claimed.map(|front| front.at.ip()).collect();
    let own = case.host.addresses();
    let is_told = |address: &IpAddr| {
        let at = format!("{address}:");
        told.iter().any(|one| one.sentence.contains(&at))
    };
    let left = own.filter(|address| {
        !claimed.contains(address)
            && !case.node.addresses.contains(address)
            && there.contains(address)
            && !is_told(address)
    });
    let left: Vec<_> = left.map(|address| address.to_string()).collect();
    let first = left.first()?;
    Some(Finding {
        name: "leftover_address",
        severity: Severity::Warning,
        object: format!("device {DEVICE}"),
        sentence: match left.len() {
            1 => format!(
                "has the address {first}, which is no Service's: this node takes its packets for its own"
            ),
            count => format!(
                "has {count} addresses that no Service has: this node takes their packets for its own"
            ),
        },
        stage: None,
        evidence: left
            .iter()
            .take(SHOWN)
            .map(|one| format!("found     {one}"))
            .collect(),
        since: None,
        share: None,
        remedy: super::words::RESTART.to_owned(),
        refuted_by: super::words::LAG.to_owned(),
    })
}

/// `shop/web` of its port.
fn service_name(service: &RuleService) -> Option<&str> {
    service.name.as_deref().map(service_of_port)
}

fn leftover(
    service: &RuleService,
    at: SocketAddr,
    leads: &[SocketAddr],
    snapshot: &Snapshot,
) -> Finding {
    let name = service.name.as_deref();
    let of = service_name(service);
    let mut services = snapshot.services.iter();
    let object = services.find(|one| of.is_some_and(|of| one.name.to_string() == of));
    let why = match object {
        Some(object) if object.proxy_name.is_some() => {
            "although another program is to serve it (service-proxy-name)"
        }
        Some(object) if !is_proxied(object) => "although it has no address",
        Some(_) => "which it does not have any more",
        None => "and no Service has that address",
    };
    let leads: Vec<_> = leads.iter().map(ToString::to_string).collect();
    Finding {
        name: "leftover",
        severity: Severity::Broken,
        object: name.map_or_else(|| at.to_string(), |name| format!("Service {name}")),
        sentence: format!(
            "rules still lead from {at}/{} to {}, {why}",
            service.protocol.name(),
            leads.join(", ")
        ),
        stage: None,
        evidence: vec![
            "expected  no rule".to_owned(),
            format!("found     {at} is translated to {}", leads.join(", ")),
        ],
        since: None,
        share: None,
        remedy: super::words::RESTART.to_owned(),
        refuted_by: super::words::LAG.to_owned(),
    }
}

/// Chains of Services to which nothing leads: what a sync that broke off leaves behind.
fn chains(ruleset: &Ruleset, told: &[Finding], changing: &HashSet<String>) -> Option<Finding> {
    let mut left = Vec::new();
    let is_told = |chain: &Chain| {
        let Some(service) = service_of(chain) else {
            return false;
        };
        if changing.contains(&service) {
            return true;
        }
        let object = format!("Service {service}, ");
        let mut told = told.iter();
        told.any(|one| {
            one.object.starts_with(&object)
                || one.evidence.iter().any(|line| line.contains(&object))
        })
    };
    for table in &ruleset.tables {
        let reached: HashSet<_> = table.leads_to().map(|id| id.0).collect();
        for (index, chain) in (0..).zip(&table.chains) {
            let of_service = is_of_service(table.backend, &chain.name);
            if of_service && !chain.rules.is_empty() && !reached.contains(&index) && !is_told(chain)
            {
                left.push(format!("{table} {}", chain.name));
            }
        }
    }
    let count = left.len();
    let first = left.first()?.clone();
    let mut evidence: Vec<_> = left.into_iter().take(SHOWN).collect();
    if count > SHOWN {
        evidence.push(format!("and {} more", count - SHOWN));
    }
    Some(Finding {
        name: "leftover_chain",
        severity: Severity::Warning,
        object: if count == 1 {
            format!("chain {first}")
        } else {
            format!("{count} chains")
        },
        sentence: "has rules of a Service, and nothing leads there".to_owned(),
        stage: None,
        evidence,
        since: None,
        share: None,
        remedy: "harmless by itself; kube-proxy removes its own at its next full sync, so if it stays another program, or an older kube-proxy, wrote it".to_owned(),
        refuted_by: super::words::LAG.to_owned(),
    })
}

/// `shop/web` of a chain of its port.
fn service_of(chain: &Chain) -> Option<String> {
    let port = name_of_chain(&chain.name).map(|name| name.to_string());
    let comment = || {
        let comments = chain.rules.iter().filter_map(|rule| rule.comment());
        let mut words = comments.flat_map(|comment| comment.split(' '));
        words.find(|word| word.contains('/')).map(str::to_owned)
    };
    let port = port.or_else(comment)?;
    Some(service_of_port(&port).to_owned())
}

fn is_of_service(backend: Backend, chain: &str) -> bool {
    const IPTABLES: [&str; 6] = [
        "KUBE-SVC-",
        "KUBE-SVL-",
        "KUBE-EXT-",
        "KUBE-XLB-",
        "KUBE-FW-",
        "KUBE-SEP-",
    ];
    const NFTABLES: [&str; 5] = ["service-", "local-", "external-", "firewall-", "endpoint-"];
    match backend {
        Backend::Nftables => {
            NFTABLES.iter().any(|prefix| chain.starts_with(prefix)) && chain.contains('/')
        }
        _ => IPTABLES.iter().any(|prefix| chain.starts_with(prefix)),
    }
}
