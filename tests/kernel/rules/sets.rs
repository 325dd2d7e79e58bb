//! ipsets, as the tracer reads and evaluates them, against what the kernel does with packets, and against
//! `ipset save`.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use tracer::model::cluster::PortProtocol;
use tracer::rules::{Ending, Host, Packet, Ruleset};

use super::packets::{Fate, fates, serve};
use super::proxy::{BACKENDS, CLIENT, NODE, Network, OUTSIDE, feed, within};
use crate::support::run_in;

/// What is given to `ipset restore`, and what a rule in FORWARD asks of it.
struct Case {
    sets: &'static str,
    rule: &'static str,
    /// Elements expire before packets are sent.
    waits: bool,
}

const fn case(sets: &'static str, rule: &'static str) -> Case {
    Case {
        sets,
        rule,
        waits: false,
    }
}

const CASES: &[Case] = &[
    case("create a hash:ip\nadd a 10.244.1.9\n", "--match-set a src"),
    case(
        "create a hash:ip\nadd a 10.244.1.9\n",
        "! --match-set a src",
    ),
    case(
        "create a hash:ip netmask 24\nadd a 10.244.1.0\n",
        "--match-set a dst",
    ),
    case(
        "create a hash:net\nadd a 10.244.0.0/16\nadd a 10.244.1.8/29 nomatch\n",
        "--match-set a src",
    ),
    case(
        "create a hash:net\nadd a 10.244.0.0/16\nadd a 10.244.1.8/29 nomatch\n",
        "! --match-set a src",
    ),
    case(
        "create a hash:ip,port\nadd a 10.244.1.1,tcp:8080\nadd a 10.244.1.2,udp:8080\n",
        "--match-set a dst,dst",
    ),
    case(
        "create a hash:ip,port\nadd a 10.244.1.9,tcp:8080\n",
        "--match-set a src,dst",
    ),
    case(
        "create a hash:ip,port,ip\nadd a 10.244.1.1,tcp:8080,10.244.1.9\nadd a 10.244.1.2,udp:8080,192.0.2.100\n",
        "--match-set a dst,dst,src",
    ),
    case(
        "create a hash:ip,port,net\nadd a 10.244.1.1,tcp:8080,10.244.0.0/16\nadd a 10.244.1.1,tcp:8080,10.244.1.9 nomatch\nadd a 10.244.1.2,udp:8080,192.0.2.0/24\n",
        "--match-set a dst,dst,src",
    ),
    case(
        "create a hash:net,port\nadd a 10.244.1.0/24,tcp:8080\nadd a 10.244.1.2/31,tcp:8080 nomatch\n",
        "--match-set a dst,dst",
    ),
    case(
        "create a bitmap:port range 0-65535\nadd a 8080\n",
        "--match-set a dst",
    ),
    case(
        "create a bitmap:ip range 10.244.1.0/24\nadd a 10.244.1.1-10.244.1.4\n",
        "--match-set a dst",
    ),
    case(
        "create b hash:ip\nadd b 10.244.1.9\ncreate c bitmap:port range 8000-9000\nadd c 8080\ncreate a list:set\nadd a b\nadd a c\n",
        "--match-set a src,dst",
    ),
    case(
        "create b hash:ip\nadd b 10.244.1.9\ncreate a list:set\nadd a b\n",
        "! --match-set a src",
    ),
    // Too few ends for its fields.
    case(
        "create a hash:ip,port\nadd a 10.244.1.1,tcp:8080\n",
        "! --match-set a dst",
    ),
    Case {
        sets: "create a hash:ip timeout 1\nadd a 10.244.1.9\nadd a 192.0.2.100 timeout 0\n",
        rule: "--match-set a src",
        waits: true,
    },
];

fn load(network: &Network, iptables: &str, case: &Case) {
    let node = &network.node;
    run_in(node, &[iptables, "-F", "FORWARD"]);
    // What is in no list can be destroyed.
    run_in(node, &["ipset", "flush"]);
    run_in(node, &["ipset", "destroy"]);
    feed(node, &["ipset", "restore"], case.sets);
    // Answers pass; it is first packets that are foretold.
    let answers = [
        "FORWARD",
        "-m",
        "conntrack",
        "--ctstate",
        "ESTABLISHED",
        "-j",
        "ACCEPT",
    ];
    run_in(node, &[&[iptables, "-A"], &answers[..]].concat());
    let rule: Vec<_> = case.rule.split(' ').collect();
    let words = [
        &[iptables, "-A", "FORWARD", "-m", "set"],
        &rule[..],
        &["-j", "DROP"],
    ]
    .concat();
    let added = run_in(node, &words);
    assert!(added.status.success(), "{}: {added:?}", case.rule);
    if case.waits {
        thread::sleep(Duration::from_millis(2500));
    }
}

fn read(network: &Network) -> (Ruleset, Host) {
    within(&network.node, || {
        let ruleset = Ruleset::read().expect("it reads");
        (ruleset, Host::read().expect("it reads"))
    })
}

fn packet(source: IpAddr, destination: SocketAddr, protocol: PortProtocol) -> Packet {
    Packet {
        source: SocketAddr::new(source, 50_000),
        destination,
        protocol,
    }
}

fn packets_fare_as_sets_say(test: &str, iptables: &str) {
    let network = Network::new(test);
    serve(&network);
    let (mut held, mut not) = (0, 0);
    for case in CASES {
        load(&network, iptables, case);
        let (ruleset, host) = read(&network);
        let sources = [
            (&network.client, CLIENT),
            (&network.outside, OUTSIDE),
            (&network.backends[2], BACKENDS[2]),
        ];
        for (netns, source) in sources {
            let source: IpAddr = source.parse().expect("it is an address");
            for to in &BACKENDS[..2] {
                let to = SocketAddr::new(to.parse().expect("it is an address"), 8080);
                for protocol in [PortProtocol::Tcp, PortProtocol::Udp] {
                    let packet = packet(source, to, protocol);
                    let spread = ruleset.judge(&host, packet, host.origin_of(source), false);
                    let certain = spread.certain().expect("each of these is understood");
                    let foretold = match certain.outcome.ending {
                        Ending::Dropped => Fate::Silence,
                        _ => Fate::Answered(to.ip(), source),
                    };
                    let happened = fates(netns, protocol.name(), to, 1);
                    assert!(
                        happened.contains_key(&foretold),
                        "{} {} {protocol:?} to {to} from {source}: foretold {foretold:?}, happened {happened:?}",
                        case.sets,
                        case.rule
                    );
                    *(if foretold == Fate::Silence {
                        &mut held
                    } else {
                        &mut not
                    }) += 1;
                }
            }
        }
    }
    assert!(held > 40 && not > 40, "{held} and {not}");
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn packets_through_rules_with_ipsets_do_what_the_evaluator_says() {
    packets_fare_as_sets_say("setnft", "iptables");
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn packets_through_legacy_rules_with_ipsets_do_what_the_evaluator_says() {
    packets_fare_as_sets_say("setleg", "iptables-legacy");
}

/// The number of elements of each set as `ipset save` has them, those that expire in this moment apart.
fn saved(network: &Network) -> Vec<(String, String, usize)> {
    let saved = run_in(&network.node, &["ipset", "save"]);
    let text = String::from_utf8(saved.stdout).expect("it is text");
    let created = text.lines().filter_map(|line| {
        let mut words = line.strip_prefix("create ")?.split(' ');
        let (name, kind) = (words.next()?, words.next()?);
        let of = format!("add {name} ");
        let count = text.lines().filter(|line| line.starts_with(&of)).count();
        Some((name.to_owned(), kind.to_owned(), count))
    });
    created.collect()
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn ipsets_are_read_whole_as_ipset_lists_them() {
    let network = Network::new("setread");
    for case in CASES.iter().filter(|case| !case.waits) {
        load(&network, "iptables", case);
        let (ruleset, _) = read(&network);
        for (name, kind, count) in saved(&network) {
            let set = ruleset.ipsets.named(&name).expect("it is read");
            assert_eq!((&*set.kind, set.len()), (&*kind, Some(count)), "{name}");
        }
    }
    // More than one message takes.
    let many = (0..20_000_u32).map(|index| {
        let (high, low, port) = (index >> 8, index & 255, 1000 + index % 7);
        format!("add big 10.{high}.{low}.1,tcp:{port}\n")
    });
    let many = many.collect::<Vec<_>>().concat();
    feed(
        &network.node,
        &["ipset", "restore"],
        &format!("create big hash:ip,port\n{many}"),
    );
    let (ruleset, _) = read(&network);
    let big = ruleset.ipsets.named("big").expect("it is read");
    assert_eq!(big.len(), Some(20_000));
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn a_set_of_a_kind_that_is_not_understood_leaves_both_ways_open_and_says_why() {
    let network = Network::new("setother");
    let of = case(
        "create a hash:net,iface\nadd a 10.244.0.0/16,c\n",
        "--match-set a src,src",
    );
    load(&network, "iptables", &of);
    let (ruleset, host) = read(&network);
    let source: IpAddr = CLIENT.parse().expect("it is an address");
    let to = SocketAddr::new(BACKENDS[0].parse().expect("it is an address"), 8080);
    let packet = packet(source, to, PortProtocol::Tcp);
    let spread = ruleset.judge(&host, packet, host.origin_of(source), false);
    let [at] = spread.unknown[..] else {
        panic!("{spread:?}");
    };
    let rule = at.rule(&ruleset).expect("it is a rule");
    let why = ruleset.unread_set(rule).expect("the set is not understood");
    assert!(why.contains("set a: what is in a hash:net,iface"), "{why}");
    assert_eq!(
        ruleset.text(at),
        "-A FORWARD -m set --match-set a src,src -j DROP"
    );
    // The node itself sends through no FORWARD.
    let node: IpAddr = NODE.parse().expect("it is an address");
    let own = self::packet(node, to, PortProtocol::Tcp);
    let spread = ruleset.judge(&host, own, host.origin_of(node), false);
    assert!(spread.unknown.is_empty(), "{spread:?}");
}
