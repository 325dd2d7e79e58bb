//! How a Service's backends share its exchanges: a bar for each, with a mark at an even share.

use std::cmp::Reverse;

use super::picture::{Anchor, Ink, Picture, cut, cut_middle};
use crate::report::{
    Whole,
    section::share,
    services::{Backends, by_service, expected_share},
    whole::exchanges,
};

/// Most services, and most backends of each.
const SERVICES: usize = 8;
const BACKENDS: usize = 10;

const LINE: f64 = 22.0;
const LEFT: f64 = 320.0;
const RIGHT: f64 = 690.0;

pub(super) fn picture(whole: &Whole<'_>) -> Picture {
    let services = by_service(whole);
    let mut services: Vec<_> = services
        .into_iter()
        .filter_map(|(key, mut backends)| {
            backends.retain(|backend, _| backend.is_some());
            let count: u64 = backends.values().map(|tally| tally.count).sum();
            let expected = expected_share(&backends)?;
            Some((key, backends, count, expected))
        })
        .collect();
    services.sort_by_key(|(_, _, count, _)| Reverse(*count));
    let known = services.len();
    services.truncate(SERVICES);
    let lines = services
        .iter()
        .map(|(_, backends, ..)| backends.len().min(BACKENDS + 1));
    let lines = lines.sum::<usize>().max(3);
    let height = 104.0
        + f64::from(u32::try_from(services.len()).unwrap_or(0)) * 34.0
        + f64::from(u32::try_from(lines).unwrap_or(0)) * LINE
        + 56.0;
    let left_out = known - services.len();
    let left_out = if left_out > 0 {
        format!(", {left_out} services of fewer left out")
    } else {
        String::new()
    };
    let under = format!("{}{left_out}", whole.range());
    let title = "Do backends share their Services' load evenly?";
    let mut picture = Picture::new(title, &under, height);
    if services.is_empty() {
        let why = "no Service with backends was asked";
        picture.text((400.0, height / 2.0), why, Anchor::Centre, Ink::Dim);
        return picture;
    }
    for percent in [0_u32, 25, 50, 75, 100] {
        let x = at(f64::from(percent) / 100.0);
        picture.line(vec![(x, 84.0), (x, height - 48.0)], 1, Ink::Grid);
        picture.text(
            (x, height - 36.0),
            &format!("{percent} %"),
            Anchor::Centre,
            Ink::Dim,
        );
    }
    picture.text(
        (780.0, height - 14.0),
        "share of the service's exchanges; the mark is an even share",
        Anchor::Right,
        Ink::Dim,
    );
    let mut y = 90.0;
    for ((kind, asked), backends, count, expected) in services {
        y += 20.0;
        let name = whole.service(kind, asked);
        let name = format!("{} {name}, {}", kind.name(), exchanges(kind, count));
        picture.text((16.0, y), &cut(&name, 90), Anchor::Left, Ink::Text);
        y = bars(&mut picture, whole, backends, count, expected, y) + 14.0;
    }
    picture
}

/// A bar for each backend under `y`; returns how far down they reach.
fn bars(
    picture: &mut Picture,
    whole: &Whole<'_>,
    backends: Backends<'_>,
    count: u64,
    expected: f64,
    mut y: f64,
) -> f64 {
    let mut heaviest: Vec<_> = backends.into_iter().collect();
    heaviest.sort_by_key(|(backend, tally)| (Reverse(tally.count), *backend));
    let more = heaviest.len().saturating_sub(BACKENDS);
    for (backend, tally) in heaviest.into_iter().take(BACKENDS) {
        y += LINE;
        let name = backend.map(|backend| whole.address(backend));
        let name = cut_middle(&name.unwrap_or_default(), 36);
        picture.text((LEFT - 8.0, y), &name, Anchor::Right, Ink::Dim);
        let part = share(tally.count, count);
        let end = at(part).max(LEFT + 1.0);
        picture.rect((LEFT, y - 7.0), (end, y + 7.0), Ink::Series(0));
        let mark = at(expected);
        picture.rect(
            (mark - 1.0, y - 10.0),
            (mark + 1.0, y + 10.0),
            Ink::Series(1),
        );
        let text = format!("{:.0} %, {}", part * 100.0, tally.count);
        let beside = at(part.max(expected)) + 8.0;
        picture.text((beside, y), &text, Anchor::Left, Ink::Text);
    }
    if more > 0 {
        y += LINE;
        let more = format!("and {more} more");
        picture.text((LEFT - 8.0, y), &more, Anchor::Right, Ink::Dim);
    }
    y
}

fn at(part: f64) -> f64 {
    LEFT + (RIGHT - LEFT) * part
}
