//! `Picture`: a list of shapes, in a plane 800 wide, before anything is drawn.

/// Width of every picture.
pub(super) const WIDTH: f64 = 800.0;

/// Size of most text: what a browser calls 12 px.
pub(super) const SMALL: f64 = 15.0;

/// A picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Picture {
    /// The question that it answers.
    pub(super) title: String,
    /// It is as high as it needs to be.
    pub(super) height: f64,
    /// In the order in which they are drawn.
    pub(super) shapes: Vec<Shape>,
}

/// What a shape is drawn with; the theme says which colour that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    /// Words.
    Text,
    /// Words of less weight, and axes.
    Dim,
    /// Lines behind all else.
    Grid,
    /// One of several things, 0 to 7.
    Series(usize),
    /// How much of one thing, 0 to 8.
    Heat(usize),
}

/// Which end of a text is where it was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Left,
    Centre,
    Right,
}

/// One shape; y grows downwards.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    /// Filled.
    Rect {
        from: (f64, f64),
        to: (f64, f64),
        ink: Ink,
    },
    /// A line through points.
    Line {
        points: Vec<(f64, f64)>,
        width: u32,
        ink: Ink,
    },
    /// Words, their middle at the height of the point.
    Text {
        at: (f64, f64),
        text: String,
        size: f64,
        anchor: Anchor,
        ink: Ink,
    },
}

impl Picture {
    /// A picture with its title and the line under it.
    pub(super) fn new(title: &str, under: &str, height: f64) -> Self {
        let mut picture = Self {
            title: title.to_owned(),
            height,
            shapes: Vec::new(),
        };
        picture.words((16.0, 22.0), title, 20.0, Anchor::Left, Ink::Text);
        picture.words((16.0, 46.0), under, SMALL, Anchor::Left, Ink::Dim);
        picture
    }

    pub(super) fn rect(&mut self, from: (f64, f64), to: (f64, f64), ink: Ink) {
        self.shapes.push(Shape::Rect { from, to, ink });
    }

    pub(super) fn line(&mut self, points: Vec<(f64, f64)>, width: u32, ink: Ink) {
        self.shapes.push(Shape::Line { points, width, ink });
    }

    /// Words of the usual size.
    pub(super) fn text(&mut self, at: (f64, f64), text: &str, anchor: Anchor, ink: Ink) {
        self.words(at, text, SMALL, anchor, ink);
    }

    fn words(&mut self, at: (f64, f64), text: &str, size: f64, anchor: Anchor, ink: Ink) {
        self.shapes.push(Shape::Text {
            at,
            text: text.to_owned(),
            size,
            anchor,
            ink,
        });
    }
}

/// `text`, its end left out where it has more than `most` characters.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(most.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// `text`, its middle left out where it has more than `most` characters: the ends of pods' names tell
/// them apart.
pub(super) fn cut_middle(text: &str, most: usize) -> String {
    crate::report::text::cut(text, most)
}
