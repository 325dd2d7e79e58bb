//! Changes of kube-proxy's rules in nftables mode.

use super::changes::{Change, Edit, Text, named};

/// A word of a line replaced by another: chain or set, and what the line has; at most so many.
type Swapped = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    usize,
);

#[rustfmt::skip]
const SWAPPED: &[Swapped] = &[
    ("endpoint swapped", "service-KHN6ECMT", "numgen", "1 : 10.244.1.2", "1 : 10.244.1.7", 1),
    ("endpoint swapped", "service-KNG7NGZ2", "numgen", "1 : 10.244.1.2", "1 : 10.244.2.3", 1),
    ("endpoint swapped", "local-P4Z5S65K", "numgen", "0 : 10.244.1.1", "0 : 10.244.2.3", 1),
    ("endpoint swapped", "local-6E53KC66", "numgen", "0 : 10.244.1.1", "0 : 10.244.2.3", 1),
    ("endpoint swapped", "endpoint-FX7ULIB6", "dnat", "10.244.1.2", "10.244.1.1", 1),
    ("endpoint swapped", "service-AN6D5RLX", "dnat", "10.244.2.3", "10.244.1.1", 1),
    ("endpoint swapped", "service-MXDSW54L", "dnat", "10.244.1.1", "10.244.1.2", 1),
    ("endpoint swapped", "service-LILVGSEM", "dnat", "10.244.1.1", "10.244.1.2", 1),
    ("port swapped", "service-QTOH25QI", "numgen", "10.244.2.3 . 8080", "10.244.2.3 . 8081", 1),
    ("port swapped", "service-IFHKB3TS", "numgen", "10.244.2.3 . 9090", "10.244.2.3 . 8080", 1),
    ("port swapped", "service-YSFNGHT2", "dnat", ":8080", ":9090", 1),
    ("endpoint removed", "service-WB2QITPI", "numgen", "mod 3 map { 0 : 10.244.1.1 . 8080, 1 : 10.244.1.2 . 8080, 2", "mod 2 map { 0 : 10.244.1.1 . 8080, 1", 1),
    ("endpoint removed", "service-OP5LS5VD", "numgen", "mod 2 map { 0 : 10.244.1.1 . 8080, 1", "mod 1 map { 0", 1),
    ("endpoint removed", "service-G5HJIGAW", "numgen", "mod 3 vmap", "mod 2 vmap", 1),
    ("map element removed", "service-VTZSIEPE", "numgen", ", 2 : 10.244.2.3 . 8080", "", 1),
    ("endpoint added", "service-OG7GRK7K", "numgen", "mod 2 map { 0", "mod 3 map { 2 : 10.244.1.2 . 8080, 0", 1),
    ("endpoint added", "service-LILVGSEM", "dnat", "dnat to 10.244.1.1:8080", "dnat ip addr . port to numgen random mod 2 map { 0 : 10.244.1.1 . 8080, 1 : 10.244.1.2 . 8080 }", 1),
    ("probability altered", "service-KHN6ECMT", "numgen", "mod 3 map { 0", "mod 4 map { 3 : 10.244.1.1 . 8080, 0", 1),
    ("probability altered", "service-CYI7CYQE", "numgen", "mod 3 map { 0", "mod 5 map { 3 : 10.244.2.3 . 8080, 4 : 10.244.2.3 . 8080, 0", 1),
    ("probability altered", "service-KNG7NGZ2", "numgen", "mod 2 map { 0", "mod 8 map { 2-7 : 10.244.1.2 . 8080, 0", 1),
    ("spread by turns", "service-TMOEXWZD", "numgen", "random", "inc", 1),
    ("order of a map altered", "service-NQ3XH5EL", "numgen", "0 : 10.244.1.1 . 8080, 1 : 10.244.2.3", "1 : 10.244.1.1 . 8080, 0 : 10.244.2.3", 1),
    ("protocol altered", "service-WB2QITPI", "dnat", "l4proto udp", "l4proto tcp", 1),
    ("address swapped", "map service-ips", "10.96.0.2", "10.96.0.2", "10.96.1.2", 2),
    ("address swapped", "map service-ips", "10.96.0.25", "10.96.0.25", "10.96.0.27", 1),
    ("address swapped", "map service-ips", "10.96.0.28", "10.96.0.28", "10.96.0.200", 1),
    ("address swapped", "map service-ips", "198.51.100.18", "198.51.100.18", "198.51.100.48", 1),
    ("port swapped", "map service-ips", "10.96.0.1", "tcp . 80", "tcp . 81", 2),
    ("protocol altered", "map service-ips", "udp . 53", "udp . 53", "udp . 54", 1),
    ("jump redirected", "map service-ips", "10.96.0.11 .", "service-AN6D5RLX-shop/one", "service-KHN6ECMT-shop/web", 1),
    ("jump redirected", "map service-ips", "10.96.0.20 .", "local-P4Z5S65K-shop/inner", "service-KHN6ECMT-shop/web", 1),
    ("jump redirected", "map service-ips", "198.51.100.17", "external-OG7G", "service-OG7G", 1),
    ("jump redirected", "map service-nodeports", "30016", "external-QTOH", "service-QTOH", 1),
    ("jump redirected", "map service-nodeports", "30018", "external-6E53KC66-shop/near", "external-QTOH25QI-shop/node", 1),
    ("jump redirected", "external-6E53KC66", "goto local-", "local-", "service-", 1),
    ("jump redirected", "external-OG7GRK7K", "goto service", "service-OG7GRK7K-shop/out", "service-KHN6ECMT-shop/web", 1),
    ("jump redirected", "service-G5HJIGAW", "@affinity-UWND", "goto endpoint-UWND472Q-shop/sticky/tcp/http__10.244.1.1", "goto endpoint-FX7ULIB6-shop/sticky/tcp/http__10.244.1.2", 1),
    ("port swapped", "map service-nodeports", "3002", "3002", "3012", 1),
    ("verdict altered", "map no-endpoint-services", "reject-chain", "goto reject-chain", "drop", 3),
    ("verdict altered", "map no-endpoint-services", ": drop", ": drop", ": goto reject-chain", 2),
    ("verdict altered", "map no-endpoint-nodeports", "30021", "goto reject-chain", "drop", 1),
    ("verdict altered", "map no-endpoint-nodeports", "30019", ": drop", ": goto reject-chain", 1),
    ("address swapped", "map no-endpoint-services", "10.96.0.12", "10.96.0.12", "10.96.0.112", 1),
    ("address swapped", "map no-endpoint-services", "198.51.100.19", "198.51.100.19", "198.51.100.49", 1),
    ("address swapped", "map firewall-ips", "198.51.100.20", "198.51.100.20", "198.51.100.50", 1),
    ("set element removed", "set hairpin", "10.244.1.2 . 10.244.1.2 . tcp", "10.244.1.2 . 10.244.1.2 . tcp . 8080,", "", 1),
    ("set element removed", "set hairpin", "udp . 8080,", "10.244.1.1 . 10.244.1.1 . udp . 8080,", "", 1),
    ("set element altered", "set hairpin", "10.244.1.1 . tcp", "10.244.1.1 . 10.244.1.1", "10.244.1.1 . 10.244.1.2", 1),
    ("set element removed", "set cluster-ips", "10.96.0.11", "10.96.0.11, ", "", 1),
    ("set element removed", "set cluster-ips", "10.96.0.13", ", 10.96.0.14", "", 1),
    ("set element removed", "set cluster-ips", "10.96.0.35", ", 10.96.0.35,", ",", 1),
    ("set element altered", "set nodeport-ips", "192.0.2.1", "192.0.2.1", "192.0.2.9", 1),
    ("CIDR altered", "chain services", "10.244.0.0/16", "!= 10.244.0.0/16", "!= 10.244.2.0/24", 1),
    ("CIDR altered", "chain services", "10.244.0.0/16", "!= 10.244.0.0/16", "!= 10.244.0.0/14", 1),
    ("CIDR altered", "external-6E53KC66", "10.244.0.0/16", "10.244.0.0/16", "10.99.0.0/16", 1),
    ("CIDR altered", "firewall-E4CSEQH2", "192.0.2.96/28", "192.0.2.96/28", "192.0.2.128/25", 1),
    ("CIDR altered", "firewall-E4CSEQH2", "192.0.2.96/28", "!= ", "", 1),
    ("CIDR altered", "chain cluster-ips-check", "10.96.0.0/16", "10.96.0.0/16", "10.97.0.0/16", 1),
    ("mark altered", "chain services", "0x00004000", "0x00004000", "0x00008000", 1),
    ("mark altered", "external-QTOH25QI", "0x00004000", "0x00004000", "0x00000000", 1),
    ("mark altered", "external-E4CSEQH2", "0x00004000", "0x00004000", "0x00008000", 1),
    ("mark altered", "chain masquerading", "0x00004000 !=", "& 0x00004000", "& 0x00008000", 1),
    ("mark altered", "chain masquerading", "0x00004000 !=", "^ 0x00004000", "^ 0x00000000", 1),
    ("random port dropped", "chain masquerading", "meta mark", " fully-random", "", 1),
    ("random port dropped", "chain masquerading", "hairpin", " fully-random", "", 1),
    ("affinity shortened", "set affinity-FX7U", "timeout 3h", "3h", "1s", 1),
    ("affinity altered", "endpoint-UWND472Q", "update", "ip saddr", "ip daddr", 1),
    ("affinity altered", "endpoint-YGRNAACP", "update", "YGRNAACP-shop/stickynear/tcp/http__10.244.1.2", "5CN73BOW-shop/stickynear/tcp/http__10.244.1.1", 1),
    ("state altered", "chain filter-output {", "service-endpoints", "new", "established", 1),
    ("state altered", "chain filter-forward", "service-endpoints", "ct state new ", "", 1),
    ("address type altered", "external-6E53KC66", "goto service-6E53KC66-shop/near/tcp/http comment \"short-circuit local", "type local", "type unicast", 1),
    ("address type altered", "external-YSFNGHT2", "meta mark set", "type local", "type unicast", 1),
    ("policy altered", "chain filter-forward", "policy", "policy accept", "policy drop", 1),
    ("priority altered", "chain nat-postrouting", "hook", "srcnat", "srcnat + 5", 1),
    ("interface altered", "chain nat-prerouting", "jump", "jump", "iifname \"c\" jump", 1),
    ("interface altered", "chain nat-postrouting", "jump", "jump", "oifname != \"b1\" jump", 1),
    ("comment altered", "chain services", "masquerade clusterIP", "masquerade clusterIP", "by hand", 1),
    ("comment altered", "map no-endpoint-services", "shop/none:http", "shop/none:http", "by hand", 1),
];

/// A line at the beginning of a chain; what it is about.
#[rustfmt::skip]
const FIRST: &[(&str, &str, &str, u8)] = &[
    ("early return", "chain services", "return", 2),
    ("early return", "chain services", "ip daddr 10.96.0.11 return", 2),
    ("early return", "chain masquerading", "return", 7),
    ("early return", "chain service-endpoints-check", "return", 8),
    ("early return", "chain firewall-check", "return", 18),
    ("early return", "chain cluster-ips-check", "return", 9),
    ("early return", "chain external-6E53KC66", "goto service-6E53KC66-shop/near/tcp/http", 15),
    ("early accept", "chain nat-output", "accept", 1),
    ("early accept", "chain nat-postrouting", "oifname \"b0\" accept", 1),
    ("early accept", "chain filter-forward", "ct state new accept", 1),
    ("early accept", "chain service-KHN6ECMT", "ip saddr 10.244.0.0/16 accept", 3),
    ("DNAT elsewhere", "chain services", "ip daddr 192.0.2.1 tcp dport 30016 dnat to 10.244.1.9:22", 11),
    ("DNAT elsewhere", "chain service-AN6D5RLX", "meta l4proto tcp dnat to 10.244.1.1:9090", 3),
    ("drop in front", "chain filter-forward", "ip daddr 10.244.1.1 tcp dport 8080 drop", 3),
    ("drop in front", "chain filter-forward", "ip daddr 198.51.100.77 drop", 3),
    ("drop in front", "chain filter-prerouting-pre-dnat", "ip daddr 10.96.0.13 drop", 10),
    ("drop in front", "chain filter-output {", "ip daddr 10.244.0.0/16 meta l4proto udp drop", 1),
    ("reject in front", "chain filter-forward", "ip daddr 10.244.2.3 tcp dport 9090 reject", 24),
    ("mark in front", "chain services", "iifname \"c\" meta mark set 0x4000", 7),
    ("mark in front", "chain services", "iifname \"c\" meta mark set 0x10", 7),
    ("mark in front", "chain service-MXDSW54L", "meta mark set meta mark | 0x4000", 20),
    ("rule beside", "chain filter-input", "tcp dport 22 accept", 16),
    ("rule beside", "chain nat-postrouting", "ip saddr 10.244.0.0/16 ip daddr != 10.0.0.0/8 oifname \"eth0\" masquerade", 7),
    ("rule beside", "chain filter-input", "ct state established counter accept", 1),
];

/// All changes of the one text.
pub(super) fn changes(texts: &[Text]) -> Vec<Change> {
    let text = &texts[0];
    let end = text.some(1, |line| line.starts_with("table ip6"))[0];
    let mut all = Vec::new();
    let rules = rules(text);
    let v4: Vec<_> = rules.iter().copied().filter(|at| *at < end).collect();
    let v6: Vec<_> = rules.iter().copied().filter(|at| *at > end).collect();
    for at in v4.iter().chain(v6.iter().step_by(4)) {
        all.push(change(text, "rule deleted", *at, vec![Edit::Delete(*at)]));
    }
    let elements =
        (0..end).filter(|at| text.lines[*at].contains(" : goto ") && !rules.contains(at));
    let whole = |at: &usize| text.lines[*at].ends_with(',') && !text.lines[*at].contains('{');
    for at in elements.filter(whole).step_by(3) {
        all.push(change(
            text,
            "map element removed",
            at,
            vec![Edit::Delete(at)],
        ));
    }
    for (kind, of, has, from, to, most) in SWAPPED {
        let within = block(text, of);
        let fits =
            within.filter(|at| text.lines[*at].contains(has) && text.lines[*at].contains(from));
        let fits: Vec<_> = fits.take(*most).collect();
        assert!(!fits.is_empty(), "{of} {from}");
        for at in fits {
            let line = text.lines[at].replacen(from, to, 1);
            // nft takes no empty line there.
            let edit = match line.trim() {
                "" => Edit::Delete(at),
                _ => Edit::Replace(at, line),
            };
            let mut change = change(text, kind, at, vec![edit]);
            change.slow = *kind == "affinity shortened";
            change.words = format!("{kind}: {of} {from} → {to}");
            all.push(change);
        }
    }
    for (kind, of, line, number) in FIRST {
        let within = block(text, of);
        let at = within.start;
        // Behind the line that says which hook it is.
        let at = at + usize::from(text.lines[at + 1].contains(" hook "));
        let mut change = change(text, kind, at, vec![Edit::After(at, (*line).to_owned())]);
        change.words = format!("{kind}: {of} {line}");
        change.behaviour = *number;
        all.push(change);
    }
    for pair in v4
        .windows(2)
        .filter(|pair| pair[1] == pair[0] + 1)
        .step_by(4)
    {
        let edit = Edit::Swap(pair[0], pair[1]);
        all.push(change(text, "order swapped", pair[0], vec![edit]));
    }
    for at in v4.iter().step_by(9) {
        let line = text.lines[*at].clone();
        all.push(change(
            text,
            "rule duplicated",
            *at,
            vec![Edit::After(*at, line)],
        ));
    }
    let chains = (0..end).filter(|at| text.lines[*at].starts_with("\tchain "));
    for start in chains.step_by(4) {
        let of = rules.iter().filter(|at| **at > start);
        let within = block(text, text.lines[start].trim());
        let of: Vec<_> = of.take_while(|at| within.contains(at)).copied().collect();
        let edits = of.iter().map(|at| Edit::Delete(*at)).collect();
        all.push(change(text, "chain emptied", start, edits));
    }
    all
}

/// Lines that are rules.
fn rules(text: &Text) -> Vec<usize> {
    let mut within = false;
    let mut rules = Vec::new();
    for (at, line) in text.lines.iter().enumerate() {
        if line.starts_with("\tchain ") {
            within = true;
        } else if line == "\t}" {
            within = false;
        } else if within && !line.contains(" hook ") && !line.trim().starts_with("comment") {
            rules.push(at);
        }
    }
    rules
}

/// The lines of the first chain, set or map that is called so.
fn block(text: &Text, of: &str) -> std::ops::Range<usize> {
    let found = text
        .lines
        .iter()
        .position(|line| line.contains(of) && line.ends_with('{'));
    let start = found.unwrap_or_else(|| panic!("{of}"));
    let length = text.lines[start..].iter().position(|line| line == "\t}");
    start..start + length.expect("it ends")
}

fn change(text: &Text, kind: &'static str, at: usize, edits: Vec<Edit>) -> Change {
    let heads = text.lines[..=at].iter().rev();
    let head = heads
        .clone()
        .find(|line| line.ends_with('{') && line.starts_with('\t'));
    let head = head.map_or("", String::as_str);
    let line = &text.lines[at];
    // Addresses that all of a kind have in common.
    let mut touched = named(line);
    if head.contains('/') {
        touched.extend(named(head));
    }
    Change {
        text: 0,
        six: text.lines[..at]
            .iter()
            .any(|line| line.starts_with("table ip6")),
        behaviour: behaviour(head, line),
        edits,
        touched,
        slow: false,
        words: format!("{kind}: {} {}", head.trim(), line.trim()),
    }
}

/// Which behaviour a line is about; the first that fits.
fn behaviour(head: &str, line: &str) -> u8 {
    const BY: &[(&str, &str, u8)] = &[
        ("hairpin-connections", "", 5),
        ("chain masquerading", "hairpin", 5),
        ("chain masquerading", "", 7),
        ("nodeport-ips", "", 11),
        ("service-nodeports", "", 11),
        ("", "service-nodeports", 11),
        ("no-endpoint", "drop", 15),
        ("no-endpoint", "", 8),
        ("-endpoints-check", "", 8),
        ("reject-chain", "", 8),
        ("firewall", "", 18),
        ("", "firewall", 18),
        ("cluster-ips-check", "", 9),
        ("service-ips", "198.51", 13),
        ("", "masquerade clusterIP", 6),
        ("cluster-ips", "", 6),
        ("service-ips", "", 2),
        ("chain services", "", 2),
        ("affinity", "", 10),
        ("sticky", "", 10),
        ("external-6E53KC66", "", 15),
        ("external-YSFNGHT2", "", 15),
        ("external-", "", 14),
        ("local-P4Z5S65K", "", 17),
        ("local-", "", 15),
        ("shop/zoned", "", 21),
        ("shop/noded", "", 21),
        ("shop/half", "", 21),
        ("shop/draining", "", 19),
        ("shop/ending", "", 19),
        ("shop/early", "", 20),
        ("shop/named", "", 24),
        ("service-", "", 3),
    ];
    let fits = |words: &&(&str, &str, u8)| head.contains(words.0) && line.contains(words.1);
    BY.iter().find(fits).map_or(1, |(.., behaviour)| *behaviour)
}
