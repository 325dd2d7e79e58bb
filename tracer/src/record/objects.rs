//! What the API server said, as words and JSON: objects of the model, field by field, under the names
//! that they have there.

use std::{net::IpAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::model::{
    Change, ClusterChange, Index, Pod, WallNs,
    change::{Key, Kind, Object},
    cluster::{
        Endpoint, EndpointPort, EndpointSlice, LoadBalancerIp, Node, ObjectName, PodObject,
        PortProtocol, Service, ServicePort, ServiceType, TrafficPolicy, Workload,
    },
    index::Standing,
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

#[derive(Serialize, Deserialize)]
struct Listing {
    own: bool,
}

#[derive(Serialize, Deserialize)]
struct Lost {
    why: Arc<str>,
}

#[derive(Serialize, Deserialize)]
struct Uid {
    uid: Arc<str>,
}

#[derive(Serialize, Deserialize)]
struct SliceName {
    namespace: Arc<str>,
    name: Arc<str>,
    service: Arc<str>,
}

/// What happened, to which kind of object, and to which one, or how it is now, as JSON.
pub(super) fn words(change: &Change) -> (&'static str, Kind, Option<String>) {
    match change {
        Change::Listing { kind, own } => ("listing", *kind, json(&Listing { own: *own })),
        Change::Listed(kind) => ("listed", *kind, None),
        Change::Heard(kind) => ("heard", *kind, None),
        Change::Lost { kind, why } => {
            let why = Arc::clone(why);
            ("lost", *kind, json(&Lost { why }))
        }
        Change::Set(object) => {
            let (kind, object) = match object {
                Object::Pod(pod) => (Kind::Pods, json(&PodForm::of(pod))),
                Object::Service(service) => (Kind::Services, json(&ServiceForm::of(service))),
                Object::Slice(slice) => (Kind::Slices, json(&SliceForm::of(slice))),
                Object::Node(node) => (Kind::Nodes, json(&NodeForm::of(node))),
            };
            ("set", kind, object)
        }
        Change::Gone(key) => {
            let (kind, key) = match key {
                Key::Pod(uid) => (Kind::Pods, json(&Uid { uid: uid.clone() })),
                Key::Service(name) => (Kind::Services, json(&NameForm::of(name))),
                Key::Slice { name, service } => {
                    let ObjectName { namespace, name } = name.clone();
                    let service = Arc::clone(service);
                    let key = SliceName {
                        namespace,
                        name,
                        service,
                    };
                    (Kind::Slices, json(&key))
                }
                Key::Node(name) => {
                    let namespace = "".into();
                    let name = Arc::clone(name);
                    (Kind::Nodes, json(&NameForm { namespace, name }))
                }
            };
            ("gone", kind, key)
        }
    }
}

/// The way back; `None` for what makes no sense.
pub(super) fn change(what: &str, kind: &str, object: Option<&str>) -> Option<Change> {
    let kind = Kind::ALL.into_iter().find(|of| of.name() == kind)?;
    Some(match (what, kind) {
        ("listing", _) => {
            let Listing { own } = read(object)?;
            Change::Listing { kind, own }
        }
        ("listed", _) => Change::Listed(kind),
        ("heard", _) => Change::Heard(kind),
        ("lost", _) => {
            let Lost { why } = read(object)?;
            Change::Lost { kind, why }
        }
        ("set", Kind::Pods) => Change::Set(Object::Pod(Box::<PodForm>::back(read(object)?))),
        ("set", Kind::Services) => {
            Change::Set(Object::Service(Box::<ServiceForm>::back(read(object)?)))
        }
        ("set", Kind::Slices) => Change::Set(Object::Slice(Box::<SliceForm>::back(read(object)?))),
        ("set", Kind::Nodes) => Change::Set(Object::Node(Box::<NodeForm>::back(read(object)?))),
        ("gone", Kind::Pods) => {
            let Uid { uid } = read(object)?;
            Change::Gone(Key::Pod(uid))
        }
        ("gone", Kind::Services) => Change::Gone(Key::Service(NameForm::back(read(object)?))),
        ("gone", Kind::Slices) => {
            let SliceName {
                namespace,
                name,
                service,
            } = read(object)?;
            let name = ObjectName { namespace, name };
            Change::Gone(Key::Slice { name, service })
        }
        ("gone", Kind::Nodes) => Change::Gone(Key::Node(read::<NameForm>(object)?.name)),
        _ => return None,
    })
}

/// What brings an empty index to where `index` is at `now`.
pub(super) fn all(index: &Index, now: WallNs) -> Vec<ClusterChange> {
    let snapshot = index.snapshot(now);
    let mut changes = Vec::new();
    for kind in Kind::ALL {
        let standing = index.standing(kind);
        let own = matches!(standing, Standing::Watched { own: true });
        let mut push = |what| changes.push(ClusterChange { at: now, what });
        if standing != Standing::Awaited {
            push(Change::Listing { kind, own });
        }
        match kind {
            Kind::Pods => {
                let pods = snapshot.pods.iter().cloned();
                pods.for_each(|pod| push(Change::Set(Object::Pod(pod))));
            }
            Kind::Services => {
                let services = snapshot.services.iter().cloned();
                services.for_each(|service| push(Change::Set(Object::Service(service))));
            }
            Kind::Slices => {
                let slices = snapshot.slices.iter().cloned();
                slices.for_each(|slice| push(Change::Set(Object::Slice(slice))));
            }
            Kind::Nodes => {
                let nodes = snapshot.nodes.iter().cloned();
                nodes.for_each(|node| push(Change::Set(Object::Node(node))));
            }
        }
        match standing {
            Standing::Awaited => {}
            Standing::Watched { .. } => push(Change::Listed(kind)),
            Standing::Lost { since, why, listed } => {
                if listed {
                    push(Change::Listed(kind));
                }
                let what = Change::Lost { kind, why };
                changes.push(ClusterChange { at: since, what });
            }
        }
    }
    changes
}

fn json(value: &impl Serialize) -> Option<String> {
    serde_json::to_string(value).ok()
}

fn read<T: DeserializeOwned>(object: Option<&str>) -> Option<T> {
    serde_json::from_str(object?).ok()
}
