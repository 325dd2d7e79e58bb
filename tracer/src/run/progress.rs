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
    #[expect(clippy::print_stderr, reason = "progress is no answer")]
    pub(super) fn at(&mut self, whole: Option<Duration>) {
        let last = self
            .drawn
            .unwrap_or(self.began + Duration::from_millis(750));
        if !self.wanted || Instant::now().saturating_duration_since(last) < EVERY {
            return;
        }
        self.drawn = Some(Instant::now());
        eprint!("\r{}\x1b[K", line(self.what, self.began.elapsed(), whole));
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

/// `tracing ██████▌        12 s of 60 s`
fn line(what: &str, passed: Duration, whole: Option<Duration>) -> String {
    let Some(whole) = whole.filter(|whole| !whole.is_zero()) else {
        return format!("{what}  {} s, until Ctrl-C", passed.as_secs());
    };
    let part = (passed.as_secs_f64() / whole.as_secs_f64()).min(1.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a number of cells, 0 to 30"
    )]
    let full = (part * CELLS as f64) as usize;
    let (full, rest) = ("█".repeat(full), "░".repeat(CELLS - full));
    format!(
        "{what}  {full}{rest}  {} s of {} s",
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
            line("tracing", seconds(3), None),
            "tracing  3 s, until Ctrl-C"
        );
    }
}
