//! The verdict on one observed translation: whether the backend was to get this client's traffic,
//! by the API objects at its time.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{
    endpoints::{Choice, Known, choose, of},
    plan::{family_of, is_external, is_proxied},
};
use crate::{
    model::{
        ServicePortName, Via, WallNs,
        cluster::{EndpointSlice, Service, ServicePort, TrafficPolicy},
        verdict::Verdict,
    },
    rules::Family,
};

/// kube-proxy needs this long to write a change: until then what was right is right.
const LAG: Duration = Duration::from_secs(2);

/// What is known of a Service over a while.
#[derive(Clone, Debug)]
pub struct Past {
    /// The Service as it is now.
    pub service: Arc<Service>,
    /// Its slices as they are now.
    pub slices: Vec<Arc<EndpointSlice>>,
    /// Former versions of its slices, and when each ended, in that order.
    pub former: Vec<(WallNs, Arc<EndpointSlice>)>,
}

/// A connection that was translated.
#[derive(Clone, Copy, Debug)]
pub struct Translation<'a> {
    /// When.
    pub at: WallNs,
    /// What was asked.
    pub port: &'a ServicePortName,
    /// What it was translated to.
    pub backend: SocketAddr,
    /// The client is a pod or the node itself.
    pub inside: bool,
    /// The node whose rules translated it; `None` when that is not known.
    pub node: Option<&'a str>,
    /// The zone of that node.
    pub zone: Option<&'a str>,
}

/// Judges; `None` where the objects do not lay it down, or it is not known.
pub fn verdict(past: &Past, translation: &Translation<'_>) -> Option<Verdict> {
    let service = &*past.service;
    if !is_proxied(service) || translation.port.via == Via::Headless {
        return None;
    }
    let mut ports = service.ports.iter();
    let port = ports.find(|port| is_called(port, translation.port))?;
    let before = WallNs(translation.at.0 - i64::try_from(LAG.as_nanos()).unwrap_or(0));
    // What is written may be a little behind, and what is heard a little late.
    let [then, earlier, now] =
        [Some(translation.at), Some(before), None].map(|at| judge(past, port, at, translation));
    if [then, earlier, now].contains(&Some(Verdict::Right)) {
        return Some(Verdict::Right);
    }
    then
}

/// By the objects of one moment; `None` is now.
fn judge(
    past: &Past,
    port: &ServicePort,
    at: Option<WallNs>,
    translation: &Translation<'_>,
) -> Option<Verdict> {
    let service = &*past.service;
    let backend = translation.backend;
    let family = family_of(backend.ip());
    let slices = at.map_or_else(|| past.slices.clone(), |at| past.at(at));
    let slices: Vec<&EndpointSlice> = slices.iter().map(|slice| &**slice).collect();
    let node = translation.node.unwrap_or_default();
    let known = of(&slices, port, family, node);
    let external = is_external(service, port, family);
    let choice = choose(&known, service, external, node, translation.zone);
    if allowed(service, translation, &choice).contains(&backend) {
        return Some(Verdict::Right);
    }
    let Some(one) = known.iter().find(|one| one.at == backend) else {
        return Some(past.left(port, translation, node));
    };
    against(one, &known, translation)
}

/// The endpoints among which clients of a port are spread now; `None` where that differs by
/// client or node, or clients stay where they were.
pub fn alike(past: &Past, name: &ServicePortName) -> Option<Vec<SocketAddr>> {
    let service = &*past.service;
    let policies = [service.internal_policy, service.external_policy];
    let same = policies == [TrafficPolicy::Cluster; 2] && service.affinity.is_none();
    if !same || !is_proxied(service) || !past.former.is_empty() || name.via != Via::ClusterIp {
        return None;
    }
    let port = service.ports.iter().find(|port| is_called(port, name))?;
    let slices: Vec<&EndpointSlice> = past.slices.iter().map(|slice| &**slice).collect();
    let mut alike = Vec::new();
    for family in [Family::V4, Family::V6] {
        let known = of(&slices, port, family, "");
        if known
            .iter()
            .any(|one| !one.zone_hints.is_empty() || !one.node_hints.is_empty())
        {
            return None;
        }
        alike.extend(choose(&known, service, false, "", None).cluster);
    }
    Some(alike)
}

fn is_called(port: &ServicePort, name: &ServicePortName) -> bool {
    match &*port.name {
        "" => port.port.to_string() == *name.port,
        called => *called == *name.port,
    }
}

/// Who may get the client's packets.
fn allowed<'a>(
    service: &Service,
    translation: &Translation<'_>,
    choice: &'a Choice,
) -> &'a [SocketAddr] {
    let policy = match translation.port.via {
        Via::ClusterIp => service.internal_policy,
        // From inside it is as if it had come back to any node.
        _ if translation.inside => TrafficPolicy::Cluster,
        _ => service.external_policy,
    };
    match policy {
        TrafficPolicy::Cluster => &choice.cluster,
        TrafficPolicy::Local => &choice.local,
    }
}

fn against(one: &Known, known: &[Known], translation: &Translation<'_>) -> Option<Verdict> {
    if one.terminating && known.iter().any(|other| other.ready) {
        return Some(Verdict::Terminating);
    }
    if !one.ready {
        return Some(Verdict::NotReady);
    }
    // Which node's rules it was must be known.
    translation.node?;
    let hinted = !one.zone_hints.is_empty() || !one.node_hints.is_empty();
    Some(if hinted {
        Verdict::WrongByHints
    } else {
        Verdict::WrongByPolicy
    })
}

impl Past {
    /// The slices as they were at `at`: of each name the first version that ended later.
    fn at(&self, at: WallNs) -> Vec<Arc<EndpointSlice>> {
        let mut slices: Vec<Arc<EndpointSlice>> = Vec::new();
        let later = self.former.iter().filter(|(end, _)| *end > at);
        let all = later.map(|(_, slice)| slice).chain(&self.slices);
        for slice in all {
            if !slices.iter().any(|one| one.name == slice.name) {
                slices.push(Arc::clone(slice));
            }
        }
        slices
    }

    /// When the backend was an endpoint last.
    fn left(&self, port: &ServicePort, translation: &Translation<'_>, node: &str) -> Verdict {
        let family = family_of(translation.backend.ip());
        let mut before = self.former.iter().rev();
        let last = before.find(|(end, slice)| {
            let known = of(&[slice], port, family, node);
            *end <= translation.at && known.iter().any(|one| one.at == translation.backend)
        });
        match last {
            Some((end, _)) => {
                let since = translation.at.0.saturating_sub(end.0);
                Verdict::Stale(Duration::from_nanos(u64::try_from(since).unwrap_or(0)))
            }
            None => Verdict::NotAnEndpoint,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::cluster::{Endpoint, EndpointPort, ObjectName, PortProtocol},
        verify::tests::service,
    };

    const SECOND: i64 = 1_000_000_000;

    fn endpoint(last: u8, conditions: &str, node: &str) -> Endpoint {
        Endpoint {
            addresses: vec![[10, 244, 1, last].into()],
            ready: conditions.contains('r'),
            serving: conditions.contains('r') || conditions.contains('s'),
            terminating: conditions.contains('t'),
            node: Some(node.into()),
            zone: None,
            zone_hints: Vec::new(),
            node_hints: Vec::new(),
            pod: None,
        }
    }

    fn slice(endpoints: &[Endpoint]) -> Arc<EndpointSlice> {
        Arc::new(EndpointSlice {
            name: ObjectName {
                namespace: "shop".into(),
                name: "web-1".into(),
            },
            service: "web".into(),
            headless: false,
            endpoints: endpoints.to_vec(),
            ports: vec![EndpointPort {
                name: "http".into(),
                protocol: PortProtocol::Tcp,
                port: Some(8080),
            }],
        })
    }

    fn past(now: &[Endpoint], former: &[(i64, &[Endpoint])]) -> Past {
        let former = former
            .iter()
            .map(|(end, endpoints)| (WallNs(end * SECOND), slice(endpoints)));
        Past {
            service: Arc::new(service()),
            slices: vec![slice(now)],
            former: former.collect(),
        }
    }

    fn check(past: &Past, seconds: i64, last: u8, expected: Option<Verdict>) {
        let port = ServicePortName {
            service: past.service.name.clone(),
            port: "http".into(),
            via: Via::ClusterIp,
        };
        let translation = Translation {
            at: WallNs(seconds * SECOND),
            port: &port,
            backend: SocketAddr::from(([10, 244, 1, last], 8080)),
            inside: true,
            node: Some("n1"),
            zone: None,
        };
        assert_eq!(verdict(past, &translation), expected, "{seconds} {last}");
    }

    #[test]
    fn an_endpoint_is_right_while_it_is_one_and_a_little_longer() {
        let (one, two) = (endpoint(1, "r", "n1"), endpoint(2, "r", "n2"));
        let past = past(std::slice::from_ref(&one), &[(100, &[one.clone(), two])]);
        check(&past, 50, 2, Some(Verdict::Right));
        check(&past, 101, 2, Some(Verdict::Right));
        check(&past, 112, 2, Some(Verdict::Stale(Duration::from_secs(12))));
        check(&past, 112, 1, Some(Verdict::Right));
        check(&past, 112, 9, Some(Verdict::NotAnEndpoint));
    }

    #[test]
    fn conditions_and_policies_have_words_of_their_own() {
        let near = endpoint(1, "r", "n1");
        let both = [near.clone(), endpoint(2, "st", "n1"), endpoint(3, "", "n1")];
        check(&past(&both, &[]), 9, 2, Some(Verdict::Terminating));
        check(&past(&both, &[]), 9, 3, Some(Verdict::NotReady));
        let ending = [endpoint(2, "st", "n1")];
        check(&past(&ending, &[]), 9, 2, Some(Verdict::Right));

        let mut local = past(&[near, endpoint(4, "r", "n2")], &[]);
        let mut service = service();
        service.internal_policy = TrafficPolicy::Local;
        local.service = Arc::new(service);
        check(&local, 9, 4, Some(Verdict::WrongByPolicy));
        check(&local, 9, 1, Some(Verdict::Right));
    }

    #[test]
    fn what_another_program_serves_gets_no_verdict() {
        let mut other = past(&[endpoint(1, "r", "n1")], &[]);
        let mut service = service();
        service.proxy_name = Some("other".into());
        other.service = Arc::new(service);
        check(&other, 9, 1, None);
    }
}
