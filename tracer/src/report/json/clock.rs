//! How far clocks are apart, as JSON.

use serde::Serialize;

use crate::model::ClockOffset;

#[derive(Serialize)]
pub(super) struct ClockSummary<'a> {
    node: &'a str,
    reference: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ahead_us: Option<Ahead>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uncertainty_us: Option<f64>,
    exchanges: u64,
}

#[derive(Serialize)]
struct Ahead {
    least: f64,
    most: f64,
}

impl<'a> ClockSummary<'a> {
    pub(super) fn of(clock: &'a ClockOffset) -> Self {
        Self {
            node: &clock.node,
            reference: &clock.reference,
            ahead_us: clock.ahead_ns.map(|(least, most)| Ahead {
                least: micros(least),
                most: micros(most),
            }),
            uncertainty_us: clock.uncertainty_ns.map(micros),
            exchanges: clock.exchanges,
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nanoseconds of centuries lose less than the offset's doubt"
)]
fn micros(nanos: i64) -> f64 {
    nanos as f64 / 1e3
}
