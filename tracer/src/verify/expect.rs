//! What is to become of a packet to a Service port, by who sends it to which of its addresses.

use std::net::{IpAddr, SocketAddr};

use super::{
    askers::{Asker, AskerKind},
    plan::{FrontKind, FrontPlan, PortPlan},
};
use crate::{
    model::{cluster::TrafficPolicy, prefix::contains},
    rules::Host,
};

/// Whether the client's address is to be replaced by the node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Masquerade {
    Must,
    MustNot,
    /// It makes no difference.
    Either,
}

/// What is to become of a packet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Expect<'a> {
    /// It goes to one of these, each as likely as another; not empty.
    Backends(&'a [SocketAddr], Masquerade),
    /// The client is told at once that nobody serves.
    Refused,
    /// It is dropped in silence.
    Dropped,
    /// Either of the two.
    Stopped,
}

/// What kube-proxy was told and the objects do not say, concluded from what it does for most
/// Services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Habits {
    /// `--masquerade-all`; `None` when no Service shows it.
    pub(super) masquerade_all: Option<bool>,
    /// It knows pods' addresses (`--cluster-cidr` and its like): packets from elsewhere to cluster
    /// IPs are masqueraded. `None` when no Service shows it.
    pub(super) knows_pods: Option<bool>,
    /// It lets pods pass the external traffic policy Local, which it can where it knows their
    /// addresses. `None` when no Service shows it.
    pub(super) pods_pass: Option<bool>,
    /// It serves by IPVS: a virtual server has the same real servers for all who ask, and where the
    /// policy Local finds none here, those that are elsewhere.
    pub(super) ipvs: bool,
    /// This node's address; `None` when it has none of the family.
    pub(super) node: Option<IpAddr>,
}

/// `None` where it is not laid down.
pub(super) fn expect<'a>(
    plan: &'a PortPlan<'_>,
    front: FrontPlan,
    asker: &Asker,
    host: &Host,
    habits: Habits,
) -> Option<Expect<'a>> {
    match front.kind {
        FrontKind::ClusterIp => Some(of_cluster_ip(plan, asker, habits)),
        FrontKind::OtherPort => Some(Expect::Refused),
        _ => of_external(plan, front, asker, host, habits),
    }
}

fn of_cluster_ip<'a>(plan: &'a PortPlan<'_>, asker: &Asker, habits: Habits) -> Expect<'a> {
    if !plan.choice.any {
        return Expect::Refused;
    }
    let chosen = plan.for_policy(plan.service.internal_policy);
    let backends = match serving(plan, chosen, habits.ipvs) {
        Ok(backends) => backends,
        Err(expect) => return expect,
    };
    let wished = match asker.kind {
        AskerKind::Pod => habits.masquerade_all,
        AskerKind::Outside if habits.masquerade_all == Some(true) => Some(true),
        AskerKind::Outside => habits.knows_pods,
        // It sends from the cluster IP, which is every node's.
        AskerKind::Node if habits.ipvs => Some(true),
        // It is the node's address already.
        AskerKind::Node => None,
    };
    let masquerade = match wished {
        Some(true) => Masquerade::Must,
        Some(false) => Masquerade::MustNot,
        None => Masquerade::Either,
    };
    Expect::Backends(backends, masquerade)
}

fn of_external<'a>(
    plan: &'a PortPlan<'_>,
    front: FrontPlan,
    asker: &Asker,
    host: &Host,
    habits: Habits,
) -> Option<Expect<'a>> {
    let any = plan.choice.any;
    if front.kind == FrontKind::LoadBalancer {
        let ranges = plan.source_ranges();
        let source = match asker.address {
            Some(address) => address,
            // Its address counts, although IPVS has it send from the very address that it asks.
            None if habits.ipvs => habits.node?,
            // To an address of its own a node sends from that very address.
            None if host.is_local(front.at.ip()) => return None,
            None => host.source_for(front.at.ip())?,
        };
        if !ranges.is_empty() && !ranges.iter().any(|range| contains(*range, source)) {
            return Some(if any {
                Expect::Dropped
            } else {
                Expect::Stopped
            });
        }
    }
    if !any {
        // In iptables mode the node's own packets to addresses elsewhere are let go.
        let elsewhere = front.kind != FrontKind::NodePort && !habits.ipvs;
        let own = asker.kind == AskerKind::Node && elsewhere;
        return (!own).then_some(Expect::Refused);
    }
    let cluster = plan.choice.cluster.as_slice();
    match (plan.service.external_policy, asker.kind) {
        // Nobody elsewhere takes packets from a loopback address.
        (_, AskerKind::Node) if front.at.ip().is_loopback() => {
            Some(Expect::Backends(cluster, Masquerade::Must))
        }
        (TrafficPolicy::Local, AskerKind::Node) if habits.ipvs => {
            Some(of_local(plan, true, Masquerade::Either))
        }
        (_, AskerKind::Node) => Some(Expect::Backends(cluster, Masquerade::Either)),
        (TrafficPolicy::Cluster, _) => Some(Expect::Backends(cluster, Masquerade::Must)),
        // As if it had gone out to the load balancer and come back on any node.
        (TrafficPolicy::Local, AskerKind::Pod) => match habits.pods_pass {
            Some(true) => Some(Expect::Backends(cluster, Masquerade::MustNot)),
            Some(false) => Some(of_local(plan, habits.ipvs, Masquerade::MustNot)),
            None => None,
        },
        (TrafficPolicy::Local, AskerKind::Outside) => {
            Some(of_local(plan, habits.ipvs, Masquerade::MustNot))
        }
    }
}

fn of_local<'a>(plan: &'a PortPlan<'_>, ipvs: bool, masquerade: Masquerade) -> Expect<'a> {
    match serving(plan, &plan.choice.local, ipvs) {
        Ok(backends) => Expect::Backends(backends, masquerade),
        Err(expect) => expect,
    }
}

/// Who serves where a policy chose these; or what becomes of packets where there is nobody.
fn serving<'a>(
    plan: &'a PortPlan<'_>,
    chosen: &'a [SocketAddr],
    ipvs: bool,
) -> Result<&'a [SocketAddr], Expect<'a>> {
    match (chosen, plan.choice.cluster.as_slice()) {
        ([], []) if ipvs => Err(Expect::Refused),
        ([], elsewhere) if ipvs => Ok(elsewhere),
        ([], _) => Err(Expect::Dropped),
        (chosen, _) => Ok(chosen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::cluster::Service,
        rules::Origin,
        verify::{
            endpoints::{Choice, Known},
            plan::family_of,
            tests::service,
        },
    };

    const NEAR: [u8; 4] = [10, 244, 1, 1];
    const FAR: [u8; 4] = [10, 244, 2, 1];

    fn at(octets: [u8; 4]) -> SocketAddr {
        SocketAddr::from((octets, 8080))
    }

    /// What is expected of a Service with one endpoint here and one elsewhere, or only the latter.
    fn check(
        change: impl Fn(&mut Service),
        (near, any): (bool, bool),
        kind: FrontKind,
        asker: AskerKind,
        expected: Option<Expect<'_>>,
    ) {
        let mut service = service();
        change(&mut service);
        let mut cluster = vec![at(NEAR), at(FAR)];
        cluster.retain(|one| any && (near || *one == at(FAR)));
        let local = if near && any {
            vec![at(NEAR)]
        } else {
            Vec::new()
        };
        let plan = PortPlan {
            port: &service.ports[0],
            family: family_of(NEAR.into()),
            fronts: Vec::new(),
            choice: Choice {
                cluster,
                local,
                any,
            },
            known: Vec::<Known>::new(),
            service: &service,
        };
        let front = FrontPlan {
            kind,
            at: SocketAddr::from(([198, 51, 100, 1], 80)),
        };
        let address: Option<IpAddr> = match asker {
            AskerKind::Pod => Some([10, 244, 1, 9].into()),
            AskerKind::Outside => Some([203, 0, 113, 1].into()),
            AskerKind::Node => None,
        };
        let asker = Asker {
            kind: asker,
            address,
            origin: Origin::Host,
        };
        let habits = Habits {
            masquerade_all: Some(false),
            knows_pods: Some(true),
            pods_pass: Some(true),
            ..Habits::default()
        };
        let found = expect(&plan, front, &asker, &Host::default(), habits);
        assert_eq!(found, expected, "{kind:?} {asker:?}");
    }

    #[test]
    fn by_ipvs_all_get_the_same_servers_and_those_elsewhere_where_none_is_here() {
        use AskerKind::{Node, Outside};
        use FrontKind::{ClusterIp, NodePort};
        use Masquerade::{Either, Must, MustNot};
        let mut service = service();
        service.internal_policy = TrafficPolicy::Local;
        service.external_policy = TrafficPolicy::Local;
        let far = [at(FAR)];
        let mut plan = PortPlan {
            port: &service.ports[0],
            family: family_of(NEAR.into()),
            fronts: Vec::new(),
            choice: Choice {
                cluster: far.to_vec(),
                local: Vec::new(),
                any: true,
            },
            known: Vec::new(),
            service: &service,
        };
        let habits = Habits {
            pods_pass: Some(false),
            ipvs: true,
            node: Some([192, 0, 2, 1].into()),
            ..Habits::default()
        };
        let expected = |plan: &PortPlan<'_>, kind, asker| {
            let front = FrontPlan {
                kind,
                at: SocketAddr::from(([198, 51, 100, 1], 80)),
            };
            let asker = Asker {
                kind: asker,
                address: (asker != AskerKind::Node).then_some([203, 0, 113, 1].into()),
                origin: Origin::Host,
            };
            let expect = expect(plan, front, &asker, &Host::default(), habits);
            match expect {
                Some(Expect::Backends(to, masquerade)) => Some((to.to_vec(), Some(masquerade))),
                Some(Expect::Refused) => Some((Vec::new(), None)),
                other => panic!("{other:?}"),
            }
        };
        let to_far = |masquerade| Some((far.to_vec(), Some(masquerade)));
        assert_eq!(expected(&plan, NodePort, Outside), to_far(MustNot));
        assert_eq!(expected(&plan, NodePort, Node), to_far(Either));
        assert_eq!(expected(&plan, ClusterIp, Node), to_far(Must));
        // None elsewhere either, as far as the virtual server knows.
        plan.choice.cluster.clear();
        assert_eq!(expected(&plan, ClusterIp, Node), Some((Vec::new(), None)));
        assert_eq!(expected(&plan, NodePort, Outside), Some((Vec::new(), None)));
    }

    #[test]
    fn what_is_expected_of_each_kind_of_service_from_each_kind_of_source() {
        use AskerKind::{Node, Outside, Pod};
        use Expect::{Backends, Dropped, Refused, Stopped};
        use FrontKind::{ClusterIp, External, LoadBalancer, NodePort};
        use Masquerade::{Either, Must, MustNot};
        let both = [at(NEAR), at(FAR)];
        let (near, far) = ([at(NEAR)], [at(FAR)]);
        let (all, only_far, none) = ((true, true), (false, true), (false, false));
        let plain = |_: &mut Service| {};
        let inside = |of: &mut Service| of.internal_policy = TrafficPolicy::Local;
        let outside = |of: &mut Service| of.external_policy = TrafficPolicy::Local;
        let ranges = |of: &mut Service| of.source_ranges = vec![([192, 0, 2, 0].into(), 24)];
        let open = |of: &mut Service| of.source_ranges = vec![([0, 0, 0, 0].into(), 0)];

        check(plain, all, ClusterIp, Pod, Some(Backends(&both, MustNot)));
        check(plain, all, ClusterIp, Outside, Some(Backends(&both, Must)));
        check(plain, all, ClusterIp, Node, Some(Backends(&both, Either)));
        check(plain, none, ClusterIp, Pod, Some(Refused));
        check(inside, all, ClusterIp, Pod, Some(Backends(&near, MustNot)));
        check(inside, only_far, ClusterIp, Pod, Some(Dropped));
        check(inside, none, ClusterIp, Pod, Some(Refused));

        check(plain, all, NodePort, Outside, Some(Backends(&both, Must)));
        check(plain, all, External, Pod, Some(Backends(&both, Must)));
        check(plain, none, NodePort, Node, Some(Refused));
        check(plain, none, External, Node, None);
        check(
            outside,
            all,
            LoadBalancer,
            Outside,
            Some(Backends(&near, MustNot)),
        );
        check(
            outside,
            all,
            LoadBalancer,
            Pod,
            Some(Backends(&both, MustNot)),
        );
        check(outside, all, NodePort, Node, Some(Backends(&both, Either)));
        check(outside, only_far, NodePort, Outside, Some(Dropped));
        check(
            outside,
            only_far,
            NodePort,
            Pod,
            Some(Backends(&far, MustNot)),
        );
        check(outside, none, NodePort, Outside, Some(Refused));

        check(ranges, all, LoadBalancer, Outside, Some(Dropped));
        check(ranges, none, LoadBalancer, Outside, Some(Stopped));
        check(ranges, all, NodePort, Outside, Some(Backends(&both, Must)));
        check(
            open,
            all,
            LoadBalancer,
            Outside,
            Some(Backends(&both, Must)),
        );
    }
}
