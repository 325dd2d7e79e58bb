//! Connections and UDP flows to Services of other ports than DNS.

use std::net::SocketAddr;

use serde_json::Value;
use tracer::lab::Lab;
use tracer::lab::services::{CLIENT1, ECHO, Pod, WEB, WEB1, WEB2, WEB3};

use crate::support::client::{get, inside, receive, udp};
use crate::support::trace::{Tracer, address};
use crate::support::{dig, lab, text_of};

fn assert_served_by(row: &Value, pods: &[Pod], port: u16) {
    let backend = address(&row["backend"]).expect("the VIP was translated");
    let mut served = pods
        .iter()
        .map(|pod| SocketAddr::new(pod.address_like(backend.ip()), port));
    assert!(served.any(|pod| pod == backend), "{row}");
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_connection_to_a_vip_is_one_row_with_backend_latency_and_first_byte() {
    let lab = lab("web");
    let netns = lab.netns(CLIENT1);
    for vip in WEB.vips() {
        let web = SocketAddr::new(vip, 80);
        let mut tracer = Tracer::start(&format!("--netns {netns}"));
        let clients = inside(&netns, "browser", move || {
            [(); 8].map(|()| get(web).local_addr().ok())
        });
        tracer.wait_for(8);
        let traced = tracer.stop();
        assert_eq!(
            traced.briefs(),
            [const { "" }; 8].map(|_| format!("tcp {web} answered"))
        );
        for (row, client) in traced.rows().iter().zip(clients) {
            assert_eq!(address(&row["client"]), client);
            assert_eq!(row["client"]["netns"], netns);
            assert_eq!(row["client"]["process"]["name"], "browser");
            assert_eq!(row["client"]["process"]["pid"], std::process::id());
            assert_eq!(row["retransmits"], 0);
            assert_served_by(row, &[WEB1, WEB2, WEB3], 8080);
            let [latency, first_byte] =
                ["latency_us", "first_byte_us"].map(|key| row[key].as_f64().unwrap_or_default());
            assert!(0.0 < latency && latency < first_byte, "{row}");
        }
    }
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_udp_flow_to_a_vip_is_one_row_however_many_datagrams_it_has() {
    let lab = lab("echo");
    let netns = lab.netns(CLIENT1);
    let mut tracer = Tracer::start(&format!("--netns {netns}"));
    let client = inside(&netns, "echoed", || {
        let socket = udp(ECHO.socket());
        for _ in 0..5 {
            assert!(socket.send(&[0; 13]).is_ok());
            receive(&socket);
        }
        socket.local_addr().expect("it is connected")
    });
    tracer.wait_for(1);
    let traced = tracer.stop();
    assert_eq!(traced.briefs(), ["udp 10.96.0.81:7 answered"]);
    let row = &traced.rows()[0];
    assert_eq!(address(&row["client"]), Some(client));
    assert_eq!(row["client"]["process"]["name"], "echoed");
    assert!(
        row["latency_us"].as_f64().is_some_and(|us| us > 0.0),
        "{row}"
    );
    assert_served_by(row, &[WEB1], 7777);
}

/// Deletes the node's rule that sends the web VIP to its backends.
fn forget_web(lab: &Lab) {
    let node = lab.node_netns();
    let rules = text_of(&node, &["iptables", "-t", "nat", "-S", "KUBE-SERVICES"]);
    let (number, _) = rules
        .lines()
        .filter(|rule| rule.starts_with("-A"))
        .enumerate()
        .find(|(_, rule)| rule.contains("10.96.0.80/32"))
        .expect("the lab has a rule for it");
    let number = (number + 1).to_string();
    let delete = ["iptables", "-t", "nat", "-D", "KUBE-SERVICES", &number];
    assert_eq!(text_of(&node, &delete), "");
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_vip_nobody_translates_is_shown_unanswered_and_without_backend() {
    let lab = lab("novip");
    let netns = lab.netns(CLIENT1);
    forget_web(&lab);
    let mut tracer = Tracer::start(&format!("--netns {netns} --vip 10.96.0.0/12"));
    inside(&netns, "browser", || {
        let limit = std::time::Duration::from_millis(600);
        let connected = std::net::TcpStream::connect_timeout(&WEB.socket(), limit);
        assert!(connected.is_err());
    });
    tracer.wait_for(1);
    let traced = tracer.stop();
    assert_eq!(
        traced.briefs(),
        ["tcp 10.96.0.80:80 unanswered (no answer within 1 s)"]
    );
    assert!(traced.rows()[0]["backend"].is_null());
}

/// Makes a query and a connection and expects what `flags` let through.
fn check(lab: &Lab, flags: &str, expected: &[&str]) {
    let netns = lab.netns(CLIENT1);
    let mut tracer = Tracer::start(&format!("--netns {netns} {flags}"));
    dig(&netns, "@10.96.0.10 host1.lab.test");
    inside(&netns, "browser", || get(WEB.socket()));
    tracer.wait_for(expected.len());
    assert_eq!(tracer.stop().briefs(), expected);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn either_kind_alone_is_shown_when_asked_for() {
    let lab = lab("kinds");
    let query = "udp 10.96.0.10:53 host1.lab.test A answered NOERROR 1";
    let connection = "tcp 10.96.0.80:80 answered";
    check(&lab, "", &[query, connection]);
    check(&lab, "--dns", &[query]);
    check(&lab, "--connections", &[connection]);
    check(&lab, "--dns --connections", &[query, connection]);
}
