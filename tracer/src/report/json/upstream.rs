//! What a query's server asked of others.

use std::borrow::Cow;

use serde::Serialize;

use super::{End, micros};
use crate::{model::Upstream, report::names::rcode_name};

#[derive(Serialize)]
pub(super) struct UpstreamLine {
    serial: u64,
    asked: End,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_us: Option<f64>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rcode: Option<Cow<'static, str>>,
    queries: u32,
    waited_us: f64,
    inferred: bool,
}

impl From<&Upstream> for UpstreamLine {
    fn from(upstream: &Upstream) -> Self {
        Self {
            serial: upstream.serial,
            asked: upstream.asked.into(),
            latency_us: upstream.latency.map(micros),
            outcome: upstream.outcome.name(),
            rcode: upstream.rcode.map(rcode_name),
            queries: upstream.queries,
            waited_us: micros(upstream.waited),
            inferred: upstream.inferred,
        }
    }
}
