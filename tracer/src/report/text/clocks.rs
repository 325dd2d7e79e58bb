//! How far the clocks of several nodes are apart, in words.

use std::io::{self, Write};

use super::short;
use crate::model::ClockOffset;

/// A line for each node but the first.
pub(super) fn clocks(clocks: &[ClockOffset], out: &mut impl Write) -> io::Result<()> {
    for clock in clocks {
        let ClockOffset {
            node,
            reference,
            ahead_ns,
            uncertainty_ns,
            exchanges,
        } = clock;
        let time = |nanos: i64| short(std::time::Duration::from_nanos(nanos.unsigned_abs()));
        let (Some((least, most)), Some(doubt)) = (ahead_ns, uncertainty_ns) else {
            writeln!(
                out,
                "clocks: how far {node} and {reference} are apart is not known, for no exchange was seen on both: its times are its own"
            )?;
            continue;
        };
        let way = |nanos: i64| if nanos < 0 { "behind" } else { "ahead of" };
        let by = if least == most {
            format!("{} {}", time(*most), way(*most))
        } else {
            format!(
                "{} {} and up to {} {}",
                time(*least),
                way(*least),
                time(*most),
                way(*most)
            )
        };
        writeln!(
            out,
            "clocks: {node} is {by} {reference}, ± {}, by {exchanges} exchanges seen on both",
            time(*doubt)
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ahead_ns: Option<(i64, i64)>, expected: &str) {
        let clock = ClockOffset {
            node: "n2".into(),
            reference: "n1".into(),
            ahead_ns,
            uncertainty_ns: ahead_ns.map(|_| 20_000),
            exchanges: 7,
        };
        let mut out = Vec::new();
        clocks(&[clock], &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!("clocks: {expected}\n")
        );
    }

    #[test]
    fn an_offset_has_a_way_and_a_doubt() {
        check(
            Some((5_000_000, 5_000_000)),
            "n2 is 5.00 ms ahead of n1, ± 20.0 µs, by 7 exchanges seen on both",
        );
        check(
            Some((-5_000_000, 3_000_000)),
            "n2 is 5.00 ms behind and up to 3.00 ms ahead of n1, ± 20.0 µs, by 7 exchanges seen on both",
        );
        check(
            None,
            "how far n2 and n1 are apart is not known, for no exchange was seen on both: its times are its own",
        );
    }
}
