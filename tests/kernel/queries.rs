//! Queries over UDP, from dig and from a client in Rust: one row each, with everything it can say.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;
use tracer::lab::Lab;
use tracer::lab::services::{CLIENT1, DNS1, DNS2, KUBE_DNS};

use crate::support::client::{A, AAAA, inside, query, random_id, receive, udp};
use crate::support::trace::{Traced, Tracer, address};
use crate::support::{dig, lab};

/// What is traced while `client` is at work in its namespace, until there are `rows` rows.
fn traced(lab: &Lab, rows: usize, client: impl FnOnce(&str)) -> Traced {
    let netns = lab.netns(CLIENT1);
    let mut tracer = Tracer::start(&format!("--netns {netns}"));
    client(&netns);
    tracer.wait_for(rows);
    tracer.stop()
}

/// dig's id, from its header line.
fn id_of(said: &str) -> u64 {
    let (_, rest) = said.split_once("id: ").expect("dig prints the header");
    let digits = rest.split('\n').next().expect("it is the line's last word");
    digits.parse().expect("it is a number")
}

fn assert_served_by_kube_dns(row: &Value) {
    let backend = address(&row["backend"]).expect("the VIP was translated");
    let served = [DNS1, DNS2].map(|pod| SocketAddr::new(pod.address_like(backend.ip()), 53));
    assert!(served.contains(&backend), "{row}");
    assert!(
        row["latency_us"].as_f64().is_some_and(|us| us > 0.0),
        "{row}"
    );
}

/// Asks by dig and expects one row that says `expected`.
fn check(lab: &Lab, words: &str, expected: &str) {
    let mut said = String::new();
    let traced = traced(lab, 1, |netns| said = dig(netns, words));
    assert_eq!(traced.briefs(), [expected]);
    let row = &traced.rows()[0];
    assert_eq!(row["client"]["netns"], lab.netns(CLIENT1));
    assert_eq!(row["id"], id_of(&said), "{said}");
    // BIND's threads are named after its task, dig's only one after itself in older versions.
    let name = row["client"]["process"]["name"]
        .as_str()
        .unwrap_or_default();
    assert!(name == "dig" || name.starts_with("isc-"), "{row}");
    assert_served_by_kube_dns(row);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_query_by_dig_is_one_row_that_says_who_asked_what_and_who_answered() {
    let lab = lab("dig");
    let web = "web.default.svc.cluster.local";
    check(
        &lab,
        "@10.96.0.10 host1.lab.test A",
        "udp 10.96.0.10:53 host1.lab.test A answered NOERROR 1",
    );
    check(
        &lab,
        &format!("@10.96.0.10 {web} AAAA"),
        &format!("udp 10.96.0.10:53 {web} AAAA answered NOERROR 1"),
    );
    check(
        &lab,
        "@fd00:10:96::a host1.lab.test A",
        "udp [fd00:10:96::a]:53 host1.lab.test A answered NOERROR 1",
    );
    check(
        &lab,
        &format!("@fd00:10:96::a {web} AAAA"),
        &format!("udp [fd00:10:96::a]:53 {web} AAAA answered NOERROR 1"),
    );
    check(
        &lab,
        "@10.96.0.10 missing.lab.test",
        "udp 10.96.0.10:53 missing.lab.test A answered NXDOMAIN 0",
    );
    check(
        &lab,
        "@10.96.0.10 echo.default.svc.cluster.local AAAA",
        "udp 10.96.0.10:53 echo.default.svc.cluster.local AAAA answered NOERROR 0",
    );
    check(
        &lab,
        "+bufsize=1400 @10.96.0.10 big.lab.test TXT",
        "udp 10.96.0.10:53 big.lab.test TXT answered NOERROR 1",
    );
    check(
        &lab,
        "+ignore @10.96.0.10 huge.lab.test TXT",
        "udp 10.96.0.10:53 huge.lab.test TXT answered NOERROR 0 truncated",
    );
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_and_aaaa_from_one_socket_are_two_rows_told_apart_by_their_ids() {
    let lab = lab("rust");
    let check = |vip: IpAddr| {
        let server = SocketAddr::new(vip, 53);
        let (a, aaaa) = (random_id(), random_id());
        let mut client = None;
        let traced = traced(&lab, 2, |netns| {
            client = Some(inside(netns, "resolver", move || {
                let socket = udp(server);
                for (id, qtype) in [(a, A), (aaaa, AAAA)] {
                    let sent = socket.send(&query(id, "host7.lab.test", qtype));
                    assert!(sent.is_ok());
                }
                let answered = [receive(&socket), receive(&socket)];
                assert!(answered.contains(&a) && answered.contains(&aaaa));
                socket.local_addr().expect("it is connected")
            }));
        });
        let mut rows = traced.rows();
        rows.sort_by_key(|row| row["qtype"].to_string());
        assert_eq!(rows.len(), 2, "{rows:#?}");
        for (row, (id, qtype)) in rows.iter().zip([(a, "A"), (aaaa, "AAAA")]) {
            assert_eq!(row["id"], id);
            assert_eq!(row["qtype"], qtype);
            assert_eq!(row["outcome"], "answered");
            assert_eq!(address(&row["client"]), client);
            assert_eq!(row["client"]["process"]["pid"], std::process::id());
            assert_eq!(row["client"]["process"]["name"], "resolver");
            assert_served_by_kube_dns(row);
        }
    };
    KUBE_DNS.vips().for_each(check);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn one_question_asked_again_after_its_answer_is_a_new_query() {
    let lab = lab("again");
    let traced = traced(&lab, 2, |netns| {
        inside(netns, "resolver", || {
            let socket = udp(KUBE_DNS.socket());
            for _ in 0..2 {
                let sent = socket.send(&query(0x1234, "host1.lab.test", A));
                assert!(sent.is_ok());
                assert_eq!(receive(&socket), 0x1234);
            }
        });
    });
    let row = "udp 10.96.0.10:53 host1.lab.test A answered NOERROR 1";
    assert_eq!(traced.briefs(), [row, row]);
}
