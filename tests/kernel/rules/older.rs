//! Rules as older versions of kube-proxy wrote them, judged as they are and with one thing changed at a time.

use super::judged::{Change, Fixture, each_change_is_found, removed};

/// Rules are no API: those of three older layouts do the same, and what is changed in them is found as well.
#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn each_change_of_older_layouts_is_its_own_finding_and_no_change_is_none() {
    const NEAR: &str = "Service shop/near, port http";
    const NODE: &str = "Service shop/node, port http";
    const OUT: &str = "Service shop/out, port http";
    let all = |mut own: Vec<Change>| {
        own.extend([
            removed(
                "\"shop/node:http -> 10.244.1.1:8080\"",
                &[("missing_endpoint", NODE)],
            ),
            removed(
                "! -s 10.244.0.0/16 -d 10.96.0.15/32",
                &[("no_masquerade", NODE)],
            ),
            removed(
                "\"shop/none:http has no endpoints\"",
                &[("no_reject", "Service shop/none, port http")],
            ),
        ]);
        own
    };
    let masquerade = |line| removed(line, &[("no_masquerade", OUT)]);
    let balancing = || {
        removed(
            "\"Balancing rule 0 for shop/near:http\"",
            &[("missing_endpoint", NEAR)],
        )
    };
    for (test, version, changes) in [
        (
            "j121",
            "1.21",
            vec![
                masquerade(
                    "-A KUBE-SERVICES -d 198.51.100.17/32 -p tcp -m comment --comment \"shop/out:http external IP\" -m tcp --dport 80 -j KUBE-MARK-MASQ",
                ),
                balancing(),
            ],
        ),
        (
            "j123",
            "1.23",
            vec![
                masquerade("-A KUBE-SVC-PYO4ZADA3HPJRBQP -d 198.51.100.17/32"),
                balancing(),
            ],
        ),
        (
            "j126",
            "1.26",
            vec![
                masquerade("\"masquerade traffic for shop/out:http external destinations\""),
                removed(
                    "-A KUBE-EXT-2S6KKOSRNB4JOMNG -j KUBE-SVL",
                    &[("not_programmed", NEAR)],
                ),
            ],
        ),
    ] {
        each_change_is_found(test, &Fixture::older(version), &all(changes));
    }
}
