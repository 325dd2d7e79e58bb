//! Replay: a recording through the same correlator, to the same rows. Neither root nor a node is
//! needed, and nothing of this machine enters: times are UTC, names are the recording's.

use std::time::Duration;

use anyhow::Result;

use super::{
    Exit,
    export::redactor,
    feed::{Feed, settings},
    join,
    names::Names,
    progress::Progress,
    shown::{Shown, Wanted},
    tell,
};
use crate::{
    cli::{DiagnoseArgs, ReplayArgs, ReportArgs},
    record::{self, Recorded, Recording, Stream},
    redact::Redactor,
};

/// Replays recordings, and prints what a trace would have.
///
/// # Errors
/// Nothing can be read, or output cannot be written.
pub fn report(args: &ReportArgs) -> Result<Exit> {
    let (shown, length, warned) = replayed(&args.replay, Wanted::replayed(args))?;
    let exit = shown.summary(length)?;
    Ok(if warned { Exit::Incomplete } else { exit })
}

/// Replays recordings, and prints what is found wrong in them.
///
/// # Errors
/// Nothing can be read, or output cannot be written.
pub fn diagnose(args: &DiagnoseArgs) -> Result<Exit> {
    let (shown, _, warned) = replayed(&args.replay, Wanted::diagnosed(args))?;
    let exit = shown.findings()?;
    // What is found stays found, however much is missing.
    Ok(if warned && exit == Exit::Done {
        Exit::Incomplete
    } else {
        exit
    })
}

/// All rows, how long their recordings are together, and whether anything could not be read, which is told.
fn replayed(args: &ReplayArgs, wanted: Wanted) -> Result<(Shown<record::Names>, Duration, bool)> {
    let recording = Recording::open(&args.dirs)?;
    let mut warnings = recording.warnings;
    let mut redactor = redactor(&args.redact)?;
    let names = Names::new(record::Names::default(), None, false);
    let mut shown = Shown::new(wanted, names);
    let length = if join::nodes(&recording.sessions).len() > 1 {
        let (dirs, sessions) = (&args.dirs, recording.sessions);
        join::replay(dirs, sessions, &mut redactor, &mut warnings, &mut shown)?
    } else {
        one_by_one(
            recording.sessions,
            redactor.as_mut(),
            &mut warnings,
            &mut shown,
        )?
    };
    for warning in &warnings {
        tell(&format!("warning: {warning}"));
    }
    let unread = warnings
        .iter()
        .map(|warning| format!("what could not be read: {warning}"));
    shown.unseen(&unread.collect::<Vec<_>>());
    Ok((shown, length, !warnings.is_empty()))
}

/// Replays sessions of one node, one after the other; how long they are together.
fn one_by_one(
    sessions: Vec<Stream>,
    mut redactor: Option<&mut Redactor>,
    warnings: &mut Vec<String>,
    shown: &mut Shown<record::Names>,
) -> Result<Duration> {
    let mut length = Duration::ZERO;
    let all = sessions.iter().map(Stream::events).sum();
    let mut progress = (Progress::new("replaying", shown.is_silent()), 0, all);
    for mut stream in sessions {
        let redactor = redactor.as_deref_mut();
        length += replay(&mut stream, redactor, &mut progress, shown)?;
        warnings.append(&mut stream.warnings);
    }
    drop(progress);
    Ok(length)
}

/// Replays one session; its length.
fn replay(
    stream: &mut Stream,
    mut redactor: Option<&mut Redactor>,
    (progress, done, all): &mut (Progress, u64, u64),
    shown: &mut Shown<record::Names>,
) -> Result<Duration> {
    let session = match &mut redactor {
        Some(redactor) => &redactor.session(&stream.session),
        None => &stream.session,
    };
    let mut feed = Feed::new(settings(session), None);
    shown.of(&session.asked);
    shown.unseen(&session.unseen);
    shown.names = Names::new(record::Names::default(), session.api.clone(), session.rules);
    let mut batches = Batches::default();
    for mut event in &mut *stream {
        if let Some(redactor) = &mut redactor {
            event = redactor.event(event);
        }
        if batches.end_before(&event) {
            shown.rows(&mut feed.rows, None)?;
        }
        if let Some(event) = event.event() {
            feed.apply(event);
        }
        learn(&mut shown.names, event);
        *done += 1;
        progress.part(*done, *all);
    }
    let (unplaced, losses) = feed.finish();
    shown.all_rows(&mut feed.rows, None)?;
    shown.tables();
    shown.trace.unplaced.add(&unplaced);
    shown.trace.losses.add(&losses);
    Ok(feed.length())
}

/// Batches of events. Rows are shown at the end of one: after its tick, and what is told because of it.
#[derive(Debug, Default)]
pub(super) struct Batches {
    after_tick: bool,
}

impl Batches {
    /// Whether a batch is over when `event` comes.
    pub(super) fn end_before(&mut self, event: &Recorded) -> bool {
        match event {
            Recorded::Name(_)
            | Recorded::Counted(_)
            | Recorded::Conntrack(_)
            | Recorded::Loss(_) => false,
            Recorded::Fact(_)
            | Recorded::Tick { .. }
            | Recorded::Symbol { .. }
            | Recorded::Change(_) => {
                let is_tick = matches!(event, Recorded::Tick { .. });
                std::mem::replace(&mut self.after_tick, is_tick)
            }
        }
    }
}

/// Takes what `event` says of names, and of time.
pub(super) fn learn(names: &mut Names<record::Names>, event: Recorded) {
    match event {
        Recorded::Name(name) => names.local.learn(&name),
        Recorded::Conntrack(totals) => {
            names.local.count(&totals);
        }
        Recorded::Tick { ktime, wall } => names.tick(ktime, wall),
        Recorded::Change(change) => names.apply(change),
        Recorded::Fact(_) | Recorded::Loss(_) | Recorded::Counted(_) | Recorded::Symbol { .. } => {}
    }
}
