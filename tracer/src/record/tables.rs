//! The derived tables: what SQL wants and replay ignores. Rows as they were shown, with their names,
//! and what the kernel dropped.

use arrow_array::RecordBatch;

use crate::{
    model::{
        Client, Connection, Dns, Named, Packet, Place, PodName, Row, Transport, WallNs,
        cluster::Workload,
        drops::{DropNames, Hook},
        qtype_name, rcode_name,
    },
    record::column::{F64, Flag, Ip, Time, U16, U32, U64, Word, table},
};

table! {
    /// DNS exchanges: each query, every try counted, and what became of it.
    Exchanges {
        /// number of the row within its session, from 1
        serial: U64,
        /// when the query was first seen
        time: Time,
        /// the same in nanoseconds since boot
        ktime_ns: U64,
        /// the client's address
        client_ip: Ip,
        /// the client's port
        client_port: U16,
        /// name of the client's network namespace
        client_netns: Word,
        /// the client's process
        client_pid: U32,
        /// name of its thread
        client_process: Word,
        /// the client's container
        client_container: Word,
        /// namespace of the client's pod
        client_namespace: Word,
        /// the client's pod
        client_pod: Word,
        /// what that pod belongs to, as `Deployment/cart`
        client_workload: Word,
        /// the node that the client runs on, or is
        client_node: Word,
        /// `udp` or `tcp`
        protocol: Word,
        /// the address asked, before NAT
        asked_ip: Ip,
        /// its port
        asked_port: U16,
        /// the Service's port that was asked, as `shop/web:http`
        service: Word,
        /// the backend it became
        backend_ip: Ip,
        /// its port
        backend_port: U16,
        /// namespace of the backend's pod
        backend_namespace: Word,
        /// the backend's pod
        backend_pod: Word,
        /// the node that the backend runs on, or is
        backend_node: Word,
        /// DNS id
        id: U16,
        /// name asked
        name: Word,
        /// type asked
        qtype: Word,
        /// response code; null without an answer
        rcode: Word,
        /// answer records
        answers: U16,
        /// the answer was truncated
        truncated: Flag,
        /// from the query's first sight to the answer's last
        latency_us: F64,
        /// `answered`, `unanswered`, `late`, `rejected` or `dropped`
        outcome: Word,
        /// why it ended badly
        cause: Word,
        /// number of the first try of the same question
        retry_of: U64,
        /// number of the earlier row that this one corrects
        amends: U64,
    }
}

table! {
    /// Connections, and flows of UDP.
    Connections {
        /// number of the row within its session, from 1
        serial: U64,
        /// when the first packet was seen
        time: Time,
        /// the same in nanoseconds since boot
        ktime_ns: U64,
        /// the client's address
        client_ip: Ip,
        /// the client's port
        client_port: U16,
        /// name of the client's network namespace
        client_netns: Word,
        /// the client's process
        client_pid: U32,
        /// name of its thread
        client_process: Word,
        /// the client's container
        client_container: Word,
        /// namespace of the client's pod
        client_namespace: Word,
        /// the client's pod
        client_pod: Word,
        /// what that pod belongs to, as `Deployment/cart`
        client_workload: Word,
        /// the node that the client runs on, or is
        client_node: Word,
        /// `udp` or `tcp`
        protocol: Word,
        /// the address asked, before NAT
        asked_ip: Ip,
        /// its port
        asked_port: U16,
        /// the Service's port that was asked, as `shop/web:http`
        service: Word,
        /// the backend it became
        backend_ip: Ip,
        /// its port
        backend_port: U16,
        /// namespace of the backend's pod
        backend_namespace: Word,
        /// the backend's pod
        backend_pod: Word,
        /// the node that the backend runs on, or is
        backend_node: Word,
        /// from the first packet to the completed handshake, or to the first answer
        latency_us: F64,
        /// from the first packet to the server's first byte
        first_byte_us: F64,
        /// segments sent again, as far as seen
        retransmits: U32,
        /// `answered`, `unanswered`, `rejected`, `reset`, `dropped` or `one_way`
        outcome: Word,
        /// why it ended badly
        cause: Word,
        /// number of the earlier row that this one corrects
        amends: U64,
    }
}

table! {
    /// Packets that the kernel dropped, as far as they were recorded: those on DNS ports and of
    /// followed connections.
    Drops {
        /// when
        time: Time,
        /// the same in nanoseconds since boot
        ktime_ns: U64,
        /// inode of the network namespace
        netns: U32,
        /// index of the device in it
        ifindex: U32,
        /// name of the drop reason
        reason: Word,
        /// kernel function and offset
        code: Word,
        /// where on IP's path
        hook: Word,
        /// `udp`, `tcp`, `icmp_error` or `later_fragment`
        transport: Word,
        /// source address
        src_ip: Ip,
        /// source port
        src_port: U16,
        /// destination address
        dst_ip: Ip,
        /// destination port
        dst_port: U16,
        /// the address asked, before NAT, where conntrack tells
        asked_ip: Ip,
        /// its port
        asked_port: U16,
    }
}

/// The first columns of both tables of rows, which share their names.
macro_rules! ends {
    ($columns:expr, $at:expr, $row:expr, $named:expr) => {{
        let (columns, at, row, named): (_, _, _, &Named) = ($columns, $at, $row, $named);
        let Client { address, .. } = &row.client;
        columns.serial.put(at, row.serial);
        columns.time.put(at, row.wall.0);
        columns.ktime_ns.put(at, row.ktime.0);
        columns.client_ip.put(at, address.ip());
        columns.client_port.put(at, address.port());
        columns.client_netns.put_any(at, named.netns.as_deref());
        if let Some((pid, comm)) = &named.process {
            columns.client_pid.put(at, *pid);
            columns.client_process.put(at, &comm.to_string());
        }
        columns
            .client_container
            .put_any(at, named.container.as_deref());
        if let Some(PodName { pod, .. }) = &named.pod {
            columns.client_namespace.put(at, &pod.namespace);
            columns.client_pod.put(at, &pod.name);
        }
        if let Some(Workload { kind, name }) = named.pod.as_ref().and_then(PodName::workload) {
            columns.client_workload.put(at, &format!("{kind}/{name}"));
        }
        columns
            .client_node
            .put_any(at, named.client_node.as_deref());
        if let Some(service) = &named.asked.service {
            columns.service.put(at, &service.port.to_string());
        }
        columns.protocol.put(at, row.protocol.name());
        columns.asked_ip.put(at, row.asked.ip());
        columns.asked_port.put(at, row.asked.port());
        if let Some(backend) = row.backend {
            columns.backend_ip.put(at, backend.ip());
            columns.backend_port.put(at, backend.port());
        }
        if let Some(PodName { pod, .. }) = &named.backend {
            columns.backend_namespace.put(at, &pod.namespace);
            columns.backend_pod.put(at, &pod.name);
        }
        columns
            .backend_node
            .put_any(at, named.backend_node.as_deref());
        columns.latency_us.put(at, row.latency.map(micros));
        columns.outcome.put(at, row.outcome.name());
        columns.cause.put_any(at, row.cause.as_deref());
        columns.amends.put(at, row.amends);
    }};
}

/// A derived table being filled.
#[derive(Debug, Default)]
pub(super) struct Filled<T> {
    columns: T,
    rows: usize,
    /// Wall-clock time of the first and the last row.
    pub(super) times: Option<(WallNs, WallNs)>,
}

impl<T> Filled<T> {
    fn next(&mut self, wall: WallNs) -> usize {
        let first = self.times.map_or(wall, |(first, _)| first);
        self.times = Some((first, wall));
        self.rows += 1;
        self.rows - 1
    }
}

/// All derived tables being filled.
#[derive(Debug, Default)]
pub(super) struct Derived {
    pub(super) exchanges: Filled<Exchanges>,
    pub(super) connections: Filled<Connections>,
    pub(super) drops: Filled<Drops>,
}

impl Derived {
    /// Adds a row as it was shown.
    pub(super) fn row(&mut self, row: &Row, named: &Named) {
        match row {
            Row::Dns(dns) => self.exchanges.add(dns, named),
            Row::Connection(connection) => self.connections.add(connection, named),
        }
    }

    /// Adds a packet, if it was dropped.
    pub(super) fn packet(&mut self, packet: &Packet, wall: WallNs, names: &DropNames) {
        if let Place::Dropped {
            reason,
            location,
            hook,
        } = packet.place
        {
            let at = self.drops.next(wall);
            let columns = &mut self.drops.columns;
            columns.time.put(at, wall.0);
            columns.ktime_ns.put(at, packet.ktime.0);
            columns.netns.put(at, packet.netns.0);
            columns.ifindex.put(at, packet.ifindex.0);
            columns.reason.put(at, &names.reason(reason));
            let code = names.symbols.get(&location);
            columns.code.put_any(at, code.map(String::as_str));
            columns.hook.put_any(at, hook.map(Hook::name));
            columns.transport.put(at, transport(packet.transport));
            columns.src_ip.put(at, packet.flow.src.ip());
            columns.src_port.put(at, packet.flow.src.port());
            columns.dst_ip.put(at, packet.flow.dst.ip());
            columns.dst_port.put(at, packet.flow.dst.port());
            if let Some(conntrack) = packet.conntrack {
                columns.asked_ip.put(at, conntrack.original.dst.ip());
                columns.asked_port.put(at, conntrack.original.dst.port());
            }
        }
    }
}

impl Filled<Exchanges> {
    fn add(&mut self, dns: &Dns, named: &Named) {
        let at = self.next(dns.wall);
        let columns = &mut self.columns;
        ends!(&mut *columns, at, dns, named);
        columns.id.put(at, dns.id);
        columns.name.put_any(at, dns.name.as_deref());
        columns
            .qtype
            .put_any(at, dns.qtype.map(qtype_name).as_deref());
        columns
            .rcode
            .put_any(at, dns.rcode.map(rcode_name).as_deref());
        columns.answers.put(at, dns.answers);
        columns.truncated.put(at, dns.truncated);
        columns.retry_of.put(at, dns.retry_of);
    }
}

impl Filled<Connections> {
    fn add(&mut self, connection: &Connection, named: &Named) {
        let at = self.next(connection.wall);
        let columns = &mut self.columns;
        ends!(&mut *columns, at, connection, named);
        columns
            .first_byte_us
            .put(at, connection.first_byte.map(micros));
        columns.retransmits.put(at, connection.retransmits);
    }
}

/// What can be taken out of a table being filled.
pub(super) trait Take {
    /// All rows, and the wall-clock time of the first and the last; `None` when there are none.
    fn take(&mut self) -> Option<(RecordBatch, (WallNs, WallNs))>;
}

macro_rules! take {
    ($($columns:ty),*) => {$(
        impl Take for Filled<$columns> {
            fn take(&mut self) -> Option<(RecordBatch, (WallNs, WallNs))> {
                let times = self.times.take()?;
                Some((self.columns.finish(std::mem::take(&mut self.rows)), times))
            }
        }
    )*};
}
take!(Exchanges, Connections, Drops);

fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "udp",
        Transport::Tcp { .. } => "tcp",
        Transport::IcmpError { .. } => "icmp_error",
        Transport::LaterFragment => "later_fragment",
    }
}

#[expect(clippy::cast_precision_loss, reason = "2^53 ns are 104 days")]
fn micros(duration: std::time::Duration) -> f64 {
    duration.as_nanos() as f64 / 1000.0
}
