//! From events to rows of the table `events`.

use crate::{
    model::{
        ClusterChange, Conntrack, EndsKey, Fact, Flow, IoEvent, KtimeNs, Name, NamedEnds, Packet,
        Place, PodName, Sender, Socket, SocketEvent, SocketIo, Task, Transport, WallNs,
        conntrack::{ConntrackChange, ConntrackCounts, ConntrackTotals},
        drops::Hook,
        fact::Tunnel,
        insert::{Insert, InsertEvent},
    },
    record::{
        changes,
        event::Recorded,
        events::{Events, kind},
    },
};

/// A table of events being filled.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    columns: Events,
    row: usize,
    /// The latest tick, by which facts get a wall-clock time.
    clock: (KtimeNs, WallNs),
}

impl Encoder {
    /// How many events are in it.
    pub(super) fn rows(&self) -> usize {
        self.row
    }

    /// All of them; it is empty afterwards.
    pub(super) fn finish(&mut self) -> arrow_array::RecordBatch {
        self.columns.finish(std::mem::take(&mut self.row))
    }

    /// Adds an event. `seq` is `None` where it is a repetition.
    pub(super) fn push(&mut self, seq: Option<u64>, event: &Recorded) {
        let Self { columns, row, .. } = self;
        let at = *row;
        columns.seq.put(at, seq);
        match event {
            Recorded::Fact(fact) => {
                let ktime = fact.ktime();
                self.time(at, ktime);
                self.fact(at, fact);
            }
            Recorded::Tick { ktime, wall } => {
                self.clock = (*ktime, *wall);
                self.columns.kind.put(at, kind::TICK);
                self.time(at, *ktime);
            }
            Recorded::Loss(losses) => {
                columns.kind.put(at, kind::LOSS);
                columns.lost_ring_full.put(at, losses.ring_full);
                columns.lost_skipped.put(at, losses.skipped);
                columns.lost_unreadable.put(at, losses.unreadable);
                columns.lost_undecodable.put(at, losses.undecodable);
            }
            Recorded::Symbol { location, name } => {
                columns.kind.put(at, kind::SYMBOL);
                columns.location.put(at, *location);
                columns.name.put(at, name);
            }
            Recorded::Name(name) => self.name(at, name),
            Recorded::Counted(change) => self.counted(at, change),
            Recorded::Conntrack(totals) => self.table(at, totals),
            Recorded::Change(change) => self.change(at, change),
        }
        self.row += 1;
    }

    /// Both clocks; a fact before the first tick has no wall-clock time.
    fn time(&mut self, at: usize, ktime: KtimeNs) {
        self.columns.ktime_ns.put(at, ktime.0);
        if self.clock != (KtimeNs(0), WallNs(0)) {
            let wall = wall_at(self.clock, ktime);
            self.columns.time.put(at, wall.0);
        }
    }

    fn fact(&mut self, at: usize, fact: &Fact) {
        match fact {
            Fact::Packet(packet) => {
                self.columns.kind.put(at, kind::PACKET);
                self.packet(at, packet);
            }
            Fact::Socket(socket) => {
                self.columns.kind.put(at, kind::SOCKET);
                self.socket(at, socket);
            }
            Fact::SocketIo(io) => {
                self.columns.kind.put(at, kind::SOCKET_IO);
                self.socket_io(at, io);
            }
            Fact::Insert(insert) => {
                self.columns.kind.put(at, kind::INSERT);
                self.insert(at, insert);
            }
        }
    }

    fn packet(&mut self, at: usize, packet: &Packet) {
        self.place(at, packet.place);
        self.flow(at, packet.flow);
        self.transport(at, packet.transport);
        if let Some(conntrack) = &packet.conntrack {
            self.conntrack(at, conntrack);
        }
        if let Some(sender) = &packet.sender {
            self.sender(at, sender);
        }
        if let Some(tunnel) = &packet.tunnel {
            self.tunnel(at, tunnel);
        }
        let columns = &mut self.columns;
        columns.netns.put(at, packet.netns.0);
        columns.ifindex.put(at, packet.ifindex.0);
        columns.skb.put(at, packet.skb.0);
        if !packet.headers.is_empty() {
            columns.headers.put(at, &packet.headers);
        }
        if !packet.payload.is_empty() {
            columns.payload.put(at, &packet.payload);
        }
        columns.payload_len.put(at, packet.payload_len);
        if packet.unreadable {
            columns.unreadable.put(at, true);
        }
    }

    fn place(&mut self, at: usize, place: Place) {
        let columns = &mut self.columns;
        let what = match place {
            Place::Queued => "queued",
            Place::Received => "received",
            Place::Dropped {
                reason,
                location,
                hook,
            } => {
                columns.drop_reason.put(at, reason);
                columns.location.put(at, location);
                columns.hook.put_any(at, hook.map(Hook::name));
                "dropped"
            }
            Place::Refused { kind, code } => {
                columns.refused_type.put(at, kind);
                columns.refused_code.put(at, code);
                "refused"
            }
        };
        columns.what.put(at, what);
    }

    fn flow(&mut self, at: usize, flow: Flow) {
        let columns = &mut self.columns;
        columns.src_ip.put(at, flow.src.ip());
        columns.src_port.put(at, flow.src.port());
        columns.dst_ip.put(at, flow.dst.ip());
        columns.dst_port.put(at, flow.dst.port());
    }

    fn transport(&mut self, at: usize, transport: Transport) {
        let columns = &mut self.columns;
        let word = match transport {
            Transport::Udp => "udp",
            Transport::Tcp { flags, seq, ack } => {
                columns.tcp_flags.put(at, flags.0);
                columns.tcp_seq.put(at, seq);
                columns.tcp_ack.put(at, ack);
                "tcp"
            }
            Transport::IcmpError { kind, code } => {
                columns.icmp_type.put(at, kind);
                columns.icmp_code.put(at, code);
                "icmp_error"
            }
            Transport::LaterFragment => "later_fragment",
        };
        columns.transport.put(at, word);
    }

    fn conntrack(&mut self, at: usize, conntrack: &Conntrack) {
        let columns = &mut self.columns;
        let Conntrack {
            original,
            reply,
            zone,
        } = conntrack;
        columns.ct_original_src_ip.put(at, original.src.ip());
        columns.ct_original_src_port.put(at, original.src.port());
        columns.ct_original_dst_ip.put(at, original.dst.ip());
        columns.ct_original_dst_port.put(at, original.dst.port());
        columns.ct_reply_src_ip.put(at, reply.src.ip());
        columns.ct_reply_src_port.put(at, reply.src.port());
        columns.ct_reply_dst_ip.put(at, reply.dst.ip());
        columns.ct_reply_dst_port.put(at, reply.dst.port());
        columns.ct_zone.put(at, *zone);
    }

    fn sender(&mut self, at: usize, sender: &Sender) {
        let columns = &mut self.columns;
        columns.sock.put(at, sender.sock.0);
        columns.cgroup.put(at, sender.cgroup.map(|cgroup| cgroup.0));
        columns.pid.put(at, sender.pid);
        columns.comm.put(at, &sender.comm.to_string());
    }

    fn tunnel(&mut self, at: usize, tunnel: &Tunnel) {
        let columns = &mut self.columns;
        columns.tunnel.put(at, tunnel.kind.name());
        columns.tunnel_src_ip.put(at, tunnel.src);
        columns.tunnel_dst_ip.put(at, tunnel.dst);
        columns.tunnel_network.put(at, tunnel.network);
    }

    fn socket(&mut self, at: usize, socket: &Socket) {
        self.flow(at, socket.flow);
        self.sender(at, &socket.owner);
        let columns = &mut self.columns;
        columns.netns.put(at, socket.netns.0);
        let what = match socket.event {
            SocketEvent::Connecting => "connecting",
            SocketEvent::Established => "established",
            SocketEvent::Failed => "failed",
            SocketEvent::Retransmitted => "retransmitted",
        };
        columns.what.put(at, what);
    }

    fn socket_io(&mut self, at: usize, io: &SocketIo) {
        let columns = &mut self.columns;
        columns.netns.put(at, io.netns.0);
        columns.sock.put(at, io.sock.0);
        columns.src_port.put(at, io.local);
        columns.dst_port.put(at, io.remote);
        let what = match io.event {
            IoEvent::Delivered { last, queued } => {
                columns.skb.put(at, last.map(|skb| skb.0));
                columns.queued.put(at, queued as u64);
                "delivered"
            }
            IoEvent::Read { by, bytes, queued } => {
                columns.queued.put(at, queued as u64);
                columns.bytes.put(at, bytes);
                self.task(at, &by);
                "read"
            }
            IoEvent::Sent { by, bytes } => {
                columns.bytes.put(at, bytes);
                self.task(at, &by);
                "sent"
            }
            IoEvent::Full => "full",
            IoEvent::Failed { errno } => {
                columns.errno.put(at, errno);
                "failed"
            }
        };
        self.columns.what.put(at, what);
    }

    fn insert(&mut self, at: usize, insert: &Insert) {
        self.columns.netns.put(at, insert.netns.0);
        let what = match &insert.event {
            InsertEvent::Full => "table_full",
            InsertEvent::Clash(clash) => {
                self.columns.skb.put(at, clash.skb.0);
                self.conntrack(at, &clash.own);
                self.other(at, &clash.other);
                if clash.resolved {
                    "clash_resolved"
                } else {
                    "clash_dropped"
                }
            }
        };
        self.columns.what.put(at, what);
    }

    fn other(&mut self, at: usize, other: &Conntrack) {
        let columns = &mut self.columns;
        let Conntrack {
            original,
            reply,
            zone,
        } = other;
        columns.ct_other_original_src_ip.put(at, original.src.ip());
        columns
            .ct_other_original_src_port
            .put(at, original.src.port());
        columns.ct_other_original_dst_ip.put(at, original.dst.ip());
        columns
            .ct_other_original_dst_port
            .put(at, original.dst.port());
        columns.ct_other_reply_src_ip.put(at, reply.src.ip());
        columns.ct_other_reply_src_port.put(at, reply.src.port());
        columns.ct_other_reply_dst_ip.put(at, reply.dst.ip());
        columns.ct_other_reply_dst_port.put(at, reply.dst.port());
        columns.ct_other_zone.put(at, *zone);
    }

    fn counts(&mut self, at: usize, counts: &ConntrackCounts) {
        let columns = &mut self.columns;
        columns.ct_invalid.put(at, counts.invalid);
        columns.ct_insert_failed.put(at, counts.insert_failed);
        columns.ct_drop.put(at, counts.drop);
        columns.ct_early_drop.put(at, counts.early_drop);
        columns.ct_clash_resolve.put(at, counts.clash_resolve);
        columns.ct_chaintoolong.put(at, counts.chain_toolong);
    }

    fn counted(&mut self, at: usize, change: &ConntrackChange) {
        self.columns.kind.put(at, kind::COUNTED);
        self.time(at, change.to);
        self.columns.netns.put(at, change.netns.0);
        self.columns.ct_since_ns.put(at, change.from.0);
        self.counts(at, &change.counts);
    }

    fn table(&mut self, at: usize, totals: &ConntrackTotals) {
        self.columns.kind.put(at, kind::CONNTRACK);
        self.columns.name.put(at, &totals.netns);
        self.columns.ct_entries.put(at, totals.table.entries);
        self.columns.ct_max.put(at, totals.table.max);
        self.counts(at, &totals.table.counts);
    }

    fn change(&mut self, at: usize, change: &ClusterChange) {
        let (what, of, object) = changes::words(&change.what);
        let columns = &mut self.columns;
        columns.kind.put(at, kind::OBJECT);
        columns.time.put(at, change.at.0);
        columns.what.put(at, what);
        columns.name.put(at, of.name());
        columns.object.put_any(at, object.as_deref());
    }

    fn task(&mut self, at: usize, task: &Task) {
        self.columns.pid.put(at, task.pid);
        self.columns.tid.put(at, task.tid);
        self.columns.comm.put(at, &task.comm.to_string());
    }

    fn name(&mut self, at: usize, name: &Name) {
        match name {
            Name::Ends { key, since, ends } => {
                self.columns.kind.put(at, kind::ENDS);
                self.columns.time.put(at, since.0);
                self.ends(at, key, ends);
            }
            Name::Device {
                netns,
                ifindex,
                name,
                device,
            } => {
                let columns = &mut self.columns;
                columns.kind.put(at, kind::DEVICE);
                columns.netns.put(at, netns.0);
                columns.ifindex.put(at, ifindex.0);
                columns.name.put(at, name);
                columns.device.put_any(at, device.as_deref());
            }
        }
    }

    fn ends(&mut self, at: usize, key: &EndsKey, ends: &NamedEnds) {
        let columns = &mut self.columns;
        columns.netns.put(at, key.netns.map(|netns| netns.0));
        columns.cgroup.put(at, key.cgroup.map(|cgroup| cgroup.0));
        columns.src_ip.put(at, key.client);
        columns.dst_ip.put(at, key.asked.ip());
        columns.dst_port.put(at, key.asked.port());
        if let Some(backend) = key.backend {
            columns.backend_ip.put(at, backend.ip());
            columns.backend_port.put(at, backend.port());
        }
        columns.name.put_any(at, ends.netns.as_deref());
        columns.container.put_any(at, ends.container.as_deref());
        columns.cgroup_pod_uid.put_any(at, ends.pod_uid.as_deref());
        columns.rule.put_any(at, ends.rule.as_deref());
        columns.held.put_any(at, ends.held.as_deref());
        if let Some(PodName {
            pod, source, age, ..
        }) = &ends.pod
        {
            columns.pod_namespace.put(at, &pod.namespace);
            columns.pod.put(at, &pod.name);
            columns.pod_uid.put_any(at, pod.uid.as_deref());
            columns.pod_source.put(at, source.name());
            columns.pod_age_ns.put(at, nanos(*age));
        }
        if let Some(PodName {
            pod, source, age, ..
        }) = &ends.asked
        {
            columns.asked_pod_namespace.put(at, &pod.namespace);
            columns.asked_pod.put(at, &pod.name);
            columns.asked_pod_uid.put_any(at, pod.uid.as_deref());
            columns.asked_pod_source.put(at, source.name());
            columns.asked_pod_age_ns.put(at, nanos(*age));
        }
        if let Some(PodName {
            pod, source, age, ..
        }) = &ends.backend
        {
            columns.backend_pod_namespace.put(at, &pod.namespace);
            columns.backend_pod.put(at, &pod.name);
            columns.backend_pod_uid.put_any(at, pod.uid.as_deref());
            columns.backend_pod_source.put(at, source.name());
            columns.backend_pod_age_ns.put(at, nanos(*age));
        }
    }
}

/// The wall-clock time of `ktime`, by both clocks at one moment.
pub(super) fn wall_at(clock: (KtimeNs, WallNs), ktime: KtimeNs) -> WallNs {
    let since = i128::from(ktime.0) - i128::from(clock.0.0);
    WallNs(i64::try_from(i128::from(clock.1.0) + since).unwrap_or(i64::MAX))
}

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
