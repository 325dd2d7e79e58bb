//! Changes that no first packet feels: replies alone do, or what the client sends next.

use std::collections::BTreeSet;

use super::changes::{Change, Edit, Text};

/// What a fixture lacks, and changes put rules into.
pub(super) const RAW: &str = "*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n";

/// Of iptables' rules: whether it is put before the first line like that, else into that table; what it is about.
#[rustfmt::skip]
const IPTABLES: &[(bool, &str, &str, u8)] = &[
    (true, "-A FORWARD", "-A FORWARD -s 10.244.1.1/32 -m conntrack --ctstate ESTABLISHED --ctdir REPLY -j DROP", 29),
    (true, "-A FORWARD", "-A FORWARD -s 10.244.2.3/32 -p tcp -m tcp --tcp-flags SYN,ACK SYN,ACK -j DROP", 29),
    (true, "-A OUTPUT -j KUBE-FIREWALL", "-A OUTPUT -p tcp -m tcp --sport 6443 -m conntrack --ctdir REPLY -j DROP", 29),
    (true, "-A FORWARD", "-A FORWARD -m conntrack --ctdir REPLY --ctorigdst 10.96.0.11/32 -j REJECT", 29),
    (true, "-A INPUT", "-A INPUT -s 10.244.1.2/32 -j DROP", 29),
    (true, "-A FORWARD", "-A FORWARD -s 10.244.1.1/32 -m conntrack --ctdir ORIGINAL -p tcp -m tcp --sport 8080 -j DROP", 29),
    (true, "-A FORWARD", "-A FORWARD -s 10.244.1.1/32 -m conntrack --ctstate INVALID -j DROP", 29),
    (true, "-A FORWARD", "-A FORWARD -d 10.244.1.1/32 -m conntrack --ctstate ESTABLISHED --ctdir ORIGINAL -j DROP", 29),
    (true, "-A FORWARD", "-A FORWARD -d 10.244.1.2/32 -p tcp -m tcp --dport 8080 --tcp-flags SYN,ACK ACK -j DROP", 29),
    (true, "-A FORWARD", "-A FORWARD -p udp -m conntrack --ctstate ESTABLISHED --ctdir ORIGINAL --ctorigdst 10.96.0.10/32 -j REJECT", 29),
    (true, "-A FORWARD", "-A FORWARD -p tcp -m conntrack --ctstatus ASSURED --ctdir ORIGINAL --ctorigdst 10.96.0.11/32 -j REJECT --reject-with tcp-reset", 29),
    (true, "-A OUTPUT -j KUBE-FIREWALL", "-A OUTPUT -d 10.96.0.0/12 -m conntrack --ctstate ESTABLISHED --ctdir ORIGINAL -j DROP", 29),
    (true, "-A OUTPUT -j KUBE-FIREWALL", "-A OUTPUT -p tcp -m conntrack --ctstate ESTABLISHED --ctdir ORIGINAL --ctreplsrc 10.244.2.3 -j DROP", 29),
    (false, "*raw", "-A PREROUTING -d 10.96.0.10/32 -p tcp -m tcp --tcp-flags SYN NONE -j CT --notrack", 23),
    (false, "*raw", "-A PREROUTING -s 10.244.2.3/32 -p udp -j CT --notrack", 23),
    (false, "*raw", "-A PREROUTING -s 10.244.1.1/32 -p tcp -m tcp --sport 8080 -j CT --notrack", 23),
];

/// Of nf_tables: the table that is there besides.
#[rustfmt::skip]
const NFTABLES: &[(&str, &str, u8)] = &[
    ("type filter hook forward priority 10;", "ip saddr 10.244.2.3 tcp flags & (syn | ack) == syn | ack drop", 29),
    ("type filter hook forward priority 10;", "ip saddr 10.244.1.1 ct state established ct direction reply drop", 29),
    ("type filter hook forward priority 10;", "ct direction reply ct original ip daddr 10.96.0.11 reject", 29),
    ("type filter hook forward priority 10; policy drop;", "ct state new,established accept", 29),
    ("type filter hook forward priority 10; policy drop;", "ct state new accept", 29),
    ("type filter hook forward priority 10;", "ip daddr 10.244.1.1 ct state established ct direction original drop", 29),
    ("type filter hook forward priority 10;", "ip daddr 10.244.1.2 tcp dport 8080 tcp flags & (syn | ack) == ack drop", 29),
    ("type filter hook forward priority 10;", "meta l4proto udp ct state established ct direction original ct original ip daddr 10.96.0.10 reject", 29),
    ("type filter hook forward priority 10;", "meta l4proto tcp ct status assured ct direction original ct original ip daddr 10.96.0.11 reject with tcp reset", 29),
    ("type filter hook output priority 10;", "ct state established ct direction original ct original ip daddr 10.96.0.0/12 drop", 29),
    ("type filter hook prerouting priority raw;", "ip daddr 10.96.0.10 tcp flags & syn == 0 notrack", 23),
    ("type filter hook input priority 10;", "ip saddr 10.244.1.2 drop", 29),
    ("type filter hook postrouting priority 110;", "ct status dnat ct direction reply ip saddr 10.96.0.11 drop", 29),
    ("type filter hook postrouting priority 90;", "ct status dnat ct direction reply ip saddr 10.244.1.2 drop", 29),
    ("type filter hook prerouting priority raw;", "ip saddr 10.244.1.1 tcp sport 8080 notrack", 23),
    ("type filter hook prerouting priority raw;", "ip saddr 10.244.1.2 udp sport 53 notrack", 23),
];

fn change(edits: Vec<Edit>, behaviour: u8, words: String) -> Change {
    Change {
        text: 0,
        six: false,
        behaviour,
        edits,
        touched: BTreeSet::new(),
        slow: false,
        words,
    }
}

/// All changes of iptables' rules.
pub(super) fn iptables(texts: &[Text]) -> Vec<Change> {
    let lines = &texts[0].lines;
    let raw = lines.iter().rposition(|line| line == "*raw");
    let raw = raw.expect("it is put there");
    let mut all = Vec::new();
    for (before, has, line, behaviour) in IPTABLES {
        let edit = if *before {
            let at = lines.iter().position(|line| line.starts_with(has));
            Edit::Before(at.expect("it is there"), (*line).to_owned())
        } else {
            Edit::After(raw + 2, (*line).to_owned())
        };
        all.push(change(vec![edit], *behaviour, format!("added: {line}")));
    }
    let at = |line: &str| lines.iter().rposition(|one| one.starts_with(line));
    let (policy, established) = (
        at(":FORWARD ACCEPT"),
        at("-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule"),
    );
    let (policy, established) = policy.zip(established).expect("both are there");
    let edits = vec![
        Edit::Replace(policy, ":FORWARD DROP [0:0]".to_owned()),
        Edit::Before(
            established,
            "-A KUBE-FORWARD -m conntrack --ctstate NEW -j ACCEPT".to_owned(),
        ),
    ];
    all.push(change(
        edits.clone(),
        29,
        "what is established is accepted".to_owned(),
    ));
    let edits = [edits, vec![Edit::Delete(established)]].concat();
    all.push(change(
        edits,
        29,
        "what is new alone is accepted".to_owned(),
    ));
    all
}

/// All changes of nf_tables' rules.
pub(super) fn nftables(texts: &[Text]) -> Vec<Change> {
    let end = texts[0].lines.len() - 1;
    let all = NFTABLES.iter().map(|(hook, rule, behaviour)| {
        let table =
            format!("table ip by-hand {{\n\tchain replies {{\n\t\t{hook}\n\t\t{rule}\n\t}}\n}}");
        change(
            vec![Edit::After(end, table)],
            *behaviour,
            format!("added: {hook} {rule}"),
        )
    });
    all.collect()
}
