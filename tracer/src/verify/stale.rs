//! UDP flows that conntrack still sends to what is no endpoint any more. kube-proxy deletes such entries when an
//! endpoint goes; where it does not, each packet of the client keeps its entry alive. Of a Service that has no
//! endpoint left it leaves those by node port, before 1.37 all
//! (`CleanStaleEntries`, pkg/proxy/conntrack/cleanup.go).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
};

use super::plan::PortPlan;
use crate::{
    model::{
        cluster::PortProtocol,
        finding::{Finding, Severity},
    },
    rules::Flow,
};

/// Clients named in evidence.
const SHOWN: usize = 5;

/// Flows to one backend that is gone.
#[derive(Default)]
struct Left {
    clients: BTreeSet<IpAddr>,
    asked: BTreeSet<IpAddr>,
    flows: usize,
    answered: usize,
}

/// What `flows` of this node say against `plans`: a finding for each Service port of which some go to no
/// endpoint.
pub(super) fn stale(flows: &[Flow], plans: &[&PortPlan<'_>]) -> Vec<Finding> {
    let mut by_front: HashMap<SocketAddr, Vec<usize>> = HashMap::new();
    for (index, plan) in plans.iter().enumerate() {
        if plan.port.protocol == PortProtocol::Udp {
            for front in &plan.fronts {
                by_front.entry(front.at).or_default().push(index);
            }
        }
    }
    let mut left: BTreeMap<usize, BTreeMap<SocketAddr, Left>> = BTreeMap::new();
    for flow in flows {
        // An address that two Services claim tells nothing; that is another finding.
        let Some([index]) = by_front.get(&flow.asked).map(Vec::as_slice) else {
            continue;
        };
        let mut known = plans[*index].known.iter();
        if known.any(|one| one.at == flow.backend) {
            continue;
        }
        let of = left.entry(*index).or_default();
        let of = of.entry(flow.backend).or_default();
        of.clients.insert(flow.client.ip());
        of.asked.insert(flow.asked.ip());
        of.flows += 1;
        of.answered += usize::from(flow.answered);
    }
    left.iter()
        .map(|(index, left)| finding(plans[*index], left))
        .collect()
}

fn finding(plan: &PortPlan<'_>, left: &BTreeMap<SocketAddr, Left>) -> Finding {
    let flows: usize = left.values().map(|left| left.flows).sum();
    let evidence = left.iter().map(|(backend, left)| {
        let shown = left.clients.iter().take(SHOWN);
        let shown: Vec<_> = shown.map(IpAddr::to_string).collect();
        let more = left.clients.len().saturating_sub(SHOWN);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        format!(
            "found     {} to {backend}, {} of them answered, from {}{more}",
            counted(left.flows),
            left.answered,
            shown.join(", ")
        )
    });
    let backends: Vec<_> = left.keys().collect();
    let delete = left.iter().flat_map(|(backend, left)| {
        left.asked.iter().map(move |asked| {
            let backend = backend.ip();
            format!("conntrack -D -p udp --orig-dst {asked} --reply-src {backend}")
        })
    });
    Finding {
        name: "stale_flows",
        severity: Severity::Broken,
        object: plan.object(),
        sentence: format!(
            "conntrack still sends {} to {} of it",
            counted(flows),
            match backends.as_slice() {
                [one] => format!("{one}, which is no endpoint"),
                many => format!("{} addresses that are no endpoints", many.len()),
            }
        ),
        stage: None,
        evidence: std::iter::once("expected  entries to endpoints alone".to_owned())
            .chain(evidence)
            .collect(),
        since: None,
        share: None,
        remedy: delete.collect::<Vec<_>>().join("; "),
        refuted_by: "an EndpointSlice of the Service lists the address again".to_owned(),
    }
}

fn counted(flows: usize) -> String {
    match flows {
        1 => "1 UDP flow".to_owned(),
        many => format!("{many} UDP flows"),
    }
}
