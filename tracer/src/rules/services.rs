//! Which Services the rules themselves tell of: kube-proxy's chains and comments name them. For
//! names where no API server answers. Reads, does not judge.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{
    Asked, Backend, Base, Chain, ChainId, CompareOp, Element, Expression, Match, NatKind, Packet,
    Rule, Ruleset, Table, Target, Value, Verdict, VirtualServer, xt::NatTarget,
};
use crate::model::{Via, cluster::PortProtocol};

/// How a Service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Front {
    /// At one of its addresses.
    Address(IpAddr),
    /// At this node's addresses.
    NodePort,
}

/// A port of a Service, as the rules have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleService {
    /// `NAMESPACE/NAME:PORT`, or `NAMESPACE/NAME` for a port without a name; `None` when the rules
    /// do not name it (kube-proxy leaves comments out in large clusters).
    pub name: Option<Arc<str>>,
    /// At which address.
    pub front: Front,
    /// What kind of address that is; of one for which the rules do not tell, a cluster IP.
    pub via: Via,
    /// At which port.
    pub port: u16,
    /// By which protocol.
    pub protocol: PortProtocol,
    /// Where it leads to, in no order; empty when it refuses or drops.
    pub backends: Vec<SocketAddr>,
    /// The table that says so.
    pub backend: Backend,
}

impl Ruleset {
    /// The modes of kube-proxy whose rules are here, in the words of its `--proxy-mode`.
    pub fn proxy_modes(&self) -> Vec<&'static str> {
        let mut modes = Vec::new();
        let of_iptables = |table: &Table| {
            table.backend != Backend::Nftables
                && &*table.name == "nat"
                && table
                    .chain("KUBE-SERVICES")
                    .is_some_and(|chain| !chain.rules.is_empty())
        };
        // In ipvs mode chains of its own stand beside those that both modes have.
        let by_ipvs = |table: &&Table| {
            table.chain("KUBE-NODE-PORT").is_some() || table.chain("KUBE-LOAD-BALANCER").is_some()
        };
        let of_services = |table: &Table| {
            let mut chains = table.chains.iter();
            table.chain("KUBE-NODEPORTS").is_some() || chains.any(|one| is_of_service(&one.name))
        };
        let iptables = self.tables.iter().filter(|table| of_iptables(table));
        let ipvs = iptables.clone().any(|table| by_ipvs(&table));
        let mut iptables = iptables.filter(|table| !by_ipvs(table) || of_services(table));
        if iptables.next().is_some() {
            modes.push("iptables");
        }
        let of_nftables =
            |table: &Table| table.backend == Backend::Nftables && &*table.name == "kube-proxy";
        if self.tables.iter().any(of_nftables) {
            modes.push("nftables");
        }
        let balances =
            !self.ipvs.servers.is_empty() && self.ipsets.named("KUBE-CLUSTER-IP").is_some();
        if ipvs || balances {
            modes.push("ipvs");
        }
        modes
    }

    /// How many rules there are.
    pub fn rule_count(&self) -> usize {
        let chains = self.tables.iter().flat_map(|table| &table.chains);
        chains.map(|chain| chain.rules.len()).sum()
    }

    /// The ports of Services that kube-proxy's rules tell of, from any of its modes that are in
    /// these rules.
    pub fn services(&self) -> Vec<RuleService> {
        let mut services = Vec::new();
        for table in &self.tables {
            match (table.backend, &*table.name) {
                (Backend::Nftables, "kube-proxy") => of_maps(table, &mut services),
                (Backend::IptablesNft | Backend::IptablesLegacy, "nat" | "filter") => {
                    of_chains(table, &mut services);
                }
                _ => {}
            }
        }
        services.extend(
            self.ipvs
                .servers
                .iter()
                .filter_map(|one| self.of_server(one)),
        );
        services
    }

    /// What a virtual server is a Service for: no name tells, only the set that its address is in.
    fn of_server(&self, server: &VirtualServer) -> Option<RuleService> {
        let Asked::Address(protocol, at) = server.asked else {
            return None;
        };
        let packet = Packet {
            source: at,
            destination: at,
            protocol,
        };
        let is_in = |set: &str| {
            let name = set_name(set, at.ip());
            self.ipsets.has(&name, &packet, &[true, true]) == Some(true)
        };
        let via = match () {
            () if is_in("LOAD-BALANCER") => Via::LoadBalancer,
            () if is_in("EXTERNAL-IP") || is_in("EXTERNAL-IP-LOCAL") => Via::ExternalIp,
            () if is_in("CLUSTER-IP") => Via::ClusterIp,
            () if is_in("NODE-PORT-TCP") || is_in("NODE-PORT-UDP") => Via::NodePort,
            () => Via::ClusterIp,
        };
        Some(RuleService {
            name: None,
            front: Front::Address(at.ip()),
            via,
            port: at.port(),
            protocol,
            backends: server.real.iter().map(|real| real.at).collect(),
            backend: Backend::IptablesNft,
        })
    }
}

/// The maps of nftables mode: elements `ADDRESS . PROTOCOL . PORT : goto CHAIN`.
fn of_maps(table: &Table, services: &mut Vec<RuleService>) {
    const MAPS: [&str; 4] = [
        "service-ips",
        "service-nodeports",
        "no-endpoint-services",
        "no-endpoint-nodeports",
    ];
    for set in &table.sets {
        if !MAPS.contains(&&*set.name) {
            continue;
        }
        for element in &set.elements {
            services.extend(of_element(table, element));
        }
    }
}

fn of_element(table: &Table, element: &Element) -> Option<RuleService> {
    let (front, rest) = match element.low.len() {
        8 => (Front::NodePort, &element.low[..]),
        12 => {
            let octets: [u8; 4] = *element.low.first_chunk()?;
            (Front::Address(octets.into()), &element.low[4..])
        }
        24 => {
            let octets: [u8; 16] = *element.low.first_chunk()?;
            (Front::Address(octets.into()), &element.low[16..])
        }
        _ => return None,
    };
    let chain = match element.value {
        Value::Verdict(Verdict::Goto(id) | Verdict::Jump(id)) => table.chains.get(id.0 as usize),
        _ => None,
    };
    let mut backends = BTreeSet::new();
    if let Some(chain) = chain {
        destinations(table, chain, 0, &mut backends);
    }
    let via = match front {
        Front::NodePort => Via::NodePort,
        Front::Address(_) => chain.map_or(Via::ClusterIp, |chain| via_of_chain(&chain.name)),
    };
    Some(RuleService {
        via,
        name: chain
            .and_then(|chain| name_of_chain(&chain.name))
            .or_else(|| element.comment.as_deref().map(Into::into)),
        front,
        port: u16::from_be_bytes(*rest.get(4..)?.first_chunk()?),
        protocol: PortProtocol::of_number(*rest.first()?)?,
        backends: backends.into_iter().collect(),
        backend: table.backend,
    })
}

/// Packets to a cluster IP go to `service-…`, those from outside to `external-…`, where some may not
/// come through `firewall-…`:
/// <https://github.com/kubernetes/kubernetes/blob/v1.37.0/pkg/proxy/nftables/proxier.go>.
fn via_of_chain(chain: &str) -> Via {
    match chain.split('-').next() {
        Some("external") => Via::ExternalIp,
        Some("firewall") => Via::LoadBalancer,
        _ => Via::ClusterIp,
    }
}

/// `service-ULMVA6XW-shop/web/tcp/http`, and others with a hash, name a Service's port.
pub fn name_of_chain(chain: &str) -> Option<Arc<str>> {
    let (_, rest) = chain.split_once('-')?;
    let (_hash, rest) = rest.split_once('-')?;
    let rest = rest.split("__").next()?;
    let mut parts = rest.split('/');
    let (namespace, name, _protocol) = (parts.next()?, parts.next()?, parts.next()?);
    Some(match parts.next().filter(|port| !port.is_empty()) {
        Some(port) => format!("{namespace}/{name}:{port}").into(),
        None => format!("{namespace}/{name}").into(),
    })
}

/// `shop/web` of its port `shop/web:http`.
pub fn service_of_port(port: &str) -> &str {
    port.split(':').next().unwrap_or(port)
}

/// What kube-proxy calls the set of addresses of `address`'s family that is for `what` (`NewIPSet`,
/// pkg/proxy/ipvs/ipset.go).
pub fn set_name(what: &str, address: IpAddr) -> String {
    match address {
        IpAddr::V4(_) => format!("KUBE-{what}"),
        IpAddr::V6(_) => format!("KUBE-6-{what}"),
    }
}

/// The chains of iptables mode in which each rule is for one address or port of a Service.
fn of_chains(table: &Table, services: &mut Vec<RuleService>) {
    const CHAINS: [&str; 3] = ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES"];
    for name in CHAINS {
        let rules = table.chain(name).map_or(&[][..], |chain| &chain.rules);
        services.extend(rules.iter().filter_map(|rule| of_rule(table, name, rule)));
    }
}

fn of_rule(table: &Table, of: &str, rule: &Rule) -> Option<RuleService> {
    let fits = Fits::of(rule);
    let chain = rule
        .expressions
        .iter()
        .find_map(|expression| match expression {
            Expression::Verdict(Verdict::Jump(id) | Verdict::Goto(id)) => {
                table.chains.get(id.0 as usize)
            }
            _ => None,
        });
    // Those that lead to no chain refuse or drop.
    let refuses = rule.expressions.iter().any(|expression| {
        matches!(expression, Expression::Verdict(Verdict::Drop))
            || matches!(expression, Expression::Target(target) if matches!(**target, Target::Reject(_)))
    });
    if chain.is_none() && !refuses || chain.is_some_and(|chain| !is_of_service(&chain.name)) {
        return None;
    }
    let mut backends = BTreeSet::new();
    if let Some(chain) = chain {
        destinations(table, chain, 0, &mut backends);
    }
    // `shop/web:http cluster IP`, or what else it is, or why it is refused.
    let (name, kind) = match rule.comment().map(|comment| comment.split_once(' ')) {
        Some(Some((name, kind))) => (Some(name), kind),
        _ => (rule.comment(), ""),
    };
    let via = match (fits.address, kind, of) {
        (None, ..) => Via::NodePort,
        (_, "external IP", _) | (_, _, "KUBE-EXTERNAL-SERVICES") => Via::ExternalIp,
        (_, "loadbalancer IP", _) => Via::LoadBalancer,
        _ => Via::ClusterIp,
    };
    Some(RuleService {
        via,
        name: name.filter(|name| name.contains('/')).map(Into::into),
        front: fits.address.map_or(Front::NodePort, Front::Address),
        port: fits.port?,
        protocol: fits.protocol?,
        backends: backends.into_iter().collect(),
        backend: table.backend,
    })
}

fn is_of_service(chain: &str) -> bool {
    const PREFIXES: [&str; 5] = [
        "KUBE-SVC-",
        "KUBE-EXT-",
        "KUBE-SVL-",
        "KUBE-XLB-",
        "KUBE-FW-",
    ];
    PREFIXES.iter().any(|prefix| chain.starts_with(prefix))
}

/// The destination that a rule asks for.
#[derive(Default)]
struct Fits {
    address: Option<IpAddr>,
    port: Option<u16>,
    protocol: Option<PortProtocol>,
}

impl Fits {
    fn of(rule: &Rule) -> Self {
        let mut fits = Self::default();
        let mut place = None;
        for expression in &rule.expressions {
            match expression {
                Expression::Payload { base, offset, .. } => place = Some((*base, *offset)),
                // NFT_META_L4PROTO
                Expression::Meta { key: 16, .. } => place = Some((Base::Link, 0)),
                // A prefix is nobody's address.
                Expression::Bitwise { .. } => place = None,
                Expression::Compare {
                    op: CompareOp::Equal,
                    with,
                    ..
                } => match (place, with.len()) {
                    (Some((Base::Network, 16)), 4) => {
                        let octets = with.first_chunk::<4>();
                        fits.address = octets.map(|octets| IpAddr::from(*octets));
                    }
                    (Some((Base::Network, 24)), 16) => {
                        let octets = with.first_chunk::<16>();
                        fits.address = octets.map(|octets| IpAddr::from(*octets));
                    }
                    (Some((Base::Transport, 2)), 2) => {
                        fits.port = with.first_chunk().map(|port| u16::from_be_bytes(*port));
                    }
                    (Some((Base::Link, 0)), _) => {
                        fits.protocol = with.first().and_then(|one| PortProtocol::of_number(*one));
                    }
                    _ => {}
                },
                Expression::Match(found) => {
                    if let Match::Tcp { destination, .. } | Match::Udp { destination, .. } =
                        &**found
                        && destination.first == destination.last
                    {
                        fits.port = Some(destination.first);
                    }
                }
                _ => {}
            }
        }
        fits
    }
}

/// Deeper than kube-proxy's chains lie in one another.
const DEEPEST: usize = 6;

/// Destinations that a chain and those behind it translate to.
pub(super) fn destinations_of(table: &Table, chain: &Chain) -> BTreeSet<SocketAddr> {
    let mut found = BTreeSet::new();
    destinations(table, chain, 0, &mut found);
    found
}

fn destinations(table: &Table, chain: &Chain, depth: usize, found: &mut BTreeSet<SocketAddr>) {
    if depth > DEEPEST {
        return;
    }
    let follow = |id: ChainId, found: &mut BTreeSet<SocketAddr>| {
        if let Some(chain) = table.chains.get(id.0 as usize) {
            destinations(table, chain, depth + 1, found);
        }
    };
    for rule in &chain.rules {
        let mut constants: Vec<&[u8]> = Vec::new();
        let mut mapped: Vec<&[u8]> = Vec::new();
        for expression in &rule.expressions {
            match expression {
                Expression::Verdict(Verdict::Jump(id) | Verdict::Goto(id)) => follow(*id, found),
                Expression::Immediate { value, .. } => constants.push(value),
                Expression::Lookup { set, .. } => {
                    let elements = table.sets.get(set.0 as usize).map(|set| &set.elements);
                    for element in elements.into_iter().flatten() {
                        match &element.value {
                            Value::Verdict(Verdict::Jump(id) | Verdict::Goto(id)) => {
                                follow(*id, found);
                            }
                            Value::Data(data) => mapped.push(data),
                            _ => {}
                        }
                    }
                }
                Expression::Nat {
                    kind: NatKind::Destination,
                    ..
                } => {
                    found.extend(mapped.iter().filter_map(|data| address_and_port(data)));
                    found.extend(address_and_port(&constants.concat()));
                }
                Expression::Target(target) => {
                    if let Target::Nat(nat) = &**target
                        && nat.target == NatTarget::Dnat
                        && let (Some((address, _)), Some((port, _))) = (nat.addresses, nat.ports)
                    {
                        found.insert(SocketAddr::new(address, port));
                    }
                }
                _ => {}
            }
        }
    }
}

/// An address, and a port behind it.
fn address_and_port(bytes: &[u8]) -> Option<SocketAddr> {
    let (address, rest): (IpAddr, _) = match bytes.len() {
        6 | 8 => ((*bytes.first_chunk::<4>()?).into(), &bytes[4..]),
        18 | 20 => ((*bytes.first_chunk::<16>()?).into(), &bytes[16..]),
        _ => return None,
    };
    let port = u16::from_be_bytes(*rest.first_chunk()?);
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_of_nftables_mode_name_their_service() {
        let name = |chain: &str| name_of_chain(chain).map(|name| name.to_string());
        assert_eq!(
            name("service-ULMVA6XW-ns1/svc1/tcp/p80"),
            Some("ns1/svc1:p80".to_owned())
        );
        assert_eq!(
            name("endpoint-GTK6MW7G-ns5/svc5/tcp/p80__10.180.0.3/80"),
            Some("ns5/svc5:p80".to_owned())
        );
        assert_eq!(name("service-ABCDEFGH-a/b/udp/"), Some("a/b".to_owned()));
        assert_eq!(name("reject-chain"), None);
    }
}
