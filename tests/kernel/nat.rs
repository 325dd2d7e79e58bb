//! The NAT that is shown is the NAT that conntrack holds, entry by entry.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use tracer::lab::services::{CLIENT1, CLIENT2, ECHO, KUBE_DNS, SERVICES, Service, WEB};

use crate::support::client::{A, get, inside, query, receive, udp};
use crate::support::trace::{Tracer, translations};
use crate::support::{dig, lab, text_of};

/// Client, address asked and backend of each entry `conntrack -L` lists for a VIP of the lab.
///
/// A line holds both tuples, the original first: `src=… dst=… sport=… dport=… [UNREPLIED] src=… dst=… sport=… …`.
fn entries(node: &str, family: &str) -> BTreeSet<(SocketAddr, SocketAddr, SocketAddr)> {
    let listed = text_of(node, &["conntrack", "-L", "-f", family]);
    let vips: Vec<_> = SERVICES.iter().flat_map(Service::vips).collect();
    listed
        .lines()
        .filter_map(|line| {
            let words = |key: &'static str| {
                let word = move |word: &str| Some(word.strip_prefix(key)?.to_owned());
                line.split_whitespace().filter_map(word).collect::<Vec<_>>()
            };
            let end = |ips: &[String], ports: &[String], tuple: usize| {
                let (ip, port) = (ips.get(tuple)?, ports.get(tuple)?);
                Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
            };
            let (srcs, sports) = (words("src="), words("sport="));
            let client = end(&srcs, &sports, 0)?;
            let asked = end(&words("dst="), &words("dport="), 0)?;
            let backend = end(&srcs, &sports, 1)?;
            vips.contains(&asked.ip())
                .then_some((client, asked, backend))
        })
        .collect()
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn every_exchange_and_connection_shows_the_backend_conntrack_holds() {
    let lab = lab("conntrack");
    let clients = [CLIENT1, CLIENT2].map(|pod| lab.netns(pod));
    let [one, two] = &clients;
    let mut tracer = Tracer::start(&format!("--netns {one} --netns {two}"));
    for netns in &clients {
        inside(netns, "client", || {
            // Held until all have been used: a port that is used again is an entry that is used again.
            let mut sockets = Vec::new();
            for (vip, id) in KUBE_DNS
                .vips()
                .flat_map(|vip| (0..10).map(move |id| (vip, id)))
            {
                let socket = udp(SocketAddr::new(vip, 53));
                let sent = socket.send(&query(id, "host1.lab.test", A));
                assert!(sent.is_ok());
                assert_eq!(receive(&socket), id);
                sockets.push(socket);
            }
            let mut streams = Vec::new();
            for vip in WEB.vips().flat_map(|vip| [vip; 10]) {
                streams.push(get(SocketAddr::new(vip, 80)));
            }
            let echo = udp(ECHO.socket());
            assert!(echo.send(&[0; 13]).is_ok());
            receive(&echo);
        });
        dig(netns, "+tcp @10.96.0.10 host1.lab.test");
    }
    tracer.wait_for(2 * (20 + 20 + 1 + 1));
    let node = lab.node_netns();
    let held: BTreeSet<_> = ["ipv4", "ipv6"]
        .into_iter()
        .flat_map(|family| entries(&node, family))
        .collect();
    let traced = tracer.stop();
    assert_eq!(held.len(), 84, "{held:#?}");
    assert_eq!(translations(&traced.rows()), held);
    assert_eq!(traced.rows().len(), 84);
}
