//! The way of packets, stage by stage, as real devices show it.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tracer::lab::services::{CLIENT1, WEB};
use tracer::lab::{Lab, Lie};

use crate::support::client::{A, AAAA, get, inside, query, receive, unconnected};
use crate::support::trace::{Traced, Tracer, text_of};
use crate::support::{LyingDns, client_and_server, dig, lab};

/// What is traced of one exchange that `client` makes in the lab.
fn traced(lab: &Lab, client: impl FnOnce(&str)) -> Traced {
    let netns = lab.netns(CLIENT1);
    let mut tracer = Tracer::start(&format!("--path --netns {netns}"));
    client(&netns);
    tracer.wait_for(1);
    tracer.stop()
}

/// Legs and stages of a row, in order; the stages leave no gap and add up to `total`, but for the
/// client's socket, which comes after.
fn steps(row: &Value, total: &str) -> Vec<String> {
    let stages = row["journey"]["stages"].as_array().expect("there are some");
    let micros = |value: &Value| value.as_f64().expect("it is a number");
    let (mut sum, mut whole) = (0.0, 0.0);
    for stage in stages {
        assert!((micros(&stage["offset_us"]) - sum).abs() < 0.01, "{row}");
        assert!(micros(&stage["duration_us"]) >= 0.0, "{row}");
        sum += micros(&stage["duration_us"]);
        let is_last = ["client_input", "client_queue"]
            .map(Value::from)
            .contains(&stage["stage"]);
        whole = if is_last { whole } else { sum };
    }
    assert!((whole - micros(&row[total])).abs() < 0.01, "{row}");
    assert_eq!(row["journey"]["unseen"], Value::Array(Vec::new()), "{row}");
    let word = |value: &Value| value.as_str().expect("it is a word").to_owned();
    stages
        .iter()
        .map(|stage| format!("{} {}", word(&stage["leg"]), word(&stage["stage"])))
        .collect()
}

/// Legs and stages of a query over UDP through the VIP, and of its answer.
const THROUGH_THE_VIP: [&str; 11] = [
    "query client_link",
    "query node",
    "query backend_link",
    "query backend_input",
    "query backend_queue",
    "answer backend",
    "answer backend_link",
    "answer node",
    "answer client_link",
    "answer client_input",
    "answer client_queue",
];

/// Namespaces and devices a row's packets passed, from the first on; without the lab's prefix.
fn sites(row: &Value, lab: &Lab) -> Vec<String> {
    let prefix = lab.netns(CLIENT1).replace(CLIENT1.name, "");
    let stages = row["journey"]["stages"].as_array().expect("there are some");
    let site = |place: &Value| {
        let netns = place["netns"].as_str().expect("it has a name");
        let device = place["device"].as_str().expect("it has a name");
        format!("{} {device}", netns.trim_start_matches(&prefix))
    };
    let ends = stages.iter().map(|stage| site(&stage["to"]));
    std::iter::once(site(&stages[0]["from"]))
        .chain(ends)
        .collect()
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_query_through_the_vip_passes_link_node_and_link_both_ways() {
    let lab = lab("path");
    for vip in ["10.96.0.10", "fd00:10:96::a"] {
        let traced = traced(&lab, |netns| {
            dig(netns, &format!("@{vip} host1.lab.test"));
        });
        let row = &traced.rows()[0];
        assert_eq!(steps(row, "latency_us"), THROUGH_THE_VIP);
        let backend = row["backend"]["ip"].as_str().expect("it was translated");
        let pod = if backend.ends_with("21") {
            "dns1"
        } else {
            "dns2"
        };
        let (there, port) = (format!("{pod} eth0"), format!("node veth-{pod}"));
        let node = "node veth-client1".to_owned();
        let home = "client1 eth0".to_owned();
        // Its device stays the place while a packet is in a socket.
        let there_and_back = [
            &home, &node, &port, &there, &there, &there, &there, &port, &node, &home, &home, &home,
        ];
        assert_eq!(sites(row, &lab), there_and_back.map(String::as_str));
        let dst = |stage: usize| row["journey"]["stages"][stage]["to"]["dst"]["ip"].as_str();
        assert_eq!((dst(0), dst(1)), (Some(vip), Some(backend)), "DNAT");
    }
}

/// As musl's resolver asks: for both kinds of address at once, by one socket that is not connected.
#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn the_way_of_queries_by_a_socket_that_is_not_connected_is_as_whole() {
    let lab = lab("pathmusl");
    for vip in ["10.96.0.10:53", "[fd00:10:96::a]:53"] {
        let vip: SocketAddr = vip.parse().expect("it is an address");
        let netns = lab.netns(CLIENT1);
        let mut tracer = Tracer::start(&format!("--path --netns {netns}"));
        inside(&netns, "musl", move || {
            let socket = unconnected(vip);
            for (id, qtype) in [(1, A), (2, AAAA)] {
                let sent = socket.send_to(&query(id, "host1.lab.test", qtype), vip);
                sent.expect("there is a route");
            }
            let mut answered = [receive(&socket), receive(&socket)];
            answered.sort_unstable();
            assert_eq!(answered, [1, 2]);
        });
        tracer.wait_for(2);
        let rows = tracer.stop().rows();
        assert_eq!(rows.len(), 2, "{rows:#?}");
        for row in &rows {
            assert_eq!(steps(row, "latency_us"), THROUGH_THE_VIP);
            assert_eq!(row["sockets"]["client"]["process"]["name"], "musl");
            assert!(row["sockets"]["send_us"].is_f64(), "{row:#}");
        }
    }
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_connection_through_the_vip_passes_them_four_times() {
    let lab = lab("pathtcp");
    let web = WEB.socket();
    let traced = traced(&lab, |netns| {
        inside(netns, "browser", move || drop(get(web)));
    });
    let way = |leg: &str, near: &str, far: &str| {
        [near, "node", far].map(|stage| format!("{leg} {stage}"))
    };
    let forward = |leg: &str| way(leg, "client_link", "backend_link");
    let back = |leg: &str| way(leg, "backend_link", "client_link");
    let expected: Vec<String> = [
        &forward("syn")[..],
        &["syn_ack backend".to_owned()],
        &back("syn_ack"),
        &["request client".to_owned()],
        &forward("request"),
        &["response backend".to_owned()],
        &back("response"),
    ]
    .concat();
    assert_eq!(steps(&traced.rows()[0], "first_byte_us"), expected);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_slow_server_is_the_stage_that_took_the_time() {
    let (_topology, client, server) = client_and_server("slow");
    let _server = LyingDns::start(&server, "192.0.2.2:5430", Lie::Late, &["--delay-ms", "400"]);
    let mut tracer = Tracer::start(&format!("--path --dns-port 5430 --netns {client}"));
    dig(&client, "-p 5430 @192.0.2.2 host1.lab.test");
    tracer.wait_for(1);
    let traced = tracer.stop();
    let row = &traced.rows()[0];
    assert_eq!(
        steps(row, "latency_us"),
        [
            "query link",
            "query backend_input",
            "query backend_queue",
            "answer backend",
            "answer link",
            "answer client_input",
            "answer client_queue",
        ]
    );
    let backend = row["journey"]["stages"][3]["duration_us"].as_f64();
    let backend = Duration::from_secs_f64(backend.expect("it is a number") / 1e6);
    // Late by the delay, and by what a busy machine takes to run the server.
    let expected = Duration::from_millis(400)..Duration::from_millis(500);
    assert!(expected.contains(&backend), "{backend:?}");
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn the_slow_stage_has_the_longest_bar() {
    let (_topology, client, server) = client_and_server("bar");
    let _server = LyingDns::start(&server, "192.0.2.2:5431", Lie::Late, &["--delay-ms", "300"]);
    let words = format!("--path --dns --dns-port 5431 --netns {client} --for 2s");
    let text = text_of(&words, || {
        dig(&client, "-p 5431 @192.0.2.2 host1.lab.test");
    });
    let bar = |line: &&str| line.matches('█').count();
    let longest = text.lines().max_by_key(bar).expect("it says something");
    assert!(longest.contains("backend") && bar(&longest) >= 18, "{text}");
    assert!(!text.contains('\x1b'), "colours are for terminals");
    let waterfall = text.lines().filter(|line| line.starts_with("  "));
    assert!(waterfall.clone().count() >= 3, "{text}");
    assert!(
        waterfall.clone().all(|line| line.chars().count() <= 100),
        "{text}"
    );
}
