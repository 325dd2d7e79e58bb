//! Failures are made to happen, many in one trace, and each is named: the right one, of the right object, and
//! nothing else. What is healthy meanwhile is accused of nothing.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use tracer::lab::Lie;
use tracer::lab::services::{CLIENT1, EMPTY, SILENT_DNS, WEB, WEB1};

use crate::support::client::{A, inside, query, receive, udp};
use crate::support::routed::{Routed, SERVER, VIP};
use crate::support::trace::{Traced, Tracer};
use crate::support::{LyingDns, dig, ip, iptables_restore, lab, run_in};

fn assert_found(traced: &Traced, expected: &[&str]) {
    let found: BTreeSet<_> = traced.found().into_iter().collect();
    let expected: BTreeSet<_> = expected.iter().copied().map(str::to_owned).collect();
    assert_eq!(found, expected, "{:#?}", traced.briefs());
}

fn socket_of(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("it is an address"), port)
}

/// Sends `times` queries from one socket; whether they are answered is another matter.
fn send(netns: &str, to: &str, times: u16) {
    let to = socket_of(to, 53);
    inside(netns, "client", move || {
        let socket = udp(to);
        let patience = Some(Duration::from_millis(150));
        socket.set_read_timeout(patience).expect("it is not zero");
        for id in 0..times {
            // The error that an earlier one met is told here; an answer is read.
            drop(socket.send(&query(id, "host1.lab.test", A)));
            drop(socket.recv(&mut [0; 4096]));
        }
    });
}

/// Whether it connects.
fn connects(netns: &str, to: SocketAddr) -> bool {
    let limit = Duration::from_millis(600);
    inside(netns, "browser", move || {
        TcpStream::connect_timeout(&to, limit).is_ok()
    })
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn what_is_broken_in_the_lab_is_named_once_each_and_what_works_is_not() {
    let lab = lab("named");
    let netns = lab.netns(CLIENT1);
    let tracer = Tracer::start(&format!("--netns {netns}"));
    for _ in 0..5 {
        dig(&netns, "@10.96.0.10 host1.lab.test");
        dig(&netns, "@10.96.0.10 nobody.lab.test");
        assert!(connects(&netns, WEB.socket()));
    }
    send(&netns, &SILENT_DNS.v4.to_string(), 2);
    // Over UDP and TCP it is one Service.
    dig(&netns, "@10.96.0.12 host1.lab.test");
    assert!(!connects(&netns, SocketAddr::from((EMPTY.v4, 80))));
    dig(&netns, "@10.96.0.13 host1.lab.test");
    assert!(!connects(&netns, SocketAddr::from((WEB1.v4(), 9))));
    let traced = tracer.stop();
    let empty = "no_endpoints: Service 10.96.0.12";
    assert_found(
        &traced,
        &[
            empty,
            "backend_silent: backend 10.244.0.41",
            "forward_drop: netfilter's hook FORWARD",
            "backend_refuses: backend 10.244.0.31:9",
        ],
    );
    for finding in &traced.findings {
        let evidence = finding["evidence"].to_string();
        assert!(evidence.contains(" UTC"), "{finding:#}");
        assert!(finding["share"].as_f64() > Some(0.0), "{finding:#}");
        assert!(finding["remedy"].as_str() > Some(""), "{finding:#}");
    }
}

/// As glibc does with ndots:5 and the search path of a pod.
#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_search_path_walked_in_vain_is_named_from_a_hundred_queries_on() {
    let lab = lab("ndots");
    let netns = lab.netns(CLIENT1);
    let ask = |names: u16| {
        let tracer = Tracer::start(&format!("--dns --netns {netns}"));
        inside(&netns, "client", move || {
            let socket = udp(socket_of("10.96.0.10", 53));
            let ends = [
                ".default.svc.cluster.local",
                ".svc.cluster.local",
                ".cluster.local",
                "",
            ];
            for number in 0..names {
                for end in ends {
                    let name = format!("host1.lab.test{end}");
                    assert!(socket.send(&query(number, &name, A)).is_ok());
                    receive(&socket);
                }
            }
        });
        tracer.stop()
    };
    assert_found(&ask(20), &[]);
    let traced = ask(40);
    assert_eq!(traced.found(), [format!("ndots: client {netns}")]);
    let evidence = traced.findings[0]["evidence"].to_string();
    assert!(evidence.contains("120 of 160 queries"), "{evidence}");
}

/// Adds addresses to the server's end, for servers of different habits.
fn add_addresses(routed: &Routed, addresses: &[&str]) {
    for address in addresses {
        let address = format!("{address}/24");
        ip(&[
            "-n",
            &routed.server,
            "address",
            "add",
            &address,
            "dev",
            "eth0",
        ]);
    }
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn failures_on_one_way_are_told_apart() {
    let routed = Routed::new("told");
    add_addresses(
        &routed,
        &[
            "198.51.100.11",
            "198.51.100.12",
            "198.51.100.13",
            "198.51.100.14",
            "198.51.100.15",
            "198.51.100.16",
        ],
    );
    routed.answer(0);
    let serve = |ip: &str, lie, more: &[&str]| {
        LyingDns::start(&routed.server, &format!("{ip}:53"), lie, more)
    };
    let _reads = LyingDns::start_with(&routed.server, "198.51.100.11:53", &["--silent"]);
    let _other = serve(
        "198.51.100.13",
        Lie::OtherSource,
        &["--from", "198.51.100.3:53"],
    );
    let _late = serve("198.51.100.14", Lie::Late, &["--delay-ms", "400"]);
    let _truncates = serve("198.51.100.15", Lie::Truncated, &[]);
    let _never_reads = inside(&routed.server, "binds", || {
        UdpSocket::bind("198.51.100.12:53").expect("the port is free")
    });
    // A device like a wire to nowhere.
    for words in [
        "link add nowhere type ifb",
        "link set nowhere up",
        "route add 203.0.113.0/29 dev nowhere",
        "route add unreachable 203.0.113.128/25",
        "route add default via 198.51.100.2",
    ] {
        let words: Vec<_> = ["-n", &routed.node]
            .into_iter()
            .chain(words.split(' '))
            .collect();
        ip(&words);
    }
    let rules = |vip_to: &str| {
        let filter = "*filter\n\
            -A FORWARD -d 198.51.100.21 -p udp -j DROP\n\
            -A FORWARD -d 198.51.100.22 -p udp -j REJECT --reject-with icmp-admin-prohibited\n\
            -A FORWARD -d 198.51.100.15 -p tcp -j DROP\n\
            -A FORWARD -d 10.96.0.12 -p udp -j REJECT\nCOMMIT\n";
        let nat = format!(
            "*nat\n-A PREROUTING -d {VIP} -p udp -j DNAT --to-destination {vip_to}\n\
             -A PREROUTING -d 10.96.0.20 -p udp -j DNAT --to-destination 198.51.100.16:53\n\
             -A PREROUTING -d 10.96.0.21 -p udp -j DNAT --to-destination 192.0.2.2:53\nCOMMIT\n"
        );
        iptables_restore(&routed.node, &format!("{filter}{nat}"));
    };
    let client = routed.client.clone();
    // Before the backend of the VIP goes, a socket has asked it; its entry stays.
    rules("203.0.113.1:53");
    let tracer = Tracer::start(&format!("--path --netns {client}"));
    let to_vip = socket_of(VIP, 53);
    let stale = inside(&client, "stale", move || udp(to_vip));
    assert!(stale.send(&query(1, "host1.lab.test", A)).is_ok());
    sleep(Duration::from_millis(50));
    rules(&format!("{SERVER}:53"));
    assert!(stale.send(&query(2, "host1.lab.test", A)).is_ok());
    send(&client, VIP, 20);
    // Who is told, and how often it takes.
    send(&client, "10.96.0.12", 1);
    send(&client, "10.96.0.20", 1);
    send(&client, "10.96.0.21", 1);
    send(&client, "198.51.100.21", 1);
    send(&client, "198.51.100.22", 1);
    send(&client, "198.51.100.11", 1);
    send(&client, "198.51.100.12", 1);
    send(&client, "198.51.100.13", 1);
    send(&client, "198.51.100.14", 1);
    send(&client, "203.0.113.2", 3);
    send(&client, "203.0.113.200", 1);
    dig(&client, "@198.51.100.15 huge.lab.test TXT");
    let traced = tracer.stop();
    assert_found(
        &traced,
        &[
            "stale_conntrack: backend 203.0.113.1",
            "no_endpoints: Service 10.96.0.12",
            "backend_refuses: backend 198.51.100.16:53",
            "hairpin: pod 192.0.2.2",
            "forward_drop: netfilter's hook FORWARD",
            "policy_reject: traffic to 198.51.100.22:53",
            "server_silent: server 198.51.100.11:53",
            "server_overloaded: server 198.51.100.12:53",
            "unexpected_source: DNS at 198.51.100.13:53",
            "late_answer: server 198.51.100.14:53",
            "unanswered: address 203.0.113.2:53",
            "unreachable: address 203.0.113.200",
            "tcp_fallback: DNS at 198.51.100.15:53",
        ],
    );
}

/// Its buffer is full, and what is in it is never read: one finding.
#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_full_buffer_is_one_finding_and_not_an_unread_socket_beside() {
    let routed = Routed::new("rcvbuf");
    let _unread = inside(&routed.server, "binds", || {
        let socket = UdpSocket::bind((SERVER, 53)).expect("the port is free");
        // The kernel raises it to the least it takes: socket(7), room for two or three datagrams.
        let tiny = socket2::SockRef::from(&socket).set_recv_buffer_size(1);
        tiny.expect("it may always be less");
        socket
    });
    let mut tracer = Tracer::start(&format!("--path --dns --netns {}", routed.client));
    send(&routed.client, SERVER, 8);
    tracer.wait_for(8);
    let traced = tracer.stop();
    assert_eq!(traced.found(), [format!("rcvbuf_full: server {SERVER}:53")]);
    let evidence = traced.findings[0]["evidence"].to_string();
    assert!(
        evidence.contains("does not read what lies in its socket"),
        "{evidence}"
    );
}

/// What routing, links and checksums do to a packet; each needs a node of its own.
#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn what_the_kernel_drops_on_the_way_is_named_by_its_reason() {
    let check = |name: &str, length, spoil: &dyn Fn(&Routed), expected: &str| {
        let routed = Routed::new(name);
        routed.answer(length);
        let mut tracer = Tracer::start(&format!("--path --dns --netns {}", routed.client));
        send(&routed.client, SERVER, 3);
        tracer.wait_for(3);
        spoil(&routed);
        send(&routed.client, SERVER, 1);
        let traced = tracer.stop();
        assert_found(&traced, &[expected]);
    };
    let run = |netns: &str, words: &str| {
        let done = run_in(netns, &words.split(' ').collect::<Vec<_>>());
        assert!(done.status.success(), "{words}: {done:?}");
    };
    check(
        "rpf",
        0,
        &|routed| {
            run(&routed.node, "ip route add 203.0.113.9 via 198.51.100.2");
            run(&routed.client, "ip address add 203.0.113.9 dev lo");
            let own = "ip route change default via 192.0.2.1 src 203.0.113.9";
            run(&routed.client, own);
            let arp = "sysctl -qw net.ipv4.conf.eth0.arp_announce=2";
            run(&routed.client, arp);
            run(&routed.node, "sysctl -qw net.ipv4.conf.c.rp_filter=1");
        },
        "rp_filter: rp_filter of this node",
    );
    check(
        "mtu",
        1200,
        &|routed| {
            run(&routed.node, "ip link set c mtu 600");
            // The hole is black: the server is not told.
            iptables_restore(&routed.node, "*filter\n-A OUTPUT -p icmp -j DROP\nCOMMIT\n");
        },
        "mtu: a link on the way",
    );
}

/// Errors that come back in time, to nobody's harm, and answers of every ordinary kind.
#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn ordinary_answers_are_accused_of_nothing() {
    let lab = lab("fine");
    let netns = lab.netns(CLIENT1);
    let tracer = Tracer::start(&format!("--path --netns {netns}"));
    for asked in ["10.96.0.10", "fd00:10:96::a"] {
        for words in [
            "host1.lab.test",
            "host1.lab.test AAAA",
            "nobody.lab.test",
            "huge.lab.test TXT",
            "+tcp host1.lab.test",
            "slow.lab.test",
        ] {
            dig(&netns, &format!("@{asked} {words}"));
        }
    }
    let web: IpAddr = WEB.v4.into();
    assert!(connects(&netns, SocketAddr::new(web, 80)));
    let traced = tracer.stop();
    assert_found(&traced, &[]);
    assert!(traced.rows().len() >= 13, "{:#?}", traced.briefs());
}
