//! What passes between UDP sockets on DNS ports and their applications.

use tracer_ebpf::{
    config::program,
    record::{self, io},
};

use super::{Probe, Wanted};
use crate::model::{Comm, IoEvent, KtimeNs, NetnsInode, SkbId, SockId, SocketIo, Task};

/// Datagrams put into a socket's queue; since Linux 6.3.
pub const DELIVER: Probe = Probe {
    name: "sk_data_ready",
    btf_program: Some("sk_data_ready_btf"),
    subsystem: "sock",
    program: program::SK_DATA_READY,
    unseen: "when a query or an answer reaches its socket",
    wanted: Wanted::ForPaths,
};

/// Datagrams read; since Linux 6.3.
pub const READ: Probe = Probe {
    name: "sock_recv_length",
    btf_program: Some("sock_recv_length_btf"),
    subsystem: "sock",
    program: program::SOCK_RECV_LENGTH,
    unseen: "when a server or a client reads what its socket has",
    wanted: Wanted::ForPaths,
};

/// Datagrams sent; since Linux 6.3.
pub const SEND: Probe = Probe {
    name: "sock_send_length",
    btf_program: Some("sock_send_length_btf"),
    subsystem: "sock",
    program: program::SOCK_SEND_LENGTH,
    unseen: "when a client's call to send a query returns",
    wanted: Wanted::ForPaths,
};

/// Datagrams that find no room.
pub const FULL: Probe = Probe {
    name: "udp_fail_queue_rcv_skb",
    btf_program: Some("udp_fail_queue_rcv_skb_btf"),
    subsystem: "udp",
    program: program::UDP_FAIL_QUEUE_RCV_SKB,
    unseen: "that a datagram found its socket's receive buffer full",
    wanted: Wanted::Always,
};

/// Errors that an application is told; since Linux 5.14.
pub const FAIL: Probe = Probe {
    name: "inet_sk_error_report",
    btf_program: Some("inet_sk_error_report_btf"),
    subsystem: "sock",
    program: program::INET_SK_ERROR_REPORT,
    unseen: "which error a client got",
    wanted: Wanted::ForPaths,
};

/// What such a record tells; `None` when it is cut short or unknown.
pub fn decode(bytes: &[u8]) -> Option<SocketIo> {
    let record: record::SocketIo = tracer_ebpf::read(bytes)?;
    let queued = usize::from(record.queued);
    let by = Task {
        pid: record.pid,
        tid: record.tid,
        comm: Comm(record.comm),
    };
    Some(SocketIo {
        ktime: KtimeNs(record.ktime_ns),
        netns: NetnsInode(record.netns),
        sock: SockId(record.sock),
        local: u16::from_be_bytes(record.sport),
        remote: (record.dport != [0; 2]).then_some(u16::from_be_bytes(record.dport)),
        event: match record.event {
            io::DELIVERED => IoEvent::Delivered {
                last: (record.skb != 0).then_some(SkbId(record.skb)),
                queued,
            },
            io::READ => IoEvent::Read {
                by,
                bytes: record.amount,
                queued,
            },
            io::SENT => IoEvent::Sent {
                by,
                bytes: record.amount,
            },
            io::FULL => IoEvent::Full,
            io::FAILED => IoEvent::Failed {
                errno: record.amount,
            },
            _ => return None,
        },
    })
}
