//! What stands in for the tracepoints of `socket_io` where a kernel has none: the functions behind
//! them, by fentry and fexit, which know types as BTF tracepoints do, or else by kprobe.
//!
//! A kretprobe does not know what its function was called with, so that is noted at its beginning.

use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid,
    macros::{fentry, fexit, kprobe, kretprobe, map},
    maps::LruHashMap,
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};

use crate::{
    output::offset,
    probes::socket_io::{self, Sock},
    skb,
};

/// A call that has not returned, by its thread.
#[repr(C)]
#[derive(Clone, Copy)]
struct Call {
    sock: u64,
    /// `MSG_*`, include/linux/socket.h.
    flags: u64,
}

#[map]
static CALLS: LruHashMap<u64, Call> = LruHashMap::with_max_entries(4096, 0);

/// `void sock_def_readable(struct sock *sk)`, net/core/sock.c.
#[fentry(function = "sock_def_readable")]
pub fn sock_def_readable(ctx: FEntryContext) -> i32 {
    socket_io::delivered(Sock::<true>(ctx.arg(0)))
}

/// The same by kprobe.
#[kprobe]
pub fn sock_def_readable_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sock) = ctx.arg(0) {
        socket_io::delivered(Sock::<false>(sock));
    }
    0
}

/// `int inet_recvmsg(struct socket *sock, struct msghdr *msg, size_t size, int flags)`,
/// net/ipv4/af_inet.c.
#[fexit(function = "inet_recvmsg")]
pub fn inet_recvmsg(ctx: FExitContext) -> i32 {
    received(&ctx)
}

/// The same of IPv6, net/ipv6/af_inet6.c.
#[fexit(function = "inet6_recvmsg")]
pub fn inet6_recvmsg(ctx: FExitContext) -> i32 {
    received(&ctx)
}

/// What a function returned follows its arguments.
#[inline(always)]
fn received(ctx: &FExitContext) -> i32 {
    let [flags, ret] = [ctx.arg::<u64>(3), ctx.arg::<u64>(4)];
    socket_io::read(Sock::<true>(sock_of(ctx)), ret as i32, flags as i32)
}

#[inline(always)]
fn sock_of(ctx: &FExitContext) -> *const u8 {
    skb::load::<usize, true>(ctx.arg(0), offset!(socket_sk)) as *const u8
}

/// Either by kprobe.
#[kprobe]
pub fn recvmsg_kprobe(ctx: ProbeContext) -> u32 {
    called(&ctx, ctx.arg(3).unwrap_or(0));
    0
}

/// And its end.
#[kretprobe]
pub fn recvmsg_kretprobe(ctx: RetProbeContext) -> u32 {
    if let Some(call) = returned() {
        let sock = Sock::<false>(call.sock as *const u8);
        socket_io::read(sock, ctx.ret::<u64>() as i32, call.flags as i32);
    }
    0
}

/// `int inet_sendmsg(struct socket *sock, struct msghdr *msg, size_t size)`, net/ipv4/af_inet.c.
#[fexit(function = "inet_sendmsg")]
pub fn inet_sendmsg(ctx: FExitContext) -> i32 {
    socket_io::sent(Sock::<true>(sock_of(&ctx)), ctx.arg::<u64>(3) as i32)
}

/// The same of IPv6, net/ipv6/af_inet6.c.
#[fexit(function = "inet6_sendmsg")]
pub fn inet6_sendmsg(ctx: FExitContext) -> i32 {
    socket_io::sent(Sock::<true>(sock_of(&ctx)), ctx.arg::<u64>(3) as i32)
}

/// Either by kprobe.
#[kprobe]
pub fn sendmsg_kprobe(ctx: ProbeContext) -> u32 {
    called(&ctx, 0);
    0
}

/// And its end.
#[kretprobe]
pub fn sendmsg_kretprobe(ctx: RetProbeContext) -> u32 {
    if let Some(call) = returned() {
        let sock = Sock::<false>(call.sock as *const u8);
        socket_io::sent(sock, ctx.ret::<u64>() as i32);
    }
    0
}

/// `void sock_def_error_report(struct sock *sk)`, net/core/sock.c.
#[fentry(function = "sock_def_error_report")]
pub fn sock_def_error_report(ctx: FEntryContext) -> i32 {
    socket_io::failed(Sock::<true>(ctx.arg(0)))
}

/// The same by kprobe.
#[kprobe]
pub fn sock_def_error_report_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sock) = ctx.arg(0) {
        socket_io::failed(Sock::<false>(sock));
    }
    0
}

/// Notes a call on the `struct socket` that is its first argument, if that is a UDP socket which is
/// of DNS, or may turn out to be by the time that the call returns.
#[inline(always)]
fn called(ctx: &ProbeContext, flags: u64) {
    let socket = ctx.arg::<u64>(0).unwrap_or(0);
    let sock = skb::read::<u64>(socket + u64::from(offset!(socket_sk))).unwrap_or(0);
    if Sock::<false>(sock as *const u8).may_be_of_dns() {
        let thread = bpf_get_current_pid_tgid();
        let _ = CALLS.insert(thread, Call { sock, flags }, 0);
    }
}

/// The call that returns, which is noted no longer.
#[inline(always)]
fn returned() -> Option<Call> {
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: no other thread writes this one's element.
    let call = unsafe { CALLS.get(thread) }.copied();
    if call.is_some() {
        let _ = CALLS.remove(thread);
    }
    call
}
