//! An answer that comes in by a network card's driver: virtio-net keeps the first 128 bytes of a packet in the
//! linear part of its skb, the rest lies in page fragments.

use std::{env, net::SocketAddr};

use super::manifest::{granted, start_with};
use crate::support::client::{A, query, udp};
use crate::support::trace::Tracer;

#[test]
#[ignore = "needs root and a guest's virtio-net; run `cargo xtask test vm`"]
fn an_answer_in_page_fragments_is_captured_whole() {
    assert_captured_whole(Tracer::start);
}

#[test]
#[ignore = "needs root and a guest's virtio-net; run `cargo xtask test vm`"]
fn without_perf_events_an_answer_in_page_fragments_is_captured_whole() {
    assert_captured_whole(|words| start_with(granted(), words));
}

/// An answer of more than 1,000 bytes is seen whole by the tracer that `start` starts.
fn assert_captured_whole(start: impl Fn(&str) -> Tracer) {
    let server = env::var("host_dns").expect("the guest is told the host's DNS server");
    let server: SocketAddr = server.parse().expect("it is an address and a port");
    let mut tracer = start(&format!("--no-api --dns --dns-port {}", server.port()));
    let socket = udp(server);
    let sent = socket.send(&query(0x1234, "host1.lab.test", A));
    assert!(sent.is_ok(), "{sent:?}");
    let mut answer = [0; 2048];
    let len = socket.recv(&mut answer).expect("the host answers");
    assert!((1150..1280).contains(&len), "{len} bytes");
    tracer.wait_for(1);
    let traced = tracer.stop();
    traced.assert_whole();
    let rows = traced.rows();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(
        (&rows[0]["rcode"], &rows[0]["answers"]),
        (&"NOERROR".into(), &72.into())
    );
    assert_eq!(
        traced.summary["unplaced"]["cut"], 0,
        "payload could not be read"
    );
}
