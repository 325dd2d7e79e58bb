//! Failures that only DNS has.

use super::{At, Claim, Diagnosis, Object, State, cause, state::is_loop_probe};
use crate::model::{
    Finding, Named, Outcome, Row, Severity,
    breakdown::Breakdown,
    cause::dropped,
    row::{Protocol, SLOW},
};

pub(super) const CONNTRACK_RACE: Diagnosis = Diagnosis {
    name: "conntrack_race",
    severity: Severity::Broken,
    sentence: "loses one of two queries that a socket sends at once, and the client waits 5 s to send it again",
    wire: "A and AAAA leave one port within microseconds; one is answered, the other is dropped at POSTROUTING on the client's node, and comes again after 5 s",
    cause: "both make a conntrack entry for the same tuple; the second cannot be inserted and its packet is dropped (Linux 5.0 and later resolve most such clashes, not those through a queue to user space)",
    remedy: "NodeLocal DNSCache; or `options single-request-reopen` (glibc) in dnsConfig of the pod; or `options use-vc`",
    refuted_by: "a rule drops it there: nft list ruleset, iptables-save",
    least: 1,
    claim: Some(race),
};

pub(super) const NODE_CACHE: Diagnosis = Diagnosis {
    name: "node_cache",
    severity: Severity::Broken,
    sentence: "does not answer on the client's node, and its pods ask nobody else",
    wire: "queries to 169.254.20.10 meet ICMP port unreachable from that address, or leave the node, for nowhere or for who knows no route; each is tried again and again",
    cause: "the kubelet's clusterDNS is NodeLocal DNSCache's address, and the cache does not run on this node, or was never deployed; its packets are not tracked (NOTRACK), so no rule of kube-proxy's leads them elsewhere",
    remedy: "kubectl -n kube-system get pods -l k8s-app=node-local-dns -o wide; tracer doctor --only cluster_dns_address on the node; without the cache, clusterDNS in the kubelet's configuration is the address of Service kube-dns",
    refuted_by: "",
    least: 1,
    claim: Some(|row, named, _| {
        let silent = matches!(row.outcome(), Outcome::Unanswered | Outcome::Rejected);
        // What it took from its socket, it is at work on.
        let reads = ["read the query", "server's socket", "its server asked"];
        let reads = reads.iter().any(|words| cause(row).contains(words));
        (named.asked.local_dns && silent && !reads && named.held.is_none()).then(|| Claim {
            object: Object::asked("NodeLocal DNSCache at", row),
            shown: cause(row).to_owned(),
        })
    }),
};

pub(super) const LOOP: Diagnosis = Diagnosis {
    name: "coredns_loop",
    severity: Severity::Broken,
    sentence: "forwards to itself",
    wire: "CoreDNS's own HINFO query for two random numbers comes back to it more than twice",
    cause: "its resolv.conf names a loopback address (systemd-resolved's 127.0.0.53) or the cluster's DNS",
    remedy: "tracer doctor --only resolv_conf tells which file; set resolvConf in the kubelet's configuration to the real one",
    refuted_by: "",
    least: 1,
    claim: Some(|row, _, state| {
        let Row::Dns(dns) = row else { return None };
        (is_loop_probe(dns) && state.probes(dns) >= 2).then(|| Claim {
            object: Object("CoreDNS, asked at", At::Socket(dns.asked)),
            shown: format!(
                "HINFO {} comes again",
                dns.name.as_deref().unwrap_or_default()
            ),
        })
    }),
};

pub(super) const UNEXPECTED_SOURCE: Diagnosis = Diagnosis {
    name: "unexpected_source",
    severity: Severity::Broken,
    sentence: "is answered from another address than was asked, and resolvers discard that",
    wire: "the answer's source is the pod's address instead of the VIP: its translation was not undone",
    cause: "the answer bypasses conntrack: two pods of one bridge without bridge netfilter, an asymmetric route, or a server that answers from another of its addresses",
    remedy: "sysctl -w net.bridge.bridge-nf-call-iptables=1 (modprobe br_netfilter); tracer doctor --only bridge_netfilter",
    refuted_by: "",
    least: 1,
    claim: Some(|row, _, _| {
        let cause = cause(row);
        cause.contains("not from the address asked").then(|| Claim {
            object: Object::asked("DNS at", row),
            shown: cause.to_owned(),
        })
    }),
};

pub(super) const UPSTREAM_TIMEOUT: Diagnosis = Diagnosis {
    name: "upstream_timeout",
    severity: Severity::Broken,
    sentence: "does not answer the cluster's DNS server, whose clients get SERVFAIL or nothing",
    wire: "CoreDNS's query to the upstream server stays unanswered; the client's answer comes after seconds as SERVFAIL, or not at all",
    cause: "the upstream server is down or too slow, a firewall drops port 53, or a cloud limits queries (1024 a second to the link-local resolver)",
    remedy: "from CoreDNS's node: dig @ADDRESS example.org; name other servers in forward, or in the resolv.conf that it is handed",
    refuted_by: "the upstream server answers the node at once",
    least: 1,
    claim: Some(upstream),
};

pub(super) const UPSTREAM_SLOW: Diagnosis = Diagnosis {
    name: "upstream_slow",
    severity: Severity::Warning,
    sentence: "is what the cluster's DNS server waits for, a second and longer",
    wire: "the client's answer comes late, and most of that time the server's own query outward is under way",
    cause: "the upstream server is far away or overloaded, or the first query to it is lost and sent again",
    remedy: "from CoreDNS's node: dig @ADDRESS example.org; name nearer servers in forward; cache with serve_stale in the Corefile",
    refuted_by: "the upstream server answers the node at once",
    least: 3,
    claim: Some(|row, _, _| {
        let Row::Dns(dns) = row else { return None };
        let upstream = dns.upstream.as_deref()?;
        let slow = upstream.waited >= SLOW && dns.latency? >= SLOW;
        slow.then(|| Claim {
            object: Object("upstream server", At::Socket(upstream.asked)),
            shown: format!(
                "asked {} times for a client, it took a second and longer",
                upstream.queries
            ),
        })
    }),
};

pub(super) const SERVFAIL: Diagnosis = Diagnosis {
    name: "servfail",
    severity: Severity::Warning,
    sentence: "answers SERVFAIL or REFUSED",
    wire: "an answer comes, and its rcode says that the server failed or would not",
    cause: "its upstream server fails, it may not read the API server, or no zone of it serves that name",
    remedy: "kubectl -n kube-system logs deployment/coredns; tracer doctor --only coredns",
    refuted_by: "",
    least: 3,
    claim: Some(|row, _, _| {
        let Row::Dns(dns) = row else { return None };
        let rcode = dns.rcode.filter(|_| dns.server_failed())?;
        let word = if rcode == 2 { "SERVFAIL" } else { "REFUSED" };
        Some(Claim {
            object: Object::asked("DNS at", row),
            shown: format!("{word} for {}", dns.name.as_deref().unwrap_or("no name")),
        })
    }),
};

pub(super) const TCP_FALLBACK: Diagnosis = Diagnosis {
    name: "tcp_fallback",
    severity: Severity::Broken,
    sentence: "cuts answers that are too long for UDP, and does not serve them over TCP",
    wire: "an answer with the TC bit, then the same question over TCP, which fails",
    cause: "port 53 over TCP is filtered, or the Service has no such port",
    remedy: "a port 53 with protocol TCP in Service kube-dns; NetworkPolicies must allow it",
    refuted_by: "",
    least: 1,
    claim: Some(|row, _, state| {
        let client = row.client().address.ip();
        let told = row.protocol() == Protocol::Tcp
            && state.was_truncated(client, row.asked(), row.ktime());
        (told && !row.outcome().is_good()).then(|| Claim {
            object: Object::asked("DNS at", row),
            shown: format!("over TCP, after a truncated answer: {}", cause(row)),
        })
    }),
};

pub(super) const NDOTS: Diagnosis = Diagnosis {
    name: "ndots",
    severity: Severity::Warning,
    sentence: "asks in vain for most names, with each domain of its search path before the name itself",
    wire: "name.namespace.svc.cluster.local, name.svc.cluster.local, name.cluster.local and so on, A and AAAA each, all NXDOMAIN, before the answer",
    cause: "ndots:5 in the pod's resolv.conf: names with fewer dots are tried with the search path first",
    remedy: "dnsConfig.options: [{name: ndots, value: \"1\"}] in the pod; or write outside names with a dot at the end",
    refuted_by: "",
    least: 0,
    claim: None,
};

/// One of two packets of a socket was lost to the other.
///
/// 1. Conntrack was seen to give up the second, or
/// 2. A of a pair of A and AAAA was answered, and the other was dropped where entries are inserted.
fn race(row: &Row, _: &Named, state: &State) -> Option<Claim> {
    let Row::Dns(dns) = row else { return None };
    let clash = dns.clash.as_ref().filter(|clash| !clash.resolved);
    let seen = clash.is_some_and(|clash| clash.own.original == clash.other.original);
    let at_insertion = dropped(cause(row)).is_some_and(|drop| {
        drop.reason.contains("in POSTROUTING") || drop.reason.contains("in INPUT")
    });
    let twin = clash.is_none() && at_insertion && state.twin_was_answered(dns);
    let lost = !dns.outcome.is_good() && dns.protocol == Protocol::Udp;
    (lost && (seen || twin)).then(|| Claim {
        object: Object::asked("conntrack, for DNS at", row),
        shown: cause(row).to_owned(),
    })
}

fn upstream(row: &Row, _: &Named, _: &State) -> Option<Claim> {
    let Row::Dns(dns) = row else { return None };
    let bad = !dns.outcome.is_good() || dns.rcode == Some(2);
    let upstream = dns.upstream.as_deref();
    let upstream = upstream.filter(|upstream| bad && upstream.outcome != Outcome::Answered)?;
    Some(Claim {
        object: Object("upstream server", At::Socket(upstream.asked)),
        shown: format!(
            "asked {} times for a client, {}",
            upstream.queries,
            upstream.outcome.name()
        ),
    })
}

/// Queries in vain from which on a client's search path is told, and the share of them.
const IN_VAIN: u64 = 100;
const SHARE: f64 = 0.7;

/// From what the clients' queries add up to.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(super) fn ndots(totals: &Breakdown) -> Vec<(u64, Finding)> {
    let all: u64 = totals.clients.iter().map(|(_, tally)| tally.count).sum();
    let wasteful = totals.searches.iter().filter(|(_, search)| {
        search.wasted >= IN_VAIN && search.wasted as f64 >= search.sent as f64 * SHARE
    });
    wasteful
        .map(|(client, search)| {
            let example = search
                .bare
                .as_ref()
                .map(|(_, name)| format!("such as {name}"));
            let mut evidence = vec![format!(
                "{} of {} queries for names searched for were in vain",
                search.wasted, search.sent
            )];
            evidence.extend(example);
            let finding = Finding {
                name: NDOTS.name,
                severity: NDOTS.severity,
                object: format!("client {client}"),
                sentence: NDOTS.sentence.to_owned(),
                stage: None,
                evidence,
                since: None,
                share: Some(search.wasted as f64 / all.max(1) as f64),
                remedy: NDOTS.remedy.to_owned(),
                refuted_by: NDOTS.refuted_by.to_owned(),
            };
            (search.wasted, finding)
        })
        .collect()
}
