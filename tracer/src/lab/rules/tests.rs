//! Claims about the rendered rules.

use super::*;

#[test]
fn three_endpoints_get_a_third_then_a_half_then_the_rest() {
    let text = restore_text(Family::V4);
    let picks: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("\"default/web -> "))
        .map(|line| {
            line.split(" -j ")
                .next()
                .unwrap()
                .rsplit('"')
                .next()
                .unwrap()
                .trim()
        })
        .collect();
    assert_eq!(
        picks,
        [
            "-m statistic --mode random --probability 0.3333333333",
            "-m statistic --mode random --probability 0.5000000000",
            "",
        ]
    );
}

#[test]
fn service_without_endpoints_is_rejected_and_has_no_chain() {
    let text = restore_text(Family::V4);
    assert!(text.contains(
        "-A KUBE-SERVICES -m comment --comment \"default/empty:dns has no endpoints\" \
         -m udp -p udp -d 10.96.0.12 --dport 53 -j REJECT\n"
    ));
    assert!(!text.contains("default/empty:dns cluster IP"));
}

#[test]
fn ipv6_rules_name_ipv6_addresses_only() {
    let text = restore_text(Family::V6);
    assert!(text.contains("--to-destination [fd00:10:244::31]:8080\n"));
    assert!(!text.contains("10.96.0."));
}

#[test]
fn nodeports_come_last_in_kube_services() {
    let text = restore_text(Family::V4);
    let last = text
        .lines()
        .rfind(|line| line.starts_with("-A KUBE-SERVICES"));
    assert!(last.unwrap().ends_with("-j KUBE-NODEPORTS"));
}
