//! Failures of CNI, CoreDNS and kube-proxy, each brought about as a person would, one after the other, in a
//! cluster that works: `tracer doctor` names it, with its object, and nothing else; mended, it is silent.
//!
//! Each says a line of the table failure × where injected × found, which the tier prints and
//! docs/failures.md keeps.

mod cni;
mod coredns;
mod kube_proxy;
mod node;
mod traced;

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::bed::{Cluster, shown};

/// Longest until doctor sees what was broken or mended: a container is started again and again, the longer
/// the rarer.
const PATIENCE: Duration = Duration::from_secs(45);

/// Which check is to find what: words of its object and its sentence.
type Found = (&'static str, &'static str);

/// A failure, how it comes about, how it is mended, and what doctor on `n1` is to say of it.
struct Failure {
    /// As the table has it.
    what: &'static str,
    make: Step,
    mend: Step,
    found: &'static [Found],
}

/// What a person does.
enum Step {
    /// By a shell on the node `n1`.
    Sh(&'static str),
    Run(fn(&Cluster)),
}

impl Step {
    fn take(&self, cluster: &Cluster) {
        match self {
            Self::Sh(script) => drop(cluster.sh("n1", script)),
            Self::Run(run) => run(cluster),
        }
    }
}

/// A failure while it lasts: whatever comes of the test, it is mended.
struct Made<'a>(&'a Cluster, &'a Step);

impl<'a> Made<'a> {
    fn make(cluster: &'a Cluster, make: &Step, mend: &'a Step) -> Self {
        let made = Self(cluster, mend);
        make.take(cluster);
        made
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        self.1.take(self.0);
    }
}

/// What doctor on a node finds wrong: name of the check, then object and sentence; without what follows from it.
fn problems(cluster: &Cluster, node: &str) -> Vec<(String, String)> {
    let output = cluster
        .tracer_on(node)
        .args(["doctor", "--output", "json"])
        .env("KUBECONFIG", cluster.admin())
        .output()
        .expect("the program was built");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (mut found, mut causes) = (Vec::new(), Vec::new());
    for line in said.lines() {
        let line: Value = serde_json::from_str(line).expect("doctor prints JSON");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for problem in line["problems"].as_array().into_iter().flatten() {
            let told = format!(
                "{}: {}",
                text(&problem["object"]),
                text(&problem["sentence"])
            );
            match problem["follows_from"].as_str() {
                Some(cause) => causes.push(cause.to_owned()),
                None => found.push((text(&line["name"]), told)),
            }
        }
    }
    for cause in causes {
        assert!(found.iter().any(|(name, _)| *name == cause), "{said}");
    }
    assert_eq!(
        output.status.code(),
        Some(i32::from(!found.is_empty())),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    found
}

/// Each that is expected was found, and nothing was that is not expected.
fn agree(found: &[(String, String)], expected: &[Found]) -> bool {
    let is = |found: &(String, String), expected: &Found| {
        found.0 == expected.0 && found.1.contains(expected.1)
    };
    expected
        .iter()
        .all(|expected| found.iter().any(|found| is(found, expected)))
        && found
            .iter()
            .all(|found| expected.iter().any(|expected| is(found, expected)))
}

/// Waits until doctor says just what is expected.
fn await_found(cluster: &Cluster, what: &str, expected: &[Found]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = problems(cluster, "n1");
        if agree(&found, expected) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{what}: expected {expected:#?}, not {found:#?}"
        );
        sleep(Duration::from_millis(200));
    }
}

/// Its row in docs/failures.md.
fn row(failure: &Failure) -> String {
    let mut names: Vec<_> = failure
        .found
        .iter()
        .map(|(name, _)| format!("`{name}`"))
        .collect();
    names.dedup();
    let found = names.join(", ");
    format!("| {} | cluster | doctor: {found} |", failure.what)
}

fn check(failures: &[Failure]) {
    let cluster = Cluster::up();
    await_found(&cluster, "before anything is broken", &[]);
    for failure in failures {
        let made = Made::make(&cluster, &failure.make, &failure.mend);
        await_found(&cluster, failure.what, failure.found);
        drop(made);
        await_found(&cluster, &format!("{}, mended", failure.what), &[]);
        shown(&row(failure));
    }
}

/// All of them, in the order of docs/failures.md.
const TABLES: &[&[Failure]] = &[
    node::FAILURES,
    cni::CONFIGURATION,
    cni::OVERLAY,
    cni::OF_FLANNEL,
    coredns::OBJECTS,
    coredns::COREFILE,
    coredns::OTHER_COREFILE,
    coredns::PENDING,
    coredns::PODS,
    coredns::POLICIES,
    kube_proxy::FAILURES,
];

#[test]
fn the_documented_table_is_what_is_made_here() {
    let rows = TABLES.iter().copied().flatten().map(row);
    let rows = rows.chain(traced::FAILURES.iter().map(traced::row));
    let rows: Vec<_> = rows.collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/failures.md");
    let page = std::fs::read_to_string(path).expect("it is committed");
    let documented: Vec<_> = page
        .lines()
        .filter(|line| line.contains("| cluster |"))
        .collect();
    assert_eq!(
        documented,
        rows,
        "put these into docs/failures.md:\n{}",
        rows.join("\n")
    );
}

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`"]
fn on_a_healthy_node_nothing_is_wrong() {
    let cluster = Cluster::up();
    for node in ["n1", "n2"] {
        assert_eq!(problems(&cluster, node), []);
    }
}
