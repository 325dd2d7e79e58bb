//! `sock:sk_data_ready`, `sock:sock_recv_length`, `sock:sock_send_length`,
//! `udp:udp_fail_queue_rcv_skb` and `sock:inet_sk_error_report`: what passes between UDP sockets of
//! DNS and their applications, and what fails to. Twice, as in `device`.
//!
//! Where a kernel lacks one of them, `socket_calls` stands in. They carry a socket, no packet. So a
//! delivery tells which packet is the last in the socket's queue, and each record how many are in
//! it: user space can follow the queue, and sees where it lost track.

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};

use crate::{
    config::program,
    output::{self, offset},
    probes::{packet::is_dns_port, unconnected},
    record::{SocketIo, io, kind},
    skb::{self, UDP},
};

/// A socket has something to read. `TP_PROTO(const struct sock *sk)`, include/trace/events/sock.h.
#[btf_tracepoint(function = "sk_data_ready")]
pub fn sk_data_ready_btf(ctx: BtfTracePointContext) -> i32 {
    delivered(Sock::<true>(ctx.arg(0)))
}

/// The same without BTF.
#[raw_tracepoint(tracepoint = "sk_data_ready")]
pub fn sk_data_ready(ctx: RawTracePointContext) -> i32 {
    delivered(Sock::<false>(ctx.arg(0)))
}

/// A call to read has ended. `TP_PROTO(struct sock *sk, int ret, int flags)`,
/// include/trace/events/sock.h.
#[btf_tracepoint(function = "sock_recv_length")]
pub fn sock_recv_length_btf(ctx: BtfTracePointContext) -> i32 {
    let [ret, flags] = [ctx.arg::<u64>(1), ctx.arg::<u64>(2)];
    read(Sock::<true>(ctx.arg(0)), ret as i32, flags as i32)
}

/// The same without BTF.
#[raw_tracepoint(tracepoint = "sock_recv_length")]
pub fn sock_recv_length(ctx: RawTracePointContext) -> i32 {
    let [ret, flags] = [ctx.arg::<u64>(1), ctx.arg::<u64>(2)];
    read(Sock::<false>(ctx.arg(0)), ret as i32, flags as i32)
}

/// A call to send has ended. `TP_PROTO(struct sock *sk, int ret, int flags)`,
/// include/trace/events/sock.h.
#[btf_tracepoint(function = "sock_send_length")]
pub fn sock_send_length_btf(ctx: BtfTracePointContext) -> i32 {
    sent(Sock::<true>(ctx.arg(0)), ctx.arg::<u64>(1) as i32)
}

/// The same without BTF.
#[raw_tracepoint(tracepoint = "sock_send_length")]
pub fn sock_send_length(ctx: RawTracePointContext) -> i32 {
    sent(Sock::<false>(ctx.arg(0)), ctx.arg::<u64>(1) as i32)
}

/// A datagram finds no room. `TP_PROTO(int rc, struct sock *sk, struct sk_buff *skb)`,
/// include/trace/events/udp.h; older kernels pass no skb.
#[btf_tracepoint(function = "udp_fail_queue_rcv_skb")]
pub fn udp_fail_queue_rcv_skb_btf(ctx: BtfTracePointContext) -> i32 {
    full(Sock::<true>(ctx.arg(1)), ctx.arg::<u64>(0) as i32)
}

/// The same without BTF.
#[raw_tracepoint(tracepoint = "udp_fail_queue_rcv_skb")]
pub fn udp_fail_queue_rcv_skb(ctx: RawTracePointContext) -> i32 {
    full(Sock::<false>(ctx.arg(1)), ctx.arg::<u64>(0) as i32)
}

/// An error is there for the application. `TP_PROTO(const struct sock *sk)`,
/// include/trace/events/sock.h.
#[btf_tracepoint(function = "inet_sk_error_report")]
pub fn inet_sk_error_report_btf(ctx: BtfTracePointContext) -> i32 {
    failed(Sock::<true>(ctx.arg(0)))
}

/// The same without BTF.
#[raw_tracepoint(tracepoint = "inet_sk_error_report")]
pub fn inet_sk_error_report(ctx: RawTracePointContext) -> i32 {
    failed(Sock::<false>(ctx.arg(0)))
}

/// A `struct sock`.
#[derive(Clone, Copy)]
pub(super) struct Sock<const DIRECT: bool>(pub(super) *const u8);

/// Ports of a socket, network order.
pub(super) struct Ports {
    pub(super) local: [u8; 2],
    /// Zero when it is not connected.
    remote: [u8; 2],
}

impl Ports {
    #[inline(always)]
    pub(super) fn is_connected(&self) -> bool {
        self.remote != [0, 0]
    }

    /// Whether either is one of DNS.
    #[inline(always)]
    fn is_of_dns(&self) -> bool {
        is_dns_port(self.remote) || is_dns_port(self.local)
    }
}

impl<const DIRECT: bool> Sock<DIRECT> {
    /// `None` when this is no UDP socket.
    #[inline(always)]
    pub(super) fn udp_ports(self) -> Option<Ports> {
        if skb::load::<u16, DIRECT>(self.0, offset!(sk_protocol)) != u16::from(UDP) {
            return None;
        }
        Some(Ports {
            remote: skb::load::<u16, DIRECT>(self.0, offset!(sk_dport)).to_ne_bytes(),
            local: skb::load::<u16, DIRECT>(self.0, offset!(sk_num)).to_be_bytes(),
        })
    }

    /// `None` when this is no UDP socket, or has nothing to do with DNS. One has that
    /// 1. is connected to a DNS port
    /// 2. is bound to one
    /// 3. is not connected, and has sent a query
    #[inline(always)]
    pub(super) fn dns_ports(self) -> Option<Ports> {
        let ports = self.udp_ports()?;
        let meant =
            ports.is_of_dns() || !ports.is_connected() && unconnected::has_asked(self, ports.local);
        meant.then_some(ports)
    }

    /// Whether it is one of those, or not connected: its first query may be about to leave.
    #[inline(always)]
    pub(super) fn may_be_of_dns(self) -> bool {
        let may = |ports: Ports| !ports.is_connected() || ports.is_of_dns();
        self.udp_ports().is_some_and(may)
    }

    /// Address of the last packet in the queue; 0 when it is empty.
    #[inline(always)]
    fn last(self) -> u64 {
        // The list is a ring through its own head (`struct sk_buff_head`, linux/skbuff.h), whose
        // first member lies one pointer before this one.
        let at = self.0 as u64 + u64::from(offset!(sk_queue_last));
        let last = skb::read::<u64>(at).unwrap_or(0);
        if last == at - 8 { 0 } else { last }
    }

    /// Datagrams in both queues.
    #[inline(always)]
    fn queued(self) -> u16 {
        let waiting = skb::load::<u32, DIRECT>(self.0, offset!(sk_queue_len));
        // Lies beyond `struct sock`, all that the verifier knows of.
        let taken = skb::read::<u32>(self.0 as u64 + u64::from(offset!(udp_reader_len)));
        (waiting + taken.unwrap_or(0)).min(u32::from(u16::MAX)) as u16
    }
}

#[inline(always)]
pub(super) fn delivered<const DIRECT: bool>(sock: Sock<DIRECT>) -> i32 {
    if let Some(ports) = sock.dns_ports() {
        let seen = Seen {
            event: io::DELIVERED,
            skb: sock.last(),
            amount: 0,
            queued: sock.queued(),
        };
        emit(program::SK_DATA_READY, sock, &ports, &seen);
    }
    0
}

/// A failed read takes nothing out, nor does one that only peeks.
#[inline(always)]
pub(super) fn read<const DIRECT: bool>(sock: Sock<DIRECT>, ret: i32, flags: i32) -> i32 {
    /// include/linux/socket.h
    const MSG_PEEK: i32 = 2;
    if ret < 0 || flags & MSG_PEEK != 0 {
        return 0;
    }
    if let Some(ports) = sock.dns_ports() {
        let seen = Seen {
            event: io::READ,
            skb: 0,
            amount: ret.cast_unsigned(),
            queued: sock.queued(),
        };
        emit(program::SOCK_RECV_LENGTH, sock, &ports, &seen);
    }
    0
}

/// Of clients alone: what a server sends is seen at its device at the same moment.
#[inline(always)]
pub(super) fn sent<const DIRECT: bool>(sock: Sock<DIRECT>, ret: i32) -> i32 {
    if ret < 0 {
        return 0;
    }
    if let Some(ports) = sock.dns_ports()
        && !is_dns_port(ports.local)
    {
        let seen = Seen {
            event: io::SENT,
            skb: 0,
            amount: ret.cast_unsigned(),
            queued: 0,
        };
        emit(program::SOCK_SEND_LENGTH, sock, &ports, &seen);
    }
    0
}

/// `rc` is the error, negative. The packet is dropped next, in the same context.
#[inline(always)]
fn full<const DIRECT: bool>(sock: Sock<DIRECT>, rc: i32) -> i32 {
    if let Some(ports) = sock.dns_ports() {
        let seen = Seen {
            event: io::FULL,
            skb: 0,
            amount: rc.unsigned_abs(),
            queued: sock.queued(),
        };
        emit(program::UDP_FAIL_QUEUE_RCV_SKB, sock, &ports, &seen);
    }
    0
}

#[inline(always)]
pub(super) fn failed<const DIRECT: bool>(sock: Sock<DIRECT>) -> i32 {
    if let Some(ports) = sock.dns_ports() {
        let seen = Seen {
            event: io::FAILED,
            skb: 0,
            amount: skb::load::<u32, DIRECT>(sock.0, offset!(sk_err)),
            queued: 0,
        };
        emit(program::INET_SK_ERROR_REPORT, sock, &ports, &seen);
    }
    0
}

/// What differs from one event to the next.
struct Seen {
    event: u8,
    skb: u64,
    amount: u32,
    queued: u16,
}

#[inline(always)]
fn emit<const DIRECT: bool>(program: u32, sock: Sock<DIRECT>, ports: &Ports, seen: &Seen) {
    let Some(mut entry) = output::reserve::<SocketIo>(program) else {
        return;
    };
    let mut comm = [0; 16];
    let mut task = 0;
    if matches!(seen.event, io::READ | io::SENT) {
        comm = bpf_get_current_comm().unwrap_or(comm);
        task = bpf_get_current_pid_tgid();
    }
    entry.write(SocketIo {
        kind: kind::SOCKET_IO,
        netns: skb::netns::<DIRECT>(sock.0, offset!(sk_net)).1,
        // SAFETY: the helper has no preconditions.
        ktime_ns: unsafe { bpf_ktime_get_ns() },
        sock: sock.0 as u64,
        skb: seen.skb,
        comm,
        pid: (task >> 32) as u32,
        tid: task as u32,
        amount: seen.amount,
        queued: seen.queued,
        sport: ports.local,
        dport: ports.remote,
        event: seen.event,
        pad: [0; 5],
    });
    // Packets, which come with it, look whether the reader is to be woken.
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}
