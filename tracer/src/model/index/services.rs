//! Services by name, by their addresses and node ports, and what their EndpointSlices say.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use rustc_hash::FxHashMap;

use super::former::Former;
use crate::model::{
    History,
    asked::{ServicePortName, Via},
    cluster::{EndpointSlice, ObjectName, PortProtocol, Service},
    ids::WallNs,
    row::Protocol,
};

/// What is asked: an address, or a port of any node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Spot {
    /// `None` for a node's port.
    pub(super) ip: Option<IpAddr>,
    pub(super) protocol: PortProtocol,
    pub(super) port: u16,
}

impl Spot {
    pub(super) fn of(address: SocketAddr, protocol: Protocol) -> Self {
        Self {
            ip: Some(address.ip()),
            protocol: protocol.into(),
            port: address.port(),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Services {
    by_name: FxHashMap<ObjectName, (Arc<Service>, u32)>,
    /// By the Service's name.
    slices: FxHashMap<ObjectName, Vec<(Arc<EndpointSlice>, u32)>>,
    former: Former,
    spots: FxHashMap<Spot, History<Arc<ServicePortName>>>,
    /// Spots that somebody left, and when, in that order.
    left: VecDeque<(WallNs, Spot)>,
}

type Claims = Vec<(Spot, Arc<ServicePortName>)>;

impl Services {
    pub(super) fn by_name(&self, name: &ObjectName) -> Option<&Arc<Service>> {
        self.by_name.get(name).map(|(service, _)| service)
    }

    /// That of what is known of the Service; of a headless one's slices where it is not known.
    pub(super) fn generation(&self, name: &ObjectName) -> u32 {
        let slices = || self.slices.get(name)?.iter().map(|(_, of)| *of).max();
        let service = self.by_name.get(name).map(|(_, of)| *of);
        // One gone since was the API server's.
        service.or_else(slices).unwrap_or(1)
    }

    /// `is_node` tells whether the address is a node's.
    pub(super) fn at(
        &self,
        address: SocketAddr,
        protocol: Protocol,
        at: WallNs,
        is_node: impl FnOnce() -> bool,
    ) -> Option<&Arc<ServicePortName>> {
        let spot = Spot::of(address, protocol);
        let find = |spot| self.spots.get(&spot)?.at(at);
        find(spot).or_else(|| {
            let node_port = Spot { ip: None, ..spot };
            find(node_port).filter(|_| is_node())
        })
    }

    /// The pod behind `address` by the Service's slices.
    pub(super) fn endpoint(
        &self,
        service: &ObjectName,
        address: SocketAddr,
    ) -> Option<&ObjectName> {
        let has_port = |slice: &EndpointSlice| {
            let mut ports = slice.ports.iter();
            ports.any(|port| port.port.is_none_or(|port| port == address.port()))
        };
        let slices = self.slices.get(service)?.iter().map(|(slice, _)| slice);
        let mut endpoints = slices
            .filter(|slice| has_port(slice))
            .flat_map(|slice| &slice.endpoints);
        endpoints
            .find(|endpoint| endpoint.addresses.contains(&address.ip()))?
            .pod
            .as_ref()
    }

    /// Ready endpoints of the family of `asked`, in order; `None` with hints.
    pub(super) fn ready(&self, port: &ServicePortName, asked: IpAddr) -> Option<Vec<SocketAddr>> {
        let mut ready = Vec::new();
        for (slice, _) in self.slices.get(&port.service)? {
            // A port without a name goes by its number.
            let mut ports = slice.ports.iter();
            let number = ports
                .find(|of| of.name == port.port || of.name.is_empty())
                .and_then(|of| of.port);
            for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.ready) {
                if !endpoint.zone_hints.is_empty() || !endpoint.node_hints.is_empty() {
                    return None;
                }
                let addresses = endpoint.addresses.iter();
                let alike = addresses.filter(|address| address.is_ipv4() == asked.is_ipv4());
                // kube-proxy uses the first one.
                let address = alike.copied().next();
                ready.extend(address.zip(number).map(SocketAddr::from));
            }
        }
        ready.sort_unstable();
        ready.dedup();
        Some(ready)
    }

    pub(super) fn slices_of(&self, service: &ObjectName) -> Vec<Arc<EndpointSlice>> {
        let slices = self.slices.get(service).into_iter().flatten();
        slices.map(|(slice, _)| Arc::clone(slice)).collect()
    }

    pub(super) fn former_slices(&self, service: &ObjectName) -> Vec<(WallNs, Arc<EndpointSlice>)> {
        self.former.of(service)
    }

    /// Services `of` a generation.
    pub(super) fn all(&self, of: impl Fn(u32) -> bool) -> impl Iterator<Item = &Arc<Service>> {
        let all = self.by_name.values();
        let all = all.filter(move |(_, generation)| of(*generation));
        all.map(|(service, _)| service)
    }

    /// EndpointSlices `of` a generation.
    pub(super) fn slices(
        &self,
        of: impl Fn(u32) -> bool,
    ) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        let all = self.slices.values().flatten();
        let all = all.filter(move |(_, generation)| of(*generation));
        all.map(|(slice, _)| slice)
    }

    /// That of a Service; `None` where it is not known.
    pub(super) fn generation_of(&self, name: &ObjectName) -> Option<u32> {
        self.by_name.get(name).map(|(_, of)| *of)
    }

    /// That of an EndpointSlice; `None` where it is not known.
    pub(super) fn generation_of_slice(&self, slice: &EndpointSlice) -> Option<u32> {
        let mut slices = self.slices.get(&service_of(slice))?.iter();
        let (_, of) = slices.find(|(one, _)| one.name == slice.name)?;
        Some(*of)
    }

    pub(super) fn set(&mut self, at: WallNs, service: Arc<Service>, generation: u32) {
        let before = self.by_name.get(&service.name);
        let (since, old) = match before {
            Some((before, _)) => (at, claims(before)),
            None => (service.created, Vec::new()),
        };
        self.change(&old, claims(&service), since, at);
        self.by_name
            .insert(service.name.clone(), (service, generation));
    }

    pub(super) fn end(&mut self, name: &ObjectName, at: WallNs) {
        if let Some((service, _)) = self.by_name.remove(name) {
            self.change(&claims(&service), Vec::new(), at, at);
        }
    }

    pub(super) fn end_before(&mut self, generation: u32, at: WallNs) {
        let old = self.by_name.extract_if(|_, (_, of)| *of < generation);
        for (_, (service, _)) in old.collect::<Vec<_>>() {
            self.change(&claims(&service), Vec::new(), at, at);
        }
    }

    pub(super) fn set_slice(&mut self, at: WallNs, slice: Arc<EndpointSlice>, generation: u32) {
        let claims = headless_claims(&slice);
        let slices = self.slices.entry(service_of(&slice)).or_default();
        let place = slices.iter().position(|(of, _)| of.name == slice.name);
        let (since, old) = match place {
            Some(place) => {
                let (before, of) = &mut slices[place];
                *of = generation;
                (at, Some(std::mem::replace(before, slice)))
            }
            None => {
                slices.reserve_exact(1);
                slices.push((slice, generation));
                // Told at the first sight of it: whoever is in it, was.
                (WallNs(0), None)
            }
        };
        if let Some(old) = &old {
            self.former.keep(at, service_of(old), Arc::clone(old));
        }
        if !claims.is_empty() || old.is_some() {
            let old = old.map(|old| headless_claims(&old)).unwrap_or_default();
            self.change(&old, claims, since, at);
        }
    }

    pub(super) fn end_slice(&mut self, name: &ObjectName, service: &Arc<str>, at: WallNs) {
        let service = ObjectName {
            namespace: Arc::clone(&name.namespace),
            name: Arc::clone(service),
        };
        self.end_slices(Some(&service), at, |slice, _| slice.name == *name);
    }

    pub(super) fn end_slices_before(&mut self, generation: u32, at: WallNs) {
        self.end_slices(None, at, |_, of| of < generation);
    }

    fn end_slices(
        &mut self,
        service: Option<&ObjectName>,
        at: WallNs,
        is_gone: impl Fn(&EndpointSlice, u32) -> bool,
    ) {
        let mut gone = Vec::new();
        let mut drain = |slices: &mut Vec<(Arc<EndpointSlice>, u32)>| {
            gone.extend(slices.extract_if(.., |(slice, of)| is_gone(slice, *of)));
            !slices.is_empty()
        };
        match service {
            Some(name) => {
                if self.slices.get_mut(name).is_some_and(|of| !drain(of)) {
                    self.slices.remove(name);
                }
            }
            None => self.slices.retain(|_, slices| drain(slices)),
        }
        for (slice, _) in &gone {
            self.former.keep(at, service_of(slice), Arc::clone(slice));
            self.change(&headless_claims(slice), Vec::new(), at, at);
        }
    }

    /// Ends what is claimed no more at `at`, and begins what is claimed newly at `since`.
    fn change(&mut self, old: &Claims, new: Claims, since: WallNs, at: WallNs) {
        for (spot, name) in old.iter().filter(|claim| !new.contains(claim)) {
            if let Some(history) = self.spots.get_mut(spot) {
                history.end(at, name);
                self.left.push_back((at, *spot));
            }
        }
        for (spot, name) in new {
            let history = self.spots.entry(spot).or_default();
            let since = since.max(history.last_end().unwrap_or(since));
            history.begin(since, name);
        }
    }

    /// Drops what was gone before `before`.
    pub(super) fn forget(&mut self, before: WallNs) {
        self.former.forget(before);
        while self.left.front().is_some_and(|(when, _)| *when < before) {
            let Some((_, spot)) = self.left.pop_front() else {
                return;
            };
            let history = self.spots.get_mut(&spot);
            if history.is_some_and(|history| !history.forget(before)) {
                self.spots.remove(&spot);
            }
        }
    }
}

fn service_of(slice: &EndpointSlice) -> ObjectName {
    ObjectName {
        namespace: Arc::clone(&slice.name.namespace),
        name: Arc::clone(&slice.service),
    }
}

/// Everything a Service is asked by.
fn claims(service: &Service) -> Claims {
    let mut claims = Vec::new();
    for port in &service.ports {
        let mut claim = |ip, number, via| {
            let spot = Spot {
                ip,
                protocol: port.protocol,
                port: number,
            };
            let name = if port.name.is_empty() {
                port.port.to_string().into()
            } else {
                Arc::clone(&port.name)
            };
            let name = ServicePortName {
                service: service.name.clone(),
                port: name,
                via,
            };
            claims.push((spot, Arc::new(name)));
        };
        for ip in &service.cluster_ips {
            claim(Some(*ip), port.port, Via::ClusterIp);
        }
        for ip in &service.external_ips {
            claim(Some(*ip), port.port, Via::ExternalIp);
        }
        for address in &service.load_balancer_ips {
            claim(Some(address.ip), port.port, Via::LoadBalancer);
        }
        if let Some(node_port) = port.node_port {
            claim(None, node_port, Via::NodePort);
        }
    }
    claims
}

/// The pods' own addresses, which are what a headless Service is asked by; none of any other.
fn headless_claims(slice: &EndpointSlice) -> Claims {
    let mut claims = Vec::new();
    if !slice.headless {
        return claims;
    }
    for (port, number) in slice
        .ports
        .iter()
        .filter_map(|port| Some((port, port.port?)))
    {
        let name = if port.name.is_empty() {
            number.to_string().into()
        } else {
            Arc::clone(&port.name)
        };
        let name = Arc::new(ServicePortName {
            service: service_of(slice),
            port: name,
            via: Via::Headless,
        });
        let addresses = slice.endpoints.iter().flat_map(|of| &of.addresses);
        claims.extend(addresses.map(|ip| {
            let spot = Spot {
                ip: Some(*ip),
                protocol: port.protocol,
                port: number,
            };
            (spot, Arc::clone(&name))
        }));
    }
    claims
}
