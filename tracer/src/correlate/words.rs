//! Causes in words: one place, so that the same thing is always said the same way.

use std::{fmt::Write as _, net::IpAddr, time::Duration};

use crate::model::{
    Delivery, Packet, Place,
    drops::{DropNames, is_netfilter},
    fact::Tunnel,
};

/// What an ICMP error says and who sent it; `None` for those that reject nothing.
///
/// RFC 792, RFC 1122 section 3.2.2.1, RFC 4443 section 3.
pub(super) fn icmp(packet: &Packet, kind: u8, code: u8) -> Option<String> {
    let v6 = packet.flow.src.is_ipv6();
    let what = match (v6, kind, code) {
        (false, 3, 0) | (true, 1, 0) => "no route",
        (false, 3, 1) | (true, 1, 3) => "host unreachable",
        (false, 3, 2) => "protocol unreachable",
        (false, 3, 3) | (true, 1, 4) => "port unreachable",
        // Told to send smaller, not turned away.
        (false, 3, 4) | (true, 2, _) => return None,
        (false, 3, 9 | 10 | 13) | (true, 1, 1) => "administratively prohibited",
        (false, 11, _) | (true, 3, _) => "time exceeded",
        (false, 3, _) | (true, 1, _) => "unreachable",
        _ => "parameter problem",
    };
    let name = if v6 { "ICMPv6" } else { "ICMP" };
    Some(format!("{name} {what} from {}", packet.flow.src.ip()))
}

/// The kernel's reason for a drop, the code that freed the packet, and where in netfilter that was.
pub(super) fn dropped(packet: &Packet, names: &DropNames) -> Option<String> {
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
    Some(cause)
}

/// The kernel dropped `what`.
pub(super) fn freed(what: &str, reason: &str) -> String {
    format!("the kernel dropped the {what}: {reason}")
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
