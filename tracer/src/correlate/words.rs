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

/// The kernel dropped `what`.
pub(super) fn freed(what: &str, reason: &str) -> String {
    format!("the kernel dropped the {what}: {reason}")
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
    // SERVFAIL, REFUSED: RFC 1035, section 4.1.1.
    let fails = matches!(dns.rcode, Some(2 | 5));
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
