//! Packets with more around them than IP and UDP: VLAN tags, IP options, extension headers, fragments.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tracer::lab::services::{CLIENT1, KUBE_DNS};

use crate::support::client::{A, inside, query, receive, udp};
use crate::support::raw::{self, v4_with_options, v6_with_extension};
use crate::support::trace::{Traced, Tracer};
use crate::support::{LyingDns, client_and_server, dig, ip, lab};

/// Hands `frames` to `netns` out of a tunnel: a VXLAN device there takes them from datagrams, RFC 7348.
fn tunnelled(sender: &str, netns: &str, frames: Vec<Vec<u8>>) {
    let add = [
        "-n", netns, "link", "add", "vx0", "type", "vxlan", "id", "7",
    ];
    let at = ["dstport", "5410", "local", "192.0.2.2", "dev", "eth0"];
    ip(&[add.as_slice(), &at].concat());
    ip(&["-n", netns, "link", "set", "vx0", "up"]);
    inside(sender, "tunnel", move || {
        let socket = udp(([192, 0, 2, 2], 5410).into());
        for frame in frames {
            let header = [8, 0, 0, 0, 0, 0, 7, 0];
            let sent = socket.send(&[header.as_slice(), &frame].concat());
            assert!(sent.is_ok());
        }
    });
}

/// An Ethernet frame that holds `packet` under two tags, IEEE 802.1ad and 802.1Q.
fn tagged(packet: &[u8]) -> Vec<u8> {
    let macs = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let tags = [0x88, 0xa8, 0, 7, 0x81, 0, 0, 8];
    let kind = if packet[0] >> 4 == 4 {
        [8, 0]
    } else {
        [0x86, 0xdd]
    };
    [macs.as_slice(), &tags, &kind, packet].concat()
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn queries_under_two_vlan_tags_are_rows() {
    let (_topology, client, server) = client_and_server("vlan");
    let mut tracer = Tracer::start("--dns --dns-port 5411");
    let query = query(0x4242, "host1.lab.test", A);
    let mut answer = query.clone();
    answer[2] |= 0x80;
    let four = [[198, 51, 100, 1], [198, 51, 100, 2]].map(Ipv4Addr::from);
    let six = [1, 2].map(|host| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host));
    let frames = [
        v4_with_options((four[0], 4000), (four[1], 5411), &query),
        v4_with_options((four[1], 5411), (four[0], 4000), &answer),
        v6_with_extension((six[0], 4000), (six[1], 5411), &query),
        v6_with_extension((six[1], 5411), (six[0], 4000), &answer),
    ];
    tunnelled(
        &client,
        &server,
        frames.map(|packet| tagged(&packet)).into(),
    );
    tracer.wait_for(2);
    let mut briefs = tracer.stop().briefs();
    briefs.sort();
    assert_eq!(
        briefs,
        [
            "udp 198.51.100.2:5411 host1.lab.test A answered NOERROR 0",
            "udp [2001:db8::2]:5411 host1.lab.test A answered NOERROR 0",
        ]
    );
}

/// Sends a query in a packet that `packet` makes from (client, server), and expects one row of it.
fn check(
    test: &str,
    server: SocketAddr,
    packet: fn(SocketAddr, SocketAddr, &[u8]) -> Vec<u8>,
) -> Traced {
    let lab = lab(test);
    let netns = lab.netns(CLIENT1);
    let mut tracer = Tracer::start(&format!("--netns {netns}"));
    inside(&netns, "crafter", move || {
        // Its port is where the answer is expected.
        let socket = udp(server);
        let client = socket.local_addr().expect("it is connected");
        let query = query(0x4242, "host1.lab.test", A);
        raw::send(&packet(client, server, &query), server);
        assert_eq!(receive(&socket), 0x4242);
    });
    tracer.wait_for(1);
    let traced = tracer.stop();
    assert_eq!(
        traced.briefs(),
        [format!("udp {server} host1.lab.test A answered NOERROR 1")]
    );
    assert!(traced.rows()[0]["backend"].is_object());
    assert_eq!(traced.rows()[0]["client"]["netns"], netns);
    traced
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_query_behind_ipv4_options_is_one_row() {
    check("options", KUBE_DNS.socket(), |client, server, query| {
        let (SocketAddr::V4(client), SocketAddr::V4(server)) = (client, server) else {
            panic!("both are IPv4");
        };
        let [client, server] = [client, server].map(|end| (*end.ip(), end.port()));
        v4_with_options(client, server, query)
    });
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_query_behind_an_ipv6_extension_header_is_one_row() {
    let vip = KUBE_DNS.v6.expect("it is dual-stack");
    let server = SocketAddr::from((vip, 53));
    check("extension", server, |client, server, query| {
        let (SocketAddr::V6(client), SocketAddr::V6(server)) = (client, server) else {
            panic!("both are IPv6");
        };
        let [client, server] = [client, server].map(|end| (*end.ip(), end.port()));
        v6_with_extension(client, server, query)
    });
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn an_answer_in_fragments_is_read_from_its_first_and_the_others_are_counted() {
    let (_topology, client, server) = client_and_server("fragments");
    for netns in [&client, &server] {
        ip(&["-n", netns, "link", "set", "eth0", "mtu", "576"]);
    }
    let _server = LyingDns::honest(&server, "192.0.2.2:5412");
    let mut tracer = Tracer::start(&format!("--dns --dns-port 5412 --netns {client}"));
    let said = dig(&client, "-p 5412 +bufsize=1400 @192.0.2.2 big.lab.test TXT");
    assert!(said.contains("(UDP)"), "{said}");
    tracer.wait_for(1);
    let traced = tracer.stop();
    assert_eq!(
        traced.briefs(),
        ["udp 192.0.2.2:5412 big.lab.test TXT answered NOERROR 1"]
    );
    // Two later fragments, each leaving the server and arriving at the client.
    let fragments = traced.summary["unplaced"]["fragments"].as_u64();
    assert!(fragments >= Some(4), "{}", traced.summary);
    assert_eq!(traced.summary["unplaced"]["malformed"], 0);
}
