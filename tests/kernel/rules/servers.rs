//! Virtual servers of IPVS, as the tracer reads and evaluates them, against `ipvsadm -Sn` and against what
//! the kernel does with packets, whatever scheduler deals them out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tracer::model::cluster::PortProtocol;
use tracer::rules::{Asked, Ending, Host, Method, Packet, RuleAt, Ruleset, VirtualServer};

use super::packets::{Fate, fates, serve};
use super::proxy::{BACKENDS, CLIENT, NODE, Network, OUTSIDE, feed, within};
use crate::support::{has_ipvs, ip, run_in};

/// IPVS with the schedulers that are tried, and its match.
pub(super) const MODULES: [&str; 6] = [
    "ip_vs",
    "ip_vs_rr",
    "ip_vs_wrr",
    "ip_vs_sh",
    "ip_vs_lc",
    "xt_ipvs",
];

const VIP: &str = "10.96.0.10";

/// The namespaces, with the VIP on the node; `None` where the kernel has no IPVS.
fn network(test: &str) -> Option<Network> {
    if !has_ipvs(&MODULES) {
        return None;
    }
    let network = Network::new(test);
    let node = &network.node;
    ip(&["-n", node, "link", "add", "kube-ipvs0", "type", "dummy"]);
    ip(&["-n", node, "address", "add", VIP, "dev", "kube-ipvs0"]);
    set(&network, "net.ipv4.vs.conntrack=1");
    Some(network)
}

fn set(network: &Network, sysctl: &str) {
    let done = run_in(&network.node, &["sysctl", "-qw", sysctl]);
    assert!(done.status.success(), "{sysctl}: {done:?}");
}

fn read(network: &Network) -> (Ruleset, Host) {
    within(&network.node, || {
        let ruleset = Ruleset::read().expect("it reads");
        (ruleset, Host::read().expect("it reads"))
    })
}

fn load(network: &Network, servers: &str) {
    feed(
        &network.node,
        &["bash", "-c", "ipvsadm -C; ipvsadm -R"],
        servers,
    );
}

/// As `ipvsadm -Sn` has it.
fn lines(server: &VirtualServer) -> Vec<String> {
    let of = match server.asked {
        Asked::Address(PortProtocol::Udp, at) => format!("-u {at}"),
        Asked::Address(_, at) => format!("-t {at}"),
        Asked::Mark(..) if server.real.iter().any(|real| real.at.is_ipv6()) => {
            let Asked::Mark(_, mark) = server.asked else {
                unreachable!("it is one by mark");
            };
            format!("-f {mark} -6")
        }
        Asked::Mark(_, mark) => format!("-f {mark}"),
    };
    let stays = server.persistence;
    let stays = stays.map_or(String::new(), |time| {
        let mask = match server.alike {
            32 | 128 => String::new(),
            length => format!(" -M {}", Ipv4Addr::from(!(u32::MAX >> length))),
        };
        format!(" -p {}{mask}", time.as_secs())
    });
    let mut lines = vec![format!("-A {of} -s {}{stays}", server.scheduler)];
    let real = server.real.iter().map(|real| {
        let method = match real.method {
            Method::Masq => "-m",
            Method::Tunnel => "-i",
            // For ipvsadm this host's own is one of those that are routed to.
            Method::Local | Method::Route => "-g",
        };
        let most = match real.most {
            0 => String::new(),
            most => format!(" -x {most} -y 0"),
        };
        let (at, weight) = (real.at, real.weight);
        format!("-a {of} -r {at} {method} -w {weight}{most}")
    });
    lines.extend(real);
    lines
}

#[test]
#[ignore = "needs root and ip_vs; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn virtual_servers_are_read_as_ipvsadm_lists_them() {
    let Some(network) = network("vsread") else {
        return;
    };
    load(
        &network,
        "-A -t 10.96.0.10:80 -s rr\n\
         -a -t 10.96.0.10:80 -r 10.244.1.1:8080 -m -w 1\n\
         -a -t 10.96.0.10:80 -r 10.244.1.2:8080 -m -w 0\n\
         -a -t 10.96.0.10:80 -r 10.244.2.3:9090 -m -w 7\n\
         -A -u 10.96.0.10:53 -s wrr -p 10800\n\
         -a -u 10.96.0.10:53 -r 10.244.1.1:53 -m -w 3\n\
         -A -t 10.96.0.13:80 -s rr -p 600 -M 255.255.255.0\n\
         -A -t 10.96.0.11:443 -s sh\n\
         -a -t 10.96.0.11:443 -r 10.244.1.1:443 -g -w 1\n\
         -a -t 10.96.0.11:443 -r 10.244.1.2:443 -i -w 1\n\
         -A -t [fd00:10:96::a]:80 -s rr\n\
         -a -t [fd00:10:96::a]:80 -r [fd00:10:244:1::1]:8080 -m -w 1\n\
         -A -f 7 -s lc\n\
         -a -f 7 -r 10.244.1.1:0 -m -w 1\n\
         -A -t 10.96.0.12:80 -s rr\n",
    );
    let (ruleset, _) = read(&network);
    let mut found: Vec<_> = ruleset.ipvs.servers.iter().flat_map(lines).collect();
    let listed = run_in(&network.node, &["ipvsadm", "-Sn"]);
    let listed = String::from_utf8(listed.stdout).expect("it is text");
    let mut listed: Vec<_> = listed
        .lines()
        // There is one kind that every kernel has.
        .map(|line| line.trim().replace(" --tun-type ipip", ""))
        .collect();
    found.sort();
    listed.sort();
    assert_eq!(found, listed);
    assert!(ruleset.ipvs.conntrack);
    set(&network, "net.ipv4.vs.conntrack=0");
    assert!(!read(&network).0.ipvs.conntrack);
}

/// What the evaluator says of a packet: the ways that there may be.
fn foretold(ruleset: &Ruleset, host: &Host, source: IpAddr, to: SocketAddr) -> Vec<Fate> {
    let packet = Packet {
        source: SocketAddr::new(source, 50_000),
        destination: to,
        protocol: PortProtocol::Tcp,
    };
    let spread = ruleset.judge(host, packet, host.origin_of(source), false);
    let ways = spread.branches.iter().map(|branch| {
        let outcome = &branch.outcome;
        match outcome.ending {
            Ending::Sent(_) => Fate::Answered(outcome.destination.ip(), source),
            _ => Fate::Refused,
        }
    });
    ways.collect()
}

#[test]
#[ignore = "needs root and ip_vs; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn a_client_gets_the_server_that_its_scheduler_has_for_it() {
    let Some(network) = network("vssched") else {
        return;
    };
    serve(&network);
    let sources = [
        (&network.client, CLIENT),
        (&network.outside, OUTSIDE),
        (&network.backends[0], BACKENDS[0]),
        (&network.backends[1], BACKENDS[1]),
        (&network.backends[2], BACKENDS[2]),
    ];
    let to = SocketAddr::new(VIP.parse().expect("it is an address"), 80);
    let (mut certain, mut open) = (0, 0);
    let weights = [
        "1 1 1", "1 2 3", "5 1 1", "0 1 1", "2 0 0", "0 0 0", "3 3 1",
    ];
    for scheduler in ["sh", "rr", "wrr", "lc"] {
        for weights in weights {
            let mut lines = vec![format!("-A -t {to} -s {scheduler}\n")];
            let real = BACKENDS.iter().zip(weights.split(' '));
            lines.extend(
                real.map(|(real, weight)| format!("-a -t {to} -r {real}:8080 -m -w {weight}\n")),
            );
            load(&network, &lines.concat());
            let (ruleset, host) = read(&network);
            for (netns, source) in sources {
                let source: IpAddr = source.parse().expect("it is an address");
                let foretold = foretold(&ruleset, &host, source, to);
                // From itself to itself nobody answers: its address is not replaced here.
                let own = |fate: &Fate| *fate == Fate::Answered(source, source);
                let count = if foretold.len() > 1 { 9 } else { 2 };
                if foretold.iter().any(own) {
                    continue;
                }
                let happened = fates(netns, "tcp", to, count);
                let all = happened.keys().all(|fate| foretold.contains(fate));
                // Connections are dealt out in turn; by their number it is any.
                let each = scheduler == "lc" || happened.len() == foretold.len();
                assert!(
                    all && each,
                    "{scheduler} {weights} from {source}: foretold {foretold:?}, happened {happened:?}"
                );
                *(if foretold.len() > 1 {
                    &mut open
                } else {
                    &mut certain
                }) += 1;
            }
        }
    }
    assert!(certain > 40 && open > 20, "{certain} and {open}");
}

#[test]
#[ignore = "needs root and ip_vs; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn what_servers_were_dealt_is_read_as_it_was_dealt() {
    let Some(network) = network("vsdealt") else {
        return;
    };
    serve(&network);
    let to = SocketAddr::new(VIP.parse().expect("it is an address"), 80);
    let lines = ["10.244.1.1", "10.244.1.2"].map(|ip| format!("-a -t {to} -r {ip}:8080 -m -w 1\n"));
    load(&network, &format!("-A -t {to} -s rr\n{}", lines.concat()));
    let happened = fates(&network.client, "tcp", to, 6);
    assert_eq!(happened.values().sum::<u32>(), 6);
    // The kernel adds up every two seconds (ip_vs_est.c).
    let deadline = Instant::now() + Duration::from_secs(20);
    let ruleset = loop {
        let (ruleset, _) = read(&network);
        if ruleset.ipvs.servers[0].dealt > 0 || Instant::now() > deadline {
            break ruleset;
        }
        sleep(Duration::from_millis(200));
    };
    let server = &ruleset.ipvs.servers[0];
    let dealt: Vec<_> = server.real.iter().map(|real| real.dealt).collect();
    assert_eq!((server.dealt, dealt), (6, vec![3, 3]));
    let packets: u64 = server.real.iter().map(|real| real.counter.packets).sum();
    // SYN, ACK and an end of each.
    assert!(
        packets >= 18 && packets == server.counter.packets,
        "{packets}"
    );
    assert!(server.counter.bytes >= packets * 40);
    let text = server.settings();
    assert!(text.contains("(6 connections and "), "{text}");
}

#[test]
#[ignore = "needs root and ip_vs; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn a_mark_or_any_port_can_choose_the_virtual_server() {
    let Some(network) = network("vsmark") else {
        return;
    };
    serve(&network);
    load(
        &network,
        "-A -f 7 -s rr\n\
         -a -f 7 -r 10.244.1.1:8080 -m -w 1\n\
         -A -t 10.96.0.10:0 -s rr -p 300\n\
         -a -t 10.96.0.10:0 -r 10.244.1.2:0 -m -w 1\n\
         -A -t 10.96.0.10:81 -s rr\n\
         -a -t 10.96.0.10:81 -r 10.244.2.3:8080 -m -w 1\n",
    );
    let rule = "-t mangle -A PREROUTING -s 192.0.2.100 -j MARK --set-mark 7";
    let rule: Vec<_> = rule.split(' ').collect();
    run_in(&network.node, &[&["iptables"], &rule[..]].concat());
    let (ruleset, host) = read(&network);
    let vip: IpAddr = VIP.parse().expect("it is an address");
    let sources = [(&network.client, CLIENT), (&network.outside, OUTSIDE)];
    for (netns, source) in sources {
        for port in [81, 8080, 82] {
            let source: IpAddr = source.parse().expect("it is an address");
            let to = SocketAddr::new(vip, port);
            let foretold = foretold(&ruleset, &host, source, to);
            let happened: Vec<_> = fates(netns, "tcp", to, 1).into_keys().collect();
            // Nobody listens at 82, wherever it leads.
            let expected = match (port, source.to_string().as_str()) {
                (82, CLIENT) => {
                    assert_eq!(
                        foretold,
                        [Fate::Answered(
                            "10.244.1.2".parse().expect("it is one"),
                            source
                        )]
                    );
                    vec![Fate::Refused]
                }
                _ => foretold,
            };
            assert_eq!(happened, expected, "port {port} from {source}");
        }
    }
}

#[test]
#[ignore = "needs root and ip_vs; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn rules_behind_ipvs_see_what_it_has_done_and_its_match_holds_for_it() {
    let Some(network) = network("vsmatch") else {
        return;
    };
    serve(&network);
    load(
        &network,
        "-A -t 10.96.0.10:80 -s rr\n-a -t 10.96.0.10:80 -r 10.244.1.1:8080 -m -w 1\n",
    );
    let to = SocketAddr::new(VIP.parse().expect("it is an address"), 80);
    let rules = [
        "-A OUTPUT -m ipvs --vaddr 10.96.0.10 --vproto 6 --vport 80 -j REJECT",
        "-A OUTPUT -m ipvs --vaddr 10.96.0.11 -j REJECT",
        "-A OUTPUT -m ipvs ! --vaddr 10.96.0.11 -j REJECT",
        "-A OUTPUT -m ipvs --vport 81 -j REJECT",
        // Of an ICMP error too, which a rule makes, IPVS thinks that it has seen it.
        "-A OUTPUT -p tcp -m ipvs --ipvs -j REJECT",
        "-A OUTPUT -p tcp -m ipvs ! --ipvs -j REJECT",
        "-A OUTPUT -m ipvs --vmethod MASQ -j REJECT",
        "-A OUTPUT -m ipvs --vdir REPLY -j REJECT",
        "-A OUTPUT -d 10.244.1.1/32 -p tcp -m tcp --dport 8080 -j REJECT",
        "-A INPUT -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j REJECT",
        "-A FORWARD -d 10.244.1.1/32 -j REJECT",
    ];
    let mut refused = 0;
    for rule in rules {
        let text = format!("*filter\n{rule}\nCOMMIT\n");
        feed(&network.node, &["iptables-restore"], &text);
        let (ruleset, host) = read(&network);
        for (netns, source) in [
            (&network.client, CLIENT),
            (&network.outside, OUTSIDE),
            (&network.node, NODE),
        ] {
            let source: IpAddr = source.parse().expect("it is an address");
            // This node sends from the very address that it asks.
            let from = if netns == &network.node {
                to.ip()
            } else {
                source
            };
            let foretold = foretold(&ruleset, &host, from, to);
            let happened: Vec<_> = fates(netns, "tcp", to, 1).into_keys().collect();
            assert_eq!(happened, foretold, "{rule} from {source}");
            refused += usize::from(happened == [Fate::Refused]);
        }
        let saved = run_in(&network.node, &["iptables-save", "-t", "filter"]);
        let saved = String::from_utf8(saved.stdout).expect("it is text");
        let saved: Vec<_> = saved
            .lines()
            .filter(|line| line.starts_with("-A"))
            .collect();
        assert_eq!(saved, [text_of_the_only_rule(&ruleset)]);
    }
    assert!(refused > 10, "{refused}");
}

fn text_of_the_only_rule(ruleset: &Ruleset) -> String {
    let places = (0..).zip(&ruleset.tables).flat_map(|(table, found)| {
        let chains = (0..).zip(&found.chains);
        let chains = chains.filter(|(_, chain)| !chain.rules.is_empty());
        chains.map(move |(chain, _)| (table, chain))
    });
    let mut places = places;
    let (table, chain) = places.next().expect("there is a rule");
    assert_eq!(places.next(), None, "there is no other");
    let rule = 0;
    ruleset.text(RuleAt { table, chain, rule })
}
