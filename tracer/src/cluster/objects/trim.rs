//! API objects trimmed to what doctor judges.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment},
        core::v1::{self, ConfigMap, Node, Pod},
        discovery::v1::EndpointSlice,
        rbac::v1::PolicyRule,
    },
    apimachinery::pkg::api::resource::Quantity,
};

use super::{Container, ContainerSpec, NodeObject, PodObject, Rule, Service, Workload};
use crate::model::prefix;

/// Prefixes of CNI plugins' annotations of Nodes.
const ANNOTATIONS: &[&str] = &["flannel.alpha.coreos.com/", "projectcalico.org/"];

pub(super) fn rule(rule: PolicyRule) -> Rule {
    Rule {
        groups: rule.api_groups.unwrap_or_default(),
        resources: rule.resources.unwrap_or_default(),
        verbs: rule.verbs,
    }
}

pub(super) fn node(node: &Node) -> NodeObject {
    let spec = node.spec.clone().unwrap_or_default();
    let status = node.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let ready = conditions
        .iter()
        .find(|condition| condition.type_ == "Ready");
    let annotations = node.metadata.annotations.iter().flatten();
    NodeObject {
        name: node.metadata.name.clone().unwrap_or_default(),
        addresses: status
            .addresses
            .unwrap_or_default()
            .iter()
            .filter(|address| address.type_ == "InternalIP")
            .filter_map(|address| address.address.parse().ok())
            .collect(),
        pod_cidrs: spec
            .pod_cidrs
            .unwrap_or_default()
            .iter()
            .filter_map(|text| prefix::parse(text))
            .collect(),
        annotations: annotations
            .filter(|(key, _)| ANNOTATIONS.iter().any(|prefix| key.starts_with(prefix)))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        ready: match ready {
            Some(condition) if condition.status == "True" => Ok(()),
            Some(condition) => Err(condition.message.clone().unwrap_or_default()),
            None => Err("it has never reported".to_owned()),
        },
        taints: spec
            .taints
            .unwrap_or_default()
            .into_iter()
            .filter(|taint| taint.effect != "PreferNoSchedule")
            .map(|taint| taint.key)
            .collect(),
        runtime: status
            .node_info
            .map(|info| info.container_runtime_version)
            .unwrap_or_default(),
    }
}

pub(super) fn pod(pod: &Pod) -> PodObject {
    let status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let holds = |kind: &str| {
        let condition = conditions.iter().find(|condition| condition.type_ == kind);
        condition.is_some_and(|condition| condition.status == "True")
    };
    let unscheduled = conditions
        .iter()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status != "True");
    PodObject {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
        labels: pod.metadata.labels.clone().unwrap_or_default(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        host_network: pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true),
        addresses: status
            .pod_ips
            .unwrap_or_default()
            .iter()
            .filter_map(|address| address.ip.parse().ok())
            .collect(),
        ports: pod.spec.as_ref().map(named_ports).unwrap_or_default(),
        phase: status.phase.unwrap_or_default(),
        ready: holds("Ready"),
        unscheduled: unscheduled.map(|condition| condition.message.clone().unwrap_or_default()),
        containers: status
            .container_statuses
            .unwrap_or_default()
            .into_iter()
            .map(container)
            .collect(),
        warnings: Vec::new(),
    }
}

fn named_ports(spec: &v1::PodSpec) -> Vec<(String, u16, String)> {
    let ports = spec
        .containers
        .iter()
        .flat_map(|of| of.ports.iter().flatten());
    let named = ports.filter_map(|port| {
        let number = u16::try_from(port.container_port).ok()?;
        Some((port.name.clone()?, number, protocol(port.protocol.as_ref())))
    });
    named.collect()
}

/// As it is where an object does not say.
pub(super) fn protocol(protocol: Option<&String>) -> String {
    protocol.map_or_else(|| "TCP".to_owned(), Clone::clone)
}

fn container(status: v1::ContainerStatus) -> Container {
    let waiting = status.state.and_then(|state| state.waiting);
    let ended = status.last_state.and_then(|state| state.terminated);
    Container {
        name: status.name,
        restarts: status.restart_count,
        waiting: waiting.map(|waiting| {
            let reason = waiting.reason.unwrap_or_default();
            (reason, waiting.message.unwrap_or_default())
        }),
        ended: ended.map(|ended| {
            let reason = ended.reason.unwrap_or_default();
            (reason, ended.exit_code, ended.message.unwrap_or_default())
        }),
        log: Vec::new(),
    }
}

pub(super) fn deployment(deployment: Deployment) -> Workload {
    let spec = deployment.spec;
    let status = deployment.status.unwrap_or_default();
    Workload {
        kind: "Deployment",
        namespace: deployment.metadata.namespace.unwrap_or_default(),
        name: deployment.metadata.name.unwrap_or_default(),
        wanted: spec.replicas.unwrap_or(1),
        ready: status.ready_replicas.unwrap_or(0),
        ..template(spec.template)
    }
}

pub(super) fn daemon_set(daemon_set: DaemonSet) -> Workload {
    let template_of = daemon_set.spec.template;
    let status = daemon_set.status.unwrap_or_default();
    Workload {
        kind: "DaemonSet",
        namespace: daemon_set.metadata.namespace.unwrap_or_default(),
        name: daemon_set.metadata.name.unwrap_or_default(),
        wanted: status.desired_number_scheduled,
        ready: status.number_ready,
        ..template(template_of)
    }
}

fn template(template: v1::PodTemplateSpec) -> Workload {
    let spec = template.spec.unwrap_or_default();
    let labels = template.metadata.and_then(|meta| meta.labels);
    Workload {
        labels: labels.unwrap_or_default(),
        service_account: spec.service_account_name.unwrap_or_default(),
        dns_policy: spec.dns_policy.unwrap_or_default(),
        containers: spec.containers.into_iter().map(container_spec).collect(),
        ..Workload::default()
    }
}

fn container_spec(container: v1::Container) -> ContainerSpec {
    let limits = container.resources.and_then(|resources| resources.limits);
    let security = container.security_context;
    let command = container.command.unwrap_or_default().into_iter();
    let ports = container.ports.unwrap_or_default().into_iter();
    ContainerSpec {
        name: container.name,
        image: container.image.unwrap_or_default(),
        args: command.chain(container.args.unwrap_or_default()).collect(),
        memory_limit: limits.and_then(|limits| bytes(limits.get("memory")?)),
        allow_privilege_escalation: security
            .and_then(|security| security.allow_privilege_escalation),
        ports: ports
            .filter_map(|port| {
                let number = u16::try_from(port.container_port).ok()?;
                Some((number, protocol(port.protocol.as_ref())))
            })
            .collect(),
    }
}

/// Bytes of a quantity such as `170Mi`
/// (<https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>).
fn bytes(quantity: &Quantity) -> Option<u64> {
    let text = quantity.0.as_str();
    let split = text.find(|char: char| !char.is_ascii_digit() && char != '.');
    let (number, unit) = text.split_at(split.unwrap_or(text.len()));
    let factor: u64 = match unit {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok().map(|number| number * factor)
}

pub(super) fn service(service: &v1::Service) -> Option<Service> {
    let name = service.metadata.name.clone()?;
    if !["kube-dns", "coredns"].contains(&name.as_str()) {
        return None;
    }
    let spec = service.spec.clone()?;
    let addresses = spec.cluster_ips.unwrap_or_default();
    Some(Service {
        name,
        cluster_ips: addresses.iter().filter_map(|ip| ip.parse().ok()).collect(),
        selector: spec.selector.unwrap_or_default(),
        ports: spec
            .ports
            .unwrap_or_default()
            .into_iter()
            .filter_map(|port| {
                let number = u16::try_from(port.port).ok()?;
                let protocol = protocol(port.protocol.as_ref());
                Some((port.name.unwrap_or_default(), number, protocol))
            })
            .collect(),
    })
}

pub(super) fn endpoints(slice: &EndpointSlice) -> Vec<(IpAddr, bool)> {
    let endpoints = slice.endpoints.iter().flatten();
    let addresses = endpoints.flat_map(|endpoint| {
        let ready = endpoint
            .conditions
            .as_ref()
            .and_then(|conditions| conditions.ready);
        let ready = ready.unwrap_or(true);
        endpoint
            .addresses
            .iter()
            .map(move |address| (address, ready))
    });
    addresses
        .filter_map(|(address, ready)| Some((address.parse().ok()?, ready)))
        .collect()
}

pub(super) fn targets(slice: &EndpointSlice) -> Vec<(String, u16, String)> {
    let ports = slice.ports.iter().flatten();
    let targets = ports.filter_map(|port| {
        let number = u16::try_from(port.port?).ok()?;
        let name = port.name.clone().unwrap_or_default();
        Some((name, number, protocol(port.protocol.as_ref())))
    });
    targets.collect()
}

pub(super) fn config_map(map: ConfigMap) -> Option<(String, BTreeMap<String, String>)> {
    let name = map.metadata.name?;
    let wanted = ["coredns", "kube-proxy"].contains(&name.as_str());
    wanted.then(|| (name, map.data.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_bytes() {
        let check = |text: &str, expected| assert_eq!(bytes(&Quantity(text.to_owned())), expected);
        check("170Mi", Some(170 << 20));
        check("1Gi", Some(1 << 30));
        check("128974848", Some(128_974_848));
        check("much", None);
    }
}
