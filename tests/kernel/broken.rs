//! What goes wrong in a cluster gives the rows it should, and no others.

use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use tracer::lab::Lab;
use tracer::lab::services::{CLIENT1, EMPTY, SILENT_DNS, WEB1};

use crate::support::client::{A, inside, query, udp};
use crate::support::trace::{Traced, Tracer};
use crate::support::{dig, lab};

fn traced(lab: &Lab, rows: usize, client: impl FnOnce(&str)) -> Traced {
    let netns = lab.netns(CLIENT1);
    let mut tracer = Tracer::start(&format!("--netns {netns}"));
    client(&netns);
    tracer.wait_for(rows);
    tracer.stop()
}

/// Asks once by dig and expects one row.
fn check(lab: &Lab, words: &str, expected: &str) {
    let traced = traced(lab, 1, |netns| {
        dig(netns, words);
    });
    assert_eq!(traced.briefs(), [expected]);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_silent_backend_is_an_unanswered_row_for_each_try() {
    let lab = lab("silent");
    let traced = traced(&lab, 2, |netns| {
        inside(netns, "resolver", || {
            let socket = udp(SILENT_DNS.socket());
            for _ in 0..2 {
                assert!(socket.send(&query(77, "host1.lab.test", A)).is_ok());
                sleep(Duration::from_millis(300));
            }
        });
    });
    let row = "udp 10.96.0.11:53 host1.lab.test A unanswered";
    let cause = "(no answer within 1 s)";
    assert_eq!(
        traced.briefs(),
        [format!("{row} {cause}"), format!("{row} retry {cause}")]
    );
    let rows = traced.rows();
    assert_eq!(rows[1]["retry_of"], rows[0]["serial"]);
    for row in &rows {
        assert_eq!(row["backend"]["ip"], "10.244.0.41", "the query reached it");
        assert!(row["latency_us"].is_null());
    }
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_service_without_endpoints_rejects_a_query_by_icmp() {
    check(
        &lab("empty"),
        "@10.96.0.12 host1.lab.test",
        "udp 10.96.0.12:53 host1.lab.test A rejected (ICMP port unreachable from 10.244.0.1)",
    );
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_query_that_a_policy_drops_names_the_kernels_reason_and_code() {
    let traced = traced(&lab("filtered"), 1, |netns| {
        dig(netns, "@10.96.0.13 host1.lab.test");
    });
    let briefs = traced.briefs();
    let before_the_code =
        "udp 10.96.0.13:53 host1.lab.test A dropped (the kernel dropped the query: NETFILTER_DROP";
    // Kernels differ in which function of netfilter frees it.
    let (start, code) = briefs[0]
        .split_once(" in FORWARD, by nf")
        .expect("it is named");
    assert_eq!(start, before_the_code);
    assert!(code.contains("+0x"), "{code}");
    assert_eq!(briefs.len(), 1);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn an_answer_that_takes_its_time_is_no_fault() {
    check(
        &lab("slow"),
        "@10.96.0.10 slow.lab.test",
        "udp 10.96.0.10:53 slow.lab.test A answered NOERROR 1",
    );
}

/// Tries to connect and expects one row.
fn check_connection(test: &str, to: SocketAddr, expected: &str) {
    let traced = traced(&lab(test), 1, |netns| {
        inside(netns, "browser", move || {
            let limit = Duration::from_millis(600);
            assert!(TcpStream::connect_timeout(&to, limit).is_err());
        });
    });
    assert_eq!(traced.briefs(), [expected]);
    assert_eq!(traced.rows()[0]["client"]["process"]["name"], "browser");
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_service_without_endpoints_rejects_a_connection_by_icmp() {
    check_connection(
        "emptytcp",
        SocketAddr::from((EMPTY.v4, 80)),
        "tcp 10.96.0.12:80 rejected (ICMP port unreachable from 10.244.0.1)",
    );
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_closed_port_of_a_backend_resets_a_connection() {
    check_connection(
        "reset",
        SocketAddr::from((WEB1.v4(), 9)),
        "tcp 10.244.0.31:9 reset (reset by 10.244.0.31 to the first packet)",
    );
}
