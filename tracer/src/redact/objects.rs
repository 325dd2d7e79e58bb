//! What the API server said, object by object. Kinds, ports and their names, and what is no more than yes
//! or no stay.

use std::{net::IpAddr, sync::Arc};

use super::Redactor;
use crate::model::{
    Change, ClusterChange, ServicePortName,
    change::{Key, Object, RuleClaim, RuleNames},
    cluster::{
        Endpoint, EndpointSlice, LoadBalancerIp, Node, ObjectName, PodObject, Service, Workload,
    },
};

type Pair = (Arc<str>, Arc<str>);

impl Redactor {
    pub(super) fn change(&mut self, change: ClusterChange) -> ClusterChange {
        let what = match change.what {
            Change::Set(object) => Change::Set(self.object(&object)),
            Change::Kept(object) => Change::Kept(self.object(&object)),
            Change::Rules(names) => Change::Rules(Arc::new(self.rules(&names))),
            Change::Gone(key) => Change::Gone(self.key(key)),
            // It names servers and addresses.
            Change::Lost { kind, .. } => Change::Lost {
                kind,
                why: "redacted".into(),
            },
            other @ (Change::Listing { .. } | Change::Listed(_) | Change::Heard(_)) => other,
        };
        ClusterChange { what, ..change }
    }

    fn key(&mut self, key: Key) -> Key {
        match key {
            Key::Pod(uid) => Key::Pod(self.name(&uid)),
            Key::Service(name) => Key::Service(self.object_name(&name)),
            Key::Slice { name, service } => Key::Slice {
                name: self.object_name(&name),
                service: self.name(&service),
            },
            Key::Node(name) => Key::Node(self.name(&name)),
        }
    }

    fn object(&mut self, object: &Object) -> Object {
        match object {
            Object::Pod(pod) => Object::Pod(Arc::new(self.pod_object(pod))),
            Object::Service(service) => Object::Service(Arc::new(self.service_object(service))),
            Object::Slice(slice) => Object::Slice(Arc::new(self.slice(slice))),
            Object::Node(node) => Object::Node(Arc::new(self.node(node))),
        }
    }

    fn rules(&mut self, names: &RuleNames) -> RuleNames {
        let claims = names.claims.iter();
        RuleNames {
            claims: claims
                .map(|claim| RuleClaim {
                    address: claim.address.map(|ip| self.any_ip(ip)),
                    name: Arc::new(ServicePortName {
                        service: self.object_name(&claim.name.service),
                        ..ServicePortName::clone(&claim.name)
                    }),
                    ..claim.clone()
                })
                .collect(),
            own: self.ips(&names.own),
        }
    }

    fn object_name(&mut self, name: &ObjectName) -> ObjectName {
        ObjectName {
            namespace: self.name(&name.namespace),
            name: self.name(&name.name),
        }
    }

    fn any_name(&mut self, name: Option<&Arc<str>>) -> Option<Arc<str>> {
        name.map(|name| self.name(name))
    }

    fn names(&mut self, names: &[Arc<str>]) -> Vec<Arc<str>> {
        names.iter().map(|name| self.name(name)).collect()
    }

    fn pairs(&mut self, pairs: &[Pair]) -> Vec<Pair> {
        let pairs = pairs.iter();
        let pairs = pairs.map(|(key, value)| (self.name(key), self.name(value)));
        pairs.collect()
    }

    fn ips(&mut self, ips: &[IpAddr]) -> Vec<IpAddr> {
        ips.iter().map(|ip| self.any_ip(*ip)).collect()
    }

    fn any_ip(&mut self, ip: IpAddr) -> IpAddr {
        if self.what.addresses {
            self.addresses.ip(ip)
        } else {
            ip
        }
    }

    fn prefixes(&mut self, prefixes: &[(IpAddr, u8)]) -> Vec<(IpAddr, u8)> {
        if !self.what.addresses {
            return prefixes.to_vec();
        }
        let prefixes = prefixes.iter();
        prefixes
            .flat_map(|prefix| self.addresses.prefix(*prefix))
            .collect()
    }

    fn pod_object(&mut self, pod: &PodObject) -> PodObject {
        PodObject {
            pod: self.pod(&pod.pod),
            ips: self.ips(&pod.ips),
            node: self.any_name(pod.node.as_ref()),
            workload: pod.workload.as_ref().map(|workload| Workload {
                kind: Arc::clone(&workload.kind),
                name: self.name(&workload.name),
            }),
            labels: self.pairs(&pod.labels),
            config_hash: self.any_name(pod.config_hash.as_ref()),
            ..pod.clone()
        }
    }

    fn service_object(&mut self, service: &Service) -> Service {
        let balancers = service.load_balancer_ips.iter();
        Service {
            name: self.object_name(&service.name),
            uid: self.name(&service.uid),
            cluster_ips: self.ips(&service.cluster_ips),
            external_ips: self.ips(&service.external_ips),
            load_balancer_ips: balancers
                .map(|balancer| LoadBalancerIp {
                    ip: self.any_ip(balancer.ip),
                    proxied: balancer.proxied,
                })
                .collect(),
            source_ranges: self.prefixes(&service.source_ranges),
            proxy_name: self.any_name(service.proxy_name.as_ref()),
            selector: self.pairs(&service.selector),
            ..service.clone()
        }
    }

    fn slice(&mut self, slice: &EndpointSlice) -> EndpointSlice {
        let endpoints = slice.endpoints.iter();
        EndpointSlice {
            name: self.object_name(&slice.name),
            service: self.name(&slice.service),
            endpoints: endpoints.map(|endpoint| self.endpoint(endpoint)).collect(),
            ..slice.clone()
        }
    }

    fn endpoint(&mut self, endpoint: &Endpoint) -> Endpoint {
        Endpoint {
            addresses: self.ips(&endpoint.addresses),
            node: self.any_name(endpoint.node.as_ref()),
            zone: self.any_name(endpoint.zone.as_ref()),
            zone_hints: self.names(&endpoint.zone_hints),
            node_hints: self.names(&endpoint.node_hints),
            pod: endpoint.pod.as_ref().map(|pod| self.object_name(pod)),
            ..endpoint.clone()
        }
    }

    fn node(&mut self, node: &Node) -> Node {
        Node {
            name: self.name(&node.name),
            addresses: self.ips(&node.addresses),
            pod_cidrs: self.prefixes(&node.pod_cidrs),
            zone: self.any_name(node.zone.as_ref()),
            // CNI plugins write addresses there.
            annotations: Vec::new(),
            ..node.clone()
        }
    }
}
