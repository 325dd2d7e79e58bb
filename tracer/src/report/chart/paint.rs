//! Drawing a picture's shapes with plotters, in the colours of a theme.
//!
//! Colours: Okabe and Ito's eight, which people with any colour vision can tell apart
//! (<https://jfly.uni-koeln.de/color/>), lightened for the dark theme where they must be; and a ramp
//! whose lightness alone says how much.

use std::{fmt::Write as _, io, path::Path, sync::OnceLock};

use plotters::{
    drawing::{DrawingAreaErrorKind, IntoDrawingArea as _},
    element::{PathElement, Rectangle},
    prelude::{BitMapBackend, DrawingBackend, SVGBackend},
    style::{
        FontDesc, FontFamily, FontStyle, RGBColor, ShapeStyle, TextStyle, register_font,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::picture::{Anchor, Ink, Picture, Shape, WIDTH};

/// The one font there is: a container has none. SVG says `sans-serif`, and is laid out for this
/// one, which is wider than most.
const FONT: &[u8] = include_bytes!("../../../assets/DejaVuSans.ttf");

/// Pixels of a PNG to a unit of the picture: sharp on screens of twice the density.
const SCALE: f64 = 2.0;

/// Which colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Theme {
    /// Dark on white.
    #[default]
    Light,
    /// Light on black.
    Dark,
}

/// Colours: background, words, words of less weight, grid; of several things; of how much.
struct Palette {
    back: u32,
    text: u32,
    dim: u32,
    grid: u32,
    series: [u32; 8],
    heat: [u32; 9],
}

const LIGHT: Palette = Palette {
    back: 0xff_ffff,
    text: 0x1a_1a1a,
    dim: 0x59_5959,
    grid: 0xe3_e3e3,
    series: [
        0x00_72b2, 0xd5_5e00, 0x00_9e73, 0xe6_9f00, 0xcc_79a7, 0x56_b4e9, 0x7f_7f7f, 0x33_3333,
    ],
    heat: [
        0xcd_e1f2, 0xb5_d3ec, 0x97_c3e5, 0x74_b1dc, 0x4a_94cb, 0x2b_76b4, 0x15_599a, 0x0a_3f78,
        0x05_2551,
    ],
};

const DARK: Palette = Palette {
    back: 0x15_181c,
    text: 0xee_eeee,
    dim: 0xa9_afb6,
    grid: 0x30_353b,
    series: [
        0x4d_a6e0, 0xff_8a3d, 0x2f_c79b, 0xf2_b632, 0xe0_9cc2, 0x8f_d0f5, 0x9a_9a9a, 0xd0_d0d0,
    ],
    heat: [
        0x20_4468, 0x21_5079, 0x24_5e8d, 0x26_6aa0, 0x3e_86bb, 0x5f_a3d1, 0x8a_c0e3, 0xb9_dbf1,
        0xec_f6fd,
    ],
};

impl Palette {
    fn of(theme: Theme) -> &'static Self {
        match theme {
            Theme::Light => &LIGHT,
            Theme::Dark => &DARK,
        }
    }

    fn colour(&self, ink: Ink) -> u32 {
        match ink {
            Ink::Text => self.text,
            Ink::Dim => self.dim,
            Ink::Grid => self.grid,
            Ink::Series(nth) => self.series[nth % self.series.len()],
            Ink::Heat(much) => self.heat[much.min(self.heat.len() - 1)],
        }
    }

    fn all(&self) -> impl Iterator<Item = u32> {
        let few = [self.back, self.text, self.dim, self.grid];
        few.into_iter().chain(self.series).chain(self.heat)
    }
}

fn rgb(colour: u32) -> RGBColor {
    let [_, red, green, blue] = colour.to_be_bytes();
    RGBColor(red, green, blue)
}

pub(super) fn svg(picture: &Picture, theme: Option<Theme>) -> String {
    let mut svg = String::new();
    let backend = SVGBackend::with_string(&mut svg, size(picture, 1.0));
    // Writing to memory does not fail, and the font is there.
    let _ = draw(
        backend,
        picture,
        Palette::of(theme.unwrap_or_default()),
        1.0,
    );
    if theme.is_none()
        && let Some(at) = svg.find(">\n")
    {
        svg.insert_str(at + 2, &format!("<style>{}</style>\n", dark_css()));
    }
    svg
}

/// Without what a page says itself: that pictures are dark where it is.
pub(super) fn inline_svg(picture: &Picture) -> String {
    svg(picture, Some(Theme::Light))
}

/// Turns each colour of the light theme into the dark one's, where the browser is dark.
pub(super) fn dark_css() -> String {
    let mut css = "@media screen and (prefers-color-scheme: dark){".to_owned();
    for (light, dark) in LIGHT.all().zip(DARK.all()) {
        for attribute in ["fill", "stroke"] {
            // Writing to a String cannot fail.
            let _ = write!(
                css,
                "svg [{attribute}=\"#{light:06X}\"]{{{attribute}:#{dark:06x}}}"
            );
        }
    }
    css + "}"
}

pub(super) fn png(picture: &Picture, theme: Theme, path: &Path) -> io::Result<()> {
    let backend = BitMapBackend::new(path, size(picture, SCALE));
    draw(backend, picture, Palette::of(theme), SCALE)
        .map_err(|error| io::Error::other(error.to_string()))
}

fn size(picture: &Picture, scale: f64) -> (u32, u32) {
    let (width, height) = point((WIDTH, picture.height), scale);
    (width.unsigned_abs(), height.unsigned_abs())
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a picture has some thousand pixels"
)]
fn point((x, y): (f64, f64), scale: f64) -> (i32, i32) {
    ((x * scale).round() as i32, (y * scale).round() as i32)
}

fn draw<DB: DrawingBackend>(
    backend: DB,
    picture: &Picture,
    palette: &Palette,
    scale: f64,
) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    REGISTERED.get_or_init(|| register_font("sans-serif", FontStyle::Normal, FONT).is_ok());
    let area = backend.into_drawing_area();
    area.fill(&rgb(palette.back))?;
    for shape in &picture.shapes {
        match shape {
            Shape::Rect { from, to, ink } => {
                let style = ShapeStyle::from(rgb(palette.colour(*ink))).filled();
                let corners = [point(*from, scale), point(*to, scale)];
                area.draw(&Rectangle::new(corners, style))?;
            }
            Shape::Line { points, width, ink } => {
                let style = ShapeStyle {
                    color: rgb(palette.colour(*ink)).into(),
                    filled: false,
                    stroke_width: width * pixels(scale),
                };
                let points: Vec<_> = points.iter().map(|at| point(*at, scale)).collect();
                area.draw(&PathElement::new(points, style))?;
            }
            Shape::Text {
                at,
                text,
                size,
                anchor,
                ink,
            } => {
                let horizontal = match anchor {
                    Anchor::Left => HPos::Left,
                    Anchor::Centre => HPos::Center,
                    Anchor::Right => HPos::Right,
                };
                let font = FontDesc::new(FontFamily::SansSerif, size * scale, FontStyle::Normal);
                let colour = rgb(palette.colour(*ink));
                let style = TextStyle::from(font)
                    .color(&colour)
                    .pos(Pos::new(horizontal, VPos::Center));
                // plotters' bitmaps put text higher than its SVG does.
                let lower = if scale > 1.0 { size * 0.2 } else { 0.0 };
                let at = point((at.0, at.1 + lower), scale);
                area.draw_text(text, &style, at)?;
            }
        }
    }
    area.present()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "1 or 2"
)]
fn pixels(scale: f64) -> u32 {
    scale.round() as u32
}

/// Width of a text in units of the picture.
#[cfg(test)]
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    assert!(
        REGISTERED.get_or_init(|| register_font("sans-serif", FontStyle::Normal, FONT).is_ok())
    );
    let font = FontDesc::new(FontFamily::SansSerif, size, FontStyle::Normal);
    f64::from(font.box_size(text).map_or(0, |(width, _)| width))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_colours_of_the_light_theme_are_the_same() {
        let mut all: Vec<_> = LIGHT.all().collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(
            all.len(),
            count,
            "the dark theme is told from them one by one"
        );
    }
}
