//! Builds the lab and asks it as its clients do: what answers, what refuses, what stays silent, what is left.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::{
    End, LyingDns, Topology, client_and_server, iptables_restore, run_in, text_of, veth,
};
use tracer::lab::services::{CLIENT1, DNS1, PODS, WEB1};
use tracer::lab::{Lab, Lie, Options};

fn options(test: &str) -> Options {
    Options {
        prefix: format!("t{}-{test}-", std::process::id()),
        program: PathBuf::from(env!("CARGO_BIN_EXE_tracer")),
    }
}

fn dig(netns: &str, words: &str) -> String {
    let command = format!("dig +tries=1 +time=1 {words}");
    text_of(netns, &command.split(' ').collect::<Vec<_>>())
}

fn exists(netns: &str) -> bool {
    Path::new("/run/netns").join(netns).exists()
}

fn names(prefix: &str) -> Vec<String> {
    let pods = PODS.iter().map(|pod| pod.name);
    pods.chain(["node"])
        .map(|name| format!("{prefix}{name}"))
        .collect()
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn services_answer_refuse_or_stay_silent_as_they_are_meant_to() {
    let lab = Lab::build(&options("vips")).unwrap();
    let client = lab.netns(CLIENT1);
    let check = |words: &str, expected: &str| {
        let said = dig(&client, words);
        assert!(said.contains(expected), "dig {words}: {said}");
    };
    let web = "web.default.svc.cluster.local";
    check(&format!("+short @10.96.0.10 {web}"), "10.96.0.80\n");
    check(&format!("+short +tcp @10.96.0.10 {web}"), "10.96.0.80\n");
    check(
        &format!("+short @fd00:10:96::a {web} AAAA"),
        "fd00:10:96::50\n",
    );
    check("@10.96.0.10 missing.lab.test", "status: NXDOMAIN");
    check("+ignore @10.96.0.10 huge.lab.test TXT", "flags: qr aa tc");
    check("@10.96.0.10 huge.lab.test TXT", "(TCP)");
    check("@10.96.0.11 host1.lab.test", "timed out");
    check("@10.96.0.12 host1.lab.test", "connection refused");
    check("@10.96.0.13 host1.lab.test", "timed out");
    // The backend that the policy shields answers at its own address.
    check(
        &format!("+short @{} host1.lab.test", DNS1.v4()),
        "192.0.2.1\n",
    );
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn node_translates_vips_to_backends_and_masquerades_hairpins() {
    let lab = Lab::build(&options("nat")).unwrap();
    dig(&lab.netns(CLIENT1), "@10.96.0.10 host1.lab.test");
    let entries = text_of(&lab.node_netns(), &["conntrack", "-L", "-d", "10.96.0.10"]);
    assert!(
        entries.contains("dport=53 src=10.244.0.21")
            || entries.contains("dport=53 src=10.244.0.22"),
        "{entries}"
    );

    // A VIP with one backend, asked by that backend: its own datagram comes back from the bridge.
    let echo = "echo x >/dev/udp/10.96.0.81/7";
    run_in(&lab.netns(WEB1), &["bash", "-c", echo]);
    let entries = text_of(&lab.node_netns(), &["conntrack", "-L", "-d", "10.96.0.81"]);
    assert!(
        entries.contains("src=10.244.0.31 dst=10.244.0.1"),
        "{entries}"
    );
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn removal_leaves_no_namespace_and_no_process() {
    let options = options("gone");
    let lab = Lab::build(&options).unwrap();
    let traffic = lab.traffic().unwrap();
    let pids: Vec<u32> = lab.pids().chain(traffic.pids()).collect();
    drop(traffic);
    lab.remove().unwrap();
    let left = |pid: &u32| Path::new("/proc").join(pid.to_string()).exists();
    assert!(!pids.iter().any(left));
    assert!(!names(&options.prefix).iter().any(|netns| exists(netns)));
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn lab_that_was_killed_is_replaced_with_the_processes_left_in_it() {
    let options = options("kill");
    let mut first = Command::new(&options.program)
        .args(["lab", "--prefix", &options.prefix])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let node = format!("{}node", options.prefix);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !exists(&node) && Instant::now() < deadline {
        sleep(Duration::from_millis(20));
    }
    let mut left = Command::new("ip")
        .args(["netns", "exec", &node, "sleep", "600"])
        .spawn()
        .unwrap();
    first.kill().unwrap();
    first.wait().unwrap();

    let lab = Lab::build(&options).unwrap();
    assert!(!left.wait().unwrap().success(), "it was killed");
    lab.remove().unwrap();
    assert!(!names(&options.prefix).iter().any(|netns| exists(netns)));
}

/// Asks a lying server over one veth pair and returns the client's namespace with what dig said.
fn lied_to(test: &str, lie: Lie, expected: &str) {
    let (_topology, client, server) = client_and_server(test);
    let more: &[&str] = match lie {
        Lie::OtherSource => &["--from", "192.0.2.3:53"],
        _ => &[],
    };
    let _server = LyingDns::start(&server, "192.0.2.2:53", lie, more);
    let said = dig(&client, "@192.0.2.2 host1.lab.test");
    assert!(said.contains(expected), "{lie:?}: {said}");
    assert!(packets_received(&client) > 0, "{lie:?}: an answer came");
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn lies_are_seen_by_a_client() {
    // dig's socket is connected: the kernel refuses an answer from elsewhere.
    lied_to("other", Lie::OtherSource, "timed out");
    lied_to("case", Lie::FlipCase, "HOST1.LAB.TEST");
    lied_to("bad", Lie::Malformed, "malformed message packet");
    lied_to("tc", Lie::Truncated, "Truncated, retrying in TCP mode");
    lied_to("id", Lie::WrongId, "ID mismatch");
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn late_and_double_answers_come_through_dnat() {
    let mut topology = Topology::new("dnat");
    let [client, node, server] = ["client", "node", "server"].map(|name| topology.netns(name));
    veth(
        &End {
            netns: &client,
            device: "eth0",
            addresses: &["192.0.2.1/25"],
        },
        &End {
            netns: &node,
            device: "client",
            addresses: &["192.0.2.2/25"],
        },
    );
    veth(
        &End {
            netns: &server,
            device: "eth0",
            addresses: &["192.0.2.129/25"],
        },
        &End {
            netns: &node,
            device: "server",
            addresses: &["192.0.2.130/25"],
        },
    );
    run_in(
        &client,
        &["ip", "route", "add", "default", "via", "192.0.2.2"],
    );
    run_in(
        &server,
        &["ip", "route", "add", "default", "via", "192.0.2.130"],
    );
    run_in(&node, &["sysctl", "-q", "net.ipv4.ip_forward=1"]);
    iptables_restore(
        &node,
        "*nat\n-A PREROUTING -d 10.96.0.10 -p udp -m udp --dport 53 -j DNAT --to-destination 192.0.2.129:53\nCOMMIT\n",
    );

    let late = LyingDns::start(&server, "192.0.2.129:53", Lie::Late, &["--delay-ms", "120"]);
    let started = Instant::now();
    let said = dig(&client, "+short @10.96.0.10 host1.lab.test");
    assert_eq!(said, "192.0.2.1\n");
    assert!(started.elapsed() >= Duration::from_millis(120));
    drop(late);

    let _twice = LyingDns::start(&server, "192.0.2.129:53", Lie::Twice, &[]);
    let before = packets_received(&client);
    dig(&client, "+short @10.96.0.10 host1.lab.test");
    sleep(Duration::from_millis(50));
    assert_eq!(packets_received(&client) - before, 2);
}

/// IPv4 packets a namespace received: `InReceives`, third number of the second `Ip:` line (RFC 2011).
fn packets_received(netns: &str) -> u64 {
    let snmp = text_of(netns, &["cat", "/proc/net/snmp"]);
    let values = snmp.lines().nth(1).expect("the first two lines are Ip:");
    let received = values.split(' ').nth(3).expect("it has 19 numbers");
    received.parse().expect("it is a number")
}
