//! Conntrack under stress: packets that race for one entry, and a table that is full.
//!
//! A race is made likely by thousands of rules that a packet passes between the choice of its entry and that
//! entry's insertion, and tried until it happens.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::client::{A, AAAA, inside, query, udp};
use crate::support::routed::{Routed, SERVER, VIP};
use crate::support::trace::{Traced, Tracer};
use crate::support::{cannot, iptables_restore, run_in, text_of};

/// Longest that races are tried.
const PATIENCE: Duration = Duration::from_secs(15);

/// Whether this kernel lets programs watch conntrack at work.
fn has_kprobes() -> bool {
    std::path::Path::new("/sys/bus/event_source/devices/kprobe").exists()
}

/// Ten rules that each lead to ten, five deep: packets take their time to pass, after NAT and before their
/// entry is inserted.
fn slow_down(node: &str) {
    let mut rules = vec![
        "add table ip slow".to_owned(),
        "add chain ip slow d6".to_owned(),
    ];
    let ten = |rule: String| std::iter::repeat_n(rule, 10);
    rules.extend(ten("add rule ip slow d6 udp sport 1 accept".to_owned()));
    for depth in (2..6).rev() {
        rules.push(format!("add chain ip slow d{depth}"));
        rules.extend(ten(format!(
            "add rule ip slow d{depth} jump d{}",
            depth + 1
        )));
    }
    rules.push("add chain ip slow last { type filter hook postrouting priority 300; }".to_owned());
    rules.push("add rule ip slow last meta l4proto udp jump d2".to_owned());
    let rules = rules.join("\n");
    let loaded = run_in(node, &["nft", &rules]);
    assert!(loaded.status.success(), "{loaded:?}");
}

/// What conntrack counted in `netns` under this name, on all processors.
fn counted(netns: &str, name: &str) -> usize {
    let said = text_of(netns, &["conntrack", "-S"]);
    let words = said.split_whitespace();
    let counts = words.filter_map(|word| {
        word.strip_prefix(name)?
            .strip_prefix('=')?
            .parse::<usize>()
            .ok()
    });
    counts.sum()
}

/// Sends both at one moment, on two threads.
fn at_once(sends: [(UdpSocket, Vec<u8>); 2]) {
    let ready = Arc::new(AtomicUsize::new(0));
    let threads = sends.map(|(socket, message)| {
        let ready = Arc::clone(&ready);
        thread::spawn(move || {
            ready.fetch_add(1, Ordering::AcqRel);
            while ready.load(Ordering::Acquire) < 2 {
                std::hint::spin_loop();
            }
            // What an earlier packet met is told here, and is no part of the test.
            drop(socket.send(&message));
        })
    });
    for thread in threads {
        assert!(thread.join().is_ok());
    }
}

/// Two sockets of one port on two addresses of the client, both connected to the server.
fn twins(port: u16) -> [UdpSocket; 2] {
    ["192.0.2.2", "192.0.2.3"].map(|address| {
        let socket = UdpSocket::bind((address, port)).expect("the port is free");
        socket.connect((SERVER, 53)).expect("there is a route");
        socket
    })
}

/// Races until conntrack of the node counts one under `name`; false when none came about.
fn race(
    routed: &Routed,
    name: &str,
    sends: impl Fn(u16) -> [(UdpSocket, Vec<u8>); 2] + Send + Clone + 'static,
) -> bool {
    let deadline = Instant::now() + PATIENCE;
    let before = counted(&routed.node, name);
    let mut port = 20_000;
    while Instant::now() < deadline {
        let sends = sends.clone();
        inside(&routed.client, "racer", move || {
            for port in port..port + 4 {
                at_once(sends(port));
            }
        });
        port += 4;
        if counted(&routed.node, name) > before {
            return true;
        }
    }
    false
}

fn trace(routed: &Routed) -> Tracer {
    Tracer::start(&format!("--dns --netns {}", routed.client))
}

/// Rows that tell of a clash.
fn clashes(traced: &Traced) -> Vec<Value> {
    let rows = traced.rows().into_iter();
    rows.filter(|row| !row["clash"].is_null()).collect()
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn of_two_clients_that_get_one_source_port_the_loser_names_the_winner() {
    let routed = Routed::new("collide");
    routed.answer(0);
    // One address for both: the ports are kept where they are free, and a port is free until an entry has it.
    iptables_restore(
        &routed.node,
        "*nat\n-A POSTROUTING -o s -j SNAT --to-source 198.51.100.1\nCOMMIT\n",
    );
    slow_down(&routed.node);
    let mut tracer = trace(&routed);
    // What conntrack counted before its first packet was seen is no part of the trace.
    inside(&routed.client, "first", || {
        let socket = udp((SERVER.parse::<std::net::IpAddr>().expect("it is one"), 53).into());
        assert!(socket.send(&query(7, "host1.lab.test", A)).is_ok());
    });
    tracer.wait_for(1);
    let raced = race(&routed, "insert_failed", |port| {
        twins(port).map(|socket| (socket, query(port, "host1.lab.test", A)))
    });
    let traced = tracer.stop();
    if !raced {
        cannot("no two packets raced on this machine");
        return;
    }
    let dropped: Vec<_> = traced
        .rows()
        .into_iter()
        .filter(|row| row["outcome"] != "answered")
        .collect();
    assert!(!dropped.is_empty(), "{}", traced.summary);
    for row in &dropped {
        let cause = row["cause"].as_str().unwrap_or_default();
        assert!(cause.contains("in POSTROUTING"), "{row:#}");
        if !has_kprobes() {
            let counted = "conntrack's statistics there count ";
            assert!(
                cause.contains(counted) && cause.contains(" insert_failed"),
                "{row:#}"
            );
            continue;
        }
        let port = row["client"]["port"].clone();
        let (own, other) = (&row["clash"]["own"], &row["clash"]["other"]);
        assert_eq!(row["clash"]["resolved"], false, "{row:#}");
        assert_eq!(own["original"]["src"]["ip"], row["client"]["ip"], "{row:#}");
        assert_ne!(
            other["original"]["src"]["ip"], row["client"]["ip"],
            "{row:#}"
        );
        assert_eq!(own["reply"], other["reply"], "{row:#}");
        assert_eq!(other["original"]["src"]["port"], port, "{row:#}");
        assert!(cause.contains("clashed with that of 192.0.2."), "{row:#}");
    }
    assert_eq!(traced.found(), ["snat_ports: masquerading of this node"]);
    let tables = traced.summary["conntrack"].as_array();
    let node = tables.and_then(|tables| tables.iter().find(|table| table["netns"] == *routed.node));
    let counted = node.map(|node| node["counted"]["insert_failed"].clone());
    assert_eq!(counted, Some(dropped.len().into()), "{:#}", traced.summary);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn a_clash_of_a_and_aaaa_that_the_kernel_resolves_is_a_note_and_no_cause() {
    if !has_kprobes() {
        cannot("this kernel has no kprobes");
        return;
    }
    let routed = Routed::new("clash");
    routed.answer(0);
    iptables_restore(
        &routed.node,
        "*nat\n-A PREROUTING -d 10.96.0.10 -p udp --dport 53 -j DNAT --to-destination 198.51.100.2:53\nCOMMIT\n",
    );
    slow_down(&routed.node);
    let tracer = trace(&routed);
    let vip = SocketAddr::new(VIP.parse().expect("it is an address"), 53);
    // As a resolver does: both questions by one socket, at once.
    let raced = race(&routed, "clash_resolve", move |port| {
        let socket = udp(vip);
        let again = socket.try_clone().expect("there is room");
        [
            (socket, query(port, "host1.lab.test", A)),
            (again, query(port + 20_000, "host1.lab.test", AAAA)),
        ]
    });
    let traced = tracer.stop();
    if !raced {
        cannot("no two packets raced on this machine");
        return;
    }
    let clashed = clashes(&traced);
    assert!(!clashed.is_empty(), "{}", traced.summary);
    for row in &clashed {
        let (own, other) = (&row["clash"]["own"], &row["clash"]["other"]);
        assert_eq!(row["clash"]["resolved"], true, "{row:#}");
        assert_eq!(own["original"], other["original"], "{row:#}");
        assert_eq!(
            own["original"]["src"]["port"], row["client"]["port"],
            "{row:#}"
        );
        assert!(row["cause"].is_null(), "{row:#}");
    }
    assert_eq!(traced.found(), [""; 0]);
    for row in traced.rows() {
        assert_eq!(row["outcome"], "answered", "{row:#}");
    }
}

/// Gives conntrack room for so many entries, and on drop for as many as before.
struct Room(String);

impl Room {
    const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

    fn of(entries: usize) -> Self {
        let before = std::fs::read_to_string(Self::MAX).expect("conntrack is loaded");
        std::fs::write(Self::MAX, entries.to_string()).expect("we are root");
        Self(before)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        drop(std::fs::write(Self::MAX, &self.0));
    }
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn a_query_that_finds_the_table_full_says_so() {
    if std::env::var_os("host_dns").is_none() {
        cannot("the table's size is the whole machine's, which is not the test's alone");
        return;
    }
    let routed = Routed::new("full");
    routed.answer(0);
    // Rules make conntrack look at packets.
    iptables_restore(
        &routed.node,
        "*filter\n-A FORWARD -m conntrack --ctstate INVALID -j ACCEPT\nCOMMIT\n",
    );
    let listener = inside(&routed.server, "listener", || {
        TcpListener::bind((SERVER, 80)).expect("the port is free")
    });
    let room = Room::of(4);
    // Connections that are established may not be thrown out to make room.
    let _held = inside(&routed.client, "holder", move || {
        let connect = |_| TcpStream::connect((SERVER, 80)).expect("there is room");
        let held: Vec<_> = (0..4).map(connect).collect();
        (held, listener)
    });
    let mut tracer = trace(&routed);
    inside(&routed.client, "client", || {
        let socket = udp((SERVER.parse::<std::net::IpAddr>().expect("it is one"), 53).into());
        assert!(socket.send(&query(7, "host1.lab.test", A)).is_ok());
    });
    tracer.wait_for(1);
    let traced = tracer.stop();
    drop(room);
    let full = "conntrack_full: conntrack's table of this node";
    assert_eq!(traced.found(), [full]);
    let row = &traced.rows()[0];
    assert_eq!(row["outcome"], "dropped", "{row:#}");
    let cause = row["cause"].as_str().unwrap_or_default();
    assert!(cause.contains("in PREROUTING"), "{row:#}");
    assert!(cause.ends_with("conntrack's table was full"), "{row:#}");
}
