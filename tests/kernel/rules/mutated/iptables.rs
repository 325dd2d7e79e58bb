//! Changes of kube-proxy's rules in iptables mode.

use std::collections::BTreeSet;

use super::changes::{Change, Edit, Text, named};

/// A word of a line replaced by another: lines that have all of these, at most so many.
type Swapped = (
    &'static str,
    &'static [&'static str],
    &'static str,
    &'static str,
    usize,
);

#[rustfmt::skip]
const SWAPPED: &[Swapped] = &[
    ("endpoint swapped", &["--to-destination 10.244.1.1:8080"], "10.244.1.1:8080", "10.244.1.2:8080", 5),
    ("endpoint swapped", &["--to-destination 10.244.2.3:8080"], "10.244.2.3:8080", "10.244.1.7:8080", 4),
    ("port swapped", &["--to-destination 10.244.1.2:8080"], ":8080", ":8081", 4),
    ("port swapped", &["--to-destination 10.244.2.3:9090"], ":9090", ":8080", 1),
    ("address swapped", &["-A KUBE-SERVICES -d 10.96.0.2", "-j KUBE-SV"], "10.96.0.2", "10.96.0.20", 2),
    ("address swapped", &["-A KUBE-SERVICES -d 10.96.0.1", "web:http"], "10.96.0.10", "10.96.0.200", 1),
    ("address swapped", &["-A KUBE-SERVICES -d 198.51.100.1"], "198.51.100.1", "198.51.100.4", 3),
    ("address swapped", &["has no endpoints", "-d 10.96.0."], "10.96.0.", "10.96.1.", 2),
    ("port swapped", &["-A KUBE-SERVICES -d 10.96", "--dport 80 -j KUBE-SV"], "--dport 80", "--dport 81", 3),
    ("port swapped", &["-A KUBE-NODEPORTS -p tcp", "-j KUBE-EXT"], "--dport 300", "--dport 301", 3),
    ("port swapped", &["-A KUBE-NODEPORTS -d 127", "-j KUBE-EXT"], "--dport 300", "--dport 301", 1),
    ("protocol swapped", &["-A KUBE-SERVICES", "shop/dns:dns cluster IP"], "-p udp", "-p tcp", 0),
    ("CIDR altered", &["-A KUBE-SV", "! -s 10.244.0.0/16"], "! -s 10.244.0.0/16", "! -s 10.244.2.0/24", 3),
    ("CIDR altered", &["-A KUBE-SV", "! -s 10.244.0.0/16"], "! -s 10.244.0.0/16", "-s 10.244.0.0/16", 2),
    ("CIDR altered", &["-A KUBE-SV", "! -s 10.244.0.0/16"], "! -s 10.244.0.0/16", "! -s 10.0.0.0/8", 2),
    ("CIDR altered", &["-A KUBE-SV", "! -s 10.244.0.0/16"], "! -s 10.244.0.0/16", "! -s 10.244.0.0/14", 2),
    ("CIDR altered", &["-A KUBE-EXT", "-s 10.244.0.0/16"], "-s 10.244.0.0/16", "-s 10.99.0.0/16", 2),
    ("CIDR altered", &["-A KUBE-FW", "-s 192.0.2.96/28"], "192.0.2.96/28", "192.0.2.128/28", 1),
    ("CIDR altered", &["-A KUBE-FW", "-s 203.0.113.0/24"], "203.0.113.0/24", "192.0.2.0/24", 1),
    ("CIDR altered", &["-A KUBE-SEP", "-s 10.244.1.1/32"], "-s 10.244.1.1/32", "-s 10.244.1.9/32", 2),
    ("probability altered", &["--probability 0.33333333349"], "0.33333333349", "0.90000000000", 3),
    ("probability altered", &["--probability 0.33333333349"], "0.33333333349", "0.50000000000", 2),
    ("probability altered", &["--probability 0.50000000000"], "0.50000000000", "0.10000000000", 3),
    ("probability altered", &["--probability 0.50000000000"], "0.50000000000", "1.00000000000", 2),
    ("probability altered", &["--probability 0.50000000000"], "0.50000000000", "0.00000000000", 2),
    ("probability dropped", &["--probability 0.3333"], "-m statistic --mode random --probability 0.33333333349 ", "", 2),
    ("mark dropped", &["-A KUBE-MARK-MASQ"], "0x4000/0x4000", "0x0/0x0", 1),
    ("mark altered", &["-A KUBE-MARK-MASQ"], "0x4000/0x4000", "0x8000/0x8000", 1),
    ("mark altered", &["-A KUBE-POSTROUTING -m mark"], "! --mark", "--mark", 1),
    ("mark altered", &["-A KUBE-POSTROUTING -j MARK"], "0x4000/0x0", "0x2000/0x0", 1),
    ("random port dropped", &["MASQUERADE --random-fully"], " --random-fully", "", 1),
    ("jump redirected", &["-A KUBE-SVC", "\"shop/web:http -> 10.244.1.1:8080\""], "KUBE-SEP-3B5XO7OSMV7VPARF", "KUBE-SEP-XTJTEC7KOHLCQM25", 1),
    ("jump redirected", &["-A KUBE-SVC", "\"shop/node:http -> 10.244.2.3:8080\""], "KUBE-SEP-3BNGJLVND6UDCM3L", "KUBE-SEP-ZEIDTFVL27F4EVRN", 1),
    ("jump redirected", &["-A KUBE-SVC", "\"shop/zoned:http -> 10.244.1.2:8080\""], "KUBE-SEP-A5ELQON5I3XPHQFV", "KUBE-SEP-EAG6CAIXZTZZ4HMT", 1),
    ("jump redirected", &["-A KUBE-SERVICES", "shop/one:http cluster IP"], "KUBE-SVC-PMFNVVYJSKQUUFW4", "KUBE-SVC-67NZLRHBNDSAWJRO", 1),
    ("jump redirected", &["-A KUBE-SERVICES", "shop/inner:http cluster IP"], "KUBE-SVL-ATR3F6ZDQU7PDXOZ", "KUBE-SVC-67NZLRHBNDSAWJRO", 1),
    ("jump redirected", &["-A KUBE-EXT-2S6KKOSRNB4JOMNG -j KUBE-SVL"], "KUBE-SVL-", "KUBE-SVC-", 1),
    ("jump redirected", &["-A KUBE-EXT-PYO4ZADA3HPJRBQP -j KUBE-SVC"], "KUBE-SVC-PYO4ZADA3HPJRBQP", "KUBE-SVC-67NZLRHBNDSAWJRO", 1),
    ("jump redirected", &["-A KUBE-SERVICES -d 198.51.100.17"], "KUBE-EXT-", "KUBE-SVC-", 1),
    ("jump redirected", &["-A KUBE-SERVICES -d 198.51.100.20"], "KUBE-FW-", "KUBE-EXT-", 1),
    ("jump redirected", &["-A KUBE-NODEPORTS", "shop/node:http"], "KUBE-EXT-", "KUBE-SVC-", 2),
    ("target swapped", &["has no endpoints", "-j REJECT"], "-j REJECT --reject-with icmp-port-unreachable", "-j DROP", 3),
    ("target swapped", &["has no endpoints", "-p tcp", "-j REJECT"], "icmp-port-unreachable", "tcp-reset", 1),
    ("target swapped", &["has no local endpoints", "-j DROP"], "-j DROP", "-j REJECT", 3),
    ("target swapped", &["traffic not accepted by", "-j DROP"], "-j DROP", "-j REJECT", 1),
    ("affinity shortened", &["-A KUBE-SVC", "shop/sticky:http", "--seconds 10800"], "--seconds 10800", "--seconds 1", 1),
    ("affinity altered", &["-A KUBE-SEP-JDWH", "--set"], "--name KUBE-SEP-JDWHRCOGT6RUZDWI", "--name KUBE-SEP-DKHO6RAX5YQM26XJ", 1),
    ("affinity altered", &["-A KUBE-SEP-", "shop/stickynear", "--set"], "-m recent --set", "-m recent --rcheck", 1),
    ("interface altered", &["-A PREROUTING", "-j KUBE-SERVICES"], "-A PREROUTING ", "-A PREROUTING -i c ", 1),
    ("interface altered", &["-A PREROUTING", "-j KUBE-SERVICES"], "-A PREROUTING ", "-A PREROUTING ! -i b0 ", 1),
    ("interface altered", &["-A POSTROUTING"], "-A POSTROUTING ", "-A POSTROUTING -o b2 ", 1),
    ("interface altered", &["-A FORWARD", "-j KUBE-SERVICES"], "-A FORWARD ", "-A FORWARD -i c ", 1),
    ("address type altered", &["nodeports; NOTE"], "--dst-type LOCAL", "--dst-type BROADCAST", 1),
    ("address type altered", &["masquerade LOCAL traffic for shop/near"], "--src-type LOCAL", "--src-type UNICAST", 1),
    ("address type altered", &["route LOCAL traffic for shop/near"], "--src-type LOCAL", "--src-type UNICAST", 1),
    ("state altered", &["-A OUTPUT", "KUBE-SERVICES", "NEW"], "NEW", "ESTABLISHED", 1),
    ("state altered", &["-A FORWARD", "KUBE-PROXY-FIREWALL"], "NEW", "RELATED", 1),
    ("policy altered", &[":FORWARD ACCEPT"], "ACCEPT", "DROP", 2),
    ("comment altered", &["-A KUBE-SV", "cluster IP"], "cluster IP", "by hand", 3),
    ("canary removed", &[":KUBE-PROXY-CANARY"], ":KUBE-PROXY-CANARY - [0:0]", "", 1),
];

/// A line before or behind one that has this: before it, else behind; the line; what it is about.
#[rustfmt::skip]
const ADDED: &[(&str, bool, &str, &str, u8)] = &[
    ("early return", true, "-A KUBE-SVC-67NZLRHBNDSAWJRO ! -s", "-A KUBE-SVC-67NZLRHBNDSAWJRO -j RETURN", 3),
    ("early return", true, "-A KUBE-SEP-2RUPXEQPHQX4J3ZG -s", "-A KUBE-SEP-2RUPXEQPHQX4J3ZG -j RETURN", 3),
    ("early return", true, "-A KUBE-EXT-CGIVSHG7AFFV4M2C -m", "-A KUBE-EXT-CGIVSHG7AFFV4M2C -j KUBE-SVC-CGIVSHG7AFFV4M2C", 14),
    ("early return", true, "-A KUBE-NODEPORTS -d 127.0.0.0/8 -p tcp -m comment --comment \"shop/near:http\"", "-A KUBE-NODEPORTS -j RETURN", 11),
    ("early return", true, "-A KUBE-POSTROUTING -m mark", "-A KUBE-POSTROUTING -j RETURN", 7),
    ("early accept", true, "-A PREROUTING -m comment", "-A PREROUTING -d 10.96.0.0/16 -j ACCEPT", 1),
    ("early accept", true, "-A OUTPUT -m comment", "-A OUTPUT -j ACCEPT", 1),
    ("early accept", true, "-A POSTROUTING", "-A POSTROUTING -s 10.244.0.0/16 -j ACCEPT", 1),
    ("early accept", true, "-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes load", "-A FORWARD -j ACCEPT", 1),
    ("early accept", true, "-A KUBE-SVC-WMBKMODMDFQG5OT4 ! -s", "-A KUBE-SVC-WMBKMODMDFQG5OT4 -j ACCEPT", 21),
    ("DNAT elsewhere", true, "-A PREROUTING -m comment", "-A PREROUTING -d 10.96.0.11/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.244.1.1:9090", 3),
    ("DNAT elsewhere", true, "-A PREROUTING -m comment", "-A PREROUTING -d 192.0.2.1/32 -p tcp -m tcp --dport 30016 -j DNAT --to-destination 10.244.1.9:22", 11),
    ("DNAT elsewhere", true, "-A KUBE-SEP-UBR5KOQSHGAK7OA2 -p", "-A KUBE-SEP-UBR5KOQSHGAK7OA2 -p tcp -j DNAT --to-destination 10.244.2.3:8080", 3),
    ("rule for another's Service", true, "-A KUBE-SERVICES -d 10.96.0.25/32", "-A KUBE-SERVICES -d 10.96.0.27/32 -p tcp -m comment --comment \"shop/other:http cluster IP\" -m tcp --dport 80 -j KUBE-SVC-67NZLRHBNDSAWJRO", 25),
    ("rule for no Service", true, "-A KUBE-SERVICES -d 10.96.0.25/32", "-A KUBE-SERVICES -d 10.96.0.200/32 -p tcp -m comment --comment \"shop/gone:http cluster IP\" -m tcp --dport 80 -j KUBE-SVC-67NZLRHBNDSAWJRO", 2),
    ("rule for no Service", true, "-A KUBE-SERVICES -d 10.96.0.25/32", "-A KUBE-SERVICES -d 198.51.100.99/32 -p tcp -m tcp --dport 81 -j RETURN", 13),
    ("drop in front", true, "-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes load", "-A FORWARD -d 10.244.1.1/32 -p tcp -m tcp --dport 8080 -j DROP", 3),
    ("drop in front", true, "-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes load", "-A FORWARD -d 198.51.100.77/32 -j DROP", 3),
    ("drop in front", true, "-A OUTPUT -j KUBE-FIREWALL", "-A OUTPUT -d 10.244.0.0/16 -p udp -j DROP", 1),
    ("drop in front", false, ":KUBE-PROXY-CANARY - [0:0]", "-A PREROUTING -d 10.96.0.13/32 -j DROP", 10),
    ("reject in front", true, "-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes load", "-A FORWARD -d 10.244.2.3/32 -p tcp -m tcp --dport 9090 -j REJECT", 24),
    ("mark in front", true, "-A KUBE-SVC-74GOVR6V5CHU65AP ! -s", "-A KUBE-SVC-74GOVR6V5CHU65AP -j KUBE-MARK-MASQ", 20),
    ("mark in front", true, "-A PREROUTING -m comment", "-A PREROUTING -i c -j MARK --set-xmark 0x4000/0x4000", 7),
    ("mark in front", true, "-A PREROUTING -m comment", "-A PREROUTING -i c -j MARK --set-xmark 0x10/0x10", 7),
    ("rule beside", true, "-A INPUT -m comment --comment \"kubernetes health", "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT", 16),
    ("rule beside", true, "-A POSTROUTING", "-A POSTROUTING -s 10.244.0.0/16 ! -d 10.0.0.0/8 -o eth0 -j MASQUERADE", 7),
];

/// All changes of the rules for IPv4 (`text` 0) and for IPv6 (`text` 1).
pub(super) fn changes(texts: &[Text]) -> Vec<Change> {
    let mut all = Vec::new();
    let v4 = Maker {
        text: &texts[0],
        index: 0,
    };
    // Pods that reach themselves through a Service with affinity are not looked at.
    let is_rule = |line: &str| {
        line.starts_with("-A ") && !(line.contains("shop/sticky") && line.contains("-s 10.244."))
    };
    for at in v4.text.some(34, is_rule) {
        all.push(v4.change("rule deleted", &[at], vec![Edit::Delete(at)]));
    }
    for (kind, has, from, to, most) in SWAPPED {
        let fits = |line: &str| has.iter().all(|word| line.contains(word)) && line.contains(from);
        for at in v4.text.some(*most, fits) {
            let line = v4.text.lines[at].replacen(from, to, 1);
            let mut change = v4.change(kind, &[at], vec![Edit::Replace(at, line)]);
            change.slow = *kind == "affinity shortened";
            all.push(change);
        }
    }
    for (kind, before, at, line, behaviour) in ADDED {
        let at = v4.text.some(1, |one| one.contains(at))[0];
        let edit = if *before { Edit::Before } else { Edit::After };
        let mut change = v4.change(kind, &[at], vec![edit(at, (*line).to_owned())]);
        change.words = format!("{kind}: {line}");
        change.behaviour = *behaviour;
        change.touched = v4.touched(line);
        all.push(change);
    }
    for at in v4.text.some(8, |line| {
        line.starts_with("-A KUBE-S") && line.contains(" -> ")
    }) {
        let line = v4.text.lines[at].clone();
        all.push(v4.change("rule duplicated", &[at], vec![Edit::After(at, line)]));
    }
    let chain = |at: usize| {
        v4.text
            .lines
            .get(at)
            .and_then(|line| line.split(' ').nth(1))
    };
    let pairs = (0..v4.text.lines.len()).filter(|at| {
        is_rule(&v4.text.lines[*at]) && chain(*at).is_some() && chain(*at) == chain(at + 1)
    });
    let pairs: Vec<_> = pairs
        .filter(|at| chain(*at) != Some("KUBE-SERVICES"))
        .collect();
    for index in 0..12 {
        let at = pairs[index * pairs.len() / 12];
        all.push(v4.change("order swapped", &[at, at + 1], vec![Edit::Swap(at, at + 1)]));
    }
    let mut chains: Vec<_> = (0..v4.text.lines.len()).filter_map(chain).collect();
    chains.retain(|name| name.starts_with("KUBE-"));
    chains.dedup();
    for index in 0..14 {
        let name = chains[index * chains.len() / 14];
        let of = 0..v4.text.lines.len();
        let of = of.filter(|at| is_rule(&v4.text.lines[*at]) && chain(*at) == Some(name));
        let of: Vec<_> = of.collect();
        let edits = of.iter().map(|at| Edit::Delete(*at)).collect();
        all.push(v4.change("chain emptied", &of, edits));
    }
    let v6 = Maker {
        text: &texts[1],
        index: 1,
    };
    for at in v6
        .text
        .some(6, |line| is_rule(line) && line.contains("shop/"))
    {
        all.push(v6.change("rule deleted", &[at], vec![Edit::Delete(at)]));
    }
    all
}

struct Maker<'a> {
    text: &'a Text,
    index: usize,
}

impl Maker<'_> {
    fn change(&self, kind: &'static str, at: &[usize], edits: Vec<Edit>) -> Change {
        let lines = at.iter().map(|at| self.text.lines[*at].as_str());
        let first = lines.clone().next().unwrap_or_default();
        Change {
            text: self.index,
            six: self.index == 1,
            behaviour: behaviour(first),
            touched: lines.clone().flat_map(|line| self.touched(line)).collect(),
            slow: false,
            words: format!("{kind}: {first}"),
            edits,
        }
    }

    /// Services that a line names, or one of whose chains it names.
    fn touched(&self, line: &str) -> BTreeSet<String> {
        let mut all = named(line);
        let of = |word: &&str| {
            [
                "KUBE-SVC-",
                "KUBE-SVL-",
                "KUBE-EXT-",
                "KUBE-SEP-",
                "KUBE-FW-",
            ]
            .iter()
            .any(|prefix| word.starts_with(prefix))
        };
        for chain in line.split(' ').filter(of) {
            let others = self.text.lines.iter().filter(|other| other.contains(chain));
            all.extend(others.flat_map(|other| named(other)));
        }
        all
    }
}

/// Which behaviour a rule is about; the first that fits.
fn behaviour(line: &str) -> u8 {
    const BY: &[(&[&str], u8)] = &[
        (&["KUBE-PROXY-CANARY"], 1),
        (&["-A KUBE-MARK-MASQ"], 7),
        (&["-A KUBE-POSTROUTING"], 7),
        (&["has no endpoints"], 8),
        (&["innerfar"], 17),
        (&["has no local endpoints"], 15),
        (&["health check"], 16),
        (&["-A KUBE-PROXY-FIREWALL"], 18),
        (&["-A KUBE-FW"], 18),
        (&["-A KUBE-FIREWALL"], 12),
        (&["-d 127.0.0.0/8"], 12),
        (&["-A KUBE-NODEPORTS"], 11),
        (&["nodeports; NOTE"], 11),
        (&["-A KUBE-SERVICES -d 198"], 13),
        (&["-A KUBE-SERVICES"], 2),
        (&["external destinations", "masquerade traffic"], 14),
        (&["external destinations"], 15),
        (&["-A KUBE-EXT", "-j KUBE-SVL"], 15),
        (&["-A KUBE-EXT"], 14),
        (&["-m recent"], 10),
        (&["-A KUBE-SEP", "KUBE-MARK-MASQ"], 5),
        (&["KUBE-MARK-MASQ"], 6),
        (&["shop/inner:"], 17),
        (&["shop/zoned:"], 21),
        (&["shop/noded:"], 21),
        (&["shop/half:"], 21),
        (&["shop/draining:"], 19),
        (&["shop/ending:"], 19),
        (&["shop/early:"], 20),
        (&["shop/named:"], 24),
        (&["--probability"], 4),
        (&["-A KUBE-S"], 3),
    ];
    let fits = |words: &&(&[&str], u8)| words.0.iter().all(|word| line.contains(word));
    BY.iter().find(fits).map_or(1, |(_, behaviour)| *behaviour)
}
