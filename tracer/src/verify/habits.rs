//! What kube-proxy was told and no object says, learnt from what it does for most Services: at which
//! of the node's addresses it serves node ports, whose packets it masquerades.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use super::{
    askers::{Asker, AskerKind},
    expect::Habits,
    judgement::{Case, packet},
    plan::{FrontKind, Learnt, PortPlan, family_of, is_labelled_headless},
    words::DEVICE,
};
use crate::{
    model::{
        Snapshot,
        cluster::{Node, ServiceType, TrafficPolicy},
    },
    rules::{Backend, Ending, Family, Front, Host, Origin, RouteKind, Ruleset, SourceChange},
};

/// Ports looked at.
const SAMPLE: usize = 200;

/// Addresses of this node that are tried in each family.
const TRIED: usize = 8;

/// What kube-proxy of this node does that hangs on its version and its flags.
pub(super) fn learn(ruleset: &Ruleset, host: &Host, snapshot: &Snapshot, node: &Node) -> Learnt {
    Learnt {
        node_addresses: node_addresses(ruleset, host, snapshot, node),
        refuses_others: refuses_others(ruleset),
        serves_labelled: serves_labelled(ruleset, snapshot),
    }
}

/// Whether it serves Services that have an address and the label of headless ones: 1.37 does, and leaves
/// EndpointSlices with that label alone (`Run`, cmd/kube-proxy/app/server.go); older ones left both alone.
fn serves_labelled(ruleset: &Ruleset, snapshot: &Snapshot) -> bool {
    let labelled = snapshot
        .services
        .iter()
        .filter(|one| is_labelled_headless(one));
    let addresses: HashSet<_> = labelled.flat_map(|one| &one.cluster_ips).collect();
    // Most clusters have none.
    !addresses.is_empty()
        && ruleset
            .services()
            .iter()
            .any(|one| matches!(&one.front, Front::Address(address) if addresses.contains(address)))
}

/// Where node ports are asked: for each family that one of the node's addresses at which most of
/// them are translated or refused, which `--nodeport-addresses` decides.
fn node_addresses(ruleset: &Ruleset, host: &Host, snapshot: &Snapshot, node: &Node) -> Vec<IpAddr> {
    let mut candidates = node.addresses.clone();
    candidates.retain(|address| host.is_local(*address));
    // Those of Services on kube-ipvs0 are refused at every other port.
    let of_services = bound(host, DEVICE);
    candidates.extend(
        host.addresses()
            .filter(|one| !node.addresses.contains(one) && !of_services.contains(one)),
    );
    let services = snapshot.services.iter();
    let with_node_ports = services.filter(|one| one.r#type != ServiceType::ClusterIp);
    let ports = with_node_ports.flat_map(|service| &service.ports);
    let ports = ports.filter_map(|port| Some((port.node_port?, port.protocol)));
    let ports: Vec<_> = ports.take(SAMPLE).collect();
    let judge = ruleset.judges(host);
    let taken = |address: IpAddr| {
        let asker: IpAddr = match address {
            IpAddr::V4(_) => [203, 0, 113, 250].into(),
            IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0xfa).into(),
        };
        let taken = ports.iter().filter(|(port, protocol)| {
            let at = SocketAddr::new(address, *port);
            let spread = judge.judge(packet(asker, at, *protocol), host.origin_of(asker), false);
            let mut outcomes = spread.branches.iter().map(|branch| &branch.outcome);
            outcomes.any(|one| one.destination != at || !one.arrives())
        });
        taken.count()
    };
    let best = |v4: bool| {
        let of_family = candidates.iter().filter(|one| one.is_ipv4() == v4);
        let scored = of_family.take(TRIED).map(|one| (taken(*one), *one));
        // The first of the best: the Node object's addresses come first.
        scored.reduce(|best, one| if one.0 > best.0 { one } else { best })
    };
    let best = [true, false].into_iter().filter_map(best);
    let mut addresses: Vec<_> = best.map(|(_, address)| address).collect();
    // To itself, where routes let loopback's addresses out (--iptables-localhost-nodeports).
    let here = IpAddr::from([127, 0, 0, 1]);
    let served = ports.iter().filter(|(port, protocol)| {
        let at = SocketAddr::new(here, *port);
        let spread = judge.judge(packet(here, at, *protocol), Origin::Host, false);
        let mut outcomes = spread.branches.iter().map(|branch| &branch.outcome);
        outcomes.any(|one| one.destination != at && matches!(one.ending, Ending::Sent(_)))
    });
    if !ports.is_empty() && served.count() * 2 > ports.len() {
        addresses.push(here);
    }
    addresses
}

/// This host's own addresses that are on `device`.
pub(super) fn bound(host: &Host, device: &str) -> HashSet<IpAddr> {
    let routes = host.routes.iter();
    let local = routes
        .filter(|route| route.kind == RouteKind::Local && route.device.as_deref() == Some(device));
    local.map(|route| route.to.0).collect()
}

/// Whether kube-proxy refuses packets to other ports of cluster IPs: it has a chain for them in nftables mode
/// from 1.30 on and in ipvs mode, where they are this host's own addresses anyway. In iptables mode it lets
/// them go.
fn refuses_others(ruleset: &Ruleset) -> bool {
    let mut tables = ruleset.tables.iter();
    by_ipvs(ruleset)
        || tables.any(|table| {
            table.backend == Backend::Nftables
                && &*table.name == "kube-proxy"
                && table.chain("cluster-ips-check").is_some()
        })
}

/// Whether Services are served by IPVS, and in no other way.
fn by_ipvs(ruleset: &Ruleset) -> bool {
    ruleset.proxy_modes() == ["ipvs"]
}

/// What kube-proxy does for most Services of a family at their cluster IPs.
pub(super) fn of(case: &Case<'_>, plans: &[PortPlan<'_>], family: Family) -> Habits {
    let plans = plans.iter().filter(|plan| plan.family == family);
    let plans: Vec<_> = plans.collect();
    let judge = case.ruleset.judges(case.host);
    let mut masqueraded = [[0_u32; 2]; 3];
    let step = plans.len().div_ceil(SAMPLE).max(1);
    for plan in plans.iter().step_by(step) {
        let Some(front) = plan.fronts.first() else {
            continue;
        };
        let outside = case.askers(plan.family).outside;
        let outside = outside.map(|one| Asker::at(AskerKind::Outside, one, case.host));
        let far = case.askers(family).far_pod;
        let far = far.map(|one| Asker::at(AskerKind::Pod, one, case.host));
        let askers = [case.pod_for(plan), outside, far];
        for (kind, asker) in askers.into_iter().enumerate() {
            let Some(asker) = asker else { continue };
            let Some(packet) = case.packet(plan, *front, &asker) else {
                continue;
            };
            let source = packet.source.ip();
            let spread = judge.judge(packet, asker.origin.clone(), false);
            let translated = spread.branches.iter().map(|branch| &branch.outcome);
            let translated = translated.filter(|one| {
                one.destination != front.at
                    && one.destination.ip() != source
                    && matches!(one.ending, Ending::Sent(_))
            });
            for outcome in translated {
                let kept = outcome.source == SourceChange::Kept;
                masqueraded[kind][usize::from(!kept)] += 1;
            }
        }
    }
    let most = |[kept, replaced]: [u32; 2]| (kept + replaced > 0).then_some(replaced > kept);
    let half = |[kept, replaced]: [u32; 2]| (kept + replaced > 0).then_some(replaced >= kept);
    let (here, outside, far) = (
        most(masqueraded[0]),
        half(masqueraded[1]),
        most(masqueraded[2]),
    );
    let ipvs = by_ipvs(case.ruleset);
    // A virtual server has the same real servers for all.
    let pods_pass = if ipvs {
        Some(false)
    } else {
        pods_pass(case, &plans)
    };
    // What lets pods pass knows their addresses, and the other way round.
    let knows_pods = match (outside, pods_pass) {
        (Some(false), Some(true)) => Some(true),
        _ => outside,
    };
    Habits {
        // Pods of this node alone: a range of pods' addresses that is another's.
        masquerade_all: here.map(|here| here && far != Some(false)),
        knows_pods,
        pods_pass,
        ipvs,
        node: case
            .node
            .addresses
            .iter()
            .copied()
            .find(|address| family_of(*address) == family && case.host.is_local(*address)),
    }
}

/// Whether pods get past the external traffic policy Local: to endpoints that are not local.
fn pods_pass(case: &Case<'_>, plans: &[&PortPlan<'_>]) -> Option<bool> {
    let judge = case.ruleset.judges(case.host);
    let telling = plans.iter().filter(|plan| {
        let local = &plan.choice.local;
        let others = plan.choice.cluster.iter().any(|at| !local.contains(at));
        plan.service.external_policy == TrafficPolicy::Local && others
    });
    let (mut pass, mut all) = (0, 0);
    for plan in telling.take(SAMPLE) {
        let front = plan
            .fronts
            .iter()
            .find(|one| one.kind == FrontKind::NodePort);
        let front = front.or_else(|| {
            plan.fronts
                .iter()
                .find(|one| one.kind == FrontKind::External)
        });
        let (Some(front), Some(asker)) = (front, case.pod_for(plan)) else {
            continue;
        };
        let Some(packet) = case.packet(plan, *front, &asker) else {
            continue;
        };
        let spread = judge.judge(packet, asker.origin.clone(), false);
        let mut reached = spread.branches.iter().map(|one| one.outcome.destination);
        all += 1;
        let local = &plan.choice.local;
        let passes = |at| plan.choice.cluster.contains(&at) && !local.contains(&at);
        pass += usize::from(reached.any(passes));
    }
    (all > 0).then_some(pass * 2 >= all)
}
