//! Waterfalls, as they are printed.

use std::sync::Arc;

use super::*;
use crate::model::{
    Ifindex, KtimeNs, NetnsInode, Site,
    journey::{Flows, Leg, Passed, Unseen},
};

fn flow(dst: &str) -> Flow {
    Flow {
        src: "192.0.2.1:40000".parse().unwrap(),
        dst: dst.parse().unwrap(),
    }
}

fn point(micros: u64, netns: u32, ifindex: u32, flow: u8) -> Point {
    Point {
        ktime: KtimeNs(micros * 1000),
        netns: NetnsInode(netns),
        ifindex: Ifindex(ifindex),
        side: Side::Queued,
        flow,
    }
}

fn named() -> Named {
    let site = |netns, ifindex, name: &str, device: Option<&str>| Site {
        netns: NetnsInode(netns),
        ifindex: Ifindex(ifindex),
        name: Arc::from(name),
        device: device.map(Arc::from),
    };
    Named {
        sites: Some(
            [
                site(1, 2, "client", Some("eth0")),
                site(2, 10, "node", Some("veth-client")),
                site(2, 11, "node", Some("veth-server")),
                site(3, 2, "cni-1b2c3d4e-5f60-7182-93a4-b5c6d7e8f900", None),
            ]
            .into(),
        ),
        ..Named::default()
    }
}

fn journey(passed: &[(Leg, Stage, Point)]) -> Journey {
    let stages = passed.iter().map(|&(leg, stage, end)| Passed {
        step: Step { leg, stage },
        end,
    });
    Journey {
        start: point(0, 1, 2, 0),
        stages: stages.collect(),
        unseen: Unseen::new(),
        flows: Flows::from_vec(vec![flow("10.96.0.10:53"), flow("192.0.2.53:53")]),
        lost: None,
        left_out: 0,
    }
}

fn shown(journey: &Journey, colour: bool) -> String {
    let mut out = Vec::new();
    waterfall(journey, None, &named(), Paint(colour), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn usual() -> Journey {
    journey(&[
        (Leg::Query, Stage::ClientLink, point(10, 2, 10, 0)),
        (Leg::Query, Stage::Node, point(30, 2, 11, 1)),
        (Leg::Query, Stage::BackendLink, point(40, 3, 2, 1)),
        (Leg::Answer, Stage::Backend, point(160, 3, 2, 1)),
        (Leg::Answer, Stage::BackendLink, point(170, 2, 11, 1)),
        (Leg::Answer, Stage::Node, point(190, 2, 10, 0)),
        (Leg::Answer, Stage::ClientLink, point(200, 1, 2, 0)),
    ])
}

#[test]
fn a_waterfall_has_a_line_a_stage_and_bars_that_follow_each_other() {
    let expected = "
  query    client_link     █                    10.0 µs  client eth0 → node veth-client
           node             ██                  20.0 µs  → veth-server, DNAT
           backend_link       █                 10.0 µs  → cni-1b2c3d…c6d7e8f900 ifindex 2
  answer   backend             ████████████      120 µs  cni-1b2c3d…c6d7e8f900 ifindex 2
           backend_link                    █    10.0 µs  → node veth-server
           node                             ██  20.0 µs  → veth-client, DNAT undone
           client_link                        █ 10.0 µs  → client eth0
";
    let shown = shown(&usual(), false);
    assert_eq!(shown, expected.trim_start_matches('\n'));
    assert!(shown.lines().all(|line| line.chars().count() <= 100));
}

#[test]
fn colours_come_only_when_asked_for() {
    assert!(!shown(&usual(), false).contains('\x1b'));
    assert!(shown(&usual(), true).contains("\x1b[31m"));
}

#[test]
fn what_took_next_to_nothing_is_still_drawn() {
    let shown = shown(
        &journey(&[
            (Leg::Query, Stage::ClientLink, point(1, 2, 10, 0)),
            (Leg::Query, Stage::Node, point(1_000_000, 2, 11, 1)),
        ]),
        false,
    );
    let bars: Vec<_> = shown.lines().map(|line| line.contains('▏')).collect();
    assert_eq!(bars, [true, false], "{shown}");
}

#[test]
fn what_was_unseen_or_lost_is_said_below() {
    let mut seen = journey(&[]);
    seen.lost = Some(point(5, 2, 10, 0));
    seen.unseen.push(Step {
        leg: Leg::Answer,
        stage: Stage::Backend,
    });
    assert_eq!(
        shown(&seen, false),
        "  seen at client eth0 only\n  sent first and last seen at node veth-client\n  not seen apart: answer backend\n"
    );
}
