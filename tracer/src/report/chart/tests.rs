//! Charts of no exchange, of one and of many: shapes lie within the picture, words meet neither each
//! other nor what is drawn. What they draw is in `tests/figures.rs`.

mod figures;

use std::{net::SocketAddr, time::Duration};

use super::{
    paint::text_width,
    picture::{Anchor, Ink, Shape, WIDTH},
    *,
};
use crate::{
    model::{Connection, Dns, KtimeNs, Named, Outcome, Row, Trace, WallNs},
    report::tests::{connection, dns, failed, sample, whole},
};

/// Left, right, top, bottom.
type Box4 = [f64; 4];

/// From where to where each text goes.
fn texts(chart: &Chart) -> Vec<(Box4, &str)> {
    let shapes = chart.picture.shapes.iter();
    let texts = shapes.filter_map(|shape| match shape {
        Shape::Text {
            at: (x, y),
            text,
            size,
            anchor,
            ..
        } => {
            let width = text_width(text, *size);
            let left = match anchor {
                Anchor::Left => *x,
                Anchor::Centre => x - width / 2.0,
                Anchor::Right => x - width,
            };
            let bounds = [left, left + width, y - size * 0.35, y + size * 0.35];
            Some((bounds, text.as_str()))
        }
        _ => None,
    });
    texts.collect()
}

fn meet(a: &Box4, b: &Box4) -> bool {
    a[0] < b[1] && b[0] < a[1] && a[2] < b[3] && b[2] < a[3]
}

/// Whether a line from one point to another goes through: in steps of less than a letter.
fn goes_through(from: (f64, f64), to: (f64, f64), within: &Box4) -> bool {
    (0..=400).map(|step| f64::from(step) / 400.0).any(|part| {
        let (x, y) = (
            from.0 + (to.0 - from.0) * part,
            from.1 + (to.1 - from.1) * part,
        );
        x > within[0] && x < within[1] && y > within[2] && y < within[3]
    })
}

/// Everything that a chart may do wrong without a look at its figures.
fn check(trace: &Trace) {
    for chart in charts(&whole(trace)) {
        let name = &chart.name;
        let texts = texts(&chart);
        for (nth, (a, text)) in texts.iter().enumerate() {
            let [left, right, top, bottom] = a;
            let within =
                *left >= 0.0 && *right <= WIDTH && *top >= 0.0 && *bottom <= chart.picture.height;
            assert!(within, "{name}: {text:?} leaves the picture: {a:?}");
            for (b, other) in &texts[nth + 1..] {
                assert!(!meet(a, b), "{name}: {text:?} and {other:?} meet");
            }
        }
        for shape in &chart.picture.shapes {
            let points = match shape {
                Shape::Rect { from, to, .. } => {
                    let bounds = [from.0, to.0, from.1, to.1];
                    let over = texts.iter().find(|(text, _)| meet(text, &bounds));
                    assert!(over.is_none(), "{name}: {shape:?} lies on {over:?}");
                    vec![*from, *to]
                }
                Shape::Line { points, ink, .. } => {
                    for ends in points.windows(2).filter(|_| *ink != Ink::Grid) {
                        let crosses =
                            |(text, _): &&(Box4, &str)| goes_through(ends[0], ends[1], text);
                        let over = texts.iter().find(crosses);
                        assert!(over.is_none(), "{name}: a line goes through {over:?}");
                    }
                    points.clone()
                }
                Shape::Text { .. } => continue,
            };
            for (x, y) in points {
                assert!(
                    (0.0..=WIDTH).contains(&x) && (0.0..=chart.picture.height).contains(&y),
                    "{name}: {shape:?}"
                );
            }
        }
    }
}

/// Hours of queries and connections, of forty Services with up to thirty backends of long addresses, that
/// fail in more ways than there are colours, in words that XML would take for its own.
fn many() -> Trace {
    let mut trace = Trace::default();
    let mut seed = 88_172_645_463_325_252_u64;
    let mut below = |end: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % end
    };
    for serial in 1..=20_000_u64 {
        let at = serial * 500_000_000;
        let wall = WallNs(dns(0, "", 0, 20).wall.0 + i64::try_from(at).unwrap());
        let service = below(40);
        let asked: SocketAddr = format!("[fd00:10:96:1234:5678::{service:x}]:443")
            .parse()
            .unwrap();
        let backend = format!(
            "[fd00:10:244:1234:5678:9abc:def0:{:x}]:8443",
            below(service + 1)
        );
        let micros = 30 + below(400) * below(400) * (1 + below(20));
        let row = match below(8) {
            0 => {
                let cause = format!(
                    "<&{}> said \"no\" & a good many other words on top of that, up to the edge of the picture",
                    below(14)
                );
                Row::Dns(Dns {
                    wall,
                    ..failed(serial, Outcome::Unanswered, &cause)
                })
            }
            1..5 => Row::Dns(Dns {
                wall,
                ktime: KtimeNs(at),
                latency: Some(Duration::from_micros(micros)),
                ..dns(serial, "web.example.test", 0, 60)
            }),
            _ => Row::Connection(Connection {
                wall,
                asked,
                latency: Some(Duration::from_micros(micros / 50)),
                ..connection(serial, &backend)
            }),
        };
        trace.add(&row, &Named::default());
    }
    trace
}

/// Queries that all took that long.
fn alike(count: u64, latency: Duration) -> Trace {
    let mut trace = Trace::default();
    for serial in 0..count {
        let row = Dns {
            latency: Some(latency),
            ..dns(serial, "web.example.test", 0, 60)
        };
        trace.add(&Row::Dns(row), &Named::default());
    }
    trace
}

#[test]
fn words_stay_within_the_picture_and_meet_nothing() {
    check(&sample());
}

#[test]
fn nothing_and_a_single_exchange_are_drawn_too() {
    check(&Trace::default());
    check(&alike(1, Duration::from_micros(187)));
}

#[test]
fn hours_of_much_traffic_are_as_legible() {
    check(&many());
}

#[test]
fn percentiles_at_either_end_of_the_axis_keep_their_names() {
    for nanos in [1, 9, 10, 999, 1_000, 9_990_000, 99_900_000, 599_999_999_999] {
        check(&alike(1_000, Duration::from_nanos(nanos)));
    }
    // Half of them at one end, a tenth in the middle, the rest at the other.
    let mut trace = alike(500, Duration::from_micros(11));
    for (count, micros) in [(400, 99_000), (99, 5_000_000), (1, 9_990_000)] {
        for serial in 0..count {
            let latency = Some(Duration::from_micros(micros));
            let row = Dns {
                latency,
                ..dns(serial, "web.example.test", 0, 60)
            };
            trace.add(&Row::Dns(row), &Named::default());
        }
    }
    check(&trace);
}

#[test]
fn every_chart_says_its_question_and_its_time() {
    for chart in charts(&whole(&sample())) {
        assert!(chart.title.ends_with('?'), "{}", chart.title);
        let texts = texts(&chart);
        assert!(
            texts[1].1.contains("2026-11-25 20:11:30 – 20:11:37 UTC"),
            "{texts:?}"
        );
    }
}

/// Holds XML to what a parser holds it to: tags that match, no bare `<` or `&`, quoted attributes.
fn well_formed(xml: &str) -> Result<(), String> {
    let mut open = Vec::new();
    for (nth, part) in xml.split('<').enumerate() {
        let Some((tag, text)) = part.split_once('>') else {
            let blank = nth == 0 && part.trim().is_empty();
            return if blank {
                continue;
            } else {
                Err(format!("no tag: {part:?}"))
            };
        };
        for reference in text.split('&').skip(1).chain(tag.split('&').skip(1)) {
            let name = reference.split_once(';').map(|(name, _)| name);
            let known = ["lt", "gt", "amp", "quot", "apos"];
            if !name.is_some_and(|name| known.contains(&name) || name.starts_with('#')) {
                return Err(format!("a bare & in {part:?}"));
            }
        }
        let name = tag.split([' ', '/', '\n']).next().unwrap_or_default();
        if let Some(closed) = tag.strip_prefix('/') {
            if open.pop() != Some(closed) {
                return Err(format!("</{closed}> closes nothing"));
            }
        } else if !tag.starts_with(['?', '!']) && !tag.ends_with('/') {
            open.push(name);
        }
        if tag.matches('"').count() % 2 != 0 || (tag.contains('=') && !tag.contains('"')) {
            return Err(format!("attributes of <{tag}>"));
        }
    }
    if open.is_empty() {
        Ok(())
    } else {
        Err(format!("{open:?} are not closed"))
    }
}

#[test]
fn every_svg_is_well_formed_whatever_the_names_in_it() {
    assert!(well_formed("<a><b></a></b>").is_err() && well_formed("<a>1 & 2</a>").is_err());
    for trace in [sample(), Trace::default(), many()] {
        for chart in charts(&whole(&trace)) {
            for svg in [chart.svg(None), chart.svg(Some(Theme::Dark))] {
                assert_eq!(well_formed(&svg), Ok(()), "{}", chart.name);
            }
        }
    }
}

#[test]
fn an_svg_is_the_same_each_time_and_dark_where_the_browser_is() {
    let trace = sample();
    let svg = |theme| charts(&whole(&trace))[0].svg(theme);
    assert_eq!(svg(None), svg(None));
    assert!(svg(None).contains("prefers-color-scheme: dark"));
    assert!(
        !svg(Some(Theme::Dark)).contains("#FFFFFF"),
        "nothing of the light theme is left"
    );
}

#[test]
fn a_png_is_1600_pixels_wide() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("chart.png");
    charts(&whole(&sample()))[0]
        .png(Theme::Dark, &path)
        .unwrap();
    let png = std::fs::read(&path).unwrap();
    // PNG, section 11.2.2: the width follows signature, length and type of the first chunk.
    assert_eq!(
        (&png[1..4], &png[16..20]),
        (&b"PNG"[..], &1600_u32.to_be_bytes()[..])
    );
}
