//! Every report of one small trace, by value, and byte for byte against `tests/data/reports`.

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use super::*;
use crate::model::{
    Client, Connection, Dns, Journey, KtimeNs, NetnsInode, Outcome, Pod, PodName, Protocol, Site,
    SocketEnds, Source, WallNs,
    asked::{ServiceName, ServicePortName, Via},
    change::Kind as Watched,
    cluster::{ObjectName, PodObject, Workload},
    ids::Ifindex,
    index::Standing,
    journey::{Flows, Leg, Passed, Point, Side, Stage, Step},
    trace::Api,
};

const TEXT: Format = Format::Text {
    colour: false,
    zone: Zone::Utc,
};

const SECOND: i64 = 1_000_000_000;

/// 2026-11-25 20:11:30 UTC
const START: i64 = 1_795_637_490 * SECOND;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn journey(start: u64, backend_micros: u64) -> Journey {
    let point = |micros: u64, netns, side| Point {
        ktime: KtimeNs(start + micros * 1000),
        netns: NetnsInode(netns),
        ifindex: Ifindex(2),
        side,
        flow: 0,
    };
    let passed = |leg, stage, end| Passed {
        step: Step { leg, stage },
        end,
    };
    Journey {
        start: point(0, 1, Side::Queued),
        stages: smallvec::smallvec![
            passed(Leg::Query, Stage::ClientLink, point(2, 2, Side::Received)),
            passed(Leg::Query, Stage::Node, point(12, 2, Side::Queued)),
            passed(Leg::Query, Stage::BackendLink, point(14, 3, Side::Received)),
            passed(
                Leg::Answer,
                Stage::Backend,
                point(14 + backend_micros, 3, Side::Queued),
            ),
            passed(
                Leg::Answer,
                Stage::ClientLink,
                point(16 + backend_micros, 1, Side::Received),
            ),
        ],
        unseen: smallvec::smallvec![Step {
            leg: Leg::Answer,
            stage: Stage::Node,
        }],
        flows: Flows::new(),
        lost: None,
        left_out: 0,
    }
}

pub(super) fn dns(serial: u64, name: &str, rcode: u16, micros: u64) -> Dns {
    let at = serial * 100_000_000;
    Dns {
        serial,
        ktime: KtimeNs(at),
        wall: WallNs(START + i64::try_from(at).unwrap()),
        client: Client {
            address: address("10.244.0.11:40000"),
            netns: None,
            sender: None,
        },
        protocol: Protocol::Udp,
        asked: address("10.96.0.10:53"),
        backend: Some(address("10.244.0.21:53")),
        id: 1,
        name: Some(name.to_owned()),
        qtype: Some(1),
        rcode: Some(rcode),
        answers: Some(u16::from(rcode == 0)),
        truncated: false,
        latency: Some(Duration::from_micros(micros)),
        outcome: Outcome::Answered,
        clash: None,
        stopped: None,
        cause: None,
        ends: SocketEnds::default(),
        upstream: None,
        retry_of: None,
        amends: None,
        journey: Some(Box::new(journey(at, micros - 16))),
    }
}

pub(super) fn failed(serial: u64, outcome: Outcome, cause: &str) -> Dns {
    Dns {
        asked: address("10.96.0.13:53"),
        rcode: None,
        answers: None,
        latency: None,
        outcome,
        cause: Some(cause.to_owned()),
        journey: None,
        stopped: None,
        ..dns(serial, "www.example.test", 0, 20)
    }
}

pub(super) fn connection(serial: u64, backend: &str) -> Connection {
    let dns = dns(serial, "", 0, 20);
    Connection {
        serial,
        ktime: dns.ktime,
        wall: dns.wall,
        client: dns.client,
        protocol: Protocol::Tcp,
        asked: address("10.96.0.80:80"),
        backend: Some(address(backend)),
        latency: Some(Duration::from_micros(50 + serial)),
        first_byte: None,
        retransmits: 0,
        outcome: Outcome::Answered,
        cause: None,
        amends: None,
        journey: None,
        stopped: None,
    }
}

fn named() -> Named {
    let pod = |name: &str| {
        Some(PodName {
            pod: Arc::new(Pod {
                namespace: "shop".into(),
                name: name.into(),
                uid: None,
            }),
            source: Source::Cni,
            age: Duration::ZERO,
            object: None,
        })
    };
    let sites = [(1, "client"), (2, "host"), (3, "server")].map(|(netns, name)| Site {
        netns: NetnsInode(netns),
        ifindex: Ifindex(2),
        name: name.into(),
        device: Some("eth0".into()),
    });
    Named {
        pod: pod("cart-7d9"),
        backend: pod("server"),
        sites: Some(sites.clone().into()),
        ..Named::default()
    }
}

/// A client that searches for an outside name, one Service that answers and one that does not, a
/// server that fails, and a Service one of whose backends has most of the connections.
pub(super) fn sample() -> Trace {
    let mut rows = Vec::new();
    let mut serials = 1..;
    let mut next = || serials.next().unwrap();
    for _ in 0..3 {
        for (end, rcode) in [
            (".shop.svc.cluster.local", 3),
            (".svc.cluster.local", 3),
            (".cluster.local", 3),
            ("", 0),
        ] {
            let name = format!("www.example.test{end}");
            rows.push(Row::Dns(dns(next(), &name, rcode, 150)));
        }
    }
    rows.push(Row::Dns(dns(next(), "slow.example.test", 0, 301_000)));
    rows.push(Row::Dns(dns(next(), "broken.example.test", 2, 900)));
    let dropped = "the kernel dropped the query: NETFILTER_DROP in FORWARD, by nft_do_chain+0x3e8";
    rows.push(Row::Dns(failed(next(), Outcome::Dropped, dropped)));
    for pid in [41, 42] {
        let cause = format!(
            "no answer within 6 s: dnsmasq[{pid}] read the query {pid} ms after it came, and sent none"
        );
        rows.push(Row::Dns(failed(next(), Outcome::Unanswered, &cause)));
    }
    for nth in 0..60 {
        let backend = if nth % 12 == 0 {
            "10.244.0.32:8080"
        } else {
            "10.244.0.31:8080"
        };
        rows.push(Row::Connection(connection(next(), backend)));
    }
    let mut trace = Trace::default();
    let named = named();
    for row in &rows {
        trace.add(row, &named);
    }
    trace.losses.ring_full = 7;
    trace.unplaced.open = 2;
    trace
}

pub(super) fn whole(trace: &Trace) -> Whole<'_> {
    Whole {
        trace,
        seconds: 10.0,
        findings: &[],
        unseen: &[],
    }
}

fn told(format: Format, names: &[&str], trace: &Trace) -> String {
    let mut out = Vec::new();
    reports(format, names, &whole(trace), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Compares with a file of `tests/data/reports`; `UPDATE_EXPECT=1` writes it.
fn check(file: &str, got: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/data/reports")
        .join(file);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, got).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    assert!(
        got == expected,
        "{file} differs; look at it, then UPDATE_EXPECT=1:\n{got}"
    );
}

fn sentences(report: &Report, trace: &Trace) -> Vec<String> {
    let section = (report.build)(&whole(trace));
    section.said.into_iter().map(|said| said.sentence).collect()
}

const EVERY: &[&str] = &["stalls", "dns", "services", "drops", "unseen"];

#[test]
fn every_report_is_told_in_the_same_words_as_before() {
    let trace = sample();
    check("sample.txt", &told(TEXT, EVERY, &trace));
    check("sample.json", &told(Format::Json, EVERY, &trace));
}

#[test]
fn nothing_seen_is_said_so_by_every_report() {
    let trace = Trace::default();
    check("nothing.txt", &told(TEXT, EVERY, &trace));
}

#[test]
fn what_was_not_seen_is_told_last_whatever_is_asked_for() {
    let text = told(TEXT, &["drops"], &sample());
    let titles: Vec<_> = text
        .lines()
        .filter(|line| line.contains("UTC") && !line.starts_with(' '))
        .collect();
    assert_eq!(titles.len(), 2, "{titles:?}");
    assert!(titles[1].starts_with("What was not seen"), "{titles:?}");
}

#[test]
fn the_stage_in_which_time_is_spent_is_named_with_its_place() {
    let trace = sample();
    let section = (stalls::REPORT.build)(&whole(&trace));
    let slow = section
        .said
        .iter()
        .find(|said| said.sentence.contains("takes"))
        .unwrap();
    assert!(
        slow.sentence
            .starts_with("answer backend takes 100 % of the time of dns queries"),
        "{slow:?}"
    );
    assert!(slow.evidence[1].contains("at shop/server"), "{slow:?}");
}

#[test]
fn a_search_path_is_told_with_what_it_wastes_and_the_one_line_that_mends_it() {
    let trace = sample();
    let section = (dns::REPORT.build)(&whole(&trace));
    let waste = section
        .said
        .iter()
        .find(|said| said.sentence.contains("search path"))
        .unwrap();
    // 9 in vain of 17.
    assert_eq!(
        waste.sentence,
        "shop/cart-7d9 wastes 53 % of its 17 queries on its search path"
    );
    assert!(
        waste
            .remedy
            .as_ref()
            .unwrap()
            .contains("name: ndots, value: \"2\""),
        "{waste:?}"
    );
}

/// `named`, the client's pod being the Deployment's of that name.
fn of_deployment(pod: &str, deployment: &str) -> Named {
    let mut named = named();
    let mut name = named.pod.take().unwrap();
    let pod = Arc::new(Pod {
        namespace: "shop".into(),
        name: pod.into(),
        uid: None,
    });
    name.object = Some(Arc::new(PodObject {
        pod: pod.clone(),
        ips: Vec::new(),
        node: None,
        host_network: false,
        workload: Some(Workload {
            kind: "Deployment".into(),
            name: deployment.into(),
        }),
        labels: Vec::new(),
        ready: true,
        created: WallNs(0),
        deleted: None,
        started: None,
        ended: None,
        config_hash: None,
    }));
    name.pod = pod;
    named.pod = Some(name);
    named
}

#[test]
fn pods_of_a_workload_search_as_one_and_are_mended_by_one_command() {
    let mut trace = Trace::default();
    for pod in ["cart-7d9-a", "cart-7d9-b", "cart-7d9-c"] {
        for (end, rcode) in [
            (".shop.svc.cluster.local", 3),
            (".svc.cluster.local", 3),
            ("", 0),
        ] {
            let row = Row::Dns(dns(1, &format!("www.example.test{end}"), rcode, 150));
            trace.add(&row, &of_deployment(pod, "cart"));
        }
    }
    let section = (dns::REPORT.build)(&whole(&trace));
    let waste = section
        .said
        .iter()
        .find(|said| said.sentence.contains("search path"));
    let waste = waste.unwrap();
    assert_eq!(
        waste.sentence,
        "shop/deployment/cart wastes 67 % of its 9 queries on its search path"
    );
    assert_eq!(
        waste.remedy.as_deref(),
        Some(
            r#"kubectl -n shop patch deployment cart --type merge -p '{"spec":{"template":{"spec":{"dnsConfig":{"options":[{"name":"ndots","value":"2"}]}}}}}'"#
        )
    );
    let table = section
        .tables
        .iter()
        .find(|table| table.name == "search_paths");
    assert_eq!(table.unwrap().rows.len(), 1, "three pods, one workload");
}

#[test]
fn a_service_goes_by_the_name_that_the_api_server_gave_it() {
    let mut trace = Trace::default();
    let port = Arc::new(ServicePortName {
        service: ObjectName {
            namespace: "shop".into(),
            name: "web".into(),
        },
        port: "http".into(),
        via: Via::ClusterIp,
    });
    let mut named = named();
    named.asked.service = Some(ServiceName {
        port,
        source: Source::Api,
        age: Duration::ZERO,
    });
    let refused = Connection {
        outcome: Outcome::Rejected,
        ..connection(1, "10.244.0.31:8080")
    };
    trace.add(&Row::Connection(refused), &named);
    let said = sentences(&services::REPORT, &trace);
    assert_eq!(
        said[0],
        "1 of 1 connection to tcp shop/web:http 10.96.0.80:80 failed (100 %)"
    );
}

#[test]
fn a_backend_with_more_than_its_share_is_named() {
    let said = sentences(&services::REPORT, &sample());
    let uneven = said
        .iter()
        .find(|sentence| sentence.contains("are even"))
        .unwrap();
    assert_eq!(
        uneven,
        "shop/server 10.244.0.31:8080 has 92 % of the 60 connections to tcp 10.96.0.80:80, where 50 % are even"
    );
}

#[test]
fn a_backend_that_is_ready_and_never_chosen_is_named() {
    let mut trace = Trace::default();
    for nth in 0..60 {
        let backend = format!("10.244.0.{}:8080", 31 + nth % 2);
        trace.add(&Row::Connection(connection(nth + 1, &backend)), &named());
    }
    let asked = (Protocol::Tcp, address("10.96.0.80:80"));
    assert_eq!(
        sentences(&services::REPORT, &trace),
        ["every Service that was asked answered, and its backends share evenly"]
    );
    let backends = ["10.244.0.31:8080", "10.244.0.32:8080", "10.244.0.33:8080"];
    trace.ready.insert(asked, backends.map(address).into());
    assert_eq!(
        sentences(&services::REPORT, &trace),
        ["10.244.0.33:8080 is ready and got none of 60 connections to tcp 10.96.0.80:80"]
    );
    let section = (services::REPORT.build)(&whole(&trace));
    let table = section.tables.iter().find(|table| table.name == "backends");
    let idle = table.unwrap().rows.iter().find(|row| row[3] == 0.into());
    let expected = |cell: &section::Cell| matches!(cell, section::Cell::Share(share) if (share - 1.0 / 3.0).abs() < 1e-9);
    assert!(expected(&idle.unwrap()[5]), "{idle:?}");
}

#[test]
fn what_the_api_server_did_not_tell_is_among_what_was_not_seen() {
    let trace = Trace {
        api: Some(Api {
            server: None,
            snapshot: None,
            now: WallNs(90 * SECOND),
            kinds: vec![
                (Watched::Pods, Standing::Watched { own: false }),
                (
                    Watched::Slices,
                    Standing::Lost {
                        since: WallNs(30 * SECOND),
                        why: "forbidden".into(),
                        listed: false,
                    },
                ),
            ],
        }),
        ..sample()
    };
    let said = sentences(&unseen::REPORT, &trace);
    let api: Vec<_> = said.iter().filter(|said| said.contains("API")).collect();
    assert_eq!(
        api,
        [
            "the API server's endpointslices: not listed for 60 s: forbidden; names that need them may be missing or old"
        ]
    );
}

#[test]
fn losses_come_with_their_cause_and_remedy() {
    let trace = sample();
    let section = (unseen::REPORT.build)(&whole(&trace));
    assert_eq!(
        section.said[0].evidence,
        ["7 for which the kernel's buffers had no room"]
    );
    assert!(section.said[0].remedy.is_some());
}
