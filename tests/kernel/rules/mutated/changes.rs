//! A change of a text of rules: what is different, whom it may concern, which behaviour it is about.

use std::collections::BTreeSet;

/// A text of rules, as lines.
pub(super) struct Text {
    pub(super) lines: Vec<String>,
}

/// What is done to one line.
#[derive(Clone, Debug)]
pub(super) enum Edit {
    Delete(usize),
    Replace(usize, String),
    Before(usize, String),
    After(usize, String),
    Swap(usize, usize),
}

/// One change by hand.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// Which of the mode's texts.
    pub(super) text: usize,
    /// It is about IPv6, else about IPv4.
    pub(super) six: bool,
    /// Number of the behaviour in kube-proxy-behaviours.md 6.1.
    pub(super) behaviour: u8,
    pub(super) edits: Vec<Edit>,
    /// Services that the lines name, which are looked at more closely.
    pub(super) touched: BTreeSet<String>,
    /// It shows only when clients come again after a while.
    pub(super) slow: bool,
    pub(super) words: String,
}

impl Text {
    pub(super) fn of(text: &str) -> Self {
        Self {
            lines: text.lines().map(str::to_owned).collect(),
        }
    }

    /// The text with these edits made.
    pub(super) fn with(&self, edits: &[Edit]) -> String {
        let mut lines: Vec<Vec<String>> =
            self.lines.iter().map(|line| vec![line.clone()]).collect();
        for edit in edits {
            match edit {
                Edit::Delete(at) => lines[*at].clear(),
                Edit::Replace(at, line) => lines[*at] = vec![line.clone()],
                Edit::Before(at, line) => lines[*at].insert(0, line.clone()),
                Edit::After(at, line) => lines[*at].push(line.clone()),
                Edit::Swap(a, b) => lines.swap(*a, *b),
            }
        }
        let lines: Vec<_> = lines.into_iter().flatten().collect();
        lines.join("\n") + "\n"
    }

    /// `most` of the lines that `fits`, spread evenly over the text.
    pub(super) fn some(&self, most: usize, fits: impl Fn(&str) -> bool) -> Vec<usize> {
        let all = (0..self.lines.len()).filter(|at| fits(&self.lines[*at]));
        let all: Vec<_> = all.collect();
        let count = most.min(all.len());
        (0..count)
            .map(|index| all[index * all.len() / count])
            .collect()
    }
}

/// Services named in a line, as `shop/web`.
pub(super) fn named(line: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for namespace in ["shop/", "default/"] {
        for (at, _) in line.match_indices(namespace) {
            let name = &line[at + namespace.len()..];
            let ends = |sign: char| !sign.is_ascii_lowercase();
            let name = &name[..name.find(ends).unwrap_or(name.len())];
            names.insert(format!("{namespace}{name}"));
        }
    }
    names
}
