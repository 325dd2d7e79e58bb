//! `Section`: what one report says, before it is drawn. Text, JSON and HTML are drawn from the same
//! sections, so that they never say different things.

use std::time::Duration;

use crate::model::worst::Example;

/// One report.
#[derive(Debug, Default)]
pub struct Section<'a> {
    /// The finding first.
    pub said: Vec<Said>,
    /// Its evidence.
    pub tables: Vec<Table>,
    /// Exchanges to look at one by one.
    pub exchanges: Vec<Shown<'a>>,
    /// What limits it.
    pub notes: Vec<String>,
}

/// One thing found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    /// Whether something is wrong.
    pub bad: bool,
    /// What, in one sentence without the full stop.
    pub sentence: String,
    /// What was seen that says so, a line each.
    pub evidence: Vec<String>,
    /// What to do; `None` where nothing can be said.
    pub remedy: Option<String>,
}

impl Said {
    /// Something wrong.
    pub fn bad(sentence: String) -> Self {
        Self {
            bad: true,
            sentence,
            ..Self::default()
        }
    }

    /// Something worth knowing.
    pub fn plain(sentence: String) -> Self {
        Self {
            sentence,
            ..Self::default()
        }
    }
}

/// An exchange, and why it is shown.
#[derive(Clone, Debug)]
pub struct Shown<'a> {
    /// From 1 among those of its sort, the worst first.
    pub nth: usize,
    /// Such as `slowest of 2275`, or the cause of its failure.
    pub why: String,
    /// It.
    pub example: &'a Example,
}

/// A table.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Its JSON key, and a part of its HTML id.
    pub name: &'static str,
    /// What it tells, and by what it is sorted.
    pub title: &'static str,
    /// Columns, from left to right.
    pub columns: &'static [Column],
    /// Rows; each has a cell for each column.
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Whether a column holds numbers, which stand right.
    pub fn is_number(&self, at: usize) -> bool {
        let cells = self.rows.iter().filter_map(|row| row.get(at));
        let mut known = cells.filter(|cell| **cell != Cell::Nothing);
        let number = |cell: &Cell| matches!(cell, Cell::Count(_) | Cell::Share(_) | Cell::Time(_));
        known.next().is_some_and(number)
    }
}

/// A column of a table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Column {
    /// Its JSON key. Times have `_us` at the end, shares `share`.
    pub key: &'static str,
    /// Its heading.
    pub heading: &'static str,
}

/// Shorthand for tables of columns.
pub const fn column(key: &'static str, heading: &'static str) -> Column {
    Column { key, heading }
}

/// One cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Not known, or none.
    Nothing,
    /// Words.
    Text(String),
    /// How many.
    Count(u64),
    /// A part of a whole, 0 to 1.
    Share(f64),
    /// How long.
    Time(Duration),
    /// How many of each, in the order in which they are shown.
    Counts(Vec<(String, u64)>),
}

impl From<Option<Duration>> for Cell {
    fn from(time: Option<Duration>) -> Self {
        time.map_or(Self::Nothing, Self::Time)
    }
}

impl From<u64> for Cell {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// `part` of `whole`, 0 to 1; 0 of nothing.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

/// `1 query`, `2 queries`.
pub fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
