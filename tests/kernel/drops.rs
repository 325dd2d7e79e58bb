//! `tracer drops` counts every drop once, and tells where it was.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tracer::lab::services::{CLIENT1, FILTERED_DNS};

use crate::support::api::Api;
use crate::support::client::{inside, udp};
use crate::support::routed::{Routed, SERVER};
use crate::support::trace::{Traced, Tracer};
use crate::support::{iptables_restore, lab, text_of};

/// Sends `count` datagrams of 100 bytes, each of which may be refused.
fn send(netns: &str, to: &str, port: u16, count: usize) {
    let to = SocketAddr::new(to.parse().expect("it is an address"), port);
    inside(netns, "sender", move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
        for _ in 0..count {
            drop(socket.send_to(&[0; 100], to));
        }
    });
}

/// Rows that begin with these words; reason and hook, then packets, of drops by `protocol`.
fn shown(traced: &Traced, protocol: &str) -> Vec<String> {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or("-").to_owned();
    let rows = traced.rows();
    let mut shown: Vec<_> = rows
        .iter()
        .filter(|row| row["protocol"] == protocol)
        .map(|row| {
            let port = row["last"]["dst"]["port"].clone();
            let (reason, hook) = (text(row, "reason"), text(row, "hook"));
            format!("{port} {reason} {hook} {}", row["packets"])
        })
        .collect();
    shown.sort();
    shown
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn each_hook_of_netfilter_is_told_from_the_others() {
    let Routed {
        client,
        node,
        server,
        ..
    } = &Routed::new("hooks");
    let rule = |chain, port| format!("-A {chain} -p udp --dport {port} -j DROP\n");
    iptables_restore(
        node,
        &format!(
            "*raw\n{}COMMIT\n*mangle\n{}COMMIT\n*filter\n{}{}{}COMMIT\n",
            rule("PREROUTING", 5001),
            rule("POSTROUTING", 5005),
            rule("INPUT", 5002),
            rule("FORWARD", 5003),
            rule("OUTPUT", 5004),
        ),
    );
    let _listener = inside(server, "listener", || UdpSocket::bind("0.0.0.0:5006"));
    let tracer = Tracer::counting_drops(&format!("--netns {node}"));
    for (sender, to, port, count) in [
        (client, SERVER, 5001, 3),
        (client, "192.0.2.1", 5002, 4),
        (client, SERVER, 5003, 5),
        (node, SERVER, 5004, 6),
        (client, SERVER, 5005, 7),
        (client, SERVER, 5006, 8),
    ] {
        send(sender, to, port, count);
    }
    let traced = tracer.stop_now(Signal::INT);
    assert_eq!(
        shown(&traced, "udp"),
        [
            "5001 NETFILTER_DROP PREROUTING 3",
            "5002 NETFILTER_DROP INPUT 4",
            "5003 NETFILTER_DROP FORWARD 5",
            "5004 NETFILTER_DROP OUTPUT 6",
            "5005 NETFILTER_DROP POSTROUTING 7",
        ]
    );
    // A device that came up a moment ago may still ask for neighbours by multicast.
    let rows = traced.rows().into_iter();
    for row in rows.filter(|row| row["protocol"] == "udp") {
        let bytes = row["bytes"].as_u64();
        assert_eq!(
            bytes,
            row["packets"].as_u64().map(|count| count * 128),
            "{row}"
        );
        let symbol = row["symbol"].as_str().expect("symbols can be read");
        assert!(
            symbol.starts_with("nf") && symbol.contains("+0x"),
            "{symbol}"
        );
        assert!(row.get("usual").is_none(), "{row}");
    }
    traced.assert_whole();
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_closed_port_is_a_loss_and_a_ping_is_none() {
    let Routed { client, server, .. } = &Routed::new("closed");
    let tracer = Tracer::counting_drops(&format!("--netns {server} --netns {client}"));
    send(client, SERVER, 5010, 1);
    let pinged = text_of(client, &["busybox", "ping", "-c", "1", SERVER]);
    let traced = tracer.stop_now(Signal::INT);
    assert_eq!(shown(&traced, "udp"), ["5010 NO_SOCKET - 1"]);
    assert!(pinged.contains(" 0% packet loss"), "{pinged}");
    // A device that came up a moment ago may still report its multicast groups (RFC 3810, section 6.1), or ask
    // whether its address is another's (RFC 4862, section 5.4).
    let is_report = |row: &Value| {
        let to = row["last"]["dst"]["ip"].as_str();
        to.is_some_and(|to| to.starts_with("ff02::"))
    };
    let (reports, rows): (Vec<_>, Vec<_>) = traced.rows().into_iter().partition(is_report);
    for row in rows {
        assert_eq!(
            row.get("usual").is_some(),
            row["protocol"] != "udp",
            "{row}"
        );
    }
    let reported: u64 = reports
        .iter()
        .filter_map(|row| row["packets"].as_u64())
        .sum();
    assert_eq!(traced.summary["packets"], 1 + reported);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn drops_of_a_translated_flow_name_the_service() {
    let lab = lab("drops");
    let netns = lab.netns(CLIENT1);
    let vip = FILTERED_DNS.socket();
    let mut tracer = Tracer::counting_drops("--every 1s");
    inside(&netns, "resolver", move || {
        let socket = udp(vip);
        for _ in 0..20 {
            assert!(socket.send(&[0; 40]).is_ok());
        }
    });
    tracer.wait_for(1);
    let traced = tracer.stop_now(Signal::INT);
    let of_vip: Vec<_> = traced
        .rows()
        .into_iter()
        .filter(|row| row["service"]["ip"] == vip.ip().to_string())
        .collect();
    let packets: Option<u64> = of_vip.iter().map(|row| row["packets"].as_u64()).sum();
    assert_eq!(packets, Some(20), "{of_vip:#?}");
    for row in &of_vip {
        assert_eq!(row["service"]["port"], 53);
        assert_eq!(row["reason"], "NETFILTER_DROP");
        let node = row["netns"].as_str().expect("it is known");
        assert!(node.ends_with("drops-node"), "{node}");
    }
    traced.assert_whole();
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn drops_name_the_service_and_the_pods_at_both_ends() {
    let pod = |namespace: &str, name: &str, address: &str| {
        let object = json!({
            "metadata": {"namespace": namespace, "name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n1"},
            "status": {"phase": "Running", "podIPs": [{"ip": address}], "startTime": "2026-01-01T00:00:00Z"},
        });
        ("pods", object)
    };
    let vip = FILTERED_DNS.socket();
    let service = json!({
        "metadata": {"namespace": "kube-system", "name": "filtered", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"clusterIP": vip.ip(), "clusterIPs": [vip.ip()], "ports": [{"name": "dns", "protocol": "UDP", "port": 53}]},
    });
    let api = Api::with(&[
        pod("shop", "cart", "10.244.0.11"),
        pod("kube-system", "resolver", "10.244.0.21"),
        ("services", service),
    ]);
    let lab = lab("named");
    let netns = lab.netns(CLIENT1);
    let kubeconfig = api.kubeconfig.path().display();
    let tracer = Tracer::counting_drops(&format!("--kubeconfig {kubeconfig}"));
    inside(&netns, "resolver", move || {
        assert!(udp(vip).send(&[0; 40]).is_ok());
    });
    // Lists come while it counts.
    std::thread::sleep(Duration::from_secs(1));
    let rows = tracer.stop_now(Signal::INT).rows();
    let row = rows
        .iter()
        .find(|row| row["service"]["ip"] == vip.ip().to_string());
    let row = row.expect("it was dropped");
    let named = |end: &Value| format!("{}/{}", end["namespace"], end["name"]).replace('"', "");
    assert_eq!(
        named(&row["service"]["service"]),
        "kube-system/filtered",
        "{row:#}"
    );
    assert_eq!(row["service"]["service"]["port"], "dns");
    assert_eq!(named(&row["last"]["src"]["pod"]), "shop/cart", "{row:#}");
    assert_eq!(row["last"]["src"]["node"], "n1");
    assert_eq!(
        named(&row["last"]["dst"]["pod"]),
        "kube-system/resolver",
        "{row:#}"
    );
}
