//! One exchange after the other, of one client and one server, as benchmarks want them.

use std::time::Duration;

use super::facts::Exchange;

/// Exchange `number` of a benchmark, which asks for `name`, from one of `ports` ports.
pub(crate) fn steady(number: u64, ports: u16, name: &str) -> Exchange<'_> {
    let low = u16::try_from(number & 0xffff).unwrap_or_default();
    Exchange {
        client: ([192, 0, 2, 1], 40_000 + low % ports).into(),
        vip: ([10, 96, 0, 10], 53).into(),
        backend: ([192, 0, 2, 53], 53).into(),
        id: low,
        name,
        qtype: 1,
        answer: 0x8180,
        hop: Duration::from_micros(5),
        server: Duration::ZERO,
    }
}
