//! What each Service port is to do on a node, from the API objects alone: at which addresses, and
//! which endpoints serve it, as kube-proxy chooses them.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::endpoints::{Choice, Known, choose};
use crate::{
    model::{
        Snapshot,
        cluster::{EndpointSlice, Service, ServicePort, TrafficPolicy},
    },
    rules::Family,
};

/// By which kind of address a Service port is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum FrontKind {
    ClusterIp,
    /// A port of the cluster IP that no port of the Service has.
    OtherPort,
    NodePort,
    External,
    LoadBalancer,
}

/// One address and port at which a Service is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FrontPlan {
    pub(super) kind: FrontKind,
    pub(super) at: SocketAddr,
}

/// One port of one Service in one IP family.
#[derive(Clone, Debug)]
pub(super) struct PortPlan<'a> {
    pub(super) service: &'a Service,
    pub(super) port: &'a ServicePort,
    pub(super) family: Family,
    pub(super) fronts: Vec<FrontPlan>,
    pub(super) choice: Choice,
    /// All endpoints, chosen or not.
    pub(super) known: Vec<Known>,
}

impl PortPlan<'_> {
    /// `Service shop/web, port http`, as findings name it.
    pub(super) fn object(&self) -> String {
        let family = match self.family {
            Family::V4 => "",
            Family::V6 => " (IPv6)",
        };
        let port = match &*self.port.name {
            "" => self.port.port.to_string(),
            name => name.to_owned(),
        };
        format!("Service {}, port {port}{family}", self.service.name)
    }

    /// Source ranges of the family; empty when all may come.
    pub(super) fn source_ranges(&self) -> Vec<(IpAddr, u8)> {
        let of_family = |(address, _): &&(IpAddr, u8)| family_of(*address) == self.family;
        let ranges = self.service.source_ranges.iter().filter(of_family).copied();
        let ranges: Vec<_> = ranges.collect();
        if ranges.iter().any(|(_, length)| *length == 0) {
            return Vec::new();
        }
        ranges
    }
}

/// The IP family of an address.
pub(super) fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    }
}

/// Whether kube-proxy, of whatever version, is to write rules for a Service.
pub(super) fn is_proxied(service: &Service) -> bool {
    service.is_addressed() && !service.headless
}

/// It has an address, and is called headless by its label alone.
pub(super) fn is_labelled_headless(service: &Service) -> bool {
    service.is_addressed() && service.headless
}

/// What kube-proxy of this node does that hangs on its version and its flags.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Learnt {
    /// Where node ports are asked.
    pub(super) node_addresses: Vec<IpAddr>,
    /// It refuses other ports of cluster IPs.
    pub(super) refuses_others: bool,
    /// It serves Services that have an address and the label of headless ones.
    pub(super) serves_labelled: bool,
}

/// Plans for all Service ports. `node` is this node's name.
pub(super) fn plans<'a>(snapshot: &'a Snapshot, node: &str, learnt: &Learnt) -> Vec<PortPlan<'a>> {
    let mut slices: HashMap<(&str, &str), Vec<&EndpointSlice>> = HashMap::new();
    for slice in snapshot.slices.iter().filter(|slice| !slice.headless) {
        let key = (&*slice.name.namespace, &*slice.service);
        slices.entry(key).or_default().push(slice);
    }
    for of_service in slices.values_mut() {
        of_service.sort_by(|a, b| a.name.cmp(&b.name));
    }
    let mut nodes = snapshot.nodes.iter();
    let zone = nodes.find(|one| &*one.name == node);
    let zone: Option<Arc<str>> = zone.and_then(|node| node.zone.clone());
    let mut services: Vec<_> = snapshot.services.iter().map(|service| &**service).collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    let mut plans = Vec::new();
    let planned = |service: &&Service| {
        is_proxied(service) || learnt.serves_labelled && is_labelled_headless(service)
    };
    for service in services.into_iter().filter(planned) {
        let key = (&*service.name.namespace, &*service.name.name);
        let of_service = slices.get(&key).map_or(&[][..], Vec::as_slice);
        for family in [Family::V4, Family::V6] {
            let mut addresses = service.cluster_ips.iter();
            let Some(vip) = addresses.find(|address| family_of(**address) == family) else {
                continue;
            };
            for port in &service.ports {
                let known = super::endpoints::of(of_service, port, family, node);
                let external = is_external(service, port, family);
                let choice = choose(&known, service, external, node, zone.as_deref());
                let first = service.ports.first().is_some_and(|one| one == port);
                let mut fronts = fronts(service, port, *vip, &learnt.node_addresses);
                fronts.extend(other_port(service, *vip).filter(|_| first && learnt.refuses_others));
                plans.push(PortPlan {
                    service,
                    port,
                    family,
                    fronts,
                    choice,
                    known,
                });
            }
        }
    }
    plans
}

/// Whether a port is reachable from outside the cluster.
pub(super) fn is_external(service: &Service, port: &ServicePort, family: Family) -> bool {
    let of_family = |address: IpAddr| family_of(address) == family;
    port.node_port.is_some()
        || service.external_ips.iter().any(|ip| of_family(*ip))
        || vips(service).any(of_family)
}

/// Addresses of load balancers that kube-proxy is to take.
fn vips(service: &Service) -> impl Iterator<Item = IpAddr> + '_ {
    let vips = service.load_balancer_ips.iter().filter(|one| !one.proxied);
    vips.map(|one| one.ip)
}

/// A port of the cluster IP that the Service has not.
fn other_port(service: &Service, vip: IpAddr) -> Option<FrontPlan> {
    // Nobody listens below: tcpmux and its neighbours (IANA's registry).
    let free = |port: &u16| service.ports.iter().all(|one| one.port != *port);
    Some(FrontPlan {
        kind: FrontKind::OtherPort,
        at: SocketAddr::new(vip, (1..=u16::MAX).find(free)?),
    })
}

fn fronts(
    service: &Service,
    port: &ServicePort,
    vip: IpAddr,
    node_addresses: &[IpAddr],
) -> Vec<FrontPlan> {
    let same = |address: &IpAddr| address.is_ipv4() == vip.is_ipv4();
    let front = |kind, address, port| FrontPlan {
        kind,
        at: SocketAddr::new(address, port),
    };
    let mut fronts = vec![front(FrontKind::ClusterIp, vip, port.port)];
    let external = service.external_ips.iter().copied().filter(same);
    fronts.extend(external.map(|ip| front(FrontKind::External, ip, port.port)));
    fronts.extend(
        vips(service)
            .filter(same)
            .map(|ip| front(FrontKind::LoadBalancer, ip, port.port)),
    );
    if let Some(node_port) = port.node_port {
        let addresses = node_addresses.iter().copied().filter(same);
        fronts.extend(addresses.map(|ip| front(FrontKind::NodePort, ip, node_port)));
    }
    fronts
}

impl PortPlan<'_> {
    /// Endpoints for a front's traffic from inside, or from outside the cluster.
    pub(super) fn for_policy(&self, policy: TrafficPolicy) -> &[SocketAddr] {
        match policy {
            TrafficPolicy::Cluster => &self.choice.cluster,
            TrafficPolicy::Local => &self.choice.local,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::tests::service;

    #[test]
    fn a_service_with_an_address_and_the_headless_label_is_planned_where_kube_proxy_serves_such() {
        let mut labelled = service();
        labelled.headless = true;
        let snapshot = Snapshot {
            services: vec![Arc::new(labelled)],
            ..Snapshot::default()
        };
        let planned = |serves_labelled| {
            let learnt = Learnt {
                serves_labelled,
                ..Learnt::default()
            };
            plans(&snapshot, "n1", &learnt).len()
        };
        assert_eq!((planned(false), planned(true)), (0, 1));
    }
}
