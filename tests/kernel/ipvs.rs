//! Services by IPVS, as kube-proxy's ipvs mode sets them up.

use crate::support::routed::{Routed, SERVER, SERVER2, VIP};
use crate::support::trace::{Tracer, address};
use crate::support::{LyingDns, dig, has_ipvs, ip, run_in};

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn dns_over_udp_and_tcp_through_ipvs_shows_both_backends_in_turn() {
    let routed = Routed::new("ipvs");
    if !has_ipvs(&["ip_vs", "ip_vs_rr"]) {
        return;
    }
    // The VIP is the node's own, and replies are found by conntrack, as in kube-proxy.
    ip(&[
        "-n",
        &routed.node,
        "link",
        "add",
        "kube-ipvs0",
        "type",
        "dummy",
    ]);
    ip(&[
        "-n",
        &routed.node,
        "address",
        "add",
        VIP,
        "dev",
        "kube-ipvs0",
    ]);
    run_in(&routed.node, &["sysctl", "-qw", "net.ipv4.vs.conntrack=1"]);
    let service = format!("{VIP}:53");
    for protocol in ["-u", "-t"] {
        let command = |words: &[&str]| {
            let words = [&["ipvsadm"], words].concat();
            let done = run_in(&routed.node, &words);
            assert!(done.status.success(), "{words:?}: {done:?}");
        };
        command(&["-A", protocol, &service, "-s", "rr"]);
        for server in [SERVER, SERVER2] {
            command(&[
                "-a",
                protocol,
                &service,
                "-r",
                &format!("{server}:53"),
                "-m",
            ]);
        }
    }
    let _servers =
        [SERVER, SERVER2].map(|server| LyingDns::honest(&routed.server, &format!("{server}:53")));
    let mut tracer = Tracer::start(&format!("--netns {}", routed.client));
    for words in ["", "", "+tcp", "+tcp"] {
        dig(
            &routed.client,
            &format!("{words} @{VIP} host1.lab.test")
                .trim_start()
                .replace("  ", " "),
        );
    }
    // Of DNS over TCP only a failed connection has a row of its own.
    tracer.wait_for(4);
    let rows = tracer.stop().rows();
    for protocol in ["udp", "tcp"] {
        let of = rows.iter().filter(|row| row["protocol"] == protocol);
        let mut backends: Vec<_> = of
            .map(|row| {
                assert_eq!(row["outcome"], "answered", "{row:#}");
                assert_eq!(row["asked"]["ip"], VIP, "{row:#}");
                address(&row["backend"]).map(|backend| backend.ip().to_string())
            })
            .collect();
        backends.sort();
        assert_eq!(
            backends,
            [Some(SERVER.to_owned()), Some(SERVER2.to_owned())],
            "{protocol}: {rows:#?}"
        );
    }
}
