//! How far kube-proxy was behind what the API server said, for people.

use std::io::{self, Write};

use super::short;
use crate::model::{
    lag::{LagTotals, Slowest},
    trace::Latency,
};

/// Nothing where no endpoint became ready.
pub(super) fn lag(lag: &LagTotals, out: &mut impl Write) -> io::Result<()> {
    if lag.changes == 0 {
        return Ok(());
    }
    let changes = match lag.changes {
        1 => "1 endpoint".to_owned(),
        many => format!("{many} endpoints"),
    };
    let unwritten = match lag.unwritten {
        0 => String::new(),
        count => format!(", {count} of them never in the rules of this node"),
    };
    writeln!(
        out,
        "kube-proxy: {changes} became ready while this was watched{unwritten}"
    )?;
    let polled = lag.polled.map_or(String::new(), |each| {
        format!(", by polling every {}", short(each))
    });
    let after = format!("after the API server's word{polled}");
    spread("in rules", &lag.written, &after, out)?;
    if let Some(Slowest {
        service,
        endpoint,
        took,
    }) = &lag.slowest
    {
        let took = short(*took);
        writeln!(out, "    slowest   {service} → {endpoint}, {took}")?;
    }
    spread("asked", &lag.asked, "after that, at its first packet", out)
}

fn spread(title: &str, latency: &Latency, after: &str, out: &mut impl Write) -> io::Result<()> {
    let at = |quantile| latency.quantile(quantile);
    let (Some(p50), Some(p99), Some(max)) = (at(0.5), at(0.99), at(1.0)) else {
        return Ok(());
    };
    let (p50, p99, max) = (short(p50), short(p99), short(max));
    let count = latency.count();
    writeln!(
        out,
        "    {title:<8}  {count}: p50 {p50}, p99 {p99}, max {max} {after}"
    )
}

/// The end of a watch.
pub(in crate::report) fn watched(
    looks: u64,
    findings: usize,
    totals: Option<&LagTotals>,
    out: &mut impl Write,
) -> io::Result<()> {
    let left = match findings {
        0 => "nothing is wrong at the end".to_owned(),
        1 => "1 finding is left".to_owned(),
        many => format!("{many} findings are left"),
    };
    writeln!(out, "looked {looks} times: {left}")?;
    totals.map_or(Ok(()), |totals| lag(totals, out))
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use super::*;
    use crate::model::cluster::ObjectName;

    #[test]
    fn the_lag_is_told_in_four_lines() {
        let endpoint = SocketAddr::from(([10, 244, 1, 2], 8080));
        let mut totals = LagTotals {
            changes: 3,
            unwritten: 1,
            slowest: Some(Slowest {
                service: ObjectName {
                    namespace: "shop".into(),
                    name: "web".into(),
                },
                endpoint,
                took: Duration::from_secs(1),
            }),
            ..LagTotals::default()
        };
        totals.written.add(Duration::from_secs(1));
        totals.written.add(Duration::from_millis(20));
        totals.asked.add(Duration::from_millis(5));
        let mut out = Vec::new();
        watched(7, 0, Some(&totals), &mut out).unwrap();
        let expected = "looked 7 times: nothing is wrong at the end
kube-proxy: 3 endpoints became ready while this was watched, 1 of them never in the rules of this node
    in rules  2: p50 20.1 ms, p99 1.00 s, max 1.00 s after the API server's word
    slowest   shop/web → 10.244.1.2:8080, 1.00 s
    asked     1: p50 5.02 ms, p99 5.02 ms, max 5.02 ms after that, at its first packet
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
