//! What walks through search paths add up to.

use super::*;
use crate::model::{Client, KtimeNs, Protocol, SocketEnds};

fn query(name: &str, rcode: u16, seconds: i64) -> Dns {
    Dns {
        serial: 1,
        ktime: KtimeNs(0),
        wall: WallNs(seconds * 1_000_000_000),
        client: Client {
            address: ([192, 0, 2, 1], 40_000).into(),
            netns: None,
            sender: None,
        },
        protocol: Protocol::Udp,
        asked: ([10, 96, 0, 10], 53).into(),
        backend: None,
        id: 1,
        name: Some(name.to_owned()),
        qtype: Some(1),
        rcode: Some(rcode),
        answers: Some(1),
        truncated: false,
        latency: Some(Duration::from_millis(1)),
        outcome: Outcome::Answered,
        clash: None,
        cause: None,
        stopped: None,
        ends: SocketEnds::default(),
        upstream: None,
        retry_of: None,
        amends: None,
        journey: None,
    }
}

fn asks(search: &mut Search, name: &str, rcode: u16, second: i64) {
    let name = name.to_ascii_lowercase();
    search.add(&query(&name, rcode, second), &name);
}

/// Queries sent, those in vain, and what won.
fn check(queries: &[(&str, u16)], sent: u64, wasted: u64, won: &[(&str, u64)]) -> Search {
    let mut search = Search::default();
    for (name, rcode) in queries {
        asks(&mut search, name, *rcode, 0);
    }
    assert_eq!((search.sent, search.wasted), (sent, wasted), "{search:?}");
    let found: Vec<_> = search.won.iter().map(|(end, &n)| (&**end, n)).collect();
    assert_eq!(found, won);
    search
}

#[test]
fn an_outside_name_costs_a_pair_of_queries_for_each_domain_of_the_path() {
    let search = check(
        &[
            ("www.example.test.shop.svc.cluster.local", 3),
            ("www.example.test.shop.svc.cluster.local", 3),
            ("www.example.test.svc.cluster.local", 3),
            ("www.example.test.svc.cluster.local", 3),
            ("www.example.test.cluster.local", 3),
            ("www.example.test.cluster.local", 3),
            ("www.example.test.node.example", 3),
            ("www.example.test.node.example", 3),
            ("www.example.test", 0),
            ("www.example.test", 0),
        ],
        10,
        8,
        &[("", 2)],
    );
    assert_eq!(search.bare, Some((2, "www.example.test".into())));
}

#[test]
fn a_service_of_another_namespace_is_found_at_the_second_try() {
    let search = check(
        &[
            ("web.shop.default.svc.cluster.local", 3),
            ("web.shop.svc.cluster.local", 0),
        ],
        2,
        1,
        &[("svc.cluster.local", 1)],
    );
    assert_eq!(
        search.searched,
        Some((1, "web.shop.svc.cluster.local".into()))
    );
}

#[test]
fn a_full_service_name_is_searched_for_like_any_other() {
    check(
        &[
            ("web.shop.svc.cluster.local.default.svc.cluster.local", 3),
            ("web.shop.svc.cluster.local.svc.cluster.local", 3),
            ("web.shop.svc.cluster.local.cluster.local", 3),
            ("web.shop.svc.cluster.local", 0),
        ],
        4,
        3,
        &[("", 1)],
    );
}

#[test]
fn a_name_that_exists_nowhere_needs_one_query() {
    check(
        &[
            ("gone.default.svc.cluster.local", 3),
            ("gone.svc.cluster.local", 3),
            ("gone.cluster.local", 3),
            ("gone", 3),
        ],
        4,
        3,
        &[],
    );
}

#[test]
fn a_service_that_does_not_exist_is_no_search() {
    check(
        &[
            ("gone.default.svc.cluster.local", 3),
            ("www.example.test", 0),
        ],
        0,
        0,
        &[],
    );
}

#[test]
fn what_two_pods_searched_for_adds_up() {
    let outside = &[
        ("www.example.test.shop.svc.cluster.local", 3),
        ("www.example.test", 0),
    ];
    let inside = &[
        ("web.shop.svc.cluster.local", 3),
        ("web.svc.cluster.local", 0),
    ];
    let mut both = check(outside, 2, 1, &[("", 1)]);
    both.merge(&check(inside, 2, 1, &[("svc.cluster.local", 1)]));
    both.merge(&check(outside, 2, 1, &[("", 1)]));
    assert_eq!((both.sent, both.wasted), (6, 3));
    let won: Vec<_> = both.won.iter().map(|(end, &n)| (&**end, n)).collect();
    assert_eq!(won, [("", 2), ("svc.cluster.local", 1)]);
    assert_eq!(both.bare, Some((2, "www.example.test".into())));
    assert_eq!(both.searched, Some((0, "web.svc.cluster.local".into())));
}

#[test]
fn who_asks_much_later_asks_anew() {
    let mut search = Search::default();
    asks(&mut search, "www.default.svc.cluster.local", 3, 0);
    asks(&mut search, "www.example.test", 0, 60);
    assert_eq!(search.wasted, 0);
}

#[test]
fn names_that_are_followed_are_bounded() {
    let mut search = Search::default();
    for nth in 0..1_000 {
        let name = format!("h{nth}.default.svc.cluster.local");
        asks(&mut search, &name, 3, nth);
    }
    assert_eq!(search.walks.len(), WALKS);
}
