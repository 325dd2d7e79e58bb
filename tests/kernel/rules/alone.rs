//! kube-proxy's own rules judged by themselves, where nobody says what they are to do: as they are, and with
//! something in them that cannot be right.

use std::net::{IpAddr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tracer::model::Finding;
use tracer::rules::unanswered;
use tracer::verify::judge_alone;

use super::judged::{Fixture, network, read};
use super::proxy::{BACKENDS, Mode, Network, feed, within};
use crate::support::ip;

/// What is found in rules of which each line that has `line` is removed, or has `from` replaced.
fn found(
    network: &Network,
    fixture: &Fixture,
    line: &str,
    replaced: Option<(&str, &str)>,
) -> Vec<Finding> {
    let mut changed = 0;
    for (words, text) in &fixture.texts {
        let lines = text.lines().filter_map(|one| {
            if line.is_empty() || !one.contains(line) {
                return Some(one.to_owned());
            }
            changed += 1;
            replaced.map(|(from, to)| one.replacen(from, to, 1))
        });
        let text = lines.collect::<Vec<_>>().join("\n") + "\n";
        feed(&network.node, words, &text);
    }
    assert!(line.is_empty() || changed > 0, "nothing has {line:?}");
    let (ruleset, host) = read(network);
    let silent = within(&network.node, || unanswered().expect("it reads"));
    judge_alone(&ruleset, &host, &silent).findings
}

fn named(findings: &[Finding]) -> Vec<(&str, &str)> {
    let named = findings.iter();
    named.map(|one| (one.name, one.object.as_str())).collect()
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn what_iptables_rules_contradict_is_found_without_any_object() {
    let network = network("aipt");
    let fixture = Fixture::of(Mode::Iptables);
    assert_eq!(found(&network, &fixture, "", None), []);
    // The last of three, which has what the chances of the others leave.
    let last = "\"shop/web:http -> 10.244.2.3:8080\"";
    assert_eq!(
        named(&found(&network, &fixture, last, None)),
        [("chances_missing", "Service shop/web:http")]
    );
    let first = "\"shop/web:http -> 10.244.1.1:8080\"";
    let half = Some(("0.33333333349", "0.50000000000"));
    assert_eq!(
        named(&found(&network, &fixture, first, half)),
        [("uneven_spread", "Service shop/web:http")]
    );
    let only = "-A KUBE-SEP-UBR5KOQSHGAK7OA2 ";
    let emptied = found(&network, &fixture, only, None);
    let missing = emptied.iter().filter(|one| one.name == "missing_chain");
    assert_eq!(missing.count(), 1, "{emptied:#?}");
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn what_nftables_rules_contradict_is_found_without_any_object() {
    let network = network("anft");
    let fixture = Fixture::of(Mode::Nftables);
    assert_eq!(found(&network, &fixture, "", None), []);
    // Of three chances one has no element; all Services with these three share the text.
    let choice = "numgen random mod 3 map { 0 : 10.244.1.1 . 8080, 1 : 10.244.1.2 . 8080, 2 : 10.244.2.3 . 8080 }";
    let without = Some((", 2 : 10.244.2.3 . 8080", ""));
    let wrong = found(&network, &fixture, choice, without);
    let all = wrong.iter().all(|one| one.name == "chances_missing");
    assert!(all && wrong.len() >= 5, "{wrong:#?}");
    let twice = Some(("2 : 10.244.2.3", "2 : 10.244.1.2"));
    let wrong = found(&network, &fixture, choice, twice);
    let all = wrong.iter().all(|one| one.name == "uneven_spread");
    assert!(all && wrong.len() >= 5, "{wrong:#?}");
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn an_endpoint_that_does_not_answer_arp_is_found_without_any_object() {
    let network = network("aarp");
    let fixture = Fixture::of(Mode::Nftables);
    let gone = BACKENDS[1];
    assert_eq!(found(&network, &fixture, "", None), []);
    ip(&[
        "-n",
        &network.backends[1],
        "address",
        "flush",
        "dev",
        "eth0",
    ]);
    ip(&["-n", &network.node, "neigh", "flush", "all"]);
    let address: IpAddr = gone.parse().expect("it is an address");
    within(&network.node, || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
        socket.send_to(b"?", (gone, 9)).expect("it has a route");
        // Until the kernel has given up.
        let deadline = Instant::now() + Duration::from_secs(10);
        while !unanswered().expect("it reads").contains(&address) {
            assert!(Instant::now() < deadline, "the kernel does not give up");
            sleep(Duration::from_millis(100));
        }
    });
    assert_eq!(
        named(&found(&network, &fixture, "", None)),
        [("silent_endpoint", "endpoint 10.244.1.2")]
    );
}
