//! What passes between UDP sockets on DNS ports and their applications.

use tracer_ebpf::{
    config::program,
    record::{self, io},
};

use super::{
    Attach,
    AttachKind::{Fentry, Fexit, Kprobe, Kretprobe},
    Probe, Wanted, Way,
};
use crate::model::{Comm, IoEvent, KtimeNs, NetnsInode, SkbId, SockId, SocketIo, Task};

/// What `sk_data_ready`'s tracepoint stands in: it tells the same.
const READABLE: Way = &[Attach::new(
    Fentry,
    "sock_def_readable",
    "sock_def_readable",
)];
const READABLE_KPROBE: Way = &[Attach::new(
    Kprobe,
    "sock_def_readable",
    "sock_def_readable_kprobe",
)];

/// The calls of either family within which a datagram is read.
const RECEIVED: Way = &[
    Attach::new(Fexit, "inet_recvmsg", "inet_recvmsg"),
    Attach::new(Fexit, "inet6_recvmsg", "inet6_recvmsg"),
];
const RECEIVED_KPROBE: Way = &[
    Attach::new(Kprobe, "inet_recvmsg", "recvmsg_kprobe"),
    Attach::new(Kprobe, "inet6_recvmsg", "recvmsg_kprobe"),
    Attach::new(Kretprobe, "inet_recvmsg", "recvmsg_kretprobe"),
    Attach::new(Kretprobe, "inet6_recvmsg", "recvmsg_kretprobe"),
];

/// And sent.
const SENT: Way = &[
    Attach::new(Fexit, "inet_sendmsg", "inet_sendmsg"),
    Attach::new(Fexit, "inet6_sendmsg", "inet6_sendmsg"),
];
const SENT_KPROBE: Way = &[
    Attach::new(Kprobe, "inet_sendmsg", "sendmsg_kprobe"),
    Attach::new(Kprobe, "inet6_sendmsg", "sendmsg_kprobe"),
    Attach::new(Kretprobe, "inet_sendmsg", "sendmsg_kretprobe"),
    Attach::new(Kretprobe, "inet6_sendmsg", "sendmsg_kretprobe"),
];

/// What tells a socket's owner of an error, with or without a tracepoint.
const TOLD: Way = &[Attach::new(
    Fentry,
    "sock_def_error_report",
    "sock_def_error_report",
)];
const TOLD_KPROBE: Way = &[Attach::new(
    Kprobe,
    "sock_def_error_report",
    "sock_def_error_report_kprobe",
)];

/// Datagrams put into a socket's queue; the tracepoint since Linux 6.2.
pub const DELIVER: Probe = Probe {
    name: "sk_data_ready",
    ways: tracepoint!("sk_data_ready", READABLE, READABLE_KPROBE),
    program: program::SK_DATA_READY,
    unseen: "when a query or an answer reaches its socket",
    wanted: Wanted::ForPaths,
};

/// Datagrams read; the tracepoint since Linux 6.3.
pub const READ: Probe = Probe {
    name: "sock_recv_length",
    ways: tracepoint!("sock_recv_length", RECEIVED, RECEIVED_KPROBE),
    program: program::SOCK_RECV_LENGTH,
    unseen: "when a server or a client reads what its socket has",
    wanted: Wanted::ForPaths,
};

/// Datagrams sent; the tracepoint since Linux 6.3.
pub const SEND: Probe = Probe {
    name: "sock_send_length",
    ways: tracepoint!("sock_send_length", SENT, SENT_KPROBE),
    program: program::SOCK_SEND_LENGTH,
    unseen: "when a client's call to send a query returns",
    wanted: Wanted::ForPaths,
};

/// Datagrams that find no room.
pub const FULL: Probe = Probe {
    name: "udp_fail_queue_rcv_skb",
    ways: tracepoint!("udp_fail_queue_rcv_skb"),
    program: program::UDP_FAIL_QUEUE_RCV_SKB,
    unseen: "that a datagram found its socket's receive buffer full",
    wanted: Wanted::Always,
};

/// Errors that an application is told; the tracepoint since Linux 5.14.
pub const FAIL: Probe = Probe {
    name: "inet_sk_error_report",
    ways: tracepoint!("inet_sk_error_report", TOLD, TOLD_KPROBE),
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
