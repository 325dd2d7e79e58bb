//! `cargo xtask test`: the tiers of tests, each with its heading and time, a table at the end.
//!
//! Without a tier everything CI runs is run. The first tier that fails is the last that runs, but for the guests,
//! which go beside the tests on this machine's kernel; a tier in which no test ran fails too. A test of a kernel or
//! a cluster that fails runs once more: a loaded machine can make it late. One that passes only then is unsteady,
//! which the table says. What a tier tests is in the workspace, not here.

mod cases;
mod guests;
mod lint;

use std::{
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use self::cases::{Case, Where};
use crate::{
    cluster::{self, ProxyMode},
    image::{self, Architecture},
    setup,
    sh::{self, say},
    vm::Version,
};

/// What can be named after `cargo xtask test`.
#[derive(Clone, Debug, PartialEq)]
enum Tier {
    /// Format, tidy, clippy for both targets.
    Lint,
    /// Unit tests and the black-box tests that need no root.
    Unit,
    /// rustdoc without a warning.
    Doc,
    /// Ignored tests whose reason begins with "needs root", on this machine's kernel.
    Kernel,
    /// The same tests on Debian's kernels, by name.
    Vm(Vec<Version>),
    /// Tests that need a real cluster, on this machine's kernel, once for each mode of kube-proxy.
    Cluster,
}

/// What one tier came to.
struct Ran {
    name: &'static str,
    /// What ran, or why one failed.
    result: Result<Passed>,
    took: Duration,
}

/// Most tests of a tier that may be unsteady: more of them are no accident.
const UNSTEADY: usize = 3;

/// Tests or checks that passed.
#[derive(Debug, Default)]
struct Passed {
    number: usize,
    /// Those of them that passed only when they ran once more.
    unsteady: Vec<String>,
}

impl Passed {
    fn all(number: usize) -> Self {
        Self {
            number,
            unsteady: Vec::new(),
        }
    }

    fn add(&mut self, more: Self) {
        self.number += more.number;
        self.unsteady.extend(more.unsteady);
    }
}

/// Runs the tiers that `words` name, all without one, after setting the machine up. Of tests that need
/// something, those whose name holds `only`.
///
/// # Errors
/// An unknown word, or the machine cannot be set up. A failed tier is no error but the status.
pub(crate) fn run(words: &[String], only: &str) -> Result<ExitCode> {
    let tiers = plan(words)?;
    setup::all()?;
    let mut ran: Vec<Ran> = Vec::new();
    // Tests in namespaces wait most of their time, and leave the processors to the guests.
    for together in tiers.chunk_by(|one, next| matches!((one, next), (Tier::Kernel, Tier::Vm(_)))) {
        thread::scope(|threads| {
            let tiers = together.iter().map(|tier| threads.spawn(|| tier.ran(only)));
            for tier in tiers.collect::<Vec<_>>() {
                ran.push(tier.join().expect("a tier's error is its result"));
            }
        });
        if ran.iter().any(|tier| tier.result.is_err()) {
            break;
        }
    }
    say("");
    for line in table(&ran) {
        say(&line);
    }
    for tier in &tiers[ran.len()..] {
        say(&format!("{:<8} not run", tier.name()));
    }
    let passed = ran.iter().all(|tier| tier.result.is_ok());
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Reads tiers and, after `vm`, its versions.
fn plan(words: &[String]) -> Result<Vec<Tier>> {
    let mut tiers = Vec::new();
    for word in words {
        match (word.as_str(), tiers.last_mut()) {
            ("lint", _) => tiers.push(Tier::Lint),
            ("unit", _) => tiers.push(Tier::Unit),
            ("doc", _) => tiers.push(Tier::Doc),
            ("kernel", _) => tiers.push(Tier::Kernel),
            ("vm", _) => tiers.push(Tier::Vm(Vec::new())),
            ("cluster", _) => tiers.push(Tier::Cluster),
            (version, Some(Tier::Vm(versions))) => versions.push(Version::named(version)?),
            _ => bail!(
                "no tier {word}; there are lint, unit, doc, kernel, vm [VERSION…] and cluster"
            ),
        }
    }
    if tiers.is_empty() {
        tiers = vec![
            Tier::Lint,
            Tier::Unit,
            Tier::Doc,
            Tier::Kernel,
            Tier::Vm(Vec::new()),
            Tier::Cluster,
        ];
    }
    Ok(tiers)
}

impl Tier {
    fn name(&self) -> &'static str {
        match self {
            Self::Lint => "lint",
            Self::Unit => "unit",
            Self::Doc => "doc",
            Self::Kernel => "kernel",
            Self::Vm(_) => "vm",
            Self::Cluster => "cluster",
        }
    }

    fn ran(&self, only: &str) -> Ran {
        say(&format!("\n── {} ──", self.name()));
        let start = Instant::now();
        let result = self.run(only).and_then(|passed| {
            let unsteady = &passed.unsteady;
            ensure!(passed.number > 0, "no test ran");
            ensure!(
                unsteady.len() <= UNSTEADY,
                "{} passed only when they ran once more: {}",
                unsteady.len(),
                unsteady.join("; ")
            );
            Ok(passed)
        });
        Ran {
            name: self.name(),
            result,
            took: start.elapsed(),
        }
    }

    fn run(&self, only: &str) -> Result<Passed> {
        match self {
            Self::Lint => lint::run().map(Passed::all),
            Self::Unit => unit().map(Passed::all),
            Self::Doc => doc().map(Passed::all),
            Self::Kernel => kernel(only),
            Self::Vm(versions) => guests::run(versions, only),
            Self::Cluster => in_cluster(only),
        }
    }
}

fn unit() -> Result<usize> {
    let mut passed = 0;
    sh::lines(
        Command::new("cargo").args(["test", "--workspace"]),
        |line| {
            say(line);
            passed += passed_in(line);
        },
    )?;
    Ok(passed)
}

/// Tests a line of libtest's says have passed: `test result: ok. 3 passed; 0 failed; …`.
fn passed_in(line: &str) -> usize {
    line.strip_prefix("test result: ")
        .and_then(|result| result.split_once(". ")?.1.split(' ').next()?.parse().ok())
        .unwrap_or(0)
}

fn doc() -> Result<usize> {
    sh::run(
        Command::new("cargo")
            .args(["doc", "--no-deps", "--workspace", "--quiet"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    Ok(1)
}

fn kernel(only: &str) -> Result<Passed> {
    ensure!(
        sh::output(Command::new("id").arg("-u"))? == "0",
        "kernel tests load programs and make namespaces: run as root"
    );
    let cases = cases::build(Where::Everywhere)?.of_tier("kernel", only)?;
    run_cases(&cases.iter().collect::<Vec<_>>(), |_| {})
}

fn in_cluster(only: &str) -> Result<Passed> {
    let wanted = cases::build(Where::Tests)?.of_tier("cluster", only)?;
    let tracer = image::build(Architecture::own()?, true, image::NAME)?;
    let mut all = Passed::default();
    for proxy in [ProxyMode::Iptables, ProxyMode::Nftables] {
        let name = "test".to_owned();
        let tracer = Some(tracer.clone());
        let dir = cluster::up(&cluster::Options {
            name,
            proxy,
            tracer,
        })?;
        say(&format!("kube-proxy in {} mode:", proxy.name()));
        let again = proxy == ProxyMode::Nftables;
        let wanted: Vec<_> = wanted
            .iter()
            .filter(|case| !again || case.is_of_each_mode())
            .collect();
        let passed = run_cases(&wanted, |command| {
            command.env("TRACER_CLUSTER", &dir);
        });
        // Logs of a cluster in which something failed are worth keeping; the next one replaces them.
        cluster::stop("test")?;
        all.add(passed.with_context(|| format!("logs are left in {}", dir.display()))?);
        cluster::down("test")?;
    }
    Ok(all)
}

/// Runs each by itself, after `prepare` has had its command; what fails, once more at the end.
fn run_cases(wanted: &[&Case], prepare: impl Fn(&mut Command)) -> Result<Passed> {
    let failed = failing(wanted, &prepare)?;
    let again: Vec<_> = failed.iter().map(|(case, _)| *case).collect();
    let still = failing(&again, &prepare)?;
    let told = |(case, why): &(&Case, String)| format!("{}: {why}", case.shown());
    ensure!(
        still.is_empty(),
        "{} of {} failed: {}",
        still.len(),
        wanted.len(),
        still.iter().map(told).collect::<Vec<_>>().join("; ")
    );
    Ok(Passed {
        number: wanted.len(),
        unsteady: failed.iter().map(told).collect(),
    })
}

/// Why a test failed, by what its thread panicked with, in one line of a bearable length: who reads the end of a
/// log alone is to know.
fn why(said: &str) -> String {
    const LONGEST: usize = 700;
    let told = said
        .split_once("panicked at ")
        .map_or(said, |(_, told)| told);
    let told = told.split("stack backtrace:").next().unwrap_or_default();
    let words: Vec<_> = told.split_whitespace().collect();
    words.join(" ").chars().take(LONGEST).collect()
}

/// Runs each of `wanted`; returns those that fail, and why.
fn failing<'case>(
    wanted: &[&'case Case],
    prepare: &impl Fn(&mut Command),
) -> Result<Vec<(&'case Case, String)>> {
    let mut failed = Vec::new();
    for &case in wanted {
        let start = Instant::now();
        let mut command = case.command();
        prepare(&mut command);
        let output = command.output().context("start a test")?;
        let said = String::from_utf8_lossy(&output.stdout);
        let log = String::from_utf8_lossy(&output.stderr);
        let verdict = if output.status.success() && said.lines().any(|line| passed_in(line) == 1) {
            log.lines()
                .find(|line| line.starts_with("cannot: "))
                .unwrap_or("ok")
        } else {
            say(said.trim_end());
            say(log.trim_end());
            failed.push((case, why(&format!("{said}{log}"))));
            "FAILED"
        };
        // What a test found that is worth a look though it passed.
        let shown = log.lines().filter(|line| line.starts_with("shown: "));
        shown.for_each(|line| say(&format!("    {}", line.trim_start_matches("shown: "))));
        say(&format!(
            "{} … {verdict} ({:.1} s)",
            case.shown(),
            start.elapsed().as_secs_f32()
        ));
    }
    Ok(failed)
}

fn table(ran: &[Ran]) -> Vec<String> {
    ran.iter()
        .map(|tier| {
            let result = match &tier.result {
                Ok(Passed { number, unsteady }) => match unsteady.as_slice() {
                    [] => format!("ok      {number} run"),
                    some => format!(
                        "ok      {number} run, {} of them passed only when run once more: {}",
                        some.len(),
                        some.join("; ")
                    ),
                },
                Err(error) => format!("FAILED  {error:#}"),
            };
            format!(
                "{:<8} {:>6.1} s  {result}",
                tier.name,
                tier.took.as_secs_f32()
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    fn words(words: &str) -> Vec<String> {
        words.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn without_a_tier_every_tier_runs() {
        let names: Vec<_> = plan(&[]).unwrap().iter().map(Tier::name).collect();
        assert_eq!(names, ["lint", "unit", "doc", "kernel", "vm", "cluster"]);
    }

    #[test]
    fn versions_belong_to_the_vm_tier_before_them() {
        let tiers = plan(&words("unit vm 5.10 newest doc")).unwrap();
        let versions = ["5.10", "newest"].map(|name| Version::named(name).unwrap());
        assert_eq!(tiers, [Tier::Unit, Tier::Vm(versions.to_vec()), Tier::Doc]);
    }

    #[test]
    fn an_unknown_tier_or_version_is_refused() {
        assert!(
            plan(&words("units"))
                .unwrap_err()
                .to_string()
                .starts_with("no tier units")
        );
        assert!(
            plan(&words("vm 4.19"))
                .unwrap_err()
                .to_string()
                .starts_with("no kernel 4.19")
        );
        assert!(plan(&words("kernel 5.10")).is_err());
    }

    #[test]
    fn passed_tests_are_read_from_the_result_line_only() {
        assert_eq!(
            passed_in("test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured"),
            12
        );
        assert_eq!(
            passed_in("test result: FAILED. 2 passed; 1 failed; 0 ignored"),
            2
        );
        assert_eq!(passed_in("test result_of_a_case ... ok"), 0);
    }

    #[test]
    fn why_a_test_failed_is_one_line() {
        let said = "running 1 test\n\nthread 'a' (7) panicked at tests/a.rs:3:5:\nexpected [\n  1,\n]\n\
                    stack backtrace:\n   0: core\n";
        assert_eq!(why(said), "tests/a.rs:3:5: expected [ 1, ]");
        assert_eq!(why("terminated\n"), "terminated");
        assert_eq!(why(&"x".repeat(1000)).len(), 700);
    }

    #[test]
    fn the_table_gives_each_tiers_time_and_the_failures_reason() {
        let took = Duration::from_millis(1250);
        let ran = [
            Ran {
                name: "unit",
                result: Ok(Passed::all(7)),
                took,
            },
            Ran {
                name: "vm",
                result: Ok(Passed {
                    number: 9,
                    unsteady: vec!["a::b".to_owned()],
                }),
                took,
            },
            Ran {
                name: "kernel",
                result: Err(anyhow!("no test ran")),
                took,
            },
        ];
        assert_eq!(
            table(&ran),
            [
                "unit        1.2 s  ok      7 run",
                "vm          1.2 s  ok      9 run, 1 of them passed only when run once more: a::b",
                "kernel      1.2 s  FAILED  no test ran"
            ]
        );
    }
}
