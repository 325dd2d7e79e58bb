//! UDP flows that conntrack keeps sending to what was an endpoint: found, and only those.

use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use tracer::model::{Finding, Snapshot};
use tracer::rules::Flow;
use tracer::verify::{Besides, judge_with};

use super::judged::{Fixture, network, read};
use super::proxy::{CLIENT, Mode, Network, within};

/// `shop/dns`, in the fixture's objects.
const VIP: &str = "10.96.0.14:53";

/// One packet of a client's to the Service, from a port of its own.
fn ask(network: &Network, port: u16) {
    within(&network.client, || {
        let socket = UdpSocket::bind(("0.0.0.0", port)).expect("the port is free");
        socket.send_to(b"?", VIP).expect("it has a route");
    });
}

fn found(network: &Network, flows: &[Flow], snapshot: &Snapshot) -> Vec<Finding> {
    let (ruleset, host) = read(network);
    let mut nodes = snapshot.nodes.iter();
    let node = nodes.find(|node| &*node.name == "n1");
    let besides = Besides {
        flows,
        changing: &HashSet::new(),
    };
    let node = node.expect("it is in the objects");
    let mut findings = judge_with(&ruleset, &host, snapshot, node, besides).findings;
    findings.retain(|one| one.name == "stale_flows");
    findings
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn flows_to_an_endpoint_that_is_gone_are_found_with_their_clients() {
    let network = network("stale");
    let fixture = Fixture::of(Mode::Nftables);
    fixture.load(&network);
    for port in 40_000..40_016 {
        ask(&network, port);
    }
    let flows = within(&network.node, || Flow::read().expect("it reads"));
    let vip: SocketAddr = VIP.parse().expect("it is an address");
    let ours: Vec<_> = flows.iter().filter(|flow| flow.asked == vip).collect();
    assert_eq!(ours.len(), 16, "{flows:?}");
    let client = |flow: &&Flow| flow.client.ip().to_string() == CLIENT;
    assert!(ours.iter().all(client), "{ours:?}");
    assert_eq!(found(&network, &flows, &fixture.snapshot), []);

    // One of its endpoints goes; kube-proxy does not notice.
    let gone = ours[0].backend;
    let mut snapshot = fixture.snapshot.clone();
    for slice in &mut snapshot.slices {
        let slice = Arc::make_mut(slice);
        if &*slice.service == "dns" {
            let stays = |ip: &std::net::IpAddr| *ip != gone.ip();
            slice
                .endpoints
                .retain(|one| one.addresses.iter().all(stays));
        }
    }
    let to_gone = ours.iter().filter(|flow| flow.backend == gone).count();
    let [finding] = &found(&network, &flows, &snapshot)[..] else {
        panic!("there is one: {:?}", found(&network, &flows, &snapshot));
    };
    assert_eq!(
        (finding.name, finding.object.as_str()),
        ("stale_flows", "Service shop/dns, port dns")
    );
    let told = format!(
        "{to_gone} UDP flow{} to {gone}, 0 of them answered, from {CLIENT}",
        if to_gone == 1 { "" } else { "s" }
    );
    assert!(finding.evidence[1].ends_with(&told), "{finding:?}");
    // The remedy is as good as it says.
    let words: Vec<_> = finding.remedy.split(' ').collect();
    assert!(
        crate::support::run_in(&network.node, &words)
            .status
            .success()
    );
    let left = within(&network.node, || Flow::read().expect("it reads"));
    assert_eq!(found(&network, &left, &snapshot), []);
}
