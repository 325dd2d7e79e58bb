//! `-m ipvs` in words.

use super::matches::{add_negated, masked};
use crate::rules::xt::IpvsMatch;

/// libxt_ipvs.c's order.
pub(super) fn ipvs_text(wanted: &IpvsMatch) -> String {
    let mut words = "-m ipvs".to_owned();
    let inverted = |flag: u8| wanted.inverted & flag != 0;
    let mut add = |flag: u8, negated: bool, text: String| {
        if wanted.flags & flag != 0 {
            add_negated(&mut words, negated, &text);
        }
    };
    let method = ["MASQ", "LOCAL", "IPIP", "GATE"][usize::from(wanted.method & 3)];
    // A direction has two names instead of a negation.
    let direction = if inverted(1 << 4) {
        "REPLY"
    } else {
        "ORIGINAL"
    };
    if wanted.flags == 1 {
        add(1, inverted(1), "--ipvs".to_owned());
    }
    add(
        1 << 1,
        inverted(1 << 1),
        format!("--vproto {}", wanted.protocol),
    );
    add(
        1 << 2,
        inverted(1 << 2),
        format!("--vaddr {}", masked(wanted.address)),
    );
    add(1 << 3, inverted(1 << 3), format!("--vport {}", wanted.port));
    add(1 << 4, false, format!("--vdir {direction}"));
    add(1 << 5, inverted(1 << 5), format!("--vmethod {method}"));
    words
}
