//! DNS over TCP: messages put together from segments, however they were cut.

use std::io::Write;
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

use tracer::lab::services::{CLIENT1, KUBE_DNS};

use crate::support::client::{A, framed, inside, query, receive_framed, tcp};
use crate::support::trace::{Traced, Tracer};
use crate::support::{dig, lab};

fn traced(test: &str, rows: usize, client: impl FnOnce(&str)) -> Traced {
    let lab = lab(test);
    let netns = lab.netns(CLIENT1);
    let mut tracer = Tracer::start(&format!("--netns {netns}"));
    client(&netns);
    tracer.wait_for(rows);
    tracer.stop()
}

/// Writes to the VIP as `write` does and expects a row for each of host1 to hostN, in any order.
fn check(test: &str, hosts: u16, write: fn(&mut TcpStream)) {
    let traced = traced(test, usize::from(hosts), |netns| {
        inside(netns, "resolver", move || {
            let mut stream = tcp(KUBE_DNS.socket());
            write(&mut stream);
            for _ in 0..hosts {
                assert!((1..=hosts).contains(&receive_framed(&stream)));
            }
        });
    });
    let mut rows = traced.rows();
    rows.sort_by_key(|row| row["id"].as_u64());
    let ids: Vec<_> = rows.iter().map(|row| row["id"].as_u64()).collect();
    let wanted: Vec<_> = (1..=u64::from(hosts)).map(Some).collect();
    assert_eq!(ids, wanted, "{rows:#?}");
    for row in &rows {
        let host = format!("host{}.lab.test", row["id"]);
        assert_eq!(row["name"], host);
        assert_eq!(row["outcome"], "answered");
        assert_eq!(row["protocol"], "tcp");
        assert_eq!(
            row["backend"], rows[0]["backend"],
            "one connection has one backend"
        );
        assert!(row["backend"].is_object());
        assert_eq!(row["client"]["process"]["name"], "resolver", "{row}");
    }
}

fn message(host: u16) -> Vec<u8> {
    framed(&query(host, &format!("host{host}.lab.test"), A))
}

fn write(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).expect("the server reads");
}

/// Segments sent one right after the other may be joined; these are not.
fn pause() {
    sleep(Duration::from_millis(30));
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_query_over_tcp_is_one_row_and_its_connection_none() {
    let traced = traced("tcpdig", 1, |netns| {
        dig(netns, "+tcp @10.96.0.10 big.lab.test TXT");
    });
    assert_eq!(
        traced.briefs(),
        ["tcp 10.96.0.10:53 big.lab.test TXT answered NOERROR 1"]
    );
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_truncated_answer_and_its_fallback_to_tcp_are_two_rows() {
    let traced = traced("tc", 2, |netns| {
        dig(netns, "@10.96.0.10 huge.lab.test TXT");
    });
    assert_eq!(
        traced.briefs(),
        [
            "udp 10.96.0.10:53 huge.lab.test TXT answered NOERROR 0 truncated",
            "tcp 10.96.0.10:53 huge.lab.test TXT answered NOERROR 1",
        ]
    );
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn pipelined_queries_on_one_connection_are_a_row_each() {
    check("pipe", 8, |stream| {
        for host in 1..=8 {
            write(stream, &message(host));
        }
    });
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn several_messages_in_one_segment_are_a_row_each() {
    check("joined", 5, |stream| {
        let all: Vec<u8> = (1..=5).flat_map(message).collect();
        write(stream, &all);
    });
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_message_split_over_segments_is_one_row() {
    check("split", 2, |stream| {
        // Within the length, within the header, and with the next message's beginning.
        let bytes = [message(1), message(2)].concat();
        let (first, rest) = bytes.split_at(1);
        let (second, rest) = rest.split_at(9);
        let (third, fourth) = rest.split_at(30);
        for part in [first, second, third, fourth] {
            write(stream, part);
            pause();
        }
    });
}
