//! A recording copied, event by event: with other names and addresses, to be given away. Its tables for
//! SQL are made anew.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::super::{
    feed::{Feed, settings},
    names::Names,
    replay::{Batches, learn},
};
use crate::{
    model::Losses,
    record::{self, Keep, Recorded, Recorder, Stream},
    redact::Redactor,
};

/// A session being copied.
pub(super) struct Copy {
    recorder: Recorder,
    feed: Feed,
    names: Names<record::Names>,
    batches: Batches,
    /// Its recorder ended as it was told.
    ended: bool,
}

impl Copy {
    /// Copies the session of `stream` into `dir`.
    pub(super) fn new(
        dir: &Path,
        stream: &Stream,
        redactor: Option<&mut Redactor>,
    ) -> Result<Self> {
        let session = match redactor {
            Some(redactor) => redactor.session(&stream.session),
            None => stream.session.clone(),
        };
        let keep = Keep::default();
        let recorder = Recorder::start(dir, session.clone(), keep).context("copy")?;
        Ok(Self {
            recorder,
            feed: Feed::new(settings(&session), None),
            names: Names::new(record::Names::default(), session.api.clone(), session.rules),
            batches: Batches::default(),
            ended: stream.ended,
        })
    }

    /// Takes the next event.
    pub(super) fn event(&mut self, event: Recorded) {
        if self.batches.end_before(&event) {
            self.rows();
            self.recorder.flush_all();
        }
        if let Some(event) = event.event() {
            self.feed.apply(event);
        }
        self.recorder.again(event.clone());
        learn(&mut self.names, event);
    }

    fn rows(&mut self) {
        for row in self.feed.rows.drain(..) {
            let mut named = self.names.local.name(&row);
            self.names.join(&row, &mut named);
            self.recorder.row(&row, &named);
        }
    }

    /// Writes what is left; what could not be written.
    pub(super) fn finish(mut self) -> Losses {
        self.feed.finish();
        self.rows();
        self.recorder.flush_all();
        if self.ended {
            self.recorder.finish()
        } else {
            self.recorder.finish_without_end()
        }
    }
}
