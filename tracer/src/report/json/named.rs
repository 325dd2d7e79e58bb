//! The ends of a row in JSON: addresses, and who and what they are.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::End;
use crate::model::{Client, Comm, Named, PodName, ServiceName, ServicePortName, verdict::Verdict};

/// An address, and who has it.
#[derive(Serialize)]
pub(super) struct NamedEnd<'a> {
    #[serde(flatten)]
    end: End,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<PodLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
}

impl<'a> NamedEnd<'a> {
    pub(super) fn of(address: SocketAddr, pod: Option<&'a PodName>, node: Option<&'a str>) -> Self {
        Self {
            end: address.into(),
            pod: pod.map(PodLine::from),
            node,
        }
    }
}

/// A backend, and whether it was to be one.
#[derive(Serialize)]
pub(super) struct BackendLine<'a> {
    #[serde(flatten)]
    there: NamedEnd<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stale_s: Option<u64>,
}

/// What was asked: an address, and what it is.
#[derive(Serialize)]
pub(super) struct AskedLine<'a> {
    #[serde(flatten)]
    end: End,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<ServiceLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<PodLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
}

#[derive(Serialize)]
pub(super) struct ServiceLine<'a> {
    namespace: &'a str,
    name: &'a str,
    port: &'a str,
    via: &'static str,
    source: &'static str,
    age_s: u64,
}

impl<'a> From<&'a ServiceName> for ServiceLine<'a> {
    fn from(named: &'a ServiceName) -> Self {
        let ServicePortName { service, port, via } = &*named.port;
        Self {
            namespace: &service.namespace,
            name: &service.name,
            port,
            via: via.name(),
            source: named.source.name(),
            age_s: named.age.as_secs(),
        }
    }
}

pub(super) fn asked(address: SocketAddr, named: &Named) -> AskedLine<'_> {
    let asked = &named.asked;
    AskedLine {
        end: address.into(),
        service: asked.service.as_ref().map(ServiceLine::from),
        pod: asked.pod.as_ref().map(PodLine::from),
        node: asked.node.as_deref(),
        role: asked.local_dns.then_some("node_local_dns"),
    }
}

#[derive(Serialize)]
struct WorkloadLine<'a> {
    kind: &'a str,
    name: &'a str,
}

#[derive(Serialize)]
struct PodLine<'a> {
    namespace: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<WorkloadLine<'a>>,
    source: &'static str,
    age_s: u64,
}

impl<'a> From<&'a PodName> for PodLine<'a> {
    fn from(named: &'a PodName) -> Self {
        Self {
            namespace: &named.pod.namespace,
            name: &named.pod.name,
            uid: named.pod.uid.as_deref(),
            workload: named.workload().map(|workload| WorkloadLine {
                kind: &workload.kind,
                name: &workload.name,
            }),
            source: named.source.name(),
            age_s: named.age.as_secs(),
        }
    }
}

pub(super) fn backend(address: Option<SocketAddr>, named: &Named) -> Option<BackendLine<'_>> {
    Some(BackendLine {
        there: NamedEnd::of(
            address?,
            named.backend.as_ref(),
            named.backend_node.as_deref(),
        ),
        verdict: named.verdict.map(Verdict::name),
        stale_s: match named.verdict {
            Some(Verdict::Stale(since)) => Some(since.as_secs()),
            _ => None,
        },
    })
}

#[derive(Serialize)]
pub(super) struct Process {
    pub(super) pid: u32,
    #[serde(serialize_with = "as_text")]
    pub(super) name: Comm,
}

fn as_text<S: serde::Serializer>(comm: &Comm, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(comm)
}

#[derive(Serialize)]
pub(super) struct ClientLine<'a> {
    ip: IpAddr,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<Process>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<PodLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
}

pub(super) fn client<'a>(client: &Client, named: &'a Named) -> ClientLine<'a> {
    ClientLine {
        ip: client.address.ip(),
        port: client.address.port(),
        netns: named.netns.as_deref(),
        process: named.process.map(|(pid, name)| Process { pid, name }),
        container: named.container.as_deref(),
        pod: named.pod.as_ref().map(PodLine::from),
        node: named.client_node.as_deref(),
    }
}
