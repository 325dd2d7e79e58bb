//! The `vm` tier: every kernel test on each of Debian's kernels, and the table kernel × case.
//!
//! The tests are built once and copied, stripped, to the paths they have here. The first case of
//! each kernel is the guest itself: what the tests take for granted is there and works.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    Passed,
    cases::{self, Built, Case, Where},
};
use crate::{
    sh::{self, say},
    vm::{self, Answerer, Guest, Kernel, Outcome, Version},
};

/// Name of the case that tests the guest itself.
const GUEST: &str = "guest";

/// Longest for one case in a guest: emulation is ten times slower than this machine.
const CASE_LIMIT: Duration = Duration::from_mins(5);
/// Longest where every change that there is shall be made, which that variable asks of tests (tests/README.md).
const ALL_CHANGES_LIMIT: Duration = Duration::from_mins(30);
const CHANGES: &str = "TRACER_CHANGES";
/// Guests that run side by side; half of what a case does is to wait.
const AT_ONCE: usize = 2;
const BOOT_LIMIT: Duration = Duration::from_mins(2);

/// Line with which the script reports a case: verdict, seconds, name.
const MARK: &str = "xtask-case ";

/// What became of one case on one kernel.
#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    Ok,
    /// It passed when it ran once more.
    Unsteady,
    Failed,
    /// The kernel cannot show it, for this reason.
    Cannot(String),
}

impl Verdict {
    fn word(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unsteady => "2nd run",
            Self::Failed => "FAILED",
            Self::Cannot(_) => "cannot",
        }
    }
}

/// What became of the cases on one kernel, or why the guest came to no end.
type Column = (&'static str, Result<Vec<(String, Verdict)>>);

/// Runs the cases whose name holds `only` on each of `versions`, on all when there is none; returns which
/// passed.
///
/// # Errors
/// The tests do not build, or a case failed on a kernel, or a guest did not come to its end.
pub(super) fn run(versions: &[Version], only: &str) -> Result<Passed> {
    let versions = if versions.is_empty() {
        vm::ALL
    } else {
        versions
    };
    let built = cases::build(Where::Tests)?;
    let wanted = built.of_tier("vm", only)?;
    let files = files(&built, &wanted)?;
    let answerer = Answerer::start()?;
    let script = script(&wanted, answerer.port());
    // One after the other: they share apt's lists.
    let kernels: Vec<_> = versions
        .iter()
        .map(|version| (*version, version.fetch()))
        .collect();
    let columns = side_by_side(kernels, |version, kernel| {
        boot(version, &kernel, &files, &script, wanted.len())
    });
    say("");
    for line in table(&columns) {
        say(&line);
    }
    judge(&columns, wanted.len() + 1)
}

/// The programs to copy, each stripped: (path here, path in the guest).
fn files(built: &Built, wanted: &[Case]) -> Result<Vec<(PathBuf, PathBuf)>> {
    let dir = sh::target().join("vm/stripped");
    fs::create_dir_all(&dir)?;
    let mut programs: Vec<_> = wanted.iter().map(|case| case.binary.clone()).collect();
    programs.push(built.tracer.clone());
    programs.sort();
    programs.dedup();
    let mut files = Vec::new();
    for program in programs {
        let stripped = dir.join(program.file_name().context("a program has a name")?);
        sh::run(Command::new("strip").arg("-o").arg(&stripped).arg(&program))?;
        files.push((stripped, program));
    }
    Ok(files)
}

/// Runs every case by itself, under a limit, and shows what a failed one said.
fn script(wanted: &[Case], port: u16) -> String {
    let dir = cases::working_dir();
    let mut parts = vec![
        format!("export host_dns=10.0.2.2:{port}"),
        format!("limit={}", case_limit().as_secs()),
        format!("mkdir -p '{0}' && cd '{0}'", dir.display()),
        include_str!("guests/cases.sh").to_owned(),
        format!("guest() {{\n{}}}", include_str!("guests/guest.sh")),
        "export -f guest".to_owned(),
        format!("case_ {GUEST} timeout -k 5 \"$limit\" bash -c guest"),
    ];
    if let Ok(changes) = std::env::var(CHANGES) {
        parts.insert(0, format!("export {CHANGES}='{changes}'"));
    }
    parts.extend(wanted.iter().map(|case| {
        format!(
            "case_ '{}' libtest '{}' '{}'",
            case.shown(),
            case.binary.display(),
            case.name
        )
    }));
    parts.join("\n") + "\n"
}

/// Boots each kernel that could be fetched, [`AT_ONCE`] of them at a time.
fn side_by_side<K: Send>(
    kernels: Vec<(Version, Result<K>)>,
    boot: impl Fn(Version, K) -> Result<Vec<(String, Verdict)>> + Sync,
) -> Vec<Column> {
    let waiting = Mutex::new(kernels.into_iter().enumerate());
    let next = || waiting.lock().expect("no guest holds it").next();
    let boot = &boot;
    let work = || {
        let mut ended = Vec::new();
        while let Some((at, (version, kernel))) = next() {
            let guest = thread::scope(|scope| scope.spawn(move || boot(version, kernel?)).join());
            let result = guest.unwrap_or_else(|_| bail!("it panicked"));
            ended.push((at, (version.name, result)));
        }
        ended
    };
    let mut columns: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        let ended = workers.into_iter().map(thread::ScopedJoinHandle::join);
        let ended = ended.map(|ended| ended.expect("a guest's panic is its result"));
        ended.flatten().collect()
    });
    columns.sort_by_key(|(at, _)| *at);
    columns.into_iter().map(|(_, column)| column).collect()
}

fn boot(
    version: Version,
    kernel: &Kernel,
    files: &[(PathBuf, PathBuf)],
    script: &str,
    cases: usize,
) -> Result<Vec<(String, Verdict)>> {
    let files: Vec<(&Path, &Path)> = files
        .iter()
        .map(|(source, target)| (source.as_path(), target.as_path()))
        .collect();
    let name = version.name;
    let guest = Guest {
        kernel,
        parameters: version.parameters,
        files: &files,
        script,
        memory: 1024,
        net: true,
        limit: BOOT_LIMIT + case_limit() * u32::try_from(cases + 1)?,
    };
    let Outcome {
        status,
        console,
        took,
    } = vm::run(&guest, |line| say(&format!("[{name}] {line}")))?;
    ensure!(status == 0, "the script ended with status {status}");
    say(&format!(
        "vm: {} took {:.1} s",
        kernel.release,
        took.as_secs_f32()
    ));
    Ok(console.iter().filter_map(|line| verdict(line)).collect())
}

fn case_limit() -> Duration {
    match std::env::var_os(CHANGES) {
        Some(_) => ALL_CHANGES_LIMIT,
        None => CASE_LIMIT,
    }
}

fn verdict(line: &str) -> Option<(String, Verdict)> {
    let mut words = line.strip_prefix(MARK)?.splitn(4, ' ');
    let (verdict, _seconds, name) = (words.next()?, words.next()?, words.next()?);
    let why = words.next().unwrap_or_default().trim_end();
    let verdict = match verdict {
        "ok" => Verdict::Ok,
        "unsteady" => Verdict::Unsteady,
        "cannot" => Verdict::Cannot(why.to_owned()),
        _ => Verdict::Failed,
    };
    Some((name.to_owned(), verdict))
}

fn table(columns: &[Column]) -> Vec<String> {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in columns
        .iter()
        .filter_map(|(_, result)| result.as_ref().ok())
        .flatten()
    {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
    let row = |name: &str, cells: Vec<&str>| {
        let cells: Vec<_> = cells.iter().map(|cell| format!("  {cell:>7}")).collect();
        format!("{name:width$}{}", cells.concat())
    };
    let heads = columns.iter().map(|(version, _)| *version).collect();
    let mut lines = vec![row("", heads)];
    for name in names {
        let cells = columns
            .iter()
            .map(|(_, result)| cell(result, name))
            .collect();
        lines.push(row(name, cells));
    }
    lines.extend(reasons(columns));
    lines
}

/// What a kernel cannot show, and why: a line each.
fn reasons(columns: &[Column]) -> Vec<String> {
    let mut lines = Vec::new();
    for (version, result) in columns {
        for (name, verdict) in result.as_ref().map_or(&[][..], Vec::as_slice) {
            if let Verdict::Cannot(why) = verdict {
                lines.push(format!("{version} cannot {name}: {why}"));
            }
        }
    }
    lines
}

fn cell(result: &Result<Vec<(String, Verdict)>>, name: &str) -> &'static str {
    let cases = result.as_ref().map_or(&[][..], Vec::as_slice);
    match cases.iter().find(|(case, _)| case == name) {
        Some((_, verdict)) => verdict.word(),
        None => "-",
    }
}

/// Counts the cases that passed; every kernel owes `owed` of them.
fn judge(columns: &[Column], owed: usize) -> Result<Passed> {
    let mut bad = Vec::new();
    let mut passed = Passed::default();
    for (version, result) in columns {
        match result {
            Err(error) => bad.push(format!("{version}: {error:#}")),
            Ok(cases) => {
                let count = |wanted: fn(&Verdict) -> bool| {
                    cases.iter().filter(|(_, verdict)| wanted(verdict)).count()
                };
                let unsteady = cases.iter().filter(|(_, it)| *it == Verdict::Unsteady);
                let unsteady: Vec<_> = unsteady
                    .map(|(name, _)| format!("{name} on {version}"))
                    .collect();
                passed.add(Passed {
                    number: count(|verdict| *verdict == Verdict::Ok) + unsteady.len(),
                    unsteady,
                });
                let failed = count(|verdict| *verdict == Verdict::Failed);
                if failed > 0 {
                    bad.push(format!("{version}: {failed} of {owed} failed"));
                }
                if cases.len() != owed {
                    bad.push(format!("{version}: {} of {owed} ran", cases.len()));
                }
            }
        }
    }
    ensure!(bad.is_empty(), "{}", bad.join("; "));
    Ok(passed)
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    fn columns() -> Vec<Column> {
        let case = |name: &str, verdict| (name.to_owned(), verdict);
        let failed = case("kernel::a", Verdict::Failed);
        let cannot = case("kernel::a", Verdict::Cannot("it has no ip_vs".to_owned()));
        vec![
            ("5.10", Ok(vec![case("guest", Verdict::Ok), failed])),
            ("6.1", Ok(vec![case("guest", Verdict::Ok), cannot])),
            ("newest", Err(anyhow!("it panicked"))),
        ]
    }

    #[test]
    fn what_comes_of_each_kernel_stands_in_its_own_column() {
        let mut kernels: Vec<_> = vm::ALL.iter().map(|version| (*version, Ok(()))).collect();
        kernels[2].1 = Err(anyhow!("no mirror answers"));
        let columns = side_by_side(kernels, |version, ()| {
            assert_ne!(version.name, "6.1", "as a mistake of ours");
            Ok(vec![(version.name.to_owned(), Verdict::Ok)])
        });
        let told = columns.iter().map(|(version, result)| match result {
            Ok(cases) => format!("{version} {}", cases[0].0),
            Err(error) => format!("{version}: {error}"),
        });
        let expected = [
            "5.10 5.10",
            "6.1: it panicked",
            "6.12: no mirror answers",
            "newest newest",
        ];
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn verdicts_are_read_from_marked_lines_only() {
        assert_eq!(
            verdict("xtask-case ok 1.5 kernel::a"),
            Some(("kernel::a".to_owned(), Verdict::Ok))
        );
        assert_eq!(
            verdict("xtask-case unsteady 1.5 kernel::a"),
            Some(("kernel::a".to_owned(), Verdict::Unsteady))
        );
        assert_eq!(
            verdict("xtask-case failed 9 guest"),
            Some(("guest".to_owned(), Verdict::Failed))
        );
        assert_eq!(
            verdict("xtask-case cannot 0.2 kernel::a it has no ip_vs"),
            Some((
                "kernel::a".to_owned(),
                Verdict::Cannot("it has no ip_vs".to_owned())
            ))
        );
        assert_eq!(verdict("test kernel::a ... ok"), None);
    }

    #[test]
    fn the_table_has_a_row_a_case_and_a_column_a_kernel() {
        assert_eq!(
            table(&columns()),
            [
                "              5.10      6.1   newest",
                "guest           ok       ok        -",
                "kernel::a   FAILED   cannot        -",
                "6.1 cannot kernel::a: it has no ip_vs",
            ]
        );
    }

    #[test]
    fn a_case_that_passed_only_when_it_ran_once_more_is_named() {
        let cases = ["guest", "kernel::a"].map(str::to_owned);
        let verdicts = [Verdict::Ok, Verdict::Unsteady];
        let column = ("6.1", Ok(cases.into_iter().zip(verdicts).collect()));
        let passed = judge(&[column], 2).unwrap();
        assert_eq!(passed.number, 2);
        assert_eq!(passed.unsteady, ["kernel::a on 6.1"]);
    }

    #[test]
    fn a_failed_a_missing_and_an_unreported_case_are_all_named() {
        assert_eq!(
            judge(&columns(), 3).unwrap_err().to_string(),
            "5.10: 1 of 3 failed; 5.10: 2 of 3 ran; 6.1: 2 of 3 ran; newest: it panicked"
        );
    }
}
