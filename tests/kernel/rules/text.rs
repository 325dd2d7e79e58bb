//! Each rule's text must be what the program that wrote it lists.

use tracer::rules::{Backend, Ruleset};

use super::proxy::{Mode, Network, feed, specs, within};
use crate::support::{run_in, text_of};

/// What hand-made rules and CNI plugins put beside kube-proxy's.
const OTHERS: &str = r#"*filter
:LAB-POLICY - [0:0]
-A FORWARD -i eth0 -o veth+ -p icmp -m icmp --icmp-type 8 -j LOG --log-prefix "hi "
-A FORWARD -m limit --limit 3/min -j ACCEPT
-A FORWARD -p tcp -m tcp --tcp-flags SYN,ACK SYN -j REJECT --reject-with tcp-reset
-A FORWARD -p udp -m multiport --dports 53,60:70 -j RETURN
-A FORWARD -s 10.0.0.0/9 ! -d 10.96.0.0/12 -p tcp -m tcp --dport 8000:8010 -g LAB-POLICY
-A FORWARD -p tcp -m conntrack --ctorigdst 10.96.0.50 --ctorigdstport 53 -j DROP
-A FORWARD -p tcp -m conntrack ! --ctstatus ASSURED,CONFIRMED --ctdir REPLY -j DROP
-A FORWARD -m conntrack --ctstate NEW --ctstatus NONE --ctexpire 5:9 --ctdir ORIGINAL -j DROP
-A INPUT -m iprange --src-range 1.1.1.1-1.1.1.9 -j DROP
-A INPUT -m connmark ! --mark 0x1/0xff -j DROP
-A OUTPUT -m physdev --physdev-is-bridged -j ACCEPT
COMMIT
*nat
-A POSTROUTING -s 10.244.0.0/16 ! -d 224.0.0.0/4 -j SNAT --to-source 192.0.2.1
-A OUTPUT -d 127.0.0.1/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 8080
COMMIT
*mangle
-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j MARK --set-xmark 0x10/0xff
-A PREROUTING -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff
COMMIT
"#;

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn rules_of_iptables_read_as_iptables_save_lists_them() {
    listed_and_read_agree("texts", Mode::Iptables, Backend::IptablesNft);
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn rules_of_legacy_iptables_read_as_iptables_legacy_save_lists_them() {
    listed_and_read_agree("textl", Mode::Legacy, Backend::IptablesLegacy);
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn legacy_tables_are_not_made_by_looking_and_their_policies_are_read() {
    let network = Network::new("lookl");
    let read = || within(&network.node, || Ruleset::read().expect("it reads"));
    let names = || text_of(&network.node, &["cat", "/proc/net/ip_tables_names"]);
    assert_eq!(read().tables, []);
    assert_eq!(names(), "");
    let run = |words: &[&str]| {
        let done = run_in(&network.node, words);
        assert!(done.status.success(), "{words:?}: {done:?}");
    };
    run(&["iptables-legacy", "-P", "FORWARD", "DROP"]);
    run(&[
        "ip6tables-legacy",
        "-A",
        "INPUT",
        "-s",
        "fd00:10::/56",
        "-i",
        "eth+",
        "-j",
        "DROP",
    ]);
    let tables = read().tables;
    assert_eq!(names(), "filter\n");
    let [v4, v6] = tables.as_slice() else {
        panic!("{tables:?}");
    };
    let drops = |chain: &str| {
        v4.chain(chain)
            .and_then(|chain| chain.base)
            .map(|base| base.drops)
    };
    assert_eq!(
        ["INPUT", "FORWARD", "OUTPUT"].map(drops),
        [Some(false), Some(true), Some(false)]
    );
    let input = v6.chain("INPUT").expect("it is there");
    let texts: Vec<_> = input
        .rules
        .iter()
        .map(|rule| v6.text_of(input, rule))
        .collect();
    assert_eq!(texts, ["-A INPUT -s fd00:10::/56 -i eth+ -j DROP"]);
}

fn listed_and_read_agree(test: &str, mode: Mode, backend: Backend) {
    let network = Network::new(test);
    network.load(mode, &specs());
    let (restore, save) = match mode {
        Mode::Legacy => ("iptables-legacy-restore", "iptables-legacy-save"),
        _ => ("iptables-restore", "iptables-save"),
    };
    feed(&network.node, &[restore, "-n"], OTHERS);
    let ruleset = within(&network.node, || Ruleset::read().expect("it reads"));
    let listed = text_of(&network.node, &[save]);
    let mut expected: Vec<_> = listed
        .lines()
        .filter(|line| line.starts_with("-A"))
        .collect();
    let tables = ruleset.tables.iter();
    let of_iptables = tables.filter(|table| table.backend == backend);
    let texts = of_iptables.flat_map(|table| {
        let chains = table.chains.iter();
        chains.flat_map(|chain| chain.rules.iter().map(|rule| table.text_of(chain, rule)))
    });
    let mut texts: Vec<_> = texts.collect();
    expected.sort_unstable();
    texts.sort_unstable();
    assert!(expected.len() > 80, "{listed}");
    for (text, expected) in texts.iter().zip(&expected) {
        assert_eq!(text, expected);
    }
    assert_eq!(texts.len(), expected.len());
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn rules_of_nftables_read_as_nft_lists_them() {
    let network = Network::new("textn");
    network.load(Mode::Nftables, &specs());
    let ruleset = within(&network.node, || Ruleset::read().expect("it reads"));
    let listed = text_of(&network.node, &["nft", "list", "ruleset"]);
    let mut missing = Vec::new();
    let listed: Vec<_> = listed.lines().map(str::trim).collect();
    let [table] = ruleset.tables.as_slice() else {
        panic!("{ruleset:?}");
    };
    let mut count = 0;
    for chain in &table.chains {
        for rule in &chain.rules {
            count += 1;
            // Newer versions of nft say `addr . port` as it is written.
            let text = table
                .text_of(chain, rule)
                .replace("dnat ip addr . port to", "dnat ip to");
            if !listed.contains(&text.as_str()) {
                missing.push(text);
            }
        }
    }
    assert!(
        missing.is_empty(),
        "not listed so: {missing:#?} in {listed:#?}"
    );
    assert!(count > 40, "{count}");
}
