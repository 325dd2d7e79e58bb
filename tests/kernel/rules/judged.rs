//! kube-proxy's own rules, as kube-proxy 1.37 wrote them for the objects beside them, judged as they
//! are and with one thing changed at a time.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use tracer::cluster::read_files;
use tracer::model::verified::Verified;
use tracer::model::{Finding, Snapshot};
use tracer::rules::{
    Ending, Front, Host, Judge, Origin, Outcome, Packet, RejectKind, RuleService, Ruleset,
    SourceChange,
};
use tracer::verify::judge;

use super::proxy::{BACKENDS, CLIENT, Mode, NODE, Network, OUTSIDE, feed, within};
use crate::support::{ip, program, run_in};

/// What kube-proxy wrote, one text for each program that takes it, and what it wrote it for.
pub(super) struct Fixture {
    pub(super) texts: Vec<(Vec<&'static str>, String)>,
    pub(super) snapshot: Snapshot,
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/data/kube-proxy")
        .join(name)
}

impl Fixture {
    pub(super) fn of(mode: Mode) -> Self {
        let text = |name: &str| fs::read_to_string(path(name)).expect("it is in the repository");
        let texts = match mode {
            Mode::Legacy => vec![
                (vec!["iptables-legacy-restore"], text("iptables.txt")),
                (vec!["ip6tables-legacy-restore"], text("ip6tables.txt")),
            ],
            Mode::Iptables => vec![
                (vec!["iptables-restore"], text("iptables.txt")),
                (vec!["ip6tables-restore"], text("ip6tables.txt")),
            ],
            Mode::Nftables => vec![(
                vec!["nft", "-f", "-"],
                format!("flush ruleset\n{}", text("nftables.txt")),
            )],
        };
        let snapshot = read_files(&[path("objects.json")]).expect("it is as kubectl writes it");
        Self { texts, snapshot }
    }

    /// What kube-proxy set up in ipvs mode: sets, addresses of kube-ipvs0, virtual servers, rules of both families,
    /// sysctls, and the objects.
    pub(super) fn in_ipvs_mode(texts: [&str; 6], objects: &str) -> Self {
        let bash = |script: &'static str| vec!["bash", "-c", script];
        let takers = [
            bash("ipset flush; ipset restore -exist"),
            bash(
                "ip link add kube-ipvs0 type dummy 2>/dev/null; ip address flush dev kube-ipvs0; ip -batch -",
            ),
            bash("ipvsadm -C; ipvsadm -R"),
            vec!["iptables-restore"],
            vec!["ip6tables-restore"],
            vec!["sysctl", "-qp", "-"],
        ];
        let texts = takers.into_iter().zip(texts.map(str::to_owned));
        let scratch = tempfile::tempdir().expect("there is room for temporary files");
        let path = scratch.path().join("objects.json");
        fs::write(&path, objects).expect("there is room for temporary files");
        Self {
            texts: texts.collect(),
            snapshot: read_files(&[path]).expect("it is as kubectl writes it"),
        }
    }

    /// What kube-proxy of `version` would have written for some of the Services.
    pub(super) fn older(version: &str) -> Self {
        const SERVICES: [&str; 7] = ["kubernetes", "near", "node", "none", "one", "out", "sticky"];
        let text = fs::read_to_string(path(&format!("older/{version}.txt")));
        let mut fixture = Self {
            texts: vec![(
                vec!["iptables-restore"],
                text.expect("it is in the repository"),
            )],
            ..Self::of(Mode::Iptables)
        };
        let snapshot = &mut fixture.snapshot;
        let is_there = |name: &str| SERVICES.contains(&name);
        snapshot
            .services
            .retain(|service| is_there(&service.name.name));
        snapshot.slices.retain(|slice| is_there(&slice.service));
        fixture
    }

    pub(super) fn load(&self, network: &Network) {
        self.load_in(&network.node);
    }

    pub(super) fn load_in(&self, netns: &str) {
        for (words, text) in &self.texts {
            feed(netns, words, text);
        }
    }

    /// Loads it with one thing changed: every line that has `line` is removed, or has `from`
    /// replaced.
    fn load_changed(&self, network: &Network, change: &Change) {
        let mut changed = 0;
        for (words, text) in &self.texts {
            let mut lines: Vec<String> = Vec::new();
            for line in text.lines() {
                if !line.contains(change.line) {
                    lines.push(line.to_owned());
                    continue;
                }
                match change.how {
                    How::Removed => {}
                    How::Replaced(from, to) => {
                        assert!(line.contains(from), "{line}");
                        lines.push(line.replacen(from, to, 1));
                    }
                    How::Before(new) => {
                        lines.push(new.to_owned());
                        lines.push(line.to_owned());
                    }
                }
                changed += 1;
            }
            feed(&network.node, words, &(lines.join("\n") + "\n"));
        }
        assert!(changed > 0, "nothing has {:?}", change.line);
    }

    pub(super) fn judge(&self, network: &Network) -> Verified {
        let (ruleset, host) = read(network);
        self.judge_by(&ruleset, &host)
    }

    /// Judges rules that were read already.
    pub(super) fn judge_by(&self, ruleset: &Ruleset, host: &Host) -> Verified {
        let nodes = &self.snapshot.nodes;
        let node = nodes.iter().find(|node| &*node.name == "n1");
        judge(
            ruleset,
            host,
            &self.snapshot,
            node.expect("it is in the objects"),
        )
    }
}

pub(super) fn read(network: &Network) -> (Ruleset, Host) {
    within(&network.node, || {
        (
            Ruleset::read().expect("it reads"),
            Host::read().expect("it reads"),
        )
    })
}

/// The network of the objects, with IPv6.
pub(super) fn network(test: &str) -> Network {
    let network = Network::new(test);
    let node = &network.node;
    let forward = run_in(node, &["sysctl", "-qw", "net.ipv6.conf.all.forwarding=1"]);
    assert!(forward.status.success());
    let six = |words: &[&str]| ip(&[&["-n", node, "-6"], words].concat());
    six(&["address", "add", "2001:db8::1/64", "dev", "eth0", "nodad"]);
    six(&[
        "route",
        "add",
        "default",
        "via",
        "2001:db8::100",
        "dev",
        "eth0",
    ]);
    for (device, address) in [
        ("b0", "fd00:10:244:1::1/128"),
        ("b1", "fd00:10:244:1::2/128"),
        ("b2", "fd00:10:244:2::3/128"),
        ("c", "fd00:10:244:1::/64"),
    ] {
        six(&["route", "add", address, "dev", device]);
    }
    ip(&[
        "-n",
        node,
        "route",
        "add",
        "10.244.1.0/24",
        "dev",
        "c",
        "src",
        NODE,
    ]);
    network
}

enum How {
    Removed,
    Replaced(&'static str, &'static str),
    /// Another line stands before it.
    Before(&'static str),
}

/// One thing changed, and what must be found: name and object of each finding.
pub(super) struct Change {
    line: &'static str,
    how: How,
    finds: &'static [(&'static str, &'static str)],
}

fn names(findings: &[Finding]) -> Vec<(&str, &str)> {
    let mut names: Vec<_> = findings
        .iter()
        .map(|finding| (finding.name, finding.object.as_str()))
        .collect();
    names.sort_unstable();
    names
}

pub(super) fn each_change_is_found(test: &str, fixture: &Fixture, changes: &[Change]) {
    let network = network(test);
    fixture.load(&network);
    let healthy = fixture.judge(&network);
    assert_eq!(names(&healthy.findings), [], "{:#?}", healthy.findings);
    let services = fixture.snapshot.services.len();
    assert!(healthy.packets > 5 * services as u64, "{healthy:?}");
    let mut wrong = Vec::new();
    for change in changes {
        fixture.load_changed(&network, change);
        let found = fixture.judge(&network);
        let mut expected = change.finds.to_vec();
        expected.sort_unstable();
        if names(&found.findings) != expected {
            wrong.push(format!(
                "{}: expected {expected:?}, found {:#?}",
                change.line, found.findings
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

pub(super) fn removed(
    line: &'static str,
    finds: &'static [(&'static str, &'static str)],
) -> Change {
    Change {
        line,
        how: How::Removed,
        finds,
    }
}

fn replaced(
    line: &'static str,
    from: &'static str,
    to: &'static str,
    finds: &'static [(&'static str, &'static str)],
) -> Change {
    Change {
        line,
        how: How::Replaced(from, to),
        finds,
    }
}

const WEB: &str = "Service shop/web, port http";

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn each_change_of_iptables_rules_is_its_own_finding_and_no_change_is_none() {
    each_change_is_found("jipt", &Fixture::of(Mode::Iptables), &iptables_changes());
}

fn iptables_changes() -> Vec<Change> {
    vec![
        removed(
            "-A KUBE-SERVICES -d 10.96.0.10/32 ",
            &[("not_programmed", WEB)],
        ),
        // The first of three: the others share what it had.
        removed(
            "\"shop/web:http -> 10.244.1.1:8080\"",
            &[("missing_endpoint", WEB)],
        ),
        replaced(
            "\"shop/web:http -> 10.244.1.1:8080\"",
            "0.33333333349",
            "0.50000000000",
            &[("uneven_spread", WEB)],
        ),
        replaced(
            "\"shop/web:http\" -m tcp -j DNAT --to-destination 10.244.1.2:8080",
            "10.244.1.2:8080",
            "10.244.1.2:8081",
            &[("wrong_port", WEB)],
        ),
        replaced(
            "\"shop/web:http\" -m tcp -j DNAT --to-destination 10.244.1.2:8080",
            "10.244.1.2:8080",
            "10.244.1.7:8080",
            &[("wrong_endpoint", WEB)],
        ),
        removed(
            "-s 10.244.1.1/32 -m comment --comment \"shop/web:http\" -j KUBE-MARK-MASQ",
            &[("no_hairpin", WEB)],
        ),
        removed(
            "! -s 10.244.0.0/16 -d 10.96.0.10/32",
            &[("no_masquerade", WEB)],
        ),
        removed(
            "\"masquerade traffic for shop/node:http external destinations\"",
            &[("no_masquerade", "Service shop/node, port http")],
        ),
        removed(
            "\"shop/none:http has no endpoints\"",
            &[("no_reject", "Service shop/none, port http")],
        ),
        removed(
            "-d 198.51.100.19/32 -p tcp -m comment --comment \"shop/far:http has no local endpoints\"",
            &[("no_drop", "Service shop/far, port http")],
        ),
        removed(
            "\"shop/innerfar:http has no local endpoints\"",
            &[("no_drop", "Service shop/innerfar, port http")],
        ),
        removed(
            "--comment \"shop/sticky:http -> 10.244.1.1:8080\" -m recent",
            &[("affinity", "Service shop/sticky, port http")],
        ),
        replaced(
            "--comment \"shop/sticky:http -> 10.244.1.1:8080\" -m recent",
            "--seconds 10800",
            "--seconds 60",
            &[("affinity", "Service shop/sticky, port http")],
        ),
        removed(
            "\"shop/ranged:http traffic not accepted by",
            &[("no_drop", "Service shop/ranged, port http")],
        ),
        removed(
            "-s 203.0.113.0/24 -m comment --comment \"shop/ranged:http loadbalancer IP\"",
            &[("dropped", "Service shop/ranged, port http")],
        ),
        removed(
            "\"pod traffic for shop/near:http external destinations\"",
            &[("missing_endpoint", "Service shop/near, port http")],
        ),
        Change {
            line: "-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports",
            how: How::Before(
                "-A KUBE-SERVICES -d 10.96.0.200/32 -p tcp -m comment --comment \"shop/gone:http cluster IP\" -m tcp --dport 80 -j KUBE-SVC-67NZLRHBNDSAWJRO",
            ),
            finds: &[("leftover", "Service shop/gone:http")],
        },
        Change {
            line: "-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports",
            how: How::Before("-A OUTPUT -d 10.244.1.1/32 -j RETURN"),
            finds: &[],
        },
        removed(
            "kubernetes service traffic requiring SNAT",
            &[
                // What lets pods pass the policy Local says that their addresses are known.
                ("no_masquerade", "21 Service ports"),
                ("no_hairpin", "21 Service ports"),
            ],
        ),
    ]
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn each_change_of_nftables_rules_is_its_own_finding_and_no_change_is_none() {
    each_change_is_found("jnft", &Fixture::of(Mode::Nftables), &nftables_changes());
}

fn nftables_changes() -> Vec<Change> {
    const CHOICE: &str = "numgen random mod 3 map { 0 : 10.244.1.1 . 8080, 1 : 10.244.1.2 . 8080, 2 : 10.244.2.3 . 8080 }";
    const EXTERNAL: &str = "meta mark set meta mark | 0x00004000 comment \"masquerade\"";
    vec![
        replaced(
            "10.96.0.10 . tcp . 80 : goto service-",
            "10.96.0.10 . tcp . 80",
            "10.96.0.210 . tcp . 80",
            &[("rejected", WEB), ("leftover", "Service shop/web:http")],
        ),
        // Of all Services with three endpoints.
        replaced(
            CHOICE,
            "mod 3",
            "mod 2",
            &[("missing_endpoint", "9 Service ports")],
        ),
        replaced(
            CHOICE,
            "10.244.1.2 . 8080",
            "10.244.1.2 . 8081",
            &[("wrong_port", "9 Service ports")],
        ),
        replaced(
            "0 : 10.244.1.1 . 8080, 1 : 10.244.2.3 . 9090",
            "9090",
            "8080",
            &[("wrong_port", "Service shop/named, port http")],
        ),
        removed(
            "10.244.1.1 . 10.244.1.1 . udp . 8080,",
            &[("no_hairpin", "Service shop/dns, port dns")],
        ),
        // What lets pods pass the policy Local says that their addresses are known.
        removed(
            "masquerade clusterIP traffic from outside cluster",
            &[("no_masquerade", "21 Service ports")],
        ),
        removed(
            EXTERNAL,
            &[
                ("no_masquerade", "Service shop/node, port http"),
                ("no_masquerade", "Service shop/out, port http"),
                ("no_masquerade", "Service shop/ranged, port http"),
            ],
        ),
        replaced(
            "tcp . 30021 comment \"shop/nonode:http\" : goto reject-chain",
            "30021",
            "30099",
            // Where nothing listens, the node refuses by itself.
            &[],
        ),
        // Other ports of cluster IPs are rejected too.
        removed("10.96.0.24 . tcp . 80 comment", &[]),
        removed(
            "198.51.100.19 . tcp . 80 comment",
            &[("no_drop", "Service shop/far, port http")],
        ),
        removed(
            "ip saddr @affinity-FX7ULIB6-shop/sticky/tcp/http__10.244.1.2/8080 goto",
            &[("affinity", "Service shop/sticky, port http")],
        ),
        removed(
            "update @affinity-FX7ULIB6-shop/sticky/tcp/http__10.244.1.2/8080",
            &[("affinity", "Service shop/sticky, port http")],
        ),
        removed(
            "ip saddr != { 192.0.2.96/28, 203.0.113.0/24 } drop",
            &[("undue_endpoint", "Service shop/ranged, port http")],
        ),
        Change {
            line: "chain service-AN6D5RLX-shop/one/tcp/http {",
            how: How::Before(
                "chain service-AN6D5RLX-shop/gone/tcp/http { meta l4proto tcp dnat to 10.244.2.3:8080; }",
            ),
            finds: &[(
                "leftover_chain",
                "chain ip kube-proxy service-AN6D5RLX-shop/gone/tcp/http",
            )],
        },
    ]
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn healthy_rules_are_one_line() {
    let network = network("jone");
    let fixture = Fixture::of(Mode::Nftables);
    fixture.load(&network);
    let program = program();
    let words = [
        program.to_str().expect("it is text"),
        "verify",
        "--objects",
        path("objects.json").to_str().expect("it is text"),
    ]
    .map(str::to_owned);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let output = run_in(&network.node, &words);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(
        text.starts_with("the rules do what the API objects say: "),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1, "{text}");
}

/// Everything that can become of packets to `fronts`, from everywhere: what a change of behaviour
/// is told by. What becomes of the node's own address makes no difference.
fn behaviour(ruleset: &Ruleset, host: &Host, fronts: &[RuleService]) -> Vec<Vec<(Outcome, u64)>> {
    let judge: Judge<'_> = ruleset.judges(host);
    let mut all = Vec::new();
    let at = fronts.iter().flat_map(|front| match front.front {
        // And a port that the Service has not.
        Front::Address(address) => [front.port, 1].map(|port| SocketAddr::new(address, port)),
        Front::NodePort => [SocketAddr::new(NODE.parse().expect("an address"), front.port); 2],
    });
    for (at, front) in at.zip(fronts.iter().flat_map(|front| [front; 2])) {
        let sources = [
            CLIENT,
            OUTSIDE,
            BACKENDS[0],
            BACKENDS[1],
            "203.0.113.9",
            NODE,
        ];
        for source in sources {
            let source: IpAddr = source.parse().expect("it is an address");
            if source.is_ipv4() != at.is_ipv4() {
                continue;
            }
            let packet = Packet {
                source: SocketAddr::new(source, 50_000),
                destination: at,
                protocol: front.protocol,
            };
            let origin = host.origin_of(source);
            let own = origin == Origin::Host;
            let spread = judge.judge(packet, origin.clone(), false);
            // Where a client that comes again is sent.
            let mut again = Vec::new();
            for branch in spread.branches.iter().filter(|one| !one.memory.is_empty()) {
                let spread = judge.judge_again(packet, origin.clone(), &branch.memory);
                again.extend(spread.branches);
            }
            let ways = spread.branches.into_iter().chain(again).map(|branch| {
                let mut outcome = branch.outcome;
                outcome.mark = 0;
                // Where nothing listens, the host refuses by itself.
                if outcome.ending == Ending::Delivered && outcome.destination == at {
                    outcome.ending = Ending::Rejected(RejectKind::Icmp(3));
                }
                if own {
                    outcome.source = SourceChange::Kept;
                }
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a share"
                )]
                let share = (branch.high * 1000.0).round() as u64;
                (outcome, share)
            });
            let mut ways: Vec<_> = ways.collect();
            ways.sort();
            all.push(ways);
        }
    }
    all
}

/// Removes each rule in turn: where anything changes for anybody, something must be found, and
/// only then.
fn every_rule_counts(test: &str, mode: Mode, at_least: usize) {
    let network = network(test);
    let fixture = Fixture::of(mode);
    fixture.load(&network);
    let (ruleset, host) = read(&network);
    let node = fixture.snapshot.nodes.iter().find(|one| &*one.name == "n1");
    let node = node.expect("it is in the objects");
    let fronts = ruleset.services();
    let fronts: Vec<_> = fronts
        .into_iter()
        .filter(|one| !matches!(one.front, Front::Address(IpAddr::V6(_))))
        .collect();
    let before = behaviour(&ruleset, &host, &fronts);
    let (mut told, mut silent) = (0, 0);
    let mut wrong = BTreeSet::new();
    for table in 0..ruleset.tables.len() {
        if ruleset.tables[table].family.name() == "ip6" {
            continue;
        }
        for chain in 0..ruleset.tables[table].chains.len() {
            for rule in 0..ruleset.tables[table].chains[chain].rules.len() {
                let mut changed = ruleset.clone();
                let removed = changed.tables[table].chains[chain].rules.remove(rule);
                let chain_name = &ruleset.tables[table].chains[chain].name;
                let differs = behaviour(&changed, &host, &fronts) != before;
                let found = judge(&changed, &host, &fixture.snapshot, node).findings;
                let mut found = names(&found);
                found.retain(|(name, _)| *name != "leftover_chain");
                if differs == found.is_empty() {
                    let text = ruleset.tables[table]
                        .text_of(&ruleset.tables[table].chains[chain], &removed);
                    wrong.insert(format!("{chain_name} {text}: differs {differs}, {found:?}"));
                }
                if differs {
                    told += 1;
                } else {
                    silent += 1;
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(told >= at_least, "{told} told, {silent} without effect");
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn legacy_rules_are_right_until_the_other_backend_has_rules_too() {
    let network = network("jleg");
    let fixture = Fixture::of(Mode::Legacy);
    fixture.load(&network);
    let verified = fixture.judge(&network);
    assert_eq!(verified.modes, ["iptables"]);
    assert_eq!(verified.findings, []);
    let added = run_in(
        &network.node,
        &["iptables", "-A", "FORWARD", "-j", "ACCEPT"],
    );
    assert!(added.status.success(), "{added:?}");
    let names: Vec<_> = fixture
        .judge(&network)
        .findings
        .iter()
        .map(|one| one.name)
        .collect();
    assert_eq!(names, ["two_backends"]);
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn whichever_of_iptables_rules_is_removed_is_found_if_it_matters_and_only_then() {
    every_rule_counts("ript", Mode::Iptables, 200);
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn whichever_of_nftables_rules_is_removed_is_found_if_it_matters_and_only_then() {
    every_rule_counts("rnft", Mode::Nftables, 60);
}
