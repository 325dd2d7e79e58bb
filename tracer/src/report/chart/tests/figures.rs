//! What the charts draw, read off the shapes as a reader would: against the axes, and compared with the
//! model.

use std::collections::BTreeMap;

use super::*;
use crate::{
    model::tally::Tally,
    report::{
        chart::{
            frame::Field,
            heatmap::{columns, stretch},
            histogram::scale,
        },
        text::short,
    },
};

fn chart(trace: &Trace, name: &str) -> Chart {
    let mut charts = charts(&whole(trace)).into_iter();
    charts.find(|chart| chart.name == name).unwrap()
}

fn tally(trace: &Trace, kind: Kind) -> &Tally {
    &trace.breakdown.kinds[&kind]
}

/// Rectangles of an ink above `bottom`: left, right, top, bottom.
fn rects(chart: &Chart, ink: Ink, bottom: f64) -> Vec<Box4> {
    let shapes = chart.picture.shapes.iter();
    let rects = shapes.filter_map(|shape| match shape {
        Shape::Rect { from, to, ink: of } if *of == ink && to.1 <= bottom + 0.01 => {
            Some([from.0, to.0, from.1, to.1])
        }
        _ => None,
    });
    rects.collect()
}

/// The lines of an ink.
fn lines(chart: &Chart, ink: Ink) -> Vec<&[(f64, f64)]> {
    let shapes = chart.picture.shapes.iter();
    let lines = shapes.filter_map(|shape| match shape {
        Shape::Line {
            points, ink: of, ..
        } if *of == ink => Some(points.as_slice()),
        _ => None,
    });
    lines.collect()
}

/// How high one is, by the highest number beside the axis that ends at `bottom`.
fn unit(chart: &Chart, bottom: f64) -> f64 {
    let shapes = chart.picture.shapes.iter();
    let numbers = shapes.filter_map(|shape| match shape {
        Shape::Text {
            at: (_, y),
            text,
            anchor: Anchor::Right,
            ..
        } if *y < bottom => {
            let (number, factor) = match text.split_once(' ') {
                Some((number, "k")) => (number, 1e3),
                Some((number, "M")) => (number, 1e6),
                Some(_) => return None,
                None => (text.as_str(), 1.0),
            };
            Some((number.parse::<f64>().ok()? * factor, *y))
        }
        _ => None,
    });
    let (most, y) = numbers.max_by(|(a, _), (b, _)| a.total_cmp(b)).unwrap();
    (bottom - y) / most
}

fn near(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}

#[test]
fn percentiles_are_marked_at_the_models_times_and_named_with_them() {
    for (trace, kind) in [
        (sample(), Kind::Dns),
        (sample(), Kind::Tcp),
        (many(), Kind::Dns),
    ] {
        let tally = tally(&trace, kind);
        let scale = scale(&tally.latency);
        let histogram = chart(&trace, &format!("latency-{}", kind.name()));
        let cdf = chart(&trace, &format!("cdf-{}", kind.name()));
        let field = Field::of(cdf.picture.height);
        let curve = lines(&cdf, Ink::Series(0))[0];
        for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)] {
            let time = tally.at(quantile).unwrap();
            let words = format!("{name} {}", short(time));
            let x = field.x(scale.part(time));
            for chart in [&histogram, &cdf] {
                let said = texts(chart).iter().any(|(_, text)| **text == words);
                assert!(said, "{}: {words}", chart.name);
            }
            let marks = lines(&histogram, Ink::Series(1));
            assert!(marks.iter().any(|line| near(line[0].0, x, 0.01)), "{words}");
            let points = rects(&cdf, Ink::Series(1), field.bottom);
            let point = points.iter().find(|point| {
                near(f64::midpoint(point[0], point[1]), x, 0.01)
                    && near(f64::midpoint(point[2], point[3]), field.y(quantile), 0.01)
            });
            assert!(point.is_some(), "{words}: {points:?}");
            // The curve reaches that part within the bucket in which the percentile lies.
            let from = curve.iter().rposition(|point| point.0 < x - 0.01).unwrap();
            let reached = curve[from..].iter().take_while(|point| point.0 <= x + 0.01);
            let next = curve.iter().find(|point| point.0 > x + 0.01);
            let heights: Vec<_> = reached.chain(next).map(|point| point.1).collect();
            let (y, high) = (
                field.y(quantile),
                heights.iter().copied().fold(f64::MAX, f64::min),
            );
            assert!(
                heights[0] >= y - 0.01 && high <= y + 0.01,
                "{words}: {heights:?}"
            );
        }
    }
}

#[test]
fn bars_of_a_histogram_add_up_to_the_answered() {
    for trace in [sample(), many()] {
        for kind in [Kind::Dns, Kind::Tcp] {
            let chart = chart(&trace, &format!("latency-{}", kind.name()));
            let bottom = Field::of(chart.picture.height).bottom;
            let bars = rects(&chart, Ink::Series(0), bottom);
            let unit = unit(&chart, bottom);
            let sum: f64 = bars.iter().map(|bar| (bar[3] - bar[2]) / unit).sum();
            // What is little is drawn a pixel and a half high.
            let more = number(bars.len() as u64) * 1.5 / unit;
            let answered = number(tally(&trace, kind).latency.count());
            assert!(
                sum >= answered - 0.01 && sum <= answered + more,
                "{sum} of {answered}"
            );
        }
    }
}

#[test]
fn failures_are_as_high_as_their_legend_says() {
    for trace in [sample(), many()] {
        let chart = chart(&trace, "failures");
        let bottom = 348.0;
        let unit = unit(&chart, bottom);
        let mut drawn = BTreeMap::new();
        for nth in 0..7 {
            let bars = rects(&chart, Ink::Series(nth), bottom);
            let sum: f64 = bars.iter().map(|bar| (bar[3] - bar[2]) / unit).sum();
            drawn.insert(nth, sum);
        }
        let texts = texts(&chart);
        let mut told = 0.0;
        for nth in 0..7 {
            // The legend's square, and the words behind it.
            let squares = rects(&chart, Ink::Series(nth), chart.picture.height);
            let Some(square) = squares.iter().find(|square| square[2] > bottom + 20.0) else {
                assert!(near(drawn[&nth], 0.0, 0.01), "a colour without a legend");
                continue;
            };
            let words = texts.iter().find(|(text, _)| {
                text[0] > square[0] && text[2] < square[3] && text[3] > square[2]
            });
            let count = words.unwrap().1.split(' ').next().unwrap();
            let count: f64 = count.parse().unwrap();
            assert!(near(drawn[&nth], count, 0.01), "{words:?}: {drawn:?}");
            told += count;
        }
        let failed: u64 = trace.breakdown.kinds.values().map(Tally::failed).sum();
        assert!(near(told, number(failed), 0.01), "{told} of {failed}");
    }
}

#[test]
fn the_line_of_counts_encloses_all_exchanges_and_the_bars_the_failed() {
    for trace in [sample(), many()] {
        let chart = chart(&trace, "heatmap-dns");
        let field = Field {
            top: 420.0,
            ..Field::of(chart.picture.height)
        };
        let (columns, width) = columns(&trace.breakdown.series, 120);
        let stretch = stretch(&columns, width);
        #[expect(clippy::cast_precision_loss, reason = "some hours in ns")]
        let seconds = (stretch.to.0 - stretch.from.0) as f64 / 1e9;
        let each = seconds / (field.right - field.left) / unit(&chart, field.bottom);
        let line = lines(&chart, Ink::Series(0))[0];
        let area: f64 = line
            .windows(2)
            .map(|ends| (ends[1].0 - ends[0].0) * (field.bottom - ends[0].1) * each)
            .sum();
        let tally = tally(&trace, Kind::Dns);
        assert!(
            near(area, number(tally.count), 0.5),
            "{area} of {}",
            tally.count
        );
        let bars = rects(&chart, Ink::Series(1), field.bottom);
        let bars = bars.iter().filter(|bar| near(bar[3], field.bottom, 0.01));
        let area: f64 = bars
            .clone()
            .map(|bar| (bar[1] - bar[0]) * (bar[3] - bar[2]) * each)
            .sum();
        let least: f64 = bars.map(|bar| (bar[1] - bar[0]) * 1.5 * each).sum();
        let failed = number(tally.failed());
        assert!(
            area >= failed - 0.5 && area <= failed + least,
            "{area} of {failed}"
        );
    }
}

#[test]
fn each_stage_begins_where_the_one_before_ends_and_is_as_long_as_its_time() {
    let trace = sample();
    let chart = chart(&trace, "stages-dns");
    let mut bars: Vec<Box4> = (0..8)
        .flat_map(|nth| rects(&chart, Ink::Series(nth), chart.picture.height - 40.0))
        .collect();
    bars.sort_by(|a, b| a[2].total_cmp(&b[2]));
    for (quantile, left, right) in [(0.5, 196.0, 500.0), (0.99, 500.0, WIDTH)] {
        let mut end = left;
        let stages = trace.breakdown.stages[&Kind::Dns].iter();
        let stages: Vec<_> = stages.map(|(_, spread)| spread).collect();
        let whole: Duration = stages
            .iter()
            .filter_map(|spread| spread.quantile(quantile))
            .sum();
        let length = if quantile < 0.9 {
            490.0 - 66.0 - left
        } else {
            794.0 - 66.0 - left
        };
        let panel = bars.iter().filter(|bar| bar[0] >= left && bar[1] <= right);
        let mut count = 0;
        for bar in panel {
            assert!(near(bar[0], end, 2.01), "{bar:?} after {end}");
            let text = texts(&chart);
            let text = text.iter().find(|(text, _)| {
                text[0] > bar[1]
                    && text[0] < bar[1] + 8.0
                    && near(text[2] + text[3], bar[2] + bar[3], 0.5)
            });
            let said = text.unwrap().1;
            let fits = stages
                .iter()
                .filter_map(|spread| spread.quantile(quantile))
                .find(|time| {
                    let expected = (time.as_secs_f64() / whole.as_secs_f64() * length).max(2.0);
                    short(*time).to_string() == said && near(bar[1] - bar[0], expected, 0.01)
                });
            assert!(fits.is_some(), "{said}: {bar:?}");
            end = bar[0]
                + if bar[1] - bar[0] > 2.01 {
                    bar[1] - bar[0]
                } else {
                    0.0
                };
            count += 1;
        }
        assert_eq!(count, stages.len());
    }
}

#[test]
fn bars_of_a_services_backends_add_up_to_the_whole() {
    let trace = sample();
    let chart = chart(&trace, "shares");
    let bars = rects(&chart, Ink::Series(0), chart.picture.height);
    let shares: Vec<_> = bars
        .iter()
        .map(|bar| (bar[1] - bar[0]) / (690.0 - 320.0))
        .collect();
    // Two Services of DNS, a backend each; 55 and 5 of 60 connections.
    let mut expected = vec![55.0 / 60.0, 5.0 / 60.0, 1.0, 1.0];
    for share in &shares {
        let at = expected
            .iter()
            .position(|expected| near(*expected, *share, 1e-6));
        expected.remove(at.unwrap_or_else(|| panic!("{share} in {shares:?}")));
    }
    assert!(expected.is_empty(), "{expected:?} are not drawn");
    let marks = rects(&chart, Ink::Series(1), chart.picture.height);
    assert!(marks.iter().all(|mark| {
        let at = (f64::midpoint(mark[0], mark[1]) - 320.0) / (690.0 - 320.0);
        near(at, 0.5, 1e-6) || near(at, 1.0, 1e-6)
    }));
}
