//! The way of an exchange's packets: stages, and what went unseen.

use serde::{Serialize, Serializer, ser::SerializeSeq as _, ser::SerializeStruct as _};

use super::{End, micros};
use crate::model::{
    Journey, Named,
    journey::{Point, Stage, Step},
    stopped::Stopped,
};

/// Written straight from the journey: there is one for each row.
pub(super) struct JourneyLine<'a> {
    pub(super) journey: &'a Journey,
    pub(super) named: &'a Named,
}

impl Serialize for JourneyLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { journey, named } = *self;
        let mut line = serializer.serialize_struct("Journey", 5)?;
        line.serialize_field("duration_us", &micros(journey.duration()))?;
        line.serialize_field("stages", &Stages { journey, named })?;
        let unseen: Vec<_> = journey
            .unseen
            .iter()
            .map(|&step| StepLine::from(step))
            .collect();
        line.serialize_field("unseen", &unseen)?;
        match journey.lost {
            Some(lost) => line.serialize_field("lost", &place(lost, journey, named, true))?,
            None => line.skip_field("lost")?,
        }
        line.serialize_field("left_out", &journey.left_out)?;
        line.end()
    }
}

struct Stages<'a> {
    journey: &'a Journey,
    named: &'a Named,
}

impl Serialize for Stages<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { journey, named } = *self;
        let mut stages = serializer.serialize_seq(Some(journey.stages.len()))?;
        let mut came = true;
        for (step, begin, end) in journey.spans() {
            let forward = step.leg.is_forward();
            stages.serialize_element(&StageLine {
                step: step.into(),
                offset_us: micros(begin.ktime - journey.start.ktime),
                duration_us: micros(end.ktime - begin.ktime),
                from: place(begin, journey, named, came),
                to: place(end, journey, named, forward),
            })?;
            came = forward;
        }
        stages.end()
    }
}

#[derive(Serialize)]
pub(super) struct StepLine {
    leg: &'static str,
    stage: &'static str,
}

impl From<Step> for StepLine {
    fn from(step: Step) -> Self {
        Self {
            leg: step.leg.name(),
            stage: step.stage.name(),
        }
    }
}

#[derive(Serialize)]
struct StageLine<'a> {
    #[serde(flatten)]
    step: StepLine,
    offset_us: f64,
    duration_us: f64,
    from: PlaceLine<'a>,
    to: PlaceLine<'a>,
}

#[derive(Serialize)]
struct PlaceLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    netns: Option<&'a str>,
    netns_inode: u32,
    ifindex: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    side: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    src: Option<End>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dst: Option<End>,
}

/// A point, of a packet from client to server if `forward`.
fn place<'a>(point: Point, journey: &Journey, named: &'a Named, forward: bool) -> PlaceLine<'a> {
    let site = named.site(point.netns, point.ifindex);
    let flow = journey.flow(point);
    let flow = flow.map(|flow| if forward { flow } else { flow.reversed() });
    PlaceLine {
        netns: site.map(|site| &*site.name),
        netns_inode: point.netns.0,
        ifindex: point.ifindex.0,
        device: site.and_then(|site| site.device.as_deref()),
        side: point.side.name(),
        src: flow.map(|flow| flow.src.into()),
        dst: flow.map(|flow| flow.dst.into()),
    }
}

/// Where an exchange was seen last.
#[derive(Serialize)]
pub(super) struct StoppedLine<'a> {
    leg: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<&'static str>,
    #[serde(flatten)]
    at: PlaceLine<'a>,
}

pub(super) fn stopped(stopped: Stopped, named: &Named) -> StoppedLine<'_> {
    let Stopped { leg, stage, at } = stopped;
    let site = named.site(at.netns, at.ifindex);
    StoppedLine {
        leg: leg.name(),
        stage: stage.map(Stage::name),
        at: PlaceLine {
            netns: site.map(|site| &*site.name),
            netns_inode: at.netns.0,
            ifindex: at.ifindex.0,
            device: site.and_then(|site| site.device.as_deref()),
            side: at.side.name(),
            src: None,
            dst: None,
        },
    }
}
