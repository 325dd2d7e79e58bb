//! Events and sessions, field by field: what is a name and what an address.

use std::sync::Arc;

use super::Redactor;
use crate::{
    model::{
        EndsKey, Fact, IoEvent, Name, NamedEnds, Pod, PodName, conntrack::ConntrackTotals,
        insert::InsertEvent,
    },
    record::{Recorded, Session},
};

impl Redactor {
    /// What is said of a session. Events that follow are of it.
    pub fn session(&mut self, session: &Session) -> Session {
        let mut session = session.clone();
        self.dns_ports.clone_from(&session.asked.dns_ports);
        self.streams = super::Streams::default();
        if self.what.names {
            session.node = self.words.name(&session.node).to_string();
            session.boot_id = self.words.name(&session.boot_id).to_string();
        }
        if let Some(api) = &mut session.api {
            // It is an address, or a name.
            api.server = api.server.as_ref().map(|_| "https://redacted".to_owned());
        }
        if self.what.addresses {
            let vips = std::mem::take(&mut session.asked.vips);
            let vips = vips.into_iter();
            session.asked.vips = vips.flat_map(|vip| self.addresses.prefix(vip)).collect();
        }
        session
    }

    /// An event with other names and addresses.
    pub fn event(&mut self, event: Recorded) -> Recorded {
        match event {
            Recorded::Fact(fact) => Recorded::Fact(self.fact(fact)),
            Recorded::Name(name) => Recorded::Name(self.told(name)),
            Recorded::Conntrack(totals) => Recorded::Conntrack(ConntrackTotals {
                netns: self.netns(&totals.netns),
                ..totals
            }),
            Recorded::Change(change) => Recorded::Change(self.change(change)),
            other @ (Recorded::Tick { .. }
            | Recorded::Loss(_)
            | Recorded::Symbol { .. }
            | Recorded::Counted(_)) => other,
        }
    }

    fn fact(&mut self, mut fact: Fact) -> Fact {
        match &mut fact {
            Fact::Packet(packet) => self.packet(packet),
            Fact::Socket(socket) => {
                socket.flow = self.flow(socket.flow);
                socket.owner.comm = self.comm(socket.owner.comm);
            }
            Fact::SocketIo(io) => match &mut io.event {
                IoEvent::Read { by, .. } | IoEvent::Sent { by, .. } => {
                    by.comm = self.comm(by.comm);
                }
                IoEvent::Delivered { .. } | IoEvent::Full | IoEvent::Failed { .. } => {}
            },
            Fact::Insert(insert) => match &mut insert.event {
                InsertEvent::Clash(clash) => {
                    clash.own = self.conntrack(clash.own);
                    clash.other = self.conntrack(clash.other);
                }
                InsertEvent::Full => {}
            },
        }
        fact
    }

    fn told(&mut self, name: Name) -> Name {
        match name {
            Name::Ends { key, since, ends } => {
                let (key, ends) = (self.ends_key(key), Box::new(self.ends(*ends)));
                Name::Ends { key, since, ends }
            }
            Name::Device {
                netns,
                ifindex,
                name,
                device,
            } => Name::Device {
                netns,
                ifindex,
                name: self.netns(&name),
                device: device.map(|device| self.device(&device)),
            },
        }
    }

    fn ends_key(&mut self, key: EndsKey) -> EndsKey {
        if !self.what.addresses {
            return key;
        }
        EndsKey {
            client: self.addresses.ip(key.client),
            asked: self.addresses.socket(key.asked),
            backend: key.backend.map(|backend| self.addresses.socket(backend)),
            ..key
        }
    }

    fn ends(&mut self, ends: NamedEnds) -> NamedEnds {
        NamedEnds {
            netns: ends.netns.map(|netns| self.netns(&netns)),
            container: ends.container.map(|container| self.name(&container)),
            pod_uid: ends.pod_uid.map(|uid| self.name(&uid)),
            pod: ends.pod.map(|pod| self.pod_name(pod)),
            asked: ends.asked.map(|pod| self.pod_name(pod)),
            backend: ends.backend.map(|pod| self.pod_name(pod)),
            // Its text holds names and addresses of every sort.
            rule: None,
            held: ends.held,
        }
    }

    fn pod_name(&mut self, pod: PodName) -> PodName {
        PodName {
            pod: self.pod(&pod.pod),
            ..pod
        }
    }

    pub(super) fn pod(&mut self, pod: &Pod) -> Arc<Pod> {
        Arc::new(Pod {
            namespace: self.name(&pod.namespace),
            name: self.name(&pod.name),
            uid: pod.uid.as_ref().map(|uid| self.name(uid)),
        })
    }

    /// One without a name goes by its inode, which says nothing.
    fn netns(&mut self, name: &Arc<str>) -> Arc<str> {
        if name.bytes().all(|byte| byte.is_ascii_digit()) {
            return Arc::clone(name);
        }
        self.name(name)
    }

    /// What every node has, and drivers and CNI plugins call so, stays.
    fn device(&mut self, name: &Arc<str>) -> Arc<str> {
        const KEPT: &[&str] = &[
            "bond",
            "cbr",
            "cilium_host",
            "cilium_net",
            "cni",
            "docker",
            "enp",
            "ens",
            "eth",
            "flannel.",
            "kube-bridge",
            "kube-ipvs",
            "lo",
            "tunl",
            "vxlan.calico",
            "weave",
        ];
        let plain = name.trim_end_matches(|char: char| char.is_ascii_digit());
        if KEPT.contains(&plain) {
            return Arc::clone(name);
        }
        self.name(name)
    }

    pub(super) fn name(&mut self, name: &Arc<str>) -> Arc<str> {
        if self.what.names {
            self.words.name(name)
        } else {
            Arc::clone(name)
        }
    }
}
