//! `sock:inet_sock_set_state` and `tcp:tcp_retransmit_skb`: what TCP sockets themselves know of
//! their connections: who connects, how the handshake ends, what had to be sent again.

use aya_ebpf::{
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_ktime_get_ns, generated},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};

use crate::{
    config::program,
    output::{self, config, offset},
    record::{Socket, event, kind},
    skb::{self, AF_INET6, TCP},
};

/// `enum tcp_state`, include/net/tcp_states.h.
const SYN_SENT: u8 = 2;
/// `TP_PROTO(const struct sock *sk, const int oldstate, const int newstate)`,
/// include/trace/events/sock.h.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: RawTracePointContext) -> i32 {
    let (old, new) = (ctx.arg::<u64>(1) as u8, ctx.arg::<u64>(2) as u8);
    let event = if new == SYN_SENT {
        event::CONNECTING
    } else if old == SYN_SENT {
        event::CONNECTED
    } else {
        return 0;
    };
    emit(program::INET_SOCK_SET_STATE, ctx.arg(0), event, new);
    0
}

/// `TP_PROTO(const struct sock *sk, const struct sk_buff *skb, …)`, include/trace/events/tcp.h.
#[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
pub fn tcp_retransmit_skb(ctx: RawTracePointContext) -> i32 {
    emit(
        program::TCP_RETRANSMIT_SKB,
        ctx.arg(0),
        event::RETRANSMITTED,
        0,
    );
    0
}

#[inline(always)]
fn emit(program: u32, sock: *const u8, event: u8, state: u8) {
    let at = |offset: u16| sock as u64 + u64::from(offset);
    if config!(connections) == 0
        || skb::read::<u16>(at(offset!(sk_protocol))).is_none_or(|p| p as u8 != TCP)
    {
        return;
    }
    let Some(mut entry) = output::reserve::<Socket>(program) else {
        return;
    };
    let connecting = event == event::CONNECTING;
    let v6 = skb::read::<u16>(at(offset!(sk_family))) == Some(AF_INET6);
    let (saddr, daddr) = if v6 {
        let local = skb::read(at(offset!(sk_v6_rcv_saddr))).unwrap_or([0; 16]);
        (
            local,
            skb::read(at(offset!(sk_v6_daddr))).unwrap_or([0; 16]),
        )
    } else {
        let local = skb::read(at(offset!(sk_rcv_saddr))).unwrap_or([0; 4]);
        (
            v4_mapped(local),
            v4_mapped(skb::read(at(offset!(sk_daddr))).unwrap_or([0; 4])),
        )
    };
    let cgroup = if connecting {
        // SAFETY: the helper has no preconditions.
        unsafe { generated::bpf_get_current_cgroup_id() }
    } else {
        0
    };
    entry.write(Socket {
        kind: kind::SOCKET,
        netns: skb::netns::<false>(sock, offset!(sk_net)).1,
        // SAFETY: the helper has no preconditions.
        ktime_ns: unsafe { bpf_ktime_get_ns() },
        sock: sock as u64,
        cgroup,
        comm: bpf_get_current_comm().unwrap_or([0; 16]),
        saddr,
        daddr,
        pid: if connecting {
            (bpf_get_current_pid_tgid() >> 32) as u32
        } else {
            0
        },
        sport: skb::read::<u16>(at(offset!(sk_num)))
            .unwrap_or(0)
            .to_be_bytes(),
        dport: skb::read(at(offset!(sk_dport))).unwrap_or([0; 2]),
        event,
        state,
        pad: [0; 6],
    });
    output::submit(entry);
}

#[inline(always)]
fn v4_mapped(address: [u8; 4]) -> [u8; 16] {
    let mut mapped = [0; 16];
    mapped[10] = 0xff;
    mapped[11] = 0xff;
    mapped[12..].copy_from_slice(&address);
    mapped
}
