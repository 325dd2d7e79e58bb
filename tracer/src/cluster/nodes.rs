//! A Node, trimmed: its images and its capacity are not read.

use std::net::IpAddr;

use k8s_openapi::api::core::v1;
use kube::{
    api::ApiResource,
    core::{Object, Resource as _},
};
use serde::Deserialize;

use super::{
    intern::Interner,
    pods::{Condition, is_ready},
};
use crate::model::{cluster::Node, prefix};

/// Prefixes of CNI plugins' annotations.
const ANNOTATIONS: [&str; 2] = ["flannel.alpha.coreos.com/", "projectcalico.org/"];

/// The label that names the zone.
const ZONE: &str = "topology.kubernetes.io/zone";

/// A Node, as far as it is read.
pub(super) type Raw = Object<Spec, Status>;

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Spec {
    #[serde(rename = "podCIDRs", default)]
    pod_cidrs: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Status {
    #[serde(default)]
    addresses: Vec<Address>,
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Deserialize)]
struct Address {
    r#type: String,
    address: String,
}

pub(super) fn resource() -> ApiResource {
    ApiResource::erase::<v1::Node>(&())
}

/// `None` for an object without a name.
pub(super) fn trim(raw: &Raw, interner: &mut Interner) -> Option<Node> {
    let meta = raw.meta();
    let of = |kind: &str| -> Vec<IpAddr> {
        let addresses = raw.status.iter().flat_map(|status| &status.addresses);
        addresses
            .filter(|address| address.r#type == kind)
            .filter_map(|address| address.address.parse().ok())
            .collect()
    };
    let mut addresses = of("InternalIP");
    addresses.extend(of("ExternalIP"));
    let zone = meta.labels.as_ref().and_then(|labels| labels.get(ZONE));
    let annotations = meta.annotations.iter().flatten();
    let annotations =
        annotations.filter(|(key, _)| ANNOTATIONS.iter().any(|prefix| key.starts_with(prefix)));
    Some(Node {
        name: interner.get(meta.name.as_deref()?),
        addresses,
        pod_cidrs: raw
            .spec
            .pod_cidrs
            .iter()
            .filter_map(|text| prefix::parse(text))
            .collect(),
        zone: zone.map(|zone| interner.get(zone)),
        ready: raw
            .status
            .as_ref()
            .is_some_and(|status| is_ready(&status.conditions)),
        annotations: interner.pairs(annotations),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_node_are_kept_addresses_ranges_zone_and_the_cni_plugins_annotations() {
        let raw = serde_json::from_str(
            r#"{"metadata":{"name":"n1","labels":{"topology.kubernetes.io/zone":"a"},
            "annotations":{"flannel.alpha.coreos.com/public-ip":"192.0.2.11","node.alpha.kubernetes.io/ttl":"0"}},
            "spec":{"podCIDR":"10.244.1.0/24","podCIDRs":["10.244.1.0/24","fd00:10:244:1::/64"]},
            "status":{"addresses":[{"type":"ExternalIP","address":"203.0.113.1"},{"type":"InternalIP","address":"192.0.2.11"},
            {"type":"Hostname","address":"n1"}],"conditions":[{"type":"Ready","status":"Unknown"}],
            "images":[{"names":["busybox"],"sizeBytes":1}]}}"#,
        );
        let node = trim(&raw.unwrap(), &mut Interner::default()).unwrap();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(node.addresses, [ip("192.0.2.11"), ip("203.0.113.1")]);
        let ranges = [(ip("10.244.1.0"), 24), (ip("fd00:10:244:1::"), 64)];
        assert_eq!(node.pod_cidrs, ranges);
        assert_eq!(node.zone.as_deref(), Some("a"));
        assert!(!node.ready);
        assert_eq!(node.annotations.len(), 1);
    }
}
