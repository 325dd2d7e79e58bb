//! What TCP sockets themselves know: who connects, how the handshake ends, retransmissions.

use tracer_ebpf::{
    config::program,
    record::{self, event},
};

use super::{Attach, AttachKind::RawTracepoint, Probe, Wanted, packet::socket_addr};
use crate::model::{
    CgroupId, Comm, Flow, KtimeNs, NetnsInode, Sender, SockId, Socket, SocketEvent,
};

/// Connects and how they end.
pub const STATE: Probe = Probe {
    name: "inet_sock_set_state",
    ways: &[&[Attach::new(
        RawTracepoint,
        "inet_sock_set_state",
        "inet_sock_set_state",
    )]],
    program: program::INET_SOCK_SET_STATE,
    unseen: "connects whose first packet never reaches a device",
    wanted: Wanted::Always,
};

/// Segments sent again.
pub const RETRANSMIT: Probe = Probe {
    name: "tcp_retransmit_skb",
    ways: &[&[Attach::new(
        RawTracepoint,
        "tcp_retransmit_skb",
        "tcp_retransmit_skb",
    )]],
    program: program::TCP_RETRANSMIT_SKB,
    unseen: "retransmissions by this node's sockets",
    wanted: Wanted::Always,
};

/// `enum tcp_state`, include/net/tcp_states.h.
const ESTABLISHED: u8 = 1;

/// What a socket record tells; `None` when it is cut short or unknown.
pub fn decode(bytes: &[u8]) -> Option<Socket> {
    let record: record::Socket = tracer_ebpf::read(bytes)?;
    Some(Socket {
        ktime: KtimeNs(record.ktime_ns),
        netns: NetnsInode(record.netns),
        flow: Flow {
            src: socket_addr(record.saddr, record.sport),
            dst: socket_addr(record.daddr, record.dport),
        },
        owner: Sender {
            pid: (record.pid != 0).then_some(record.pid),
            comm: Comm(record.comm),
            cgroup: (record.cgroup != 0).then_some(CgroupId(record.cgroup)),
            sock: SockId(record.sock),
        },
        event: match record.event {
            event::CONNECTING => SocketEvent::Connecting,
            event::CONNECTED if record.state == ESTABLISHED => SocketEvent::Established,
            event::CONNECTED => SocketEvent::Failed,
            event::RETRANSMITTED => SocketEvent::Retransmitted,
            _ => return None,
        },
    })
}
