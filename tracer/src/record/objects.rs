//! What the API server says of objects, as JSON: objects of the model, field by field, under the names that
//! they have there.

use std::{net::IpAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::model::{
    Pod, ServicePortName, Via, WallNs,
    change::{Kind, Object, RuleClaim, RuleNames},
    cluster::{
        Endpoint, EndpointPort, EndpointSlice, LoadBalancerIp, Node, ObjectName, PodObject,
        PortProtocol, Service, ServicePort, ServiceType, TrafficPolicy, Workload,
    },
};

/// The form in which a `T` is written and read.
trait Form<T>: Sized {
    fn of(value: &T) -> Self;
    fn back(self) -> T;
}

/// Types that are their own form.
macro_rules! plain {
    ($($kind:ty),*) => {$(
        impl Form<$kind> for $kind {
            fn of(value: &$kind) -> Self {
                value.clone()
            }
            fn back(self) -> $kind {
                self
            }
        }
    )*};
}
plain!(
    bool,
    u16,
    IpAddr,
    Arc<str>,
    (IpAddr, u8),
    (Arc<str>, Arc<str>)
);

impl<T, F: Form<T>> Form<Vec<T>> for Vec<F> {
    fn of(value: &Vec<T>) -> Self {
        value.iter().map(F::of).collect()
    }
    fn back(self) -> Vec<T> {
        self.into_iter().map(F::back).collect()
    }
}

impl<T, F: Form<T>> Form<Option<T>> for Option<F> {
    fn of(value: &Option<T>) -> Self {
        value.as_ref().map(F::of)
    }
    fn back(self) -> Option<T> {
        self.map(F::back)
    }
}

impl<T, F: Form<T>> Form<Arc<T>> for Box<F> {
    fn of(value: &Arc<T>) -> Self {
        Self::new(F::of(value))
    }
    fn back(self) -> Arc<T> {
        Arc::new(F::back(*self))
    }
}

/// Nanoseconds since 1970.
impl Form<WallNs> for i64 {
    fn of(value: &WallNs) -> Self {
        value.0
    }
    fn back(self) -> WallNs {
        WallNs(self)
    }
}

/// Nanoseconds.
impl Form<Duration> for u64 {
    fn of(value: &Duration) -> Self {
        Self::try_from(value.as_nanos()).unwrap_or(Self::MAX)
    }
    fn back(self) -> Duration {
        Duration::from_nanos(self)
    }
}

/// Declares the form of a struct: all its fields, each with its own form.
macro_rules! form {
    ($form:ident of $kind:ident { $($field:ident: $of:ty,)* }) => {
        #[derive(Serialize, Deserialize)]
        struct $form {
            $($field: $of,)*
        }

        impl Form<$kind> for $form {
            fn of(value: &$kind) -> Self {
                let $kind { $($field,)* } = value;
                Self { $($field: Form::of($field),)* }
            }
            fn back(self) -> $kind {
                $kind { $($field: self.$field.back(),)* }
            }
        }
    };
}

/// Declares the form of an enum without fields.
macro_rules! words {
    ($form:ident of $kind:ident { $($case:ident),* }) => {
        #[derive(Serialize, Deserialize)]
        enum $form {
            $($case,)*
        }

        impl Form<$kind> for $form {
            fn of(value: &$kind) -> Self {
                match value {
                    $($kind::$case => Self::$case,)*
                }
            }
            fn back(self) -> $kind {
                match self {
                    $(Self::$case => $kind::$case,)*
                }
            }
        }
    };
}

form!(NameForm of ObjectName {
    namespace: Arc<str>,
    name: Arc<str>,
});

form!(PodNameForm of Pod {
    namespace: Arc<str>,
    name: Arc<str>,
    uid: Option<Arc<str>>,
});

form!(WorkloadForm of Workload {
    kind: Arc<str>,
    name: Arc<str>,
});

form!(PodForm of PodObject {
    pod: Box<PodNameForm>,
    ips: Vec<IpAddr>,
    node: Option<Arc<str>>,
    host_network: bool,
    workload: Option<WorkloadForm>,
    labels: Vec<(Arc<str>, Arc<str>)>,
    ready: bool,
    created: i64,
    deleted: Option<i64>,
    started: Option<i64>,
    ended: Option<i64>,
    config_hash: Option<Arc<str>>,
});

words!(ProtocolForm of PortProtocol { Tcp, Udp, Sctp });
words!(TypeForm of ServiceType { ClusterIp, NodePort, LoadBalancer, ExternalName });
words!(PolicyForm of TrafficPolicy { Cluster, Local });

form!(LoadBalancerForm of LoadBalancerIp {
    ip: IpAddr,
    proxied: bool,
});

form!(ServicePortForm of ServicePort {
    name: Arc<str>,
    protocol: ProtocolForm,
    port: u16,
    node_port: Option<u16>,
});

form!(ServiceForm of Service {
    name: NameForm,
    uid: Arc<str>,
    r#type: TypeForm,
    cluster_ips: Vec<IpAddr>,
    headless: bool,
    external_ips: Vec<IpAddr>,
    load_balancer_ips: Vec<LoadBalancerForm>,
    source_ranges: Vec<(IpAddr, u8)>,
    ports: Vec<ServicePortForm>,
    internal_policy: PolicyForm,
    external_policy: PolicyForm,
    health_check_node_port: Option<u16>,
    affinity: Option<u64>,
    publish_not_ready: bool,
    traffic_distribution: Option<Arc<str>>,
    proxy_name: Option<Arc<str>>,
    selector: Vec<(Arc<str>, Arc<str>)>,
    created: i64,
});

form!(EndpointForm of Endpoint {
    addresses: Vec<IpAddr>,
    ready: bool,
    serving: bool,
    terminating: bool,
    node: Option<Arc<str>>,
    zone: Option<Arc<str>>,
    zone_hints: Vec<Arc<str>>,
    node_hints: Vec<Arc<str>>,
    pod: Option<NameForm>,
});

form!(EndpointPortForm of EndpointPort {
    name: Arc<str>,
    protocol: ProtocolForm,
    port: Option<u16>,
});

form!(SliceForm of EndpointSlice {
    name: NameForm,
    service: Arc<str>,
    headless: bool,
    endpoints: Vec<EndpointForm>,
    ports: Vec<EndpointPortForm>,
});

form!(NodeForm of Node {
    name: Arc<str>,
    addresses: Vec<IpAddr>,
    pod_cidrs: Vec<(IpAddr, u8)>,
    zone: Option<Arc<str>>,
    ready: bool,
    annotations: Vec<(Arc<str>, Arc<str>)>,
});

words!(ViaForm of Via { ClusterIp, ExternalIp, LoadBalancer, NodePort, Headless });

form!(PortNameForm of ServicePortName {
    service: NameForm,
    port: Arc<str>,
    via: ViaForm,
});

form!(ClaimForm of RuleClaim {
    address: Option<IpAddr>,
    protocol: ProtocolForm,
    port: u16,
    name: Box<PortNameForm>,
});

form!(RulesForm of RuleNames {
    claims: Vec<ClaimForm>,
    own: Vec<IpAddr>,
});

/// An object of any kind, as JSON.
pub(super) fn words(object: &Object) -> Option<String> {
    match object {
        Object::Pod(pod) => json(&PodForm::of(pod)),
        Object::Service(service) => json(&ServiceForm::of(service)),
        Object::Slice(slice) => json(&SliceForm::of(slice)),
        Object::Node(node) => json(&NodeForm::of(node)),
    }
}

/// The way back; `None` for what makes no sense.
pub(super) fn object(kind: Kind, words: Option<&str>) -> Option<Object> {
    Some(match kind {
        Kind::Pods => Object::Pod(Box::<PodForm>::back(read(words)?)),
        Kind::Services => Object::Service(Box::<ServiceForm>::back(read(words)?)),
        Kind::Slices => Object::Slice(Box::<SliceForm>::back(read(words)?)),
        Kind::Nodes => Object::Node(Box::<NodeForm>::back(read(words)?)),
    })
}

/// What rules name, as JSON.
pub(super) fn rules_words(names: &RuleNames) -> Option<String> {
    json(&RulesForm::of(names))
}

/// The way back; `None` for what makes no sense.
pub(super) fn rules(words: Option<&str>) -> Option<Arc<RuleNames>> {
    Some(Box::<RulesForm>::back(read(words)?))
}

/// Namespace and name, as JSON.
pub(super) fn name_words(name: &ObjectName) -> Option<String> {
    json(&NameForm::of(name))
}

/// The way back; `None` for what makes no sense.
pub(super) fn name(words: Option<&str>) -> Option<ObjectName> {
    Some(NameForm::back(read(words)?))
}

pub(super) fn json(value: &impl Serialize) -> Option<String> {
    serde_json::to_string(value).ok()
}

pub(super) fn read<T: DeserializeOwned>(object: Option<&str>) -> Option<T> {
    serde_json::from_str(object?).ok()
}
