//! How far a command is that prints nothing for longer than a second; on a terminal only.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use tokio::time::Instant;

/// How often the line is written anew.
const EVERY: Duration = Duration::from_millis(250);

/// Cells of the bar.
const CELLS: usize = 30;

/// A line on stderr that is written over again and again.
#[derive(Debug)]
pub(super) struct Progress {
    what: &'static str,
    began: Instant,
    drawn: Option<Instant>,
    wanted: bool,
}

impl Progress {
    /// Of `what` is done; nothing is drawn where stderr is no terminal, or when it is not `wanted`.
    pub(super) fn new(what: &'static str, wanted: bool) -> Self {
        Self {
            what,
            began: Instant::now(),
            drawn: None,
            wanted: wanted && io::stderr().is_terminal(),
        }
    }

    /// Draws it if it is time to; `whole` is how long it will take, where that is known.
    pub(super) fn at(&mut self, whole: Option<Duration>) {
        if self.wanted && self.is_due() {
            draw(&line(self.what, self.began.elapsed(), whole));
        }
    }

    /// Draws it if it is time to: `done` of `all` events are done.
    pub(super) fn part(&mut self, done: u64, all: u64) {
        // Looking at the clock takes as long as reading an event.
        if self.wanted && done.is_multiple_of(1024) && self.is_due() {
            draw(&part(self.what, done, all));
        }
    }

    fn is_due(&mut self) -> bool {
        let last = self
            .drawn
            .unwrap_or(self.began + Duration::from_millis(750));
        let now = Instant::now();
        let due = now.saturating_duration_since(last) >= EVERY;
        if due {
            self.drawn = Some(now);
        }
        due
    }
}

impl Drop for Progress {
    #[expect(clippy::print_stderr, reason = "progress is no answer")]
    fn drop(&mut self) {
        if self.drawn.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

#[expect(clippy::print_stderr, reason = "progress is no answer")]
fn draw(line: &str) {
    eprint!("\r{line}\x1b[K");
}

/// `replaying ██████▌        62 % of 1234567 events`
fn part(what: &str, done: u64, all: u64) -> String {
    let percent = (done.min(all) * 100).checked_div(all).unwrap_or(100);
    format!("{what}  {}  {percent} % of {all} events", bar(done, all))
}

/// Cells, as many of them full as `done` is of `all`.
fn bar(done: u64, all: u64) -> String {
    let full = (done.min(all) * CELLS as u64).checked_div(all);
    let full = full.and_then(|full| usize::try_from(full).ok());
    let full = full.unwrap_or(CELLS);
    "█".repeat(full) + &"░".repeat(CELLS - full)
}

/// `tracing ██████▌        12 s of 60 s`
fn line(what: &str, passed: Duration, whole: Option<Duration>) -> String {
    let Some(whole) = whole.filter(|whole| !whole.is_zero()) else {
        return format!("{what}  {} s, until Ctrl-C", passed.as_secs());
    };
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let bar = bar(millis(passed), millis(whole));
    format!(
        "{what}  {bar}  {} s of {} s",
        passed.as_secs(),
        whole.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_as_full_as_time_has_passed() {
        let seconds = Duration::from_secs;
        let half = line("tracing", seconds(15), Some(seconds(30)));
        assert_eq!(
            half,
            format!(
                "tracing  {}{}  15 s of 30 s",
                "█".repeat(15),
                "░".repeat(15)
            )
        );
        let over = line("tracing", seconds(31), Some(seconds(30)));
        assert!(over.contains(&"█".repeat(30)), "{over}");
        assert_eq!(
            part("exporting", 1, 4),
            format!(
                "exporting  {}{}  25 % of 4 events",
                "█".repeat(7),
                "░".repeat(23)
            )
        );
        assert!(part("exporting", 0, 0).contains("100 %"));
        assert_eq!(
            line("tracing", seconds(3), None),
            "tracing  3 s, until Ctrl-C"
        );
    }
}
