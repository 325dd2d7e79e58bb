//! What kube-proxy set up in ipvs mode, and changes of it: of sets, of the addresses on kube-ipvs0, of
//! virtual and real servers, of rules and sysctls.

use super::super::judged::Fixture;
use super::super::servers::MODULES;
use super::changes::{Change, Edit, Text, named};
use crate::support::has_ipvs;

// Indices of the texts, in the order in which they are loaded.
const SETS: usize = 0;
const ADDRESSES: usize = 1;
const SERVERS: usize = 2;
const RULES: usize = 3;
const SYSCTLS: usize = 5;

/// In a guest there is no repository: the texts are in the program.
macro_rules! text {
    ($name:literal) => {
        include_str!(concat!("../../../data/kube-proxy/", $name))
    };
}

/// What kube-proxy 1.37 set up on the node `n1`; `None` where the kernel has no IPVS.
pub(super) fn fixture() -> Option<Fixture> {
    if !has_ipvs(&MODULES) {
        return None;
    }
    let texts = [
        text!("ipvs/ipset.txt"),
        text!("ipvs/addresses.txt"),
        text!("ipvs/ipvsadm.txt"),
        text!("ipvs/iptables.txt"),
        text!("ipvs/ip6tables.txt"),
        text!("ipvs/sysctl.txt"),
    ];
    let Fixture {
        mut texts,
        mut snapshot,
    } = Fixture::in_ipvs_mode(texts, text!("objects.json"));
    for (_, text) in &mut texts {
        let lines = text.lines().filter(|line| !is_left_out(line));
        *text = lines.collect::<Vec<_>>().join("\n") + "\n";
    }
    let is_kept = |name: &str| !LEFT_OUT.iter().any(|(of, _)| *of == name);
    snapshot.services.retain(|one| is_kept(&one.name.name));
    snapshot.slices.retain(|one| is_kept(&one.service));
    Some(Fixture { texts, snapshot })
}

/// Services that are as others are to IPVS, and what is theirs alone: a guest is slow.
const LEFT_OUT: [(&str, &str); 12] = [
    ("draining", "10.96.0.22"),
    ("ending", "10.96.0.23"),
    ("early", "10.96.0.25"),
    ("zoned", "10.96.0.28"),
    ("half", "10.96.0.29"),
    ("noded", "10.96.0.30"),
    ("lame", "10.96.0.32"),
    ("lame", "fd00:10:96::20"),
    ("named", "10.96.0.33"),
    ("nonode", "10.96.0.34"),
    ("nameless", "10.96.0.36"),
    ("six", "fd00:10:96::1f"),
];

fn is_left_out(line: &str) -> bool {
    let theirs = LEFT_OUT.iter().any(|(_, address)| line.contains(address));
    // The node port of one of them.
    theirs || line.contains("30021")
}

/// Which text, lines with this, one word of them replaced by another (nothing for the whole line), which
/// behaviour, and which Services.
type Swapped = (
    usize,
    &'static str,
    &'static str,
    &'static str,
    u8,
    &'static str,
);

#[rustfmt::skip]
const SWAPPED: &[Swapped] = &[
    (SERVERS, " 10.96.0.10:80", "", "", 2, "shop/web"),
    (SERVERS, " 10.96.0.14:53", "", "", 2, "shop/dns"),
    (SERVERS, " 192.0.2.1:30016", "", "", 11, "shop/node"),
    (SERVERS, " 198.51.100.17:80", "", "", 13, "shop/out"),
    (SERVERS, " 198.51.100.18:80", "", "", 13, "shop/near"),
    (SERVERS, " 10.96.0.12:80", "", "", 8, "shop/none"),
    (SERVERS, "-a -t 10.96.0.10:80 -r 10.244.1.1:8080", "", "", 3, "shop/web"),
    (SERVERS, "-a -t 10.96.0.15:80 -r 10.244.2.3:8080", "", "", 3, "shop/node"),
    (SERVERS, "-a -t 10.96.0.10:80 -r 10.244.1.1:8080", "-w 1", "-w 0", 3, "shop/web"),
    (SERVERS, "-a -t 10.96.0.11:80 -r 10.244.2.3:8080", "-w 1", "-w 0", 3, "shop/one"),
    (SERVERS, "-a -t 10.96.0.10:80 -r 10.244.1.1:8080", "-w 1", "-w 3", 4, "shop/web"),
    (SERVERS, "-a -t 10.96.0.10:80 -r 10.244.1.2:8080", "10.244.1.2", "10.244.1.7", 3, "shop/web"),
    (SERVERS, "-a -t 10.96.0.16:80 -r 10.244.2.3:8080", ":8080 ", ":8081 ", 3, "shop/out"),
    (SERVERS, "-a -t 10.96.0.11:80 -r 10.244.2.3:8080", "-m ", "-g ", 28, "shop/one"),
    (SERVERS, "-A -t 10.96.0.10:80", "-s rr", "-s wrr", 28, "shop/web"),
    (SERVERS, "-A -t 10.96.0.10:80", "-s rr", "-s lc", 28, "shop/web"),
    (SERVERS, "-A -t 10.96.0.10:80", "-s rr", "-s sh", 28, "shop/web"),
    (SERVERS, "-A -t 10.96.0.13:80", " -p 10800", "", 10, "shop/sticky"),
    (SERVERS, "-A -t 192.0.2.1:30022", " -p 600", "", 10, "shop/stickynear"),
    (SERVERS, "-A -t [fd00:10:96::a]:80", "", "", 26, "shop/web"),
    (SETS, "add KUBE-CLUSTER-IP 10.96.0.10,tcp:80", "", "", 2, "shop/web"),
    (SETS, "add KUBE-CLUSTER-IP 10.96.0.14,udp:53", "", "", 2, "shop/dns"),
    (SETS, "add KUBE-LOOP-BACK 10.244.1.1,tcp:8080", "", "", 5, ""),
    (SETS, "add KUBE-NODE-PORT-TCP 30016", "", "", 14, "shop/node"),
    (SETS, "add KUBE-NODE-PORT-LOCAL-TCP 30018", "", "", 15, "shop/near"),
    (SETS, "add KUBE-LOAD-BALANCER 198.51.100.20,tcp:80", "", "", 13, "shop/ranged"),
    (SETS, "add KUBE-LOAD-BALANCER-LOCAL 198.51.100.18,tcp:80", "", "", 15, "shop/near"),
    (SETS, "add KUBE-LOAD-BALANCER-FW 198.51.100.20,tcp:80", "", "", 18, "shop/ranged"),
    (SETS, "add KUBE-LOAD-BALANCER-SOURCE-CIDR 198.51.100.20,tcp:80,192.0.2.96/28", "", "", 18, "shop/ranged"),
    (SETS, "add KUBE-EXTERNAL-IP 198.51.100.17,tcp:80", "", "", 13, "shop/out"),
    (SETS, "add KUBE-IPVS-IPS 10.96.0.10", "", "", 9, "shop/web"),
    (SETS, "add KUBE-HEALTH-CHECK-NODE-PORT 30518", "", "", 16, "shop/near"),
    (ADDRESSES, "add 10.96.0.10/32 ", "", "", 2, "shop/web"),
    (ADDRESSES, "add 10.96.0.24/32 ", "", "", 8, "shop/unready"),
    (ADDRESSES, "add 198.51.100.19/32 ", "", "", 13, "shop/far"),
    (RULES, "-A PREROUTING", "", "", 1, ""),
    (RULES, "-A OUTPUT -m comment --comment \"kubernetes service portals\"", "", "", 1, ""),
    (RULES, "-A POSTROUTING", "", "", 1, ""),
    (RULES, "-A KUBE-MARK-MASQ", "", "", 7, ""),
    (RULES, "-A KUBE-POSTROUTING -m mark", "", "", 7, ""),
    (RULES, "requiring SNAT", "", "", 7, ""),
    (RULES, "requiring SNAT", " --random-fully", "", 7, ""),
    (RULES, "-A KUBE-POSTROUTING -m comment --comment \"Kubernetes endpoints", "", "", 5, ""),
    (RULES, "! -s 10.244.0.0/16", "", "", 6, ""),
    (RULES, "! -s 10.244.0.0/16", "! -s 10.244.0.0/16", "! -s 10.0.0.0/8", 6, ""),
    (RULES, "-A KUBE-LOAD-BALANCER -j KUBE-MARK-MASQ", "", "", 14, "shop/ranged"),
    (RULES, "-A KUBE-NODE-PORT -p tcp -m comment --comment \"Kubernetes nodeport TCP port for masquerade", "", "", 14, ""),
    (RULES, "-A KUBE-NODE-PORT -p tcp -m comment --comment \"Kubernetes nodeport TCP port with", "", "", 15, ""),
    (RULES, "-A KUBE-IPVS-FILTER -m set --match-set KUBE-CLUSTER-IP", "", "", 2, ""),
    (RULES, "-A KUBE-IPVS-FILTER -m conntrack", "", "", 9, ""),
    (RULES, "-A KUBE-IPVS-OUT-FILTER", "", "", 18, "shop/ranged"),
    (RULES, "-A KUBE-SOURCE-RANGES-FIREWALL -j DROP", "", "", 18, "shop/ranged"),
    (RULES, "-A KUBE-SOURCE-RANGES-FIREWALL -m comment", "", "", 18, "shop/ranged"),
    (RULES, "-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\"", "", "", 7, ""),
    (RULES, "-A KUBE-SERVICES -m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT", "", "", 2, ""),
    (SYSCTLS, "net.ipv4.vs.conntrack", "= 1", "= 0", 28, ""),
];

/// Which text, behind which line, what is added, which behaviour, and which Services.
#[rustfmt::skip]
const ADDED: &[(usize, &str, &str, u8, &str)] = &[
    (SERVERS, "-a -t 10.96.0.11:80", "-a -t 10.96.0.11:80 -r 10.244.1.1:9090 -m -w 1", 3, "shop/one"),
    // As kube-proxy leaves those that end.
    (SERVERS, "-a -t 10.96.0.11:80", "-a -t 10.96.0.11:80 -r 10.244.1.1:9090 -m -w 0", 19, "shop/one"),
    (SERVERS, "-A -t 10.96.0.12:80", "-a -t 10.96.0.12:80 -r 10.244.1.1:8080 -m -w 1", 8, "shop/none"),
    (SERVERS, "-A -t 10.96.0.12:80", "-A -t 192.0.2.1:30099 -s rr\n-a -t 192.0.2.1:30099 -r 10.244.1.1:8080 -m -w 1", 11, ""),
    (SETS, "add KUBE-NODE-PORT-TCP 30016", "add KUBE-NODE-PORT-LOCAL-TCP 30016", 14, "shop/node"),
    (SETS, "add KUBE-NODE-PORT-TCP 30016", "add KUBE-CLUSTER-IP 10.96.0.250,tcp:80", 2, ""),
    (ADDRESSES, "add 10.96.0.10/32 ", "address add 10.96.0.200/32 dev kube-ipvs0", 2, ""),
    (ADDRESSES, "add 10.96.0.10/32 ", "link delete kube-ipvs0\nlink add kube-ipvs0 type dummy", 2, ""),
    (RULES, "-A INPUT -m comment --comment \"kubernetes ipvs access filter\"", "-A INPUT -d 10.96.0.11/32 -p tcp -m tcp --dport 80 -j DROP", 3, "shop/one"),
    (RULES, "-A FORWARD -m comment --comment \"kube-proxy firewall rules\"", "-A FORWARD -s 10.244.1.1/32 -m conntrack --ctstate ESTABLISHED --ctdir REPLY -j DROP", 29, ""),
    (RULES, "-A OUTPUT -m comment --comment \"kubernetes ipvs access filter\"", "-A OUTPUT -d 10.244.1.1/32 -p tcp -m tcp --dport 8080 -j DROP", 3, ""),
];

/// All changes.
pub(super) fn changes(texts: &[Text]) -> Vec<Change> {
    let change = |text, lines: &[usize], edits, behaviour, services, words| Change {
        text,
        six: lines
            .iter()
            .any(|at| texts[text].lines[*at].contains("fd00:")),
        behaviour,
        edits,
        touched: named(services),
        slow: false,
        words,
    };
    let mut all = Vec::new();
    for (text, has, from, to, behaviour, services) in SWAPPED {
        let lines = &texts[*text].lines;
        let at: Vec<_> = (0..lines.len())
            .filter(|at| lines[*at].contains(has))
            .collect();
        assert!(!at.is_empty(), "nothing has {has:?}");
        let edits = at.iter().map(|at| match *from {
            "" => Edit::Delete(*at),
            from => Edit::Replace(*at, lines[*at].replacen(from, to, 1)),
        });
        let words = match *from {
            "" => format!("removed: {has}"),
            from => format!("{from} for {to:?}: {has}"),
        };
        all.push(change(
            *text,
            &at,
            edits.collect(),
            *behaviour,
            services,
            words,
        ));
    }
    for (text, has, line, behaviour, services) in ADDED {
        let lines = &texts[*text].lines;
        let at = lines.iter().position(|line| line.contains(has));
        let at = at.expect("the line is there");
        let edits = vec![Edit::After(at, (*line).to_owned())];
        let words = format!("added: {line}");
        all.push(change(*text, &[], edits, *behaviour, services, words));
    }
    // Shares by weight.
    let servers = &texts[SERVERS].lines;
    let at = |has: &str| servers.iter().position(|line| line.contains(has));
    let (scheduler, real) = (
        at("-A -t 10.96.0.10:80"),
        at("-a -t 10.96.0.10:80 -r 10.244.1.1"),
    );
    let (scheduler, real) = scheduler.zip(real).expect("both are there");
    let edits = vec![
        Edit::Replace(scheduler, "-A -t 10.96.0.10:80 -s wrr".to_owned()),
        Edit::Replace(
            real,
            "-a -t 10.96.0.10:80 -r 10.244.1.1:8080 -m -w 9".to_owned(),
        ),
    ];
    let words = "scheduler wrr, weight 9".to_owned();
    all.push(change(SERVERS, &[scheduler], edits, 4, "shop/web", words));
    all
}
