//! `Index`: which pod, Service or node an address was at a time, kept up to date change by change.
//!
//! Built from what the API server says, or once said: objects loaded from disk are marked as such
//! until the API server tells of them again. What is gone is remembered for a while, since rows
//! are named late and by their own time.

mod former;
mod nodes;
mod pods;
mod ruled;
mod services;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use self::{nodes::Nodes, pods::Pods, ruled::Ruled, services::Services};
use super::{
    asked::{ServiceName, ServicePortName, Via},
    change::{Change, ClusterChange, Key, Kind, Object, RuleNames},
    cluster::{EndpointSlice, ObjectName, PodObject, Service, Snapshot, TrafficPolicy},
    ids::WallNs,
    pod::{PodName, Source},
    row::Protocol,
};

/// How long what is gone is remembered: longer than any row takes to be finished.
const REMEMBER: Duration = Duration::from_secs(120);

/// The generation of what was loaded from disk.
const FROM_DISK: u32 = 0;

/// Names by address, with history.
#[derive(Debug, Default)]
pub struct Index {
    pods: Pods,
    services: Services,
    nodes: Nodes,
    ruled: Ruled,
    kinds: [KindState; Kind::ALL.len()],
    /// When what was loaded from disk was true.
    loaded: Option<WallNs>,
}

/// How much of a kind is known.
#[derive(Clone, Debug, Default)]
struct KindState {
    /// Counts the lists that have begun.
    lists: u32,
    /// A whole list has come from the API server.
    listed: bool,
    /// It holds only what concerns this node.
    own: bool,
    /// Since when nothing is heard; `None` while the watch stands.
    lost: Option<(WallNs, Arc<str>)>,
}

impl KindState {
    /// What objects carry of the last list that had them; that from disk is lower than any.
    fn generation(&self) -> u32 {
        FROM_DISK + 1 + self.lists
    }
}

/// How a kind of object stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing has been heard yet.
    Awaited,
    /// Listed whole, and watched.
    Watched {
        /// Only what concerns this node.
        own: bool,
    },
    /// Not heard since, and why; `listed` when it was known whole before.
    Lost {
        /// When the watch broke, or the first attempt failed.
        since: WallNs,
        /// In words.
        why: Arc<str>,
        /// Whether a whole list had come before.
        listed: bool,
    },
}

impl Index {
    /// Takes one change.
    pub fn apply(&mut self, change: ClusterChange) {
        let ClusterChange { at, what } = change;
        match what {
            Change::Listing { kind, own } => {
                let state = self.kind(kind);
                state.lists += 1;
                state.own = own;
            }
            Change::Listed(kind) => {
                let state = self.kind(kind);
                state.listed = true;
                state.lost = None;
                let generation = state.generation();
                match kind {
                    Kind::Pods => self.pods.end_before(generation, at),
                    Kind::Services => self.services.end_before(generation, at),
                    Kind::Slices => self.services.end_slices_before(generation, at),
                    Kind::Nodes => self.nodes.end_before(generation),
                }
            }
            Change::Set(object) => {
                let state = self.kind(object.kind());
                state.lost = None;
                let generation = state.generation();
                self.set(at, object, generation);
            }
            Change::Gone(Key::Pod(uid)) => self.pods.end(&uid, at),
            Change::Gone(Key::Service(name)) => self.services.end(&name, at),
            Change::Gone(Key::Slice { name, service }) => {
                self.services.end_slice(&name, &service, at);
            }
            Change::Gone(Key::Node(name)) => self.nodes.end(&name),
            Change::Lost { kind, why } => {
                // The first moment counts: what follows are further attempts.
                let state = self.kind(kind);
                let since = state.lost.as_ref().map_or(at, |(since, _)| *since);
                state.lost = Some((since, why));
            }
            Change::Heard(kind) => self.kind(kind).lost = None,
            Change::Kept(object) => {
                self.loaded = Some(at);
                if !self.kind(object.kind()).listed && !self.is_heard(&object) {
                    self.set(at, object, FROM_DISK);
                }
            }
            Change::Rules(names) => self.ruled = Ruled::new(at, names),
        }
        let before = WallNs(at.0.saturating_sub(nanos(REMEMBER)));
        self.pods.forget(before);
        self.services.forget(before);
    }

    /// The pod with this uid, or static pod with this hash, also one gone not long ago.
    pub fn pod(&self, uid: &str, now: WallNs) -> Option<PodName> {
        let (object, generation) = self.pods.by_uid(uid)?;
        Some(self.named(object, generation, now))
    }

    /// The pod that had `address` for itself at `at`.
    pub fn pod_at(&self, address: IpAddr, at: WallNs, now: WallNs) -> Option<PodName> {
        let (object, generation) = self.pods.at(address, at)?;
        Some(self.named(object, generation, now))
    }

    /// The pod in a node's network that serves `service` at `address`, by the Service's
    /// EndpointSlices; of pods with addresses of their own, [`Self::pod_at`] knows more.
    pub fn endpoint(
        &self,
        service: &ObjectName,
        address: SocketAddr,
        now: WallNs,
    ) -> Option<PodName> {
        let name = self.services.endpoint(service, address)?;
        if let Some((object, generation)) = self.pods.in_host_network(address.ip(), name) {
            return Some(self.named(object, generation, now));
        }
        let pod = super::pod::Pod {
            namespace: Arc::clone(&name.namespace),
            name: Arc::clone(&name.name),
            uid: None,
        };
        let (source, age) = self.source(Kind::Slices, 1, now);
        Some(PodName {
            pod: Arc::new(pod),
            source,
            age,
            object: None,
        })
    }

    /// The Service's port that `address` was at `at`. What rules say outdoes what was kept on disk.
    pub fn service_at(
        &self,
        address: SocketAddr,
        protocol: Protocol,
        at: WallNs,
        now: WallNs,
    ) -> Option<ServiceName> {
        let is_node = || self.nodes.by_address(address.ip()).is_some();
        let told = self
            .services
            .at(address, protocol, at, is_node)
            .map(|port| {
                let generation = self.services.generation(&port.service);
                let (source, age) = self.source(Kind::Services, generation, now);
                ServiceName {
                    port: Arc::clone(port),
                    source,
                    age,
                }
            });
        if told.as_ref().is_some_and(|name| name.source == Source::Api) {
            return told;
        }
        let ruled = self.ruled.at(address, protocol).map(|port| ServiceName {
            port: Arc::clone(port),
            source: Source::Rules,
            age: now - self.ruled.read_at(),
        });
        ruled.or(told)
    }

    /// What kube-proxy's rules name, and when they were read; `None` before they were.
    pub fn ruled(&self) -> Option<(WallNs, &Arc<RuleNames>)> {
        self.ruled.names()
    }

    /// The node that has `address`.
    pub fn node_at(&self, address: IpAddr) -> Option<&Arc<str>> {
        self.nodes.by_address(address)
    }

    /// The Service of this name.
    pub fn service(&self, name: &ObjectName) -> Option<&Arc<Service>> {
        self.services.by_name(name)
    }

    /// The endpoints of a Service's port that are ready, of the family of `asked`; `None` where it is not
    /// known, or where they are not all as likely to be chosen: by a policy, hints or affinity.
    pub fn ready(&self, port: &ServicePortName, asked: IpAddr) -> Option<Vec<SocketAddr>> {
        let heard = matches!(
            self.standing(Kind::Slices),
            Standing::Watched { own: false }
        );
        let service = self.service(&port.service).filter(|_| heard)?;
        let policy = match port.via {
            Via::ClusterIp => service.internal_policy,
            Via::ExternalIp | Via::LoadBalancer | Via::NodePort => service.external_policy,
            Via::Headless => return None,
        };
        let even = policy == TrafficPolicy::Cluster
            && service.affinity.is_none()
            && service.traffic_distribution.is_none();
        even.then(|| self.services.ready(port, asked)).flatten()
    }

    /// The EndpointSlices of a Service as they are now.
    pub fn slices_of(&self, service: &ObjectName) -> Vec<Arc<EndpointSlice>> {
        self.services.slices_of(service)
    }

    /// Former versions of a Service's EndpointSlices, and when each ended, in that order; those
    /// of the last two minutes.
    pub fn former_slices(&self, service: &ObjectName) -> Vec<(WallNs, Arc<EndpointSlice>)> {
        self.services.former_slices(service)
    }

    /// The zone of the node of this name.
    pub fn zone_of(&self, node: &str) -> Option<&Arc<str>> {
        self.nodes.by_name(node)?.zone.as_ref()
    }

    /// How a kind stands.
    pub fn standing(&self, kind: Kind) -> Standing {
        let KindState {
            listed, own, lost, ..
        } = &self.kinds[kind as usize];
        match lost {
            Some((since, why)) => Standing::Lost {
                since: *since,
                why: Arc::clone(why),
                listed: *listed,
            },
            None if *listed => Standing::Watched { own: *own },
            None => Standing::Awaited,
        }
    }

    /// Whether the API server has listed a kind whole, or as far as it may be listed.
    pub fn has_listed(&self, kind: Kind) -> bool {
        self.kinds[kind as usize].listed
    }

    /// When what was loaded from disk was true; `None` when nothing was.
    pub fn loaded(&self) -> Option<WallNs> {
        self.loaded
    }

    /// All that the API server said is there, as last confirmed at `taken`.
    pub fn snapshot(&self, taken: WallNs) -> Snapshot {
        self.those(taken, |generation| generation != FROM_DISK)
    }

    /// What was kept on disk and has not been said again; `None` when nothing was.
    pub fn kept(&self) -> Option<Snapshot> {
        Some(self.those(self.loaded?, |generation| generation == FROM_DISK))
    }

    fn those(&self, taken: WallNs, of: impl Fn(u32) -> bool + Copy) -> Snapshot {
        Snapshot {
            taken,
            pods: self.pods.all(of).cloned().collect(),
            services: self.services.all(of).cloned().collect(),
            slices: self.services.slices(of).cloned().collect(),
            nodes: self.nodes.all(of).cloned().collect(),
        }
    }

    /// Whether the API server has said anything of this object.
    fn is_heard(&self, object: &Object) -> bool {
        let generation = match object {
            Object::Pod(pod) => {
                let uid = pod.pod.uid.as_ref();
                uid.and_then(|uid| Some(self.pods.by_uid(uid)?.1))
            }
            Object::Service(service) => self.services.generation_of(&service.name),
            Object::Slice(slice) => self.services.generation_of_slice(slice),
            Object::Node(node) => self.nodes.generation(&node.name),
        };
        generation.is_some_and(|generation| generation != FROM_DISK)
    }

    fn set(&mut self, at: WallNs, object: Object, generation: u32) {
        match object {
            Object::Pod(pod) => self.pods.set(at, pod, generation),
            Object::Service(service) => self.services.set(at, service, generation),
            Object::Slice(slice) => self.services.set_slice(at, slice, generation),
            Object::Node(node) => self.nodes.set(node, generation),
        }
    }

    fn kind(&mut self, kind: Kind) -> &mut KindState {
        &mut self.kinds[kind as usize]
    }

    fn named(&self, object: &Arc<PodObject>, generation: u32, now: WallNs) -> PodName {
        let (source, age) = self.source(Kind::Pods, generation, now);
        PodName {
            pod: Arc::clone(&object.pod),
            source,
            age,
            object: Some(Arc::clone(object)),
        }
    }

    fn source(&self, kind: Kind, generation: u32, now: WallNs) -> (Source, Duration) {
        let since = |then: WallNs| now - then;
        if generation == FROM_DISK {
            return (Source::Snapshot, self.loaded.map_or(Duration::ZERO, since));
        }
        let lost = self.kinds[kind as usize].lost.as_ref();
        (
            Source::Api,
            lost.map_or(Duration::ZERO, |(then, _)| since(*then)),
        )
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
