//! Causes in words: one place, so that the same thing is always said the same way.

use std::{fmt::Write as _, net::IpAddr, time::Duration};

use super::inserts::Why;
use crate::model::{
    Delivery, Dns, Flow, Outcome, Packet, Place, Upstream,
    drops::{DropNames, is_netfilter},
    fact::Tunnel,
    insert::Clash,
};

/// What an ICMP error says and who sent it; `None` for those that reject nothing.
///
/// RFC 792, RFC 1122 section 3.2.2.1, RFC 4443 section 3.
pub(super) fn icmp(packet: &Packet, kind: u8, code: u8) -> Option<String> {
    let error = icmp_error(packet.flow.src.is_ipv6(), kind, code)?;
    Some(format!("{error} from {}", packet.flow.src.ip()))
}

/// What an ICMP error, or one of ICMPv6, says; `None` for those that reject nothing.
pub(super) fn icmp_error(v6: bool, kind: u8, code: u8) -> Option<&'static str> {
    Some(match (v6, kind, code) {
        (false, 3, 0) => "ICMP no route",
        (false, 3, 1) => "ICMP host unreachable",
        (false, 3, 2) => "ICMP protocol unreachable",
        (false, 3, 3) => "ICMP port unreachable",
        // Told to send smaller, or another way; not turned away.
        (false, 3, 4) | (false, 5, _) | (true, 2, _) => return None,
        (false, 3, 9 | 10 | 13) => "ICMP administratively prohibited",
        (false, 3, _) => "ICMP unreachable",
        (false, 11, _) => "ICMP time exceeded",
        (false, ..) => "ICMP parameter problem",
        (true, 1, 0) => "ICMPv6 no route",
        (true, 1, 1) => "ICMPv6 administratively prohibited",
        (true, 1, 3) => "ICMPv6 host unreachable",
        (true, 1, 4) => "ICMPv6 port unreachable",
        (true, 1, _) => "ICMPv6 unreachable",
        (true, 3, _) => "ICMPv6 time exceeded",
        (true, ..) => "ICMPv6 parameter problem",
    })
}

/// The ICMP `error` that the kernel sent did not come to the client; nor did the query pass.
pub(super) fn lost_error(error: &str, dropped: Option<&str>) -> String {
    let lost = format!("{error} was sent, and did not reach the client");
    match dropped {
        Some(dropped) => format!("{lost}; {dropped}"),
        None => lost,
    }
}

/// Adds to `cause` which error the application gets (include/uapi/asm-generic/errno.h).
pub(super) fn add_errno(cause: &mut String, errno: u32) {
    let name = match errno {
        71 => "EPROTO",
        92 => "ENOPROTOOPT",
        101 => "ENETUNREACH",
        111 => "ECONNREFUSED",
        113 => "EHOSTUNREACH",
        _ => "an error",
    };
    if !cause.contains(" got ") {
        cause.push_str("; the application got ");
        cause.push_str(name);
    }
}

/// The kernel's reason for a drop, the code that freed the packet, and where in netfilter that was.
pub(super) fn dropped(packet: &Packet, names: &DropNames, insert: Option<&Why>) -> Option<String> {
    let Place::Dropped {
        reason,
        location,
        hook,
    } = packet.place
    else {
        return None;
    };
    let mut cause = names.reason(reason).into_owned();
    let symbol = names.symbols.get(&location).map(String::as_str);
    if is_netfilter(&cause, symbol)
        && let Some(hook) = hook
    {
        cause += " in ";
        cause += hook.name();
    }
    match symbol {
        Some(symbol) => {
            cause += ", by ";
            cause += symbol;
        }
        None if location != 0 => {
            // Formatting into a String cannot fail.
            let _ = write!(cause, ", by code at {location:#x}");
        }
        None => {}
    }
    match insert {
        Some(Why::Clash(clash)) => add_clash(&mut cause, clash),
        Some(Why::Full) => cause += "; conntrack's table was full",
        None => {}
    }
    Some(cause)
}

/// Adds to `cause` what conntrack counted in that namespace then.
pub(super) fn add_counted(cause: &mut String, name: &str, count: u64) {
    // Formatting into a String cannot fail.
    let _ = write!(
        cause,
        "; conntrack's statistics there count {count} {name} within that second"
    );
}

/// Adds to `cause` with which packet this one raced, and for what.
fn add_clash(cause: &mut String, clash: &Clash) {
    let (own, other) = (clash.own, clash.other);
    let raced = if own.original == other.original {
        // Two packets of one socket.
        format!("{} ⇒ {}", other.original.dst, other.reply.src)
    } else {
        format!("{} → {}", other.original.src, other.original.dst)
    };
    let Flow { src, dst } = own.reply;
    // Formatting into a String cannot fail.
    let _ = write!(
        cause,
        "; its conntrack entry, replies {src} → {dst}, clashed with that of {raced}"
    );
}

/// The kernel dropped `what`: its reason, and what that means where its name does not say so.
pub(super) fn freed(what: &str, reason: &str) -> String {
    let name = reason.split([',', ' ']).next().unwrap_or_default();
    let freed = format!("the kernel dropped the {what}: {reason}");
    match meaning(name) {
        Some(meaning) => format!("{freed}; {meaning}"),
        None => freed,
    }
}

/// What a reason of the kernel means (include/net/dropreason-core.h).
fn meaning(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "NEIGH_FAILED" | "NEIGH_DEAD" => NO_NEIGHBOUR,
        "NEIGH_CREATEFAIL" => "the neighbour table was full",
        "NEIGH_QUEUEFULL" => "too many waited for its next hop to answer ARP",
        "IP_OUTNOROUTES" | "IP_INNOROUTES" => "there was no route for it",
        "IP_RPFILTER" => "the way back leads by another device than it came by (rp_filter)",
        "PKT_TOO_BIG" => "it was too big for the next link",
        "UDP_CSUM" | "TCP_CSUM" | "IP_CSUM" => "its checksum was wrong",
        "QDISC_DROP" => "the queueing discipline of its device dropped it",
        "TC_INGRESS" | "TC_EGRESS" => "a program or filter of tc dropped it",
        "XDP" => "an XDP program dropped it",
        "FRAG_REASM_TIMEOUT" => "its other fragments did not come",
        "DEV_READY" => "its device was down",
        _ => return None,
    })
}

const NO_NEIGHBOUR: &str = "its next hop did not answer ARP or neighbour discovery";

/// Adds to the `cause` of a rejection that the next hop did not answer, where `dropped` says so.
pub(super) fn with_neighbour(mut cause: String, dropped: Option<&str>) -> String {
    if dropped.is_some_and(|dropped| dropped.contains(NO_NEIGHBOUR)) {
        cause += "; ";
        cause += NO_NEIGHBOUR;
    }
    cause
}

/// A drop in the client's own namespace, where the packet had been nowhere else.
pub(super) fn never_left(dropped: String, at_home: bool) -> String {
    if at_home {
        format!("it never left the client: {dropped}")
    } else {
        dropped
    }
}

/// An answer was seen, and not where the client is, where it would have been seen.
pub(super) fn answer_lost(after: Option<Duration>) -> String {
    match after {
        Some(after) => format!(
            "the answer was lost on its way back: last seen {} ms after the query, not seen to be \
             dropped, and not seen to arrive",
            after.as_millis()
        ),
        None => "the answer was lost on its way back".to_owned(),
    }
}

/// An answer came to a closed socket.
pub(super) fn closed(after: Duration) -> String {
    let after = after.as_millis();
    format!("the answer came {after} ms after the query, when the client had closed its socket")
}

/// What is not seen may have been lost to us alone.
pub(super) fn while_lossy(cause: String, lossy: bool) -> String {
    if lossy {
        format!("{cause}; records were lost meanwhile, an answer may have been among them")
    } else {
        cause
    }
}

/// Nothing came, as `unanswered` says; it was last seen when it left by a device.
pub(super) fn sent_out(unanswered: &str, to: IpAddr) -> String {
    format!("{unanswered}: it was last seen leaving for {to}, and nothing came back")
}

/// The reason for a drop, of a packet whose socket had no room for it.
pub(super) fn full(reason: &str) -> String {
    format!("{reason}, the receive buffer of its socket was full")
}

/// An answer that its asker discards, for it does not come from the address asked.
pub(super) fn unexpected_source(from: IpAddr) -> String {
    format!("an answer came from {from}, not from the address asked")
}

/// An answer came although the query had been given up.
pub(super) fn after_all(late: bool) -> &'static str {
    if late {
        "the answer came late"
    } else {
        "an answer came after all"
    }
}

/// The client uses its port anew before anything came.
pub(super) fn replaced() -> String {
    "no answer until the client used its port anew".to_owned()
}

/// A first packet that was sent again and again got no answer.
pub(super) fn sent_again(cause: String, times: u32) -> String {
    match times {
        0 => cause,
        1 => format!("{cause}; the SYN was sent again once"),
        _ => format!("{cause}; the SYN was sent again {times} times"),
    }
}

/// The answer to a SYN was seen, and did not come to the client.
pub(super) fn syn_ack_lost(unanswered: &str) -> String {
    format!("{unanswered}: the server's answer was seen on its way back, and did not arrive")
}

/// The server's side reset a connection.
pub(super) fn reset(from: IpAddr, connected: bool, served: bool) -> String {
    let when = match (connected, served) {
        (false, _) => "to the first packet",
        (true, false) => "after the handshake",
        (true, true) => "after its first byte, before either side closed",
    };
    format!("reset by {from} {when}")
}

/// An open connection makes no headway.
pub(super) fn stalled(times: u32, over: Duration) -> String {
    let over = over.as_millis();
    format!(
        "connected, and then nothing came: data was sent again {times} times within {over} ms, \
         without an answer"
    )
}

/// Nothing came.
pub(super) fn unanswered(after: Duration) -> String {
    format!("no answer within {} s", after.as_secs_f32())
}

/// Nothing came, as `unanswered` says; it was last seen when it left for another node.
pub(super) fn sent_through(unanswered: &str, tunnel: &Tunnel) -> String {
    let (kind, node) = (tunnel.kind.name(), tunnel.dst);
    format!("{unanswered}: it left by {kind} for {node} and nothing came back")
}

/// Nothing came, as `unanswered` says; and what the server did with the query, where it is known.
pub(super) fn unserved(unanswered: String, query: Delivery) -> String {
    match (query, query.waited()) {
        (Delivery::Queued { waits: true, .. }, _) => {
            format!("{unanswered}: the query lies unread in the server's socket")
        }
        (Delivery::Read { by, .. }, Some(waited)) => format!(
            "{unanswered}: {}[{}] read the query {} ms after it came, and sent none",
            by.comm,
            by.pid,
            waited.as_millis()
        ),
        _ => unanswered,
    }
}

/// After this long a server has waited in vain, rather than asked two at once.
const IN_VAIN: Duration = Duration::from_secs(1);

/// What its server's upstream has to do with the end of an exchange; `None` where it has nothing.
/// 1. A failure, or no answer, is told together with what came from upstream.
/// 2. An answer that came after it was given up, where most of its time was the wait for upstream.
/// 3. A good one, where it had to ask upstream again because nothing came.
pub(super) fn by_upstream(dns: &Dns, upstream: &Upstream) -> Option<String> {
    let Upstream {
        asked,
        queries,
        waited,
        ..
    } = *upstream;
    let waited_ms = waited.as_millis();
    let asks = match queries {
        1 => format!("its server asked {asked}"),
        _ => format!("its server asked {queries} times, {asked} last"),
    };
    let fails = dns.server_failed();
    let is_answered = dns.outcome == Outcome::Answered;
    let mostly = dns.latency.is_some_and(|latency| waited * 2 >= latency);
    let told = match (upstream.outcome, upstream.rcode) {
        (Outcome::Answered, Some(rcode)) if !is_answered || fails => {
            format!(
                "{asks}, which answered {} after {waited_ms} ms",
                rcode_name(rcode)
            )
        }
        (Outcome::Answered, _) if is_answered && mostly && dns.amends.is_some() => {
            format!("{asks}, and waited {waited_ms} ms for the answer")
        }
        (Outcome::Answered, _) if is_answered && queries > 1 && waited >= IN_VAIN => {
            format!("{asks}, and waited {waited_ms} ms in all")
        }
        (Outcome::Answered, _) => return None,
        _ if is_answered && !fails && !mostly => return None,
        (Outcome::Rejected | Outcome::Reset, _) => format!("{asks}, and was rejected"),
        (Outcome::Dropped, _) => format!("{asks}, and that query was dropped"),
        _ => format!("{asks}, and got no answer within {waited_ms} ms"),
    };
    let inferred = if upstream.inferred { " (inferred)" } else { "" };
    Some(told + inferred)
}

/// RFC 1035, section 4.1.1.
fn rcode_name(rcode: u16) -> String {
    match rcode {
        0 => "NOERROR".to_owned(),
        1 => "FORMERR".to_owned(),
        2 => "SERVFAIL".to_owned(),
        3 => "NXDOMAIN".to_owned(),
        5 => "REFUSED".to_owned(),
        other => format!("RCODE{other}"),
    }
}
