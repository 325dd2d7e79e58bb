//! `Whole`: all that is known when a trace has ended, and the words in which reports speak of it.

use std::net::SocketAddr;

use super::{
    names::rcode_name,
    section::{Cell, plural, share},
};
use crate::model::{
    Finding, Protocol, Trace, WallNs,
    breakdown::Breakdown,
    journey::Step,
    tally::{Kind, Tally},
};

/// What reports and charts are drawn from.
#[derive(Clone, Copy, Debug)]
pub struct Whole<'a> {
    /// What the rows add up to.
    pub trace: &'a Trace,
    /// How long was traced, in s.
    pub seconds: f64,
    /// What was found wrong by those who look for causes.
    pub findings: &'a [Finding],
    /// What could not be seen, in words.
    pub unseen: &'a [String],
}

impl<'a> Whole<'a> {
    /// What the rows add up to, by all that is told apart.
    pub fn breakdown(&self) -> &'a Breakdown {
        &self.trace.breakdown
    }

    /// `2026-11-25 20:11:31 – 20:11:39 UTC`, the second date left out where it is the same;
    /// `nothing seen` without rows. The same on any machine.
    pub fn range(&self) -> String {
        let Some((first, last)) = self.breakdown().range else {
            return "nothing seen".to_owned();
        };
        let (first, last) = (utc(first), utc(last));
        let (date, time) = first.split_at(10);
        let same_day = last.get(..10) == Some(date);
        let end = if same_day {
            last.get(11..).unwrap_or("")
        } else {
            &last
        };
        format!("{date}{time} – {end} UTC")
    }

    /// What was asked: the Service's port by the name that it had last, and the address. Over TCP or
    /// UDP it may be two ports of the Service; where `kind` does not tell, it is UDP's.
    pub fn service(&self, kind: Kind, asked: SocketAddr) -> String {
        let tcp = (Protocol::Tcp, asked);
        let named = match kind {
            Kind::Tcp => self.trace.services.get(&tcp),
            Kind::Dns | Kind::Udp => None,
        };
        match named.or_else(|| self.trace.dns_service(asked)) {
            Some(port) => format!("{port} {asked}"),
            None => asked.to_string(),
        }
    }

    /// An address, and the pod there where one is known.
    pub fn address(&self, address: SocketAddr) -> String {
        match self.breakdown().pod(address.ip()) {
            Some(pod) => format!("{pod} {address}"),
            None => address.to_string(),
        }
    }
}

/// `2026-11-25 20:11:31`, without a fraction.
pub(super) fn utc(wall: WallNs) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(wall.0)).unwrap_or_default();
    let time = jiff::tz::TimeZone::UTC.to_datetime(time);
    format!(
        "{} {:02}:{:02}:{:02}",
        time.date(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// What a kind's exchanges are called, one and many.
pub(super) fn words(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Dns => ("query", "queries"),
        Kind::Tcp => ("connection", "connections"),
        Kind::Udp => ("flow", "flows"),
    }
}

/// `2275 queries`.
pub(super) fn exchanges(kind: Kind, count: u64) -> String {
    let (one, many) = words(kind);
    plural(count, one, many)
}

/// `answer backend`.
pub(super) fn step_name(step: Step) -> String {
    format!("{} {}", step.leg.name(), step.stage.name())
}

/// Rcodes and how often each came.
pub(super) fn rcodes(tally: &Tally) -> Cell {
    let rcodes = tally.rcodes.iter();
    let mut counts: Vec<_> = rcodes
        .map(|(&rcode, &count)| (rcode_name(rcode).into_owned(), count))
        .collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    Cell::Counts(counts)
}

/// Causes and how often each was met.
pub(super) fn causes(tally: &Tally) -> Cell {
    let causes = tally.causes.commonest().into_iter();
    Cell::Counts(
        causes
            .map(|(cause, count)| (cause.to_owned(), count))
            .collect(),
    )
}

/// `37 %`, with a digit behind the point where it matters.
pub(super) fn percent(part: u64, whole: u64) -> String {
    let percent = share(part, whole) * 100.0;
    if percent > 0.0 && percent < 0.05 {
        "less than 0.1 %".to_owned()
    } else if percent >= 99.95 && part != whole {
        "more than 99.9 %".to_owned()
    } else if percent > 0.0 && !(1.0..=99.0).contains(&percent) && part != whole {
        format!("{percent:.1} %")
    } else {
        format!("{percent:.0} %")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_keep_a_digit_where_rounding_would_say_all_or_none() {
        let check = |part, whole, expected| assert_eq!(percent(part, whole), expected);
        check(1, 3, "33 %");
        check(1, 1000, "0.1 %");
        check(999, 1000, "99.9 %");
        check(1, 2270, "less than 0.1 %");
        check(2269, 2270, "more than 99.9 %");
        check(0, 1000, "0 %");
        check(5, 5, "100 %");
        check(0, 0, "0 %");
    }
}
