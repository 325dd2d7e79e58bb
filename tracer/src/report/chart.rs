//! Pictures of a whole trace: what each shows, and drawing it as SVG or PNG. A chart makes a list of
//! shapes, which is all that plotters is asked to draw; so a chart is tested without a pixel.

mod cdf;
mod failures;
mod frame;
mod heatmap;
mod histogram;
mod paint;
mod picture;
mod shares;
mod stages;

use std::{io, path::Path};

use self::picture::Picture;
use super::Whole;
use crate::model::tally::Kind;

pub use self::paint::Theme;

/// One picture.
#[derive(Debug)]
pub struct Chart {
    /// Name of its file, without the ending.
    pub name: String,
    /// The report that it belongs to.
    pub report: &'static str,
    /// The question that it answers.
    pub title: String,
    picture: Picture,
}

/// All charts of a trace, in the order in which they are best looked at. Of kinds that were not seen
/// there are none, but for DNS.
pub fn charts(whole: &Whole<'_>) -> Vec<Chart> {
    let kinds = &whole.breakdown().kinds;
    let seen = |kind: &Kind| kinds.contains_key(kind) || *kind == Kind::Dns;
    let mut charts = Vec::new();
    for kind in Kind::ALL.into_iter().filter(seen) {
        let mut add = |what: &str, report, picture: Picture| {
            let name = format!("{what}-{}", kind.name());
            charts.push(Chart::new(name, report, picture));
        };
        let latency = if kind == Kind::Dns { "dns" } else { "services" };
        add("latency", latency, histogram::picture(whole, kind));
        add("cdf", latency, cdf::picture(whole, kind));
        add("heatmap", latency, heatmap::picture(whole, kind));
        add("stages", "stalls", stages::picture(whole, kind));
    }
    charts.push(Chart::new(
        "failures".to_owned(),
        "stalls",
        failures::picture(whole),
    ));
    charts.push(Chart::new(
        "shares".to_owned(),
        "services",
        shares::picture(whole),
    ));
    charts
}

impl Chart {
    fn new(name: String, report: &'static str, picture: Picture) -> Self {
        Self {
            name,
            report,
            title: picture.title.clone(),
            picture,
        }
    }

    /// As SVG. `None` for the theme that a browser asks for; other viewers show the light one.
    pub fn svg(&self, theme: Option<Theme>) -> String {
        paint::svg(&self.picture, theme)
    }

    /// As SVG to be part of a page, which says itself what is dark.
    pub(super) fn inline_svg(&self) -> String {
        paint::inline_svg(&self.picture)
    }

    /// Writes a PNG.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn png(&self, theme: Theme, path: &Path) -> io::Result<()> {
        paint::png(&self.picture, theme, path)
    }
}

/// What a page says for pictures that are part of it to be dark where the browser is.
pub(super) fn dark_css() -> String {
    paint::dark_css()
}

#[cfg(test)]
mod tests;
