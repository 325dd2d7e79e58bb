//! Which of tracer's modules name which: the table in `super::IMPORTS` against `crate::…` paths.
//!
//! `super::` paths stay inside a module's own folder, and are not looked at.

use super::{Finding, IMPORTS};

/// Paths of `file` that its module may not name.
pub(super) fn file(file: &str, text: &str) -> Vec<Finding> {
    let module = file
        .strip_prefix("tracer/src/")
        .and_then(|path| path.split(['/', '.']).next())
        .unwrap_or_default();
    let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == module) else {
        return Vec::new();
    };
    named(text)
        .into_iter()
        .filter(|(_, name)| *name != module && !allowed.contains(name))
        // What lies in the crate's root itself begins in upper case: it is no module.
        .filter(|(_, name)| name.starts_with(char::is_lowercase))
        .map(|(line, name)| Finding {
            file: file.to_owned(),
            line,
            what: format!("{module} may not name {name}"),
            fails: true,
        })
        .collect()
}

/// First segments after `crate::`, each with its line from 1; the braces of a list are followed.
/// Tests may name anything.
fn named(text: &str) -> Vec<(usize, &str)> {
    let code = text.split("\n#[cfg(test)]\n").next().unwrap_or(text);
    let mut found = Vec::new();
    let mut offset = 0;
    while let Some(at) = code[offset..].find("crate::") {
        offset += at + "crate::".len();
        let rest = &code[offset..];
        let comment = code[..offset]
            .rsplit('\n')
            .next()
            .is_some_and(|line| line.contains("//"));
        if comment {
            continue;
        }
        for (start, name) in segments(rest) {
            found.push((code[..offset + start].lines().count(), name));
        }
    }
    found
}

/// The module a path begins with, or those of each path in a braced list, with their offsets.
fn segments(path: &str) -> Vec<(usize, &str)> {
    if !path.starts_with('{') {
        return word(path, 0).into_iter().collect();
    }
    let mut depth = 0;
    let mut fresh = false;
    let mut found = Vec::new();
    for (at, char) in path.char_indices() {
        match char {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' => {}
            _ if char.is_whitespace() => continue,
            _ if fresh && depth == 1 => found.extend(word(path, at)),
            _ => {}
        }
        if depth == 0 {
            break;
        }
        fresh = matches!(char, '{' | ',');
    }
    found
}

fn word(text: &str, at: usize) -> Option<(usize, &str)> {
    let word = text[at..]
        .split(|char: char| !char.is_alphanumeric() && char != '_')
        .next()?;
    (!word.is_empty()).then_some((at, word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str, expected: &[&str]) {
        let found: Vec<_> = file(path, text).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn correlate_names_the_model_and_itself_only() {
        check(
            "tracer/src/correlate/dns.rs",
            "use crate::model::Fact;\nuse crate::correlate::nat;\n",
            &[],
        );
        check(
            "tracer/src/correlate/dns.rs",
            "//! A.\nuse crate::kernel::Kernel;\n",
            &["tracer/src/correlate/dns.rs:2: correlate may not name kernel"],
        );
    }

    #[test]
    fn each_path_of_a_braced_list_is_read() {
        check(
            "tracer/src/report.rs",
            "use crate::{\n    model::{Fact, kernel::X},\n    run,\n};\n",
            &["tracer/src/report.rs:3: report may not name run"],
        );
    }

    #[test]
    fn run_may_name_anything() {
        check("tracer/src/run.rs", "use crate::kernel::Kernel;\n", &[]);
        check("xtask/src/vm.rs", "use crate::sh;\n", &[]);
    }

    #[test]
    fn comments_tests_and_the_crates_own_items_are_no_imports() {
        check(
            "tracer/src/model.rs",
            "//! See crate::run.\nuse crate::Event;\n",
            &[],
        );
        check(
            "tracer/src/model.rs",
            "fn a() {}\n#[cfg(test)]\nuse crate::run;\n",
            &[],
        );
    }
}
