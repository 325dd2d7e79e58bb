//! The one way of events into the correlator, and beside it into a recording.

use std::time::Duration;

use crate::{
    correlate::{Correlator, Settings},
    model::{Event, Fact, KtimeNs, Losses, Place, Row, trace::Unplaced},
    node::Node,
    record::{Asked, Recorder, Session},
};

/// What eats events, and the rows that it has finished.
pub(super) struct Feed {
    correlator: Correlator,
    pub(super) recorder: Option<Recorder>,
    pub(super) rows: Vec<Row>,
    /// Kernel times of the first tick and the last.
    ticks: Option<(KtimeNs, KtimeNs)>,
}

impl Feed {
    pub(super) fn new(settings: Settings, recorder: Option<Recorder>) -> Self {
        Self {
            correlator: Correlator::new(settings),
            recorder,
            rows: Vec::new(),
            ticks: None,
        }
    }

    pub(super) fn apply(&mut self, event: Event<'_>) {
        if let Some(recorder) = &mut self.recorder {
            recorder.event(event);
        }
        if let Event::Tick { ktime, .. } = event {
            let first = self.ticks.map_or(ktime, |(first, _)| first);
            self.ticks = Some((first, ktime));
        }
        self.correlator.apply(event, &mut self.rows);
    }

    /// Applies a fact, and before it the name of the code that dropped the packet, where that is new.
    pub(super) fn fact(&mut self, fact: &Fact, node: &mut Node) {
        if let Fact::Packet(packet) = fact
            && let Place::Dropped { location, .. } = packet.place
            && !self.correlator.knows_symbol(location)
            && let Some(name) = node.symbol(location)
        {
            let name = &name;
            self.apply(Event::Symbol { location, name });
        }
        self.apply(Event::Fact(fact));
    }

    /// From the first tick to the last: the same when it is replayed.
    pub(super) fn length(&self) -> Duration {
        let ticks = self.ticks;
        ticks.map_or(Duration::ZERO, |(first, last)| last - first)
    }

    /// Ends the correlator; rows that it still had are added.
    pub(super) fn finish(&mut self) -> (Unplaced, Losses) {
        let correlator =
            std::mem::replace(&mut self.correlator, Correlator::new(Settings::default()));
        correlator.finish(&mut self.rows)
    }
}

/// What the correlator is told when what `session` recorded is replayed; live, it is told the same.
pub(super) fn settings(session: &Session) -> Settings {
    let Asked {
        paths,
        dns_ports,
        vips,
        unanswered_after_ns,
        tracked,
        ..
    } = &session.asked;
    let unanswered_after = Duration::from_nanos(*unanswered_after_ns);
    Settings {
        dns_ports: dns_ports.clone(),
        vips: vips.clone(),
        direct: false,
        unanswered_after,
        keep: unanswered_after + Duration::from_secs(9),
        tracked: *tracked as usize,
        paths: *paths,
        drop_names: session.drop_names(),
    }
}
