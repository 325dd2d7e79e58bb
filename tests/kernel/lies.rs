//! Servers that answer wrongly. Each test has a port of its own for DNS, so that counts that are the whole
//! machine's are of its packets alone.

use serde_json::json;
use tracer::lab::Lie;

use crate::support::client::{A, inside, query, udp};
use crate::support::trace::{Traced, Tracer};
use crate::support::{LyingDns, client_and_server, dig};

/// Lies to one dig, with `words` added, and returns what was traced in the client's namespace.
fn lied_to(port: u16, lie: Lie, more: &[&str], rows: usize, words: &str) -> Traced {
    let (_topology, client, server) = client_and_server(&format!("lie{port}"));
    let _server = LyingDns::start(&server, &format!("192.0.2.2:{port}"), lie, more);
    let mut tracer = Tracer::start(&format!("--dns --dns-port {port} --netns {client}"));
    dig(
        &client,
        &format!("-p {port} {words} @192.0.2.2 host1.lab.test"),
    );
    tracer.wait_for(rows);
    tracer.stop()
}

/// `expected` rows, and `count` of what could not be placed for `cause`, and nothing else.
fn check(traced: &Traced, expected: &[&str], cause: &str, count: u64) {
    assert_eq!(traced.briefs(), expected);
    for (key, found) in traced.summary["unplaced"].as_object().expect("it is one") {
        // Later fragments have no port: they may be anyone's.
        if key != "fragments" {
            let wanted = if key == cause { count } else { 0 };
            assert_eq!(*found, json!(wanted), "{key}: {}", traced.summary);
        }
    }
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn an_answer_that_comes_twice_is_one_row_and_a_duplicate() {
    let traced = lied_to(5401, Lie::Twice, &[], 1, "+tries=1");
    let row = "udp 192.0.2.2:5401 host1.lab.test A answered NOERROR 1";
    check(&traced, &[row], "duplicates", 1);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn an_answer_from_another_address_leaves_the_query_unanswered_and_is_named() {
    let from = ["--from", "192.0.2.3:5402"];
    let traced = lied_to(5402, Lie::OtherSource, &from, 1, "+tries=1");
    let row = "udp 192.0.2.2:5402 host1.lab.test A unanswered \
               (an answer came from 192.0.2.3, not from the address asked)";
    check(&traced, &[row], "unexpected_source", 1);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn an_answer_in_other_letter_case_is_paired() {
    let traced = lied_to(5403, Lie::FlipCase, &[], 1, "+tries=1");
    let row = "udp 192.0.2.2:5403 host1.lab.test A answered NOERROR 1";
    check(&traced, &[row], "", 0);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn an_answer_with_another_id_is_no_answer() {
    let traced = lied_to(5404, Lie::WrongId, &[], 1, "+tries=1");
    let row = "udp 192.0.2.2:5404 host1.lab.test A unanswered (no answer within 1 s)";
    check(&traced, &[row], "unmatched", 1);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn an_answer_cut_short_by_its_server_is_shown_as_truncated() {
    let traced = lied_to(5405, Lie::Truncated, &[], 1, "+ignore");
    let row = "udp 192.0.2.2:5405 host1.lab.test A answered NOERROR 0 truncated";
    check(&traced, &[row], "", 0);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_late_answer_amends_the_row_that_said_there_was_none() {
    let late = ["--delay-ms", "1700"];
    let traced = lied_to(5406, Lie::Late, &late, 2, "+tries=1");
    check(
        &traced,
        &[
            "udp 192.0.2.2:5406 host1.lab.test A unanswered (no answer within 1 s)",
            "udp 192.0.2.2:5406 host1.lab.test A answered NOERROR 1 amends (the answer came late)",
        ],
        "",
        0,
    );
    let rows = traced.rows();
    assert_eq!(rows[1]["amends"], rows[0]["serial"]);
    assert!(rows[1]["latency_us"].as_f64() >= Some(1.7e6), "{}", rows[1]);
    assert_eq!(traced.summary["dns"][0]["queries"], 1);
    assert_eq!(traced.summary["dns"][0]["late"], 1);
}

/// What is traced of one datagram sent to a server that does not lie.
fn sent(port: u16, rows: usize, datagram: Vec<u8>) -> Traced {
    let (_topology, client, server) = client_and_server(&format!("sent{port}"));
    let listen = format!("192.0.2.2:{port}");
    let _server = LyingDns::honest(&server, &listen);
    let mut tracer = Tracer::start(&format!("--dns --dns-port {port} --netns {client}"));
    inside(&client, "resolver", move || {
        let socket = udp(listen.parse().expect("it is an address"));
        assert!(socket.send(&datagram).is_ok());
        // Whether an answer comes is the server's affair.
        drop(socket.recv(&mut [0; 512]));
    });
    tracer.wait_for(rows);
    tracer.stop()
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_message_whose_question_runs_over_its_end_is_malformed_and_no_row() {
    let mut cut = query(1, "host1.lab.test", A);
    cut.truncate(16);
    // The server answers what it cannot read with a header alone: an answer to no query.
    let traced = sent(5407, 0, cut);
    assert_eq!(
        traced.summary["unplaced"]["malformed"], 1,
        "{}",
        traced.summary
    );
    assert_eq!(traced.briefs(), [""; 0]);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_message_with_two_questions_is_counted_and_shown_by_its_first() {
    let mut two = query(1, "host1.lab.test", A);
    let question = two[12..].to_vec();
    two[5] = 2;
    two.extend(question);
    let traced = sent(5408, 1, two);
    assert_eq!(
        traced.summary["unplaced"]["multi_question"], 1,
        "{}",
        traced.summary
    );
    let rows = traced.rows();
    assert_eq!(rows.len(), 1, "{rows:#?}");
    assert_eq!(rows[0]["name"], "host1.lab.test");
}
