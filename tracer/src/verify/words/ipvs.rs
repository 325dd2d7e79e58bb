//! What is missing in ipvs mode, in words: addresses of this node, virtual servers, real servers, elements of
//! sets.

use std::net::SocketAddr;

use super::listed;
use crate::{
    rules::{Asked, Packet, Ruleset, Spread, VirtualServer, set_name},
    verify::{
        compare::Difference,
        judgement::{Case, Found},
        plan::{FrontKind, PortPlan},
    },
};

/// The device that has the addresses of Services.
pub(in crate::verify) const DEVICE: &str = "kube-ipvs0";

/// The line that tells what is missing; `None` outside ipvs mode, and where rules tell more.
pub(super) fn evidence(
    case: &Case<'_>,
    plan: &PortPlan<'_>,
    found: &Found,
    what: &Difference,
    spread: &Spread,
) -> Option<String> {
    if !case.ruleset.proxy_modes().contains(&"ipvs") {
        return None;
    }
    let asked = found.front.at;
    let protocol = plan.port.protocol;
    let server = |server: &&VirtualServer| server.asked == Asked::Address(protocol, asked);
    let server = case.ruleset.ipvs.servers.iter().find(server);
    match what {
        Difference::NotProgrammed | Difference::NotRefused => {
            if !case.host.devices.values().any(|name| &**name == DEVICE) {
                return Some(format!("absent    this node has no device {DEVICE}"));
            }
            if !case.host.is_local(asked.ip()) {
                let ip = asked.ip();
                return Some(format!("absent    {DEVICE} has no address {ip}: IPVS sees none of its packets"));
            }
            let name = protocol.name();
            server
                .is_none()
                .then(|| format!("absent    no virtual server of IPVS at {asked}/{name}"))
        }
        Difference::Missing(addresses) => {
            let server = server?;
            let mut real = server.real.iter();
            Some(match real.find(|real| addresses.contains(&real.at)) {
                Some(real) => format!("found     ipvs {server}: {real}"),
                None => format!("absent    ipvs {server} has no real server {}", listed(addresses)),
            })
        }
        Difference::NotMasqueraded | Difference::NoHairpin if !case.ruleset.ipvs.conntrack => Some(
            "found     net.ipv4.vs.conntrack is 0: no rule can replace the address of a client that IPVS serves"
                .to_owned(),
        ),
        Difference::NotMasqueraded | Difference::NoHairpin => {
            let source = case.packet(plan, found.front, &found.asker)?.source;
            let to = spread.branches.first()?.outcome.destination;
            let hairpin = *what == Difference::NoHairpin;
            let to = if hairpin {
                SocketAddr::new(source.ip(), to.port())
            } else {
                asked
            };
            let packet = Packet {
                source,
                destination: to,
                protocol,
            };
            let kind = found.front.kind;
            Some(lacking(case.ruleset, kind, &packet, hairpin))
        }
        _ => None,
    }
}

/// The set whose elements have packets masqueraded, where it lacks this one.
fn lacking(ruleset: &Ruleset, front: FrontKind, packet: &Packet, hairpin: bool) -> String {
    let set = match front {
        _ if hairpin => "LOOP-BACK",
        FrontKind::ClusterIp | FrontKind::OtherPort => "CLUSTER-IP",
        FrontKind::External => "EXTERNAL-IP",
        FrontKind::LoadBalancer => "LOAD-BALANCER",
        FrontKind::NodePort if packet.protocol.name() == "udp" => "NODE-PORT-UDP",
        FrontKind::NodePort => "NODE-PORT-TCP",
    };
    let name = set_name(set, packet.destination.ip());
    let (protocol, to) = (packet.protocol.name(), packet.destination);
    if ruleset.ipsets.named(&name).is_none() {
        return format!("absent    there is no set {name}");
    }
    let has = ruleset.ipsets.has(&name, packet, &[true, true, false]);
    let element = match front {
        _ if hairpin => format!(
            "{},{protocol}:{},{}",
            to.ip(),
            to.port(),
            packet.source.ip()
        ),
        FrontKind::NodePort => to.port().to_string(),
        _ => format!("{},{protocol}:{}", to.ip(), to.port()),
    };
    match has {
        Some(true) => format!("absent    no rule masquerades what set {name} has"),
        _ => format!("absent    set {name} lacks {element}"),
    }
}
