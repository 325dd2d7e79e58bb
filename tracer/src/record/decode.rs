//! From rows of the table `events` back to events.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arrow_array::RecordBatch;

use crate::{
    model::{
        CgroupId, ClusterChange, Comm, Conntrack, EndsKey, Fact, Flow, Ifindex, IoEvent, KtimeNs,
        Losses, Name, NamedEnds, NetnsInode, Packet, Place, Pod, PodName, Sender, SkbId, SockId,
        Socket, SocketEvent, SocketIo, Source, Task, Transport, WallNs,
        conntrack::{ConntrackChange, ConntrackCounts, ConntrackTable, ConntrackTotals},
        drops::Hook,
        fact::{TcpFlags, Tunnel, TunnelKind},
        insert::{Clash, Insert, InsertEvent},
    },
    record::{
        changes,
        column::{NumbersRead, WordRead},
        event::Recorded,
        events::{EventsRead, kind},
    },
};

/// Events of one batch of rows.
#[derive(Debug)]
pub(super) struct Decoder {
    columns: EventsRead,
    rows: usize,
    row: usize,
    /// Rows that made no sense: a newer tracer may write what this one does not know.
    pub(super) unknown: u64,
}

impl Decoder {
    /// Of `batch`.
    pub(super) fn new(batch: &RecordBatch) -> Self {
        Self {
            columns: EventsRead::new(batch),
            rows: batch.num_rows(),
            row: 0,
            unknown: 0,
        }
    }
}

impl Iterator for Decoder {
    /// An event and its place in the stream.
    type Item = (Option<u64>, Recorded);

    fn next(&mut self) -> Option<Self::Item> {
        while self.row < self.rows {
            let row = self.row;
            self.row += 1;
            match self.columns.event(row) {
                Some(event) => return Some((self.columns.seq.at(row), event)),
                None => self.unknown += 1,
            }
        }
        None
    }
}

type Ips = WordRead<std::net::IpAddr>;
type Words = WordRead<Arc<str>>;
type Ports = NumbersRead<arrow_array::types::UInt16Type>;
type Wide = NumbersRead<arrow_array::types::UInt64Type>;

impl EventsRead {
    fn event(&self, at: usize) -> Option<Recorded> {
        Some(match self.kind.at(at)?.as_ref() {
            kind::PACKET => Recorded::Fact(Fact::Packet(self.packet(at)?)),
            kind::SOCKET => Recorded::Fact(Fact::Socket(self.socket(at)?)),
            kind::SOCKET_IO => Recorded::Fact(Fact::SocketIo(self.socket_io(at)?)),
            kind::TICK => Recorded::Tick {
                ktime: self.ktime(at)?,
                wall: WallNs(self.time.at(at)?),
            },
            kind::LOSS => Recorded::Loss(Losses {
                ring_full: self.lost_ring_full.at(at)?,
                skipped: self.lost_skipped.at(at)?,
                unreadable: self.lost_unreadable.at(at)?,
                undecodable: self.lost_undecodable.at(at)?,
                unrecorded: 0,
            }),
            kind::SYMBOL => Recorded::Symbol {
                location: self.location.at(at)?,
                name: self.name.at(at)?.clone(),
            },
            kind::INSERT => Recorded::Fact(Fact::Insert(self.insert(at)?)),
            kind::COUNTED => Recorded::Counted(ConntrackChange {
                netns: self.netns(at),
                from: KtimeNs(self.ct_since_ns.at(at)?),
                to: self.ktime(at)?,
                counts: self.counts(at)?,
            }),
            kind::CONNTRACK => Recorded::Conntrack(ConntrackTotals {
                netns: self.name.at(at)?.clone(),
                table: ConntrackTable {
                    entries: self.ct_entries.at(at)?,
                    max: self.ct_max.at(at),
                    counts: self.counts(at)?,
                },
            }),
            kind::OBJECT => Recorded::Change(ClusterChange {
                at: WallNs(self.time.at(at)?),
                what: changes::change(
                    self.what.at(at)?,
                    self.name.at(at)?,
                    self.object.at(at).map(AsRef::as_ref),
                )?,
            }),
            kind::ENDS => Recorded::Name(self.ends(at)?),
            kind::DEVICE => Recorded::Name(Name::Device {
                netns: self.netns(at),
                ifindex: Ifindex(self.ifindex.at(at)?),
                name: self.name.at(at)?.clone(),
                device: self.device.at(at).cloned(),
            }),
            _ => return None,
        })
    }

    fn ktime(&self, at: usize) -> Option<KtimeNs> {
        self.ktime_ns.at(at).map(KtimeNs)
    }

    fn netns(&self, at: usize) -> NetnsInode {
        NetnsInode(self.netns.at(at).unwrap_or(0))
    }

    fn flow(&self, at: usize) -> Option<Flow> {
        Some(Flow {
            src: end(&self.src_ip, &self.src_port, at)?,
            dst: end(&self.dst_ip, &self.dst_port, at)?,
        })
    }

    fn packet(&self, at: usize) -> Option<Packet> {
        Some(Packet {
            ktime: self.ktime(at)?,
            place: self.place(at)?,
            netns: self.netns(at),
            ifindex: Ifindex(self.ifindex.at(at).unwrap_or(0)),
            skb: SkbId(self.skb.at(at)?),
            flow: self.flow(at)?,
            transport: self.transport(at)?,
            conntrack: self.conntrack(at),
            sender: self.sender(at),
            headers: self.headers.at(at).unwrap_or_default(),
            payload: self.payload.at(at).unwrap_or_default(),
            payload_len: self.payload_len.at(at)?,
            again: false,
            unreadable: self.unreadable.at(at).unwrap_or(false),
            tunnel: self.tunnel(at),
        })
    }

    fn place(&self, at: usize) -> Option<Place> {
        Some(match self.what.at(at)?.as_ref() {
            "queued" => Place::Queued,
            "received" => Place::Received,
            "dropped" => Place::Dropped {
                reason: self.drop_reason.at(at)?,
                location: self.location.at(at)?,
                hook: self.hook.at(at).and_then(|name| hook(name)),
            },
            "refused" => Place::Refused {
                kind: self.refused_type.at(at)?,
                code: self.refused_code.at(at)?,
            },
            _ => return None,
        })
    }

    fn transport(&self, at: usize) -> Option<Transport> {
        Some(match self.transport.at(at)?.as_ref() {
            "udp" => Transport::Udp,
            "tcp" => Transport::Tcp {
                flags: TcpFlags(self.tcp_flags.at(at)?),
                seq: self.tcp_seq.at(at)?,
                ack: self.tcp_ack.at(at)?,
            },
            "icmp_error" => Transport::IcmpError {
                kind: self.icmp_type.at(at)?,
                code: self.icmp_code.at(at)?,
            },
            "later_fragment" => Transport::LaterFragment,
            _ => return None,
        })
    }

    fn conntrack(&self, at: usize) -> Option<Conntrack> {
        Some(Conntrack {
            original: Flow {
                src: end(&self.ct_original_src_ip, &self.ct_original_src_port, at)?,
                dst: end(&self.ct_original_dst_ip, &self.ct_original_dst_port, at)?,
            },
            reply: Flow {
                src: end(&self.ct_reply_src_ip, &self.ct_reply_src_port, at)?,
                dst: end(&self.ct_reply_dst_ip, &self.ct_reply_dst_port, at)?,
            },
            zone: self.ct_zone.at(at)?,
        })
    }

    fn insert(&self, at: usize) -> Option<Insert> {
        let clash = |resolved| {
            Some(InsertEvent::Clash(Box::new(Clash {
                skb: SkbId(self.skb.at(at)?),
                own: self.conntrack(at)?,
                other: self.other(at)?,
                resolved,
            })))
        };
        Some(Insert {
            ktime: self.ktime(at)?,
            netns: self.netns(at),
            event: match self.what.at(at)?.as_ref() {
                "clash_resolved" => clash(true)?,
                "clash_dropped" => clash(false)?,
                "table_full" => InsertEvent::Full,
                _ => return None,
            },
        })
    }

    fn other(&self, at: usize) -> Option<Conntrack> {
        let Self {
            ct_other_original_src_ip,
            ct_other_original_src_port,
            ct_other_original_dst_ip,
            ct_other_original_dst_port,
            ct_other_reply_src_ip,
            ct_other_reply_src_port,
            ct_other_reply_dst_ip,
            ct_other_reply_dst_port,
            ..
        } = self;
        Some(Conntrack {
            original: Flow {
                src: end(ct_other_original_src_ip, ct_other_original_src_port, at)?,
                dst: end(ct_other_original_dst_ip, ct_other_original_dst_port, at)?,
            },
            reply: Flow {
                src: end(ct_other_reply_src_ip, ct_other_reply_src_port, at)?,
                dst: end(ct_other_reply_dst_ip, ct_other_reply_dst_port, at)?,
            },
            zone: self.ct_other_zone.at(at)?,
        })
    }

    fn counts(&self, at: usize) -> Option<ConntrackCounts> {
        Some(ConntrackCounts {
            invalid: self.ct_invalid.at(at)?,
            insert_failed: self.ct_insert_failed.at(at)?,
            drop: self.ct_drop.at(at)?,
            early_drop: self.ct_early_drop.at(at)?,
            clash_resolve: self.ct_clash_resolve.at(at)?,
            chain_toolong: self.ct_chaintoolong.at(at)?,
        })
    }

    fn sender(&self, at: usize) -> Option<Sender> {
        Some(Sender {
            sock: SockId(self.sock.at(at)?),
            pid: self.pid.at(at),
            comm: self.comm(at),
            cgroup: self.cgroup.at(at).map(CgroupId),
        })
    }

    fn comm(&self, at: usize) -> Comm {
        let mut comm = [0; 16];
        let name = self.comm.at(at).map_or(&b""[..], |name| name.as_bytes());
        // One that is no UTF-8 was written longer than it is.
        for (to, from) in comm.iter_mut().zip(name) {
            *to = *from;
        }
        Comm(comm)
    }

    fn tunnel(&self, at: usize) -> Option<Box<Tunnel>> {
        let kind = match self.tunnel.at(at)?.as_ref() {
            "vxlan" => TunnelKind::Vxlan,
            "geneve" => TunnelKind::Geneve,
            "gre" => TunnelKind::Gre,
            "ipip" => TunnelKind::IpIp,
            "sleeve" => TunnelKind::Sleeve,
            _ => return None,
        };
        Some(Box::new(Tunnel {
            kind,
            src: *self.tunnel_src_ip.at(at)?,
            dst: *self.tunnel_dst_ip.at(at)?,
            network: self.tunnel_network.at(at)?,
        }))
    }

    fn socket(&self, at: usize) -> Option<Socket> {
        Some(Socket {
            ktime: self.ktime(at)?,
            netns: self.netns(at),
            flow: self.flow(at)?,
            owner: self.sender(at)?,
            event: match self.what.at(at)?.as_ref() {
                "connecting" => SocketEvent::Connecting,
                "established" => SocketEvent::Established,
                "failed" => SocketEvent::Failed,
                "retransmitted" => SocketEvent::Retransmitted,
                _ => return None,
            },
        })
    }

    fn socket_io(&self, at: usize) -> Option<SocketIo> {
        let queued = || usize::try_from(self.queued.at(at)?).ok();
        Some(SocketIo {
            ktime: self.ktime(at)?,
            netns: self.netns(at),
            sock: SockId(self.sock.at(at)?),
            local: self.src_port.at(at)?,
            remote: self.dst_port.at(at),
            event: match self.what.at(at)?.as_ref() {
                "delivered" => IoEvent::Delivered {
                    last: self.skb.at(at).map(SkbId),
                    queued: queued()?,
                },
                "read" => IoEvent::Read {
                    by: self.task(at)?,
                    bytes: self.bytes.at(at)?,
                    queued: queued()?,
                },
                "sent" => IoEvent::Sent {
                    by: self.task(at)?,
                    bytes: self.bytes.at(at)?,
                },
                "full" => IoEvent::Full,
                "failed" => IoEvent::Failed {
                    errno: self.errno.at(at)?,
                },
                _ => return None,
            },
        })
    }

    fn task(&self, at: usize) -> Option<Task> {
        Some(Task {
            pid: self.pid.at(at)?,
            tid: self.tid.at(at)?,
            comm: self.comm(at),
        })
    }

    fn ends(&self, at: usize) -> Option<Name> {
        Some(Name::Ends {
            key: EndsKey {
                netns: self.netns.at(at).map(NetnsInode),
                cgroup: self.cgroup.at(at).map(CgroupId),
                client: *self.src_ip.at(at)?,
                asked: end(&self.dst_ip, &self.dst_port, at)?,
                backend: end(&self.backend_ip, &self.backend_port, at),
            },
            since: WallNs(self.time.at(at)?),
            ends: Box::new(NamedEnds {
                netns: self.name.at(at).cloned(),
                container: self.container.at(at).cloned(),
                pod_uid: self.cgroup_pod_uid.at(at).cloned(),
                rule: self.rule.at(at).cloned(),
                held: self.held.at(at).cloned(),
                asked: pod(
                    [
                        &self.asked_pod_namespace,
                        &self.asked_pod,
                        &self.asked_pod_uid,
                    ],
                    &self.asked_pod_source,
                    &self.asked_pod_age_ns,
                    at,
                ),
                pod: pod(
                    [&self.pod_namespace, &self.pod, &self.pod_uid],
                    &self.pod_source,
                    &self.pod_age_ns,
                    at,
                ),
                backend: pod(
                    [
                        &self.backend_pod_namespace,
                        &self.backend_pod,
                        &self.backend_pod_uid,
                    ],
                    &self.backend_pod_source,
                    &self.backend_pod_age_ns,
                    at,
                ),
            }),
        })
    }
}

fn end(ips: &Ips, ports: &Ports, at: usize) -> Option<SocketAddr> {
    Some(SocketAddr::new(*ips.at(at)?, ports.at(at)?))
}

fn pod(words: [&Words; 3], source: &Words, age: &Wide, at: usize) -> Option<PodName> {
    let [namespace, name, uid] = words.map(|words| words.at(at).cloned());
    let said = source.at(at)?.as_ref();
    let source = Source::ALL
        .into_iter()
        .find(|source| source.name() == said)?;
    Some(PodName {
        pod: Arc::new(Pod {
            namespace: namespace?,
            name: name?,
            uid,
        }),
        source,
        age: Duration::from_nanos(age.at(at)?),
        object: None,
    })
}

fn hook(name: &str) -> Option<Hook> {
    const ALL: [Hook; 6] = [
        Hook::Prerouting,
        Hook::Input,
        Hook::Forward,
        Hook::Output,
        Hook::Postrouting,
        Hook::ForwardOrPostrouting,
    ];
    ALL.into_iter().find(|hook| hook.name() == name)
}
