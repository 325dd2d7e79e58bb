//! The judgement: every Service port, at each of its addresses, from each kind of source, walked
//! through the rules and compared with what the API objects ask for.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    thread,
};

use super::{
    askers::{Asker, AskerKind, Askers, within},
    compare::{Difference, Differing, compare},
    expect::{Expect, Habits, Masquerade, expect},
    followers::{followers, forgets},
    habits, leftovers,
    plan::{FrontKind, FrontPlan, PortPlan, plans},
    stale::stale,
    words::{Words, conflict, kept_away},
};
use crate::{
    model::{
        Snapshot,
        cluster::{Node, ObjectName, PortProtocol},
        verified::{Objects, Verified},
    },
    rules::{
        Branch, CLIENT_PORT, Ending, Family, Flow, Host, Judge, Packet, PolicyEngine, Ruleset,
        Spread,
    },
};

/// All that is judged with.
pub(super) struct Case<'a> {
    pub(super) ruleset: &'a Ruleset,
    pub(super) host: &'a Host,
    pub(super) node: &'a Node,
    askers: [Askers; 2],
    /// In IPv4 and in IPv6.
    habits: [Habits; 2],
    /// Services of several fronts at one address.
    claims: HashMap<(SocketAddr, PortProtocol), u32>,
    pod_ranges: Vec<(IpAddr, u8)>,
}

/// One difference, where it was found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Index of the plan.
    pub(super) plan: usize,
    pub(super) front: FrontPlan,
    pub(super) asker: Asker,
    /// Endpoints that are to get packets.
    pub(super) wanted: Vec<SocketAddr>,
    pub(super) differing: Differing,
}

/// A packet that NetworkPolicies keep away, as their engine's rules have it.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) engine: &'static str,
    /// Index of the plan.
    pub(super) plan: usize,
    pub(super) front: FrontPlan,
    pub(super) asker: Asker,
}

/// What comes of walking packets.
#[derive(Debug, Default)]
struct Judged {
    found: Vec<Found>,
    kept: Vec<Kept>,
    packets: u64,
}

/// What is judged beside the rules, and what is left out.
#[derive(Clone, Copy, Debug)]
pub struct Besides<'a> {
    /// UDP flows that conntrack remembers.
    pub flows: &'a [Flow],
    /// Services whose objects changed a moment ago: kube-proxy may still be at it, and nothing is said of them.
    pub changing: &'a HashSet<ObjectName>,
}

/// Judges the rules of `ruleset`, those of `node`, by `snapshot`.
pub fn judge(ruleset: &Ruleset, host: &Host, snapshot: &Snapshot, node: &Node) -> Verified {
    let besides = Besides {
        flows: &[],
        changing: &HashSet::new(),
    };
    judge_with(ruleset, host, snapshot, node, besides)
}

/// The same, and what conntrack still sends to what is no endpoint.
pub fn judge_with(
    ruleset: &Ruleset,
    host: &Host,
    snapshot: &Snapshot,
    node: &Node,
    besides: Besides<'_>,
) -> Verified {
    let Besides { flows, changing } = besides;
    let is_changing = |plan: &PortPlan<'_>| changing.contains(&plan.service.name);
    let modes = ruleset.proxy_modes();
    let learnt = habits::learn(ruleset, host, snapshot, node);
    let plans = plans(snapshot, &node.name, &learnt);
    let mut verified = Verified {
        node: node.name.to_string(),
        objects: Objects::Api,
        taken: snapshot.taken,
        services: services(&plans),
        ports: plans.len(),
        changing: plans.iter().filter(|plan| is_changing(plan)).count(),
        packets: 0,
        rules: ruleset.rule_count(),
        findings: Vec::new(),
        kept_away: Vec::new(),
        modes,
    };
    if verified.modes.is_empty() && !plans.is_empty() {
        verified.findings.push(super::words::no_rules(node));
        return verified;
    }
    let mut case = Case {
        ruleset,
        host,
        node,
        askers: [Family::V4, Family::V6].map(|family| Askers::of(snapshot, host, node, family)),
        habits: Default::default(),
        claims: claims(&plans),
        pod_ranges: snapshot
            .nodes
            .iter()
            .flat_map(|node| node.pod_cidrs.iter().copied())
            .collect(),
    };
    case.habits = [Family::V4, Family::V6].map(|family| habits::of(&case, &plans, family));
    let mut judged = case.judge_all(&plans);
    judged.found.retain(|one| !is_changing(&plans[one.plan]));
    verified.packets = judged.packets;
    verified.kept_away = kept_away(&judged.kept, &plans);
    let mut words = Words::new(&case, &plans);
    verified.findings = words.findings(judged.found);
    verified.findings.extend(conflicts(&case, &plans));
    let left = leftovers::find(&case, snapshot, &plans, &verified.findings, changing);
    verified.findings.extend(left);
    let settled = plans.iter().filter(|plan| !is_changing(plan));
    verified
        .findings
        .extend(stale(flows, &settled.collect::<Vec<_>>()));
    if verified.modes.len() > 1 {
        verified
            .findings
            .push(super::words::two_modes(&verified.modes));
    }
    verified
        .findings
        .extend(super::words::two_backends(ruleset));
    verified.findings.sort_by(|a, b| {
        b.severity
            .cmp(&a.severity)
            .then_with(|| a.object.cmp(&b.object))
    });
    verified
}

fn services(plans: &[PortPlan<'_>]) -> usize {
    let mut names: Vec<_> = plans.iter().map(|plan| &plan.service.name).collect();
    names.dedup();
    names.len()
}

/// A client's first packet.
pub(super) fn packet(source: IpAddr, destination: SocketAddr, protocol: PortProtocol) -> Packet {
    Packet {
        source: SocketAddr::new(source, CLIENT_PORT),
        destination,
        protocol,
    }
}

fn claims(plans: &[PortPlan<'_>]) -> HashMap<(SocketAddr, PortProtocol), u32> {
    let mut claims = HashMap::new();
    for plan in plans {
        for front in &plan.fronts {
            *claims.entry((front.at, plan.port.protocol)).or_insert(0) += 1;
        }
    }
    claims
}

fn conflicts(case: &Case<'_>, plans: &[PortPlan<'_>]) -> Vec<crate::model::Finding> {
    let mut by_address: HashMap<_, Vec<String>> = HashMap::new();
    for plan in plans {
        for front in &plan.fronts {
            let key = (front.at, plan.port.protocol);
            if case.claims.get(&key).is_some_and(|count| *count > 1) {
                by_address.entry(key).or_default().push(plan.object());
            }
        }
    }
    let all = by_address.into_iter();
    all.map(|((at, protocol), objects)| conflict(at, protocol, &objects))
        .collect()
}

impl Case<'_> {
    pub(super) fn askers(&self, family: Family) -> &Askers {
        match family {
            Family::V4 => &self.askers[0],
            Family::V6 => &self.askers[1],
        }
    }

    /// A pod of this node that is no endpoint of the Service, where there is one.
    pub(super) fn pod_for(&self, plan: &PortPlan<'_>) -> Option<Asker> {
        let pods = &self.askers(plan.family).pods;
        let stranger = pods
            .iter()
            .find(|pod| plan.known.iter().all(|one| one.at.ip() != **pod));
        let pod = stranger.or(pods.first())?;
        Some(Asker::at(AskerKind::Pod, *pod, self.host))
    }

    /// Who asks at `front`.
    fn askers_at(&self, plan: &PortPlan<'_>, front: FrontPlan) -> Vec<Asker> {
        let node = Asker {
            kind: AskerKind::Node,
            address: None,
            origin: crate::rules::Origin::Host,
        };
        if front.at.ip().is_loopback() {
            return vec![node];
        }
        let mut askers: Vec<_> = self.pod_for(plan).into_iter().collect();
        askers.push(node);
        if front.kind == FrontKind::OtherPort {
            return askers;
        }
        let outside = self.askers(plan.family).outside;
        let outside = outside.map(|address| Asker::at(AskerKind::Outside, address, self.host));
        askers.extend(outside);
        if front.kind == FrontKind::LoadBalancer {
            let ranges = plan.source_ranges();
            let inside = ranges.iter().filter_map(|range| {
                let address = within(*range, self.host, &self.pod_ranges)?;
                Some(Asker::at(AskerKind::Outside, address, self.host))
            });
            askers.extend(inside.take(2));
        }
        if front.kind == FrontKind::ClusterIp {
            // A pod that reaches itself.
            let endpoints = plan.for_policy(plan.service.internal_policy).iter();
            let here = endpoints.filter(|at| {
                let mut known = plan.known.iter();
                known.any(|one| one.at == **at && one.local) && !self.host.is_local(at.ip())
            });
            askers.extend(here.map(|at| Asker::at(AskerKind::Pod, at.ip(), self.host)));
        }
        askers
    }

    /// The packet that `asker` sends; `None` when it cannot.
    pub(super) fn packet(
        &self,
        plan: &PortPlan<'_>,
        front: FrontPlan,
        asker: &Asker,
    ) -> Option<Packet> {
        let own = || self.host.source_for(front.at.ip());
        let source = asker.address.or_else(own)?;
        Some(packet(source, front.at, plan.port.protocol))
    }

    /// Judges on all processors.
    fn judge_all(&self, plans: &[PortPlan<'_>]) -> Judged {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let each = plans.len().div_ceil(processors).max(1);
        thread::scope(|scope| {
            let chunks = plans.chunks(each).enumerate();
            let jobs = chunks.map(|(index, chunk)| {
                scope.spawn(move || {
                    let judge = self.ruleset.judges(self.host);
                    let mut judged = Judged::default();
                    for (offset, plan) in chunk.iter().enumerate() {
                        self.judge_one(&judge, index * each + offset, plan, &mut judged);
                    }
                    judged
                })
            });
            let jobs: Vec<_> = jobs.collect();
            let mut all = Judged::default();
            for job in jobs {
                if let Ok(judged) = job.join() {
                    all.found.extend(judged.found);
                    all.kept.extend(judged.kept);
                    all.packets += judged.packets;
                }
            }
            all
        })
    }

    fn judge_one(&self, judge: &Judge<'_>, index: usize, plan: &PortPlan<'_>, judged: &mut Judged) {
        let Judged {
            found,
            kept,
            packets,
        } = judged;
        for front in &plan.fronts {
            let key = (front.at, plan.port.protocol);
            if self.claims.get(&key).is_some_and(|count| *count > 1) {
                continue;
            }
            for asker in self.askers_at(plan, *front) {
                let habits = self.habits[usize::from(plan.family == Family::V6)];
                let expect = expect(plan, *front, &asker, self.host, habits);
                let (Some(expect), Some(packet)) = (expect, self.packet(plan, *front, &asker))
                else {
                    continue;
                };
                *packets += 1;
                let spread = judge.judge(packet, asker.origin.clone(), false);
                let affinity = plan.service.affinity;
                let by_policy = |branch: &Branch| self.engine(branch).is_some();
                let mut all = compare(expect, &spread, packet, affinity, by_policy);
                let engine = spread.branches.iter().find_map(|one| self.engine(one));
                kept.extend(engine.map(|engine| Kept {
                    engine,
                    plan: index,
                    front: *front,
                    asker: asker.clone(),
                }));
                if habits.ipvs {
                    all.retain(|one| !is_of_loopback_set(one, &asker, plan));
                }
                if affinity.is_some() && all.is_empty() && asker.kind != AskerKind::Node {
                    all.extend(forgets(judge, packet, &asker, &spread, packets));
                }
                if let (Expect::Backends(..), true) = (expect, all.is_empty()) {
                    all = followers(judge, packet, plan, &asker, &spread, packets);
                }
                let wanted = match expect {
                    Expect::Backends(wanted, _) => wanted,
                    _ => &[],
                };
                found.extend(all.into_iter().map(|differing| Found {
                    plan: index,
                    front: *front,
                    asker: asker.clone(),
                    wanted: wanted.to_vec(),
                    differing,
                }));
            }
        }
    }

    /// Whose NetworkPolicies end the way of a first packet; `None` when none do.
    fn engine(&self, branch: &Branch) -> Option<&'static str> {
        let stopped = matches!(branch.outcome.ending, Ending::Dropped | Ending::Rejected(_));
        let by = branch.by.filter(|_| stopped)?;
        let (_, chain) = self.ruleset.place(by)?;
        let text = || self.ruleset.text(by);
        Some(PolicyEngine::of(&chain.name, text, None)?.name)
    }

    /// All branches of one packet, with the rules in its way.
    pub(super) fn trace(&self, found: &Found, plan: &PortPlan<'_>) -> Option<Spread> {
        let packet = self.packet(plan, found.front, &found.asker)?;
        let judge = self.ruleset.judges(self.host);
        Some(judge.judge(packet, found.asker.origin.clone(), true))
    }

    /// Whether packets to `at` are translated, from a pod or from outside, and where to.
    pub(super) fn leads(&self, at: SocketAddr, protocol: PortProtocol) -> Vec<SocketAddr> {
        let askers = self.askers(super::plan::family_of(at.ip()));
        let pod = askers.pods.first().copied();
        let mut leads = Vec::new();
        for source in [pod, askers.outside].into_iter().flatten() {
            let packet = packet(source, at, protocol);
            let origin = self.host.origin_of(source);
            let spread = self.ruleset.judge(self.host, packet, origin, false);
            let to = spread.branches.iter().map(|one| one.outcome.destination);
            leads.extend(to.filter(|to| *to != at));
        }
        leads.sort_unstable();
        leads.dedup();
        leads
    }
}

/// Whether it is about the port of a pod that reaches itself: in ipvs mode kube-proxy has it kept.
fn is_of_loopback_set(one: &Differing, asker: &Asker, plan: &PortPlan<'_>) -> bool {
    let mut known = plan.known.iter();
    one.what == Difference::PortNotRandom
        && known.any(|endpoint| Some(endpoint.at.ip()) == asker.address)
}

impl Masquerade {
    /// In words.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Must => ", with the node's address as source",
            Self::MustNot => ", with the client's address as source",
            Self::Either => "",
        }
    }
}
