//! Replay: a recording through the same correlator, to the same rows. Neither root nor a node is
//! needed, and nothing of this machine enters: times are UTC, names are the recording's.

use std::time::Duration;

use anyhow::Result;

use super::{
    Exit,
    feed::{Feed, settings},
    names::Names,
    shown::{Shown, Wanted},
    tell,
};
use crate::{
    cli::ReportArgs,
    record::{self, Recorded, Recording, Stream},
};

/// Replays recordings, and prints what a trace would have.
///
/// # Errors
/// Nothing can be read, or output cannot be written.
pub fn report(args: &ReportArgs) -> Result<Exit> {
    let recording = Recording::open(&args.dirs)?;
    let mut warned = !recording.warnings.is_empty();
    for warning in &recording.warnings {
        tell(&format!("warning: {warning}"));
    }
    let names = Names::new(record::Names::default(), None);
    let mut shown = Shown::new(Wanted::replayed(args), names);
    let mut length = Duration::ZERO;
    for mut stream in recording.sessions {
        length += replay(&mut stream, &mut shown)?;
        for warning in &stream.warnings {
            warned = true;
            tell(&format!("warning: {warning}"));
        }
    }
    let exit = shown.summary(length)?;
    Ok(if warned { Exit::Incomplete } else { exit })
}

/// Replays one session; its length.
fn replay(stream: &mut Stream, shown: &mut Shown<record::Names>) -> Result<Duration> {
    let session = &stream.session;
    let mut feed = Feed::new(settings(session), None);
    shown.of(&session.asked);
    shown.unseen(&session.unseen);
    shown.names = Names::new(record::Names::default(), session.api.clone());
    let mut after_tick = false;
    for event in &mut *stream {
        // Rows are shown at the end of a batch: after its tick, and what is told because of it.
        match &event {
            Recorded::Name(_)
            | Recorded::Counted(_)
            | Recorded::Conntrack(_)
            | Recorded::Loss(_) => {}
            Recorded::Fact(_)
            | Recorded::Tick { .. }
            | Recorded::Symbol { .. }
            | Recorded::Change(_) => {
                if after_tick {
                    shown.rows(&mut feed.rows, None)?;
                }
                after_tick = matches!(event, Recorded::Tick { .. });
            }
        }
        if let Some(event) = event.event() {
            feed.apply(event);
        }
        let names = &mut shown.names;
        match event {
            Recorded::Name(name) => names.local.learn(&name),
            Recorded::Conntrack(totals) => {
                names.local.count(&totals);
            }
            Recorded::Tick { ktime, wall } => {
                names.local.tick(wall);
                names.tick(ktime, wall);
            }
            Recorded::Change(change) => names.apply(change),
            Recorded::Fact(_)
            | Recorded::Loss(_)
            | Recorded::Counted(_)
            | Recorded::Symbol { .. } => {}
        }
    }
    let (unplaced, losses) = feed.finish();
    shown.all_rows(&mut feed.rows, None)?;
    shown.tables();
    shown.trace.unplaced.add(&unplaced);
    shown.trace.losses.add(&losses);
    Ok(feed.length())
}
