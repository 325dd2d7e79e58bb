//! One file's text: first line, length, words out of place; and the commands a README quotes.

use super::{AIM, AT_HOME, BANNED, Finding, LIMIT, below};

/// What is wrong with the Rust file `file`, a path from the workspace's root.
pub(super) fn file(file: &str, text: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    if !text.starts_with("//!") {
        found.push(fails(file, 1, "does not begin with //!".to_owned()));
    }
    found.extend(length(file, text));
    for (at, line) in text.lines().enumerate() {
        found.extend(words(file, at + 1, code(line)));
    }
    found
}

fn length(file: &str, text: &str) -> Option<Finding> {
    if file.starts_with("tests/") || file.ends_with("/tests.rs") {
        return None;
    }
    let lines = text
        .lines()
        .take_while(|line| *line != "#[cfg(test)]")
        .filter(|line| !code(line).trim().is_empty())
        .count();
    (lines > AIM).then(|| Finding {
        file: file.to_owned(),
        line: 0,
        what: format!("{lines} lines of code; {AIM} are a file, {LIMIT} the limit"),
        fails: lines > LIMIT,
    })
}

fn words(file: &str, at: usize, code: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    for (krate, homes) in AT_HOME {
        if names_crate(code, krate) && !homes.iter().any(|home| below(file, home)) {
            found.push(fails(
                file,
                at,
                format!("{krate} belongs in {}", homes.join(", ")),
            ));
        }
    }
    for (text, places) in BANNED {
        if unquoted(code).contains(text) && places.iter().any(|place| below(file, place)) {
            found.push(fails(file, at, format!("{text} has no place here")));
        }
    }
    found
}

/// Whether `code` has a path that begins with `krate`, or uses the crate whole.
fn names_crate(code: &str, krate: &str) -> bool {
    let code = unquoted(code);
    code.match_indices(krate).any(|(start, _)| {
        let before = code[..start].chars().next_back();
        let starts_word =
            !before.is_some_and(|char| char.is_alphanumeric() || "_:.".contains(char));
        let after = &code[start + krate.len()..];
        let whole = code[..start].ends_with("use ") && after.starts_with([';', ' ']);
        starts_word && (after.starts_with("::") || whole)
    })
}

/// The line without its comment.
fn code(line: &str) -> &str {
    let end = line.match_indices("//").find(|(at, _)| {
        // Not the slashes of an address in a string.
        line[..*at].matches('"').count().is_multiple_of(2)
    });
    end.map_or(line, |(at, _)| &line[..at])
}

/// The code with what stands in string literals left out; one that spans lines is not known.
fn unquoted(code: &str) -> String {
    let code = code.replace("\\\"", "");
    code.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

/// Commands quoted in the README's console blocks that name no subcommand of xtask.
pub(super) fn readme(text: &str, subcommands: &[String]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut quoted = false;
    for (at, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            quoted = line == "```console";
        } else if quoted {
            let command = line.trim_start_matches("$ ").strip_prefix("cargo xtask ");
            let name = command.and_then(|rest| rest.split_whitespace().next());
            if let Some(name) = name.filter(|name| !subcommands.iter().any(|known| known == name)) {
                found.push(fails(
                    "README.md",
                    at + 1,
                    format!("cargo xtask has no {name}"),
                ));
            }
        }
    }
    found
}

fn fails(file: &str, line: usize, what: String) -> Finding {
    Finding {
        file: file.to_owned(),
        line,
        what,
        fails: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str, expected: &[&str]) {
        let found: Vec<_> = file(path, text).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_file_begins_with_its_doc() {
        check("tracer/src/run.rs", "//! Wiring.\nfn a() {}\n", &[]);
        check(
            "tracer/src/run.rs",
            "fn a() {}\n",
            &["tracer/src/run.rs:1: does not begin with //!"],
        );
    }

    #[test]
    fn aya_stays_behind_its_doors() {
        let text = "//! A.\nuse aya::Ebpf;\n";
        check("tracer/src/kernel/load.rs", text, &[]);
        check("tracer/src/kernel.rs", text, &[]);
        let belongs = "aya belongs in tracer/src/kernel, tracer/src/probes, tracer-ebpf";
        check(
            "tracer/src/run.rs",
            text,
            &[&format!("tracer/src/run.rs:2: {belongs}")],
        );
        check(
            "tracer/src/kernelish.rs",
            text,
            &[&format!("tracer/src/kernelish.rs:2: {belongs}")],
        );
    }

    #[test]
    fn a_crate_is_known_by_its_whole_name() {
        check(
            "tracer/src/run.rs",
            "//! aya::Ebpf\nuse aya_log::EbpfLogger;\n",
            &[],
        );
        check(
            "tracer/src/run.rs",
            "//! A.\nlet a = \"kube::x\"; // kube::y\n",
            &[],
        );
        check(
            "tracer/src/run.rs",
            "//! A.\nlet a = crate::kube::x();\n",
            &[],
        );
        check(
            "tracer/src/run.rs",
            "//! A.\nlet a: Vec<kube::Client>;\n",
            &["tracer/src/run.rs:2: kube belongs in tracer/src/cluster, tracer/src/plugin"],
        );
    }

    #[test]
    fn no_clock_is_read_where_time_comes_from_records() {
        let text = "//! A.\nlet now = Instant::now();\n";
        check("tracer/src/run.rs", text, &[]);
        check(
            "tracer/src/correlate/dns.rs",
            text,
            &["tracer/src/correlate/dns.rs:2: Instant::now has no place here"],
        );
    }

    #[test]
    fn unfinished_code_is_found_everywhere() {
        check(
            "xtask/src/a.rs",
            "//! A.\ntodo!()\n",
            &["xtask/src/a.rs:2: todo! has no place here"],
        );
        check(
            "xtask/src/a.rs",
            "//! A.\n#[allow(dead_code)]\n",
            &["xtask/src/a.rs:2: allow(dead_code has no place here"],
        );
    }

    #[test]
    fn only_code_counts_towards_the_length() {
        let long = |lines| format!("//! A.\n\n// why\n{}", "a();\n".repeat(lines));
        check("a.rs", &long(300), &[]);
        check(
            "a.rs",
            &long(301),
            &["a.rs:0: warning: 301 lines of code; 300 are a file, 400 the limit"],
        );
        check(
            "a.rs",
            &long(401),
            &["a.rs:0: 401 lines of code; 300 are a file, 400 the limit"],
        );
        check(
            "a.rs",
            &format!("//! A.\n#[cfg(test)]\n{}", "a();\n".repeat(500)),
            &[],
        );
        check("a/tests.rs", &long(500), &[]);
    }

    #[test]
    fn a_command_the_readme_quotes_exists() {
        let known = ["test".to_owned()];
        let text = "```console\n$ cargo xtask test vm\ncargo xtask tset\n```\n```rust\ncargo xtask x\n```\n";
        let found: Vec<_> = readme(text, &known)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, ["README.md:3: cargo xtask has no tset"]);
    }
}
