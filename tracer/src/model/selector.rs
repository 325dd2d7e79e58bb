//! Label selectors as kubectl writes them, `app=web,tier!=db,env in (a, b),!canary`, or as objects have them.

use std::{str::FromStr, sync::Arc};

/// What all of must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

/// What one label must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// One of these.
    In(String, Vec<String>),
    /// None of these; or the label is absent.
    NotIn(String, Vec<String>),
    /// There, whatever it is.
    Exists(String),
    /// Not there.
    Absent(String),
}

impl Selector {
    /// That all of these hold; with none, any object is meant.
    pub fn of(requirements: Vec<Requirement>) -> Self {
        Self(requirements)
    }

    /// Whether an object with these labels is meant.
    pub fn matches(&self, labels: &[(Arc<str>, Arc<str>)]) -> bool {
        self.matches_by(|wanted| {
            let mut labels = labels.iter();
            Some(&*labels.find(|(key, _)| **key == *wanted)?.1)
        })
    }

    /// The same, of an object whose labels `value` tells.
    pub fn matches_by<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => {
                value(key).is_some_and(|value| values.iter().any(|of| of == value))
            }
            Requirement::NotIn(key, values) => {
                value(key).is_none_or(|value| values.iter().all(|of| of != value))
            }
            Requirement::Exists(key) => value(key).is_some(),
            Requirement::Absent(key) => value(key).is_none(),
        })
    }
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = parts(text).into_iter().map(requirement);
        let requirements = parts.collect::<Option<Vec<_>>>();
        requirements
            .filter(|of| !of.is_empty())
            .map(Self)
            .ok_or_else(|| {
                "not a label selector: write app=web, tier!=db, env in (a,b), or !canary".to_owned()
            })
    }
}

/// The parts between commas that are in no brackets.
fn parts(text: &str) -> Vec<&str> {
    let mut depth = 0;
    let split = text.split(|char| {
        depth += match char {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        char == ',' && depth == 0
    });
    split.map(str::trim).collect()
}

fn requirement(part: &str) -> Option<Requirement> {
    if let Some(key) = part.strip_prefix('!') {
        return Some(Requirement::Absent(key_of(key)?));
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Some(Requirement::NotIn(key_of(key)?, vec![value_of(value)?]));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Some(Requirement::In(key_of(key)?, vec![value_of(value)?]));
    }
    if let Some((head, values)) = part.split_once('(') {
        let values = values.strip_suffix(')')?.split(',').map(value_of);
        let values = values.collect::<Option<_>>()?;
        let mut words = head.split_whitespace();
        let (key, word) = (key_of(words.next()?)?, words.next()?);
        return match (word, words.next()) {
            ("in", None) => Some(Requirement::In(key, values)),
            ("notin", None) => Some(Requirement::NotIn(key, values)),
            _ => None,
        };
    }
    Some(Requirement::Exists(key_of(part)?))
}

fn key_of(text: &str) -> Option<String> {
    let text = text.trim();
    let valid = |char: char| char.is_ascii_alphanumeric() || "-_./".contains(char);
    (!text.is_empty() && text.chars().all(valid)).then(|| text.to_owned())
}

/// A label's value may be empty.
fn value_of(text: &str) -> Option<String> {
    let text = text.trim();
    let valid = |char: char| char.is_ascii_alphanumeric() || "-_.".contains(char);
    text.chars().all(valid).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(selector: &str, expected: bool) {
        let labels = [("app", "web"), ("tier", "1")];
        let labels = labels.map(|(key, value)| (key.into(), value.into()));
        let parsed: Selector = selector.parse().unwrap();
        assert_eq!(parsed.matches(&labels), expected, "{selector}");
    }

    #[test]
    fn a_selector_is_read_as_kubectl_reads_it() {
        check("app=web", true);
        check("app==web", true);
        check("app=web,tier=1", true);
        check("app=web,tier=2", false);
        check("app!=web", false);
        check("zone!=a", true);
        check("app in (db, web)", true);
        check("app notin (db,web)", false);
        check("zone notin (a)", true);
        check("app in (db,web),tier", true);
        check("zone", false);
        check("!zone", true);
        check("! app", false);
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in [
            "",
            "app=we b",
            "app in web",
            "app on (web)",
            "a=b,",
            "app in (web",
        ] {
            let parsed: Result<Selector, _> = text.parse();
            assert!(parsed.is_err(), "{text}");
        }
    }
}
