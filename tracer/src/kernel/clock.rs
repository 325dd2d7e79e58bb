//! The two clocks, read at one moment: the kernel's, which records carry, and the wall's, which
//! people read. The only reader of time; everything behind it takes time from events.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::model::{Event, KtimeNs, WallNs};

/// Now by `CLOCK_MONOTONIC`, the clock of `bpf_ktime_get_ns`.
#[expect(
    unsafe_code,
    reason = "the standard library's Instant does not tell its nanoseconds"
)]
pub fn ktime() -> KtimeNs {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a timespec to write to; the clock exists on every Linux.
    unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now);
    }
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    KtimeNs(seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// Both clocks now, as the event that lets time pass.
pub fn tick() -> Event<'static> {
    tick_at(ktime())
}

/// Both clocks at `then`, a moment ago: where records of later moments wait to be read, time must
/// not pass them.
pub fn tick_at(then: KtimeNs) -> Event<'static> {
    let wall = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let wall = wall.saturating_sub(ktime() - then);
    let wall = WallNs(i64::try_from(wall.as_nanos()).unwrap_or(i64::MAX));
    Event::Tick { ktime: then, wall }
}
