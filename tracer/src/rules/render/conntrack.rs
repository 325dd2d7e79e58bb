//! What iptables asks of a packet's connection, in words.

use super::matches::{add_negated, masked, range};
use crate::rules::xt::Conntrack;

/// `XT_CONNTRACK_STATE_…`, in iptables' order.
pub(super) fn states_text(states: u32) -> String {
    names(
        states,
        &[
            (0, "INVALID"),
            (3, "NEW"),
            (2, "RELATED"),
            (1, "ESTABLISHED"),
            (8, "UNTRACKED"),
            (6, "SNAT"),
            (7, "DNAT"),
        ],
    )
}

/// `IPS_…`, in iptables' order.
fn status_text(status: u16) -> String {
    match status {
        0 => "NONE".to_owned(),
        _ => names(
            status.into(),
            &[
                (0, "EXPECTED"),
                (1, "SEEN_REPLY"),
                (2, "ASSURED"),
                (3, "CONFIRMED"),
            ],
        ),
    }
}

/// Names of the bits that are set.
fn names(bits: u32, names: &[(u32, &str)]) -> String {
    let set = names.iter().filter(|(bit, _)| bits >> bit & 1 == 1);
    let names: Vec<_> = set.map(|(_, name)| *name).collect();
    names.join(",")
}

pub(super) fn conntrack_text(found: &Conntrack) -> String {
    const ENDS: [&str; 4] = ["origsrc", "origdst", "replsrc", "repldst"];
    const DIRECTION: u16 = 1 << 12;
    let mut words = "-m conntrack".to_owned();
    let mut add = |flag: u16, text: String| {
        if found.flags & flag != 0 {
            add_negated(&mut words, found.inverted & flag != 0, &text);
        }
    };
    add(
        1,
        format!("--ctstate {}", states_text(u32::from(found.states))),
    );
    add(1 << 1, format!("--ctproto {}", found.protocol));
    for (index, end) in ENDS.into_iter().enumerate() {
        let address = masked(found.addresses[index]);
        add(1 << (2 + index), format!("--ct{end} {address}"));
    }
    for (index, end) in ENDS.into_iter().enumerate() {
        let (first, last) = found.ports[index];
        add(
            1 << (8 + index),
            format!("--ct{end}port {}", range(first, last)),
        );
    }
    add(1 << 6, format!("--ctstatus {}", status_text(found.status)));
    let (first, last) = found.expires;
    add(1 << 7, format!("--ctexpire {}", range(first, last)));
    // Inverted, it is the other direction.
    if found.flags & DIRECTION != 0 {
        let direction = match found.inverted & DIRECTION {
            0 => "ORIGINAL",
            _ => "REPLY",
        };
        add_negated(&mut words, false, &format!("--ctdir {direction}"));
    }
    words
}
