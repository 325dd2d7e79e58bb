//! Where Services lead to, as it is looked at while a change is waited for of which the kernel tells nobody.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use tracer::model::cluster::PortProtocol;
use tracer::rules::Polled;

use super::judged::Fixture;
use super::proxy::{Mode, Network, feed, within};
use super::servers::MODULES;
use crate::support::has_ipvs;

fn at(text: &str) -> SocketAddr {
    text.parse().expect("it is an address")
}

fn found(network: &Network, front: &str) -> Option<BTreeSet<SocketAddr>> {
    within(&network.node, || {
        let polled = Polled::open().expect("root may");
        polled.map(|mut polled| {
            let fronts = [(PortProtocol::Tcp, at(front))];
            polled.endpoints(&fronts).expect("root may")
        })
    })
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn endpoints_in_legacy_rules_are_seen_by_looking() {
    let network = Network::new("polleg");
    assert_eq!(found(&network, "10.96.0.10:80"), None);
    Fixture::of(Mode::Legacy).load(&network);
    let found = found(&network, "10.96.0.10:80").expect("there are rules");
    assert!(found.contains(&at("10.244.1.1:8080")), "{found:?}");
    assert!(found.contains(&at("[fd00:10:244:1::1]:8080")), "{found:?}");
}

#[test]
#[ignore = "needs root and ip_vs; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn real_servers_that_get_connections_are_seen_by_looking() {
    if !has_ipvs(&MODULES) {
        return;
    }
    let network = Network::new("polvs");
    assert_eq!(found(&network, "10.96.0.10:80"), None);
    let servers = "-A -t 10.96.0.10:80 -s rr\n\
                   -a -t 10.96.0.10:80 -r 10.244.1.1:8080 -m -w 1\n\
                   -a -t 10.96.0.10:80 -r 10.244.1.2:8080 -m -w 0\n\
                   -A -t 10.96.0.11:80 -s rr\n\
                   -a -t 10.96.0.11:80 -r 10.244.2.3:8080 -m -w 1\n";
    feed(&network.node, &["ipvsadm", "-R"], servers);
    let only = BTreeSet::from([at("10.244.1.1:8080")]);
    assert_eq!(found(&network, "10.96.0.10:80"), Some(only));
    assert_eq!(found(&network, "10.96.0.12:80"), Some(BTreeSet::new()));
}
