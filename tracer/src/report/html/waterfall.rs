//! The way of an exchange's packets as rows with bars.

use std::io::{self, Write};

use super::Text;
use crate::{
    model::{Dns, Journey, Named, journey::Stage},
    report::text::{place, short},
};

/// Most characters of a name.
const NAME: usize = 60;

pub(super) fn table(
    journey: &Journey,
    dns: Option<&Dns>,
    named: &Named,
    out: &mut impl Write,
) -> io::Result<()> {
    writeln!(
        out,
        "<div class=\"scroll\"><table class=\"way\"><thead><tr><th scope=\"col\">leg<th scope=\"col\">stage<th scope=\"col\">when<th scope=\"col\" class=\"n\">took<th scope=\"col\">where<tbody>"
    )?;
    let whole = journey.duration().as_secs_f64().max(1e-9);
    for (step, begin, end) in journey.spans() {
        let took = end.ktime - begin.ktime;
        let before = (begin.ktime - journey.start.ktime).as_secs_f64() / whole * 100.0;
        let width = took.as_secs_f64() / whole * 100.0;
        writeln!(
            out,
            "<tr><td>{}<td>{}<td><div class=\"bar {}\" style=\"margin-left:{before:.2}%;width:{width:.2}%\"></div><td class=\"n\">{}<td>{}",
            step.leg.name(),
            step.stage.name(),
            side(step.stage),
            short(took),
            Text(&place(journey, dns, named, (step, begin, end), NAME))
        )?;
    }
    writeln!(out, "</table></div>")
}

/// Who has the time of a stage.
fn side(stage: Stage) -> &'static str {
    match stage {
        Stage::Node | Stage::Link | Stage::Wire => "between",
        Stage::BackendLink
        | Stage::BackendDevices
        | Stage::BackendInput
        | Stage::BackendQueue
        | Stage::Backend
        | Stage::Upstream => "backend",
        _ => "client",
    }
}
