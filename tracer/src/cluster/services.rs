//! A Service and its EndpointSlices, trimmed.

use std::{net::IpAddr, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{core::v1 as core, discovery::v1 as discovery},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{intern::Interner, wall};
use crate::model::{
    cluster::{
        Endpoint, EndpointPort, EndpointSlice, LoadBalancerIp, ObjectName, PortProtocol, Service,
        ServicePort, ServiceType, TrafficPolicy,
    },
    prefix,
};

/// Labels of EndpointSlices and Services, see
/// <https://kubernetes.io/docs/reference/labels-annotations-taints/>.
const SERVICE: &str = "kubernetes.io/service-name";
const HEADLESS: &str = "service.kubernetes.io/headless";
const PROXY: &str = "service.kubernetes.io/service-proxy-name";

/// `spec.clusterIP` of a headless Service.
const NO_ADDRESS: &str = "None";

/// `None` for an object without name or spec.
pub(super) fn trim(raw: &core::Service, interner: &mut Interner) -> Option<Service> {
    let spec = raw.spec.as_ref()?;
    let affinity = || {
        let config = spec.session_affinity_config.as_ref();
        let seconds = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
        // The API server's default, `v1.DefaultClientIPServiceAffinitySeconds`.
        Duration::from_secs(
            seconds
                .and_then(|of| u64::try_from(of).ok())
                .unwrap_or(10_800),
        )
    };
    Some(Service {
        name: name(&raw.metadata, interner)?,
        uid: raw.metadata.uid.as_deref()?.into(),
        r#type: match spec.type_.as_deref() {
            Some("NodePort") => ServiceType::NodePort,
            Some("LoadBalancer") => ServiceType::LoadBalancer,
            Some("ExternalName") => ServiceType::ExternalName,
            _ => ServiceType::ClusterIp,
        },
        cluster_ips: match &spec.cluster_ips {
            Some(listed) => addresses(listed),
            None => addresses(spec.cluster_ip.iter()),
        },
        headless: spec.cluster_ip.as_deref() == Some(NO_ADDRESS)
            || label(&raw.metadata, HEADLESS).is_some(),
        external_ips: addresses(spec.external_ips.iter().flatten()),
        load_balancer_ips: load_balancer_ips(raw),
        source_ranges: spec
            .load_balancer_source_ranges
            .iter()
            .flatten()
            .filter_map(|text| prefix::parse(text))
            .collect(),
        ports: spec
            .ports
            .iter()
            .flatten()
            .filter_map(|port| {
                Some(ServicePort {
                    name: interner.get(port.name.as_deref().unwrap_or_default()),
                    protocol: protocol(port.protocol.as_deref())?,
                    port: u16::try_from(port.port).ok()?,
                    node_port: some_port(port.node_port),
                })
            })
            .collect(),
        internal_policy: policy(spec.internal_traffic_policy.as_deref()),
        external_policy: policy(spec.external_traffic_policy.as_deref()),
        health_check_node_port: some_port(spec.health_check_node_port),
        affinity: (spec.session_affinity.as_deref() == Some("ClientIP")).then(affinity),
        publish_not_ready: spec.publish_not_ready_addresses == Some(true),
        traffic_distribution: spec
            .traffic_distribution
            .as_ref()
            .map(|of| interner.get(of)),
        proxy_name: label(&raw.metadata, PROXY).map(|name| interner.get(name)),
        selector: interner.pairs(spec.selector.iter().flatten()),
        created: wall(raw.metadata.creation_timestamp.as_ref()).unwrap_or_default(),
    })
}

/// `None` for a slice that belongs to no Service.
pub(super) fn trim_slice(
    raw: &discovery::EndpointSlice,
    interner: &mut Interner,
) -> Option<EndpointSlice> {
    let name = name(&raw.metadata, interner)?;
    let endpoints = raw.endpoints.iter().flatten();
    let endpoints: Vec<_> = endpoints
        .map(|endpoint| self::endpoint(endpoint, &name.namespace, interner))
        .collect();
    let ports = raw.ports.iter().flatten();
    let ports = ports.filter_map(|port| {
        Some(EndpointPort {
            name: interner.get(port.name.as_deref().unwrap_or_default()),
            protocol: protocol(port.protocol.as_deref())?,
            port: some_port(port.port),
        })
    });
    Some(EndpointSlice {
        ports: ports.collect(),
        service: interner.get(label(&raw.metadata, SERVICE)?),
        headless: label(&raw.metadata, HEADLESS).is_some(),
        endpoints,
        name,
    })
}

fn endpoint(raw: &discovery::Endpoint, namespace: &Arc<str>, interner: &mut Interner) -> Endpoint {
    let conditions = raw.conditions.as_ref();
    let ready = conditions.and_then(|of| of.ready).unwrap_or(true);
    let hints = raw.hints.as_ref();
    let zones = hints.and_then(|hints| hints.for_zones.as_ref());
    let nodes = hints.and_then(|hints| hints.for_nodes.as_ref());
    let target = raw.target_ref.as_ref();
    let pod = target.filter(|target| target.kind.as_deref() == Some("Pod"));
    let addresses = addresses(&raw.addresses);
    let zone_hints = zones
        .into_iter()
        .flatten()
        .map(|zone| interner.get(&zone.name));
    let zone_hints = zone_hints.collect();
    let node_hints = nodes
        .into_iter()
        .flatten()
        .map(|node| interner.get(&node.name));
    let node_hints = node_hints.collect();
    Endpoint {
        addresses,
        ready,
        serving: conditions.and_then(|of| of.serving).unwrap_or(ready),
        terminating: conditions.and_then(|of| of.terminating).unwrap_or(false),
        node: raw.node_name.as_ref().map(|node| interner.get(node)),
        zone: raw.zone.as_ref().map(|zone| interner.get(zone)),
        zone_hints,
        node_hints,
        pod: pod.and_then(|pod| {
            Some(ObjectName {
                namespace: Arc::clone(namespace),
                name: interner.get(pod.name.as_ref()?),
            })
        }),
    }
}

/// Namespace and name; `None` where there is none.
pub(super) fn name(meta: &ObjectMeta, interner: &mut Interner) -> Option<ObjectName> {
    Some(ObjectName {
        namespace: interner.get(meta.namespace.as_deref()?),
        name: meta.name.as_deref()?.into(),
    })
}

pub(super) fn service_label(raw: &discovery::EndpointSlice) -> Option<&str> {
    label(&raw.metadata, SERVICE)
}

fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

/// Those that are addresses: a slice of the type FQDN has none, and `None` is no address either.
fn addresses<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<IpAddr> {
    let texts = texts.into_iter();
    texts.filter_map(|text| text.parse().ok()).collect()
}

fn load_balancer_ips(raw: &core::Service) -> Vec<LoadBalancerIp> {
    let status = raw.status.as_ref();
    let ingress = status.and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    let ingress = ingress.into_iter().flatten();
    let ips = ingress.filter_map(|ingress| {
        Some(LoadBalancerIp {
            ip: ingress.ip.as_ref()?.parse().ok()?,
            proxied: ingress.ip_mode.as_deref() == Some("Proxy"),
        })
    });
    ips.collect()
}

fn protocol(name: Option<&str>) -> Option<PortProtocol> {
    match name {
        None | Some("TCP") => Some(PortProtocol::Tcp),
        Some("UDP") => Some(PortProtocol::Udp),
        Some("SCTP") => Some(PortProtocol::Sctp),
        Some(_) => None,
    }
}

fn policy(name: Option<&str>) -> TrafficPolicy {
    match name {
        Some("Local") => TrafficPolicy::Local,
        _ => TrafficPolicy::Cluster,
    }
}

/// A port that is set: 0 stands for none.
fn some_port(port: Option<i32>) -> Option<u16> {
    u16::try_from(port?).ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: &str, status: &str) -> Service {
        let json = format!(
            r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"web","namespace":"shop","uid":"1",
            "creationTimestamp":"1970-01-01T00:00:07Z","labels":{{"app":"web"}}}},"spec":{spec},"status":{status}}}"#
        );
        trim(
            &serde_json::from_str(&json).unwrap(),
            &mut Interner::default(),
        )
        .unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_service_keeps_all_its_addresses_and_ports() {
        let service = service(
            r#"{"type":"LoadBalancer","clusterIP":"10.96.1.1","clusterIPs":["10.96.1.1","fd00:10:96::1"],
            "externalIPs":["198.51.100.7"],"loadBalancerSourceRanges":["192.0.2.0/24"],"selector":{"app":"web"},
            "externalTrafficPolicy":"Local","healthCheckNodePort":31000,"sessionAffinity":"ClientIP",
            "ports":[{"name":"http","port":80,"protocol":"TCP","targetPort":"http","nodePort":30080},
            {"name":"dns","port":53,"protocol":"UDP"}]}"#,
            r#"{"loadBalancer":{"ingress":[{"ip":"203.0.113.9","ipMode":"Proxy"},{"hostname":"lb.example.test"}]}}"#,
        );
        assert_eq!(service.name.to_string(), "shop/web");
        assert_eq!(service.r#type, ServiceType::LoadBalancer);
        assert_eq!(service.cluster_ips, [ip("10.96.1.1"), ip("fd00:10:96::1")]);
        assert!(!service.headless);
        assert_eq!(service.external_ips, [ip("198.51.100.7")]);
        let proxied = LoadBalancerIp {
            ip: ip("203.0.113.9"),
            proxied: true,
        };
        assert_eq!(service.load_balancer_ips, [proxied]);
        assert_eq!(service.source_ranges, [(ip("192.0.2.0"), 24)]);
        assert_eq!(service.external_policy, TrafficPolicy::Local);
        assert_eq!(service.internal_policy, TrafficPolicy::Cluster);
        assert_eq!(service.health_check_node_port, Some(31000));
        assert_eq!(service.affinity, Some(Duration::from_secs(10_800)));
        let [http, dns] = &service.ports[..] else {
            panic!("{:?}", service.ports);
        };
        assert_eq!((http.port, http.node_port), (80, Some(30080)));
        assert_eq!((dns.protocol, dns.node_port), (PortProtocol::Udp, None));
    }

    #[test]
    fn a_headless_service_and_an_external_name_have_no_address() {
        let headless = service(
            r#"{"clusterIP":"None","clusterIPs":["None"],"ports":[{"port":5432}]}"#,
            "{}",
        );
        assert!(headless.headless);
        assert!(headless.cluster_ips.is_empty());
        let external = service(
            r#"{"type":"ExternalName","externalName":"db.example.test"}"#,
            "{}",
        );
        assert_eq!(external.r#type, ServiceType::ExternalName);
        assert!(!external.headless && external.cluster_ips.is_empty());
    }

    #[test]
    fn a_slices_conditions_are_as_the_api_defines_their_absence() {
        let raw = serde_json::from_str(
            r#"{"metadata":{"name":"web-abc","namespace":"shop","labels":{"kubernetes.io/service-name":"web"}},
            "addressType":"IPv4","ports":[{"name":"http","port":8080,"protocol":"TCP"}],"endpoints":[
            {"addresses":["10.244.1.5"],"conditions":{},"nodeName":"n1","zone":"a",
             "targetRef":{"kind":"Pod","name":"web-1","namespace":"shop"},"hints":{"forZones":[{"name":"a"}]}},
            {"addresses":["10.244.1.6"],"conditions":{"ready":false,"serving":true,"terminating":true}},
            {"addresses":["10.244.1.7"],"conditions":{"ready":false}}]}"#,
        );
        let slice = trim_slice(&raw.unwrap(), &mut Interner::default()).unwrap();
        assert_eq!(&*slice.service, "web");
        assert!(!slice.headless);
        assert_eq!(slice.ports[0].port, Some(8080));
        let conditions = slice.endpoints.iter();
        let conditions: Vec<_> = conditions
            .map(|of| (of.ready, of.serving, of.terminating))
            .collect();
        let expected = [
            (true, true, false),
            (false, true, true),
            (false, false, false),
        ];
        assert_eq!(conditions, expected);
        let first = &slice.endpoints[0];
        let pod = first.pod.as_ref().map(ToString::to_string);
        assert_eq!(pod.as_deref(), Some("shop/web-1"));
        assert_eq!(first.zone_hints.len(), 1);
    }

    #[test]
    fn a_slice_without_endpoints_is_a_slice_and_one_of_no_service_is_none() {
        let slice = |labels: &str| {
            let json = format!(
                r#"{{"metadata":{{"name":"a","namespace":"b","labels":{labels}}},
                "addressType":"IPv4","endpoints":null,"ports":null}}"#
            );
            trim_slice(
                &serde_json::from_str(&json).unwrap(),
                &mut Interner::default(),
            )
        };
        let headless = r#"{"kubernetes.io/service-name":"db","service.kubernetes.io/headless":""}"#;
        assert!(slice(headless).is_some_and(|slice| slice.headless));
        assert_eq!(slice("{}"), None);
    }
}
