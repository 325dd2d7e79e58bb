//! kube-proxy's own rules with one thing changed by hand at a time: real packets, sent before and after,
//! decide whether the change makes a difference, and to which Service; what `tracer verify` finds must be
//! just that, and what the evaluator foretells must be what happened.

mod changes;
mod foretold;
mod iptables;
mod nftables;
mod seen;
mod tally;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::{env, fs};

use tracer::model::Finding;
use tracer::rules::{Host, Ruleset};

use self::changes::{BEHAVIOURS, Change, Text};
use self::seen::{Baseline, Seen};
use self::world::World;
use super::judged::{Fixture, read};
use super::proxy::{Mode, takes, within};
use crate::support::run_in;

/// Services that findings name, and whether some are left out for brevity.
fn named_by(findings: &[Finding]) -> (BTreeSet<String>, bool) {
    let (mut names, mut more) = (BTreeSet::new(), false);
    for finding in findings {
        let listed = finding
            .evidence
            .first()
            .filter(|_| finding.object.ends_with("Service ports"));
        more |= listed.is_some_and(|line| line.contains("more"));
        let object = listed.unwrap_or(&finding.object);
        names.extend(changes::named(object));
    }
    (names, more)
}

/// What is found wrong that packets can feel. A chain to which nothing leads does no harm.
fn felt(findings: Vec<Finding>) -> Vec<Finding> {
    let harmless = ["leftover_chain"];
    findings
        .into_iter()
        .filter(|one| !harmless.contains(&one.name))
        .collect()
}

struct Bench {
    mode: Mode,
    world: World,
    fixture: Fixture,
    texts: Vec<Text>,
}

impl Bench {
    fn new(test: &str, mode: Mode) -> Self {
        let fixture = Fixture::of(mode);
        let texts = fixture
            .texts
            .iter()
            .map(|(_, text)| Text::of(text))
            .collect();
        Self {
            mode,
            world: World::new(test),
            fixture,
            texts,
        }
    }

    /// Loads a change instead of what is there, and forgets connections and clients. `false` when the
    /// rules cannot be loaded.
    fn load(&self, change: Option<&Change>) -> bool {
        let node = &self.world.network.node;
        let mut loaded = true;
        for (index, (words, text)) in self.fixture.texts.iter().enumerate() {
            let changed = change.filter(|change| change.text == index);
            loaded &= match changed {
                Some(change) => takes(node, words, &self.texts[index].with(&change.edits)),
                None => takes(node, words, text),
            };
        }
        run_in(node, &["conntrack", "-F"]);
        within(node, || {
            for list in fs::read_dir("/proc/thread-self/net/xt_recent")
                .into_iter()
                .flatten()
            {
                let list = list.expect("it is listed").path();
                fs::write(list, "/").expect("root may clear it");
            }
        });
        loaded
    }

    fn read(&self) -> (Ruleset, Host) {
        read(&self.world.network)
    }

    fn is_there(&self, name: &str) -> bool {
        let mut services = self.fixture.snapshot.services.iter();
        services.any(|service| service.name.to_string() == name)
    }

    fn changes(&self) -> Vec<Change> {
        match self.mode {
            Mode::Nftables => nftables::changes(&self.texts),
            Mode::Iptables | Mode::Legacy => iptables::changes(&self.texts),
        }
    }
}

/// How many changes of a kind of behaviour were felt and found, and how many made no difference and
/// were not reported.
type Coverage = BTreeMap<u8, [u32; 2]>;

/// Makes every so many of the changes, from one of them on.
fn each_change_is_found_if_packets_feel_it(test: &str, mode: Mode, from: usize, step: usize) {
    let step = match env::var("TRACER_CHANGES").as_deref() {
        Ok("all") => 1,
        _ => step,
    };
    let bench = Bench::new(test, mode);
    assert!(bench.load(None));
    let (ruleset, host) = bench.read();
    let clean = bench.fixture.judge_by(&ruleset, &host);
    assert_eq!(clean.findings, []);
    let baseline = Baseline::take(&bench.world, &bench.fixture.snapshot);
    let as_foretold = baseline.against(&bench.world, &ruleset, &host);
    assert!(as_foretold.is_empty(), "{as_foretold:#?}");
    let mut coverage = Coverage::new();
    let mut wrong = Vec::new();
    let all = bench.changes();
    for change in all.iter().skip(from).step_by(step) {
        if !bench.load(Some(change)) {
            wrong.push(format!("{}: cannot be loaded", change.words));
            continue;
        }
        let seen = Seen::take(&bench.world, &baseline, change);
        let (ruleset, host) = bench.read();
        let findings = felt(bench.fixture.judge_by(&ruleset, &host).findings);
        let differing = seen.differing(&baseline);
        let (mut named, more) = named_by(&findings);
        // Rules may name a Service that there is not.
        named.retain(|name| bench.is_there(name));
        let found: Vec<_> = findings.iter().map(|one| (one.name, &one.object)).collect();
        let services: BTreeSet<_> = differing
            .iter()
            .filter_map(|(name, _)| name.clone())
            .collect();
        let as_felt = findings.is_empty() == differing.is_empty()
            && (services == named || more && named.is_subset(&services));
        if !as_felt {
            let felt = differing.iter().filter(|(name, _)| {
                name.as_ref().is_none_or(|name| !named.contains(name)) || findings.is_empty()
            });
            let felt = felt.map(|(name, how)| format!("{name:?} {how}"));
            let felt: Vec<_> = felt.take(3).collect();
            let unfelt: Vec<_> = named.difference(&services).collect();
            wrong.push(format!(
                "{}\n  felt {felt:#?}\n  not felt {unfelt:?}\n  found {found:?}",
                change.words
            ));
        }
        let otherwise = seen.against(&bench.world, &baseline, &ruleset, &host);
        if !otherwise.is_empty() {
            wrong.push(format!("{}\n  evaluator: {otherwise:#?}", change.words));
        }
        let counts = coverage.entry(change.behaviour).or_default();
        counts[usize::from(differing.is_empty())] += 1;
    }
    print(&coverage, mode);
    assert!(
        wrong.is_empty(),
        "{} of {} wrong:\n{}",
        wrong.len(),
        all.len(),
        wrong.join("\n")
    );
}

/// Has the tier show what was covered.
fn print(coverage: &Coverage, mode: Mode) {
    let mut lines = Vec::new();
    let (mut felt, mut silent) = (0, 0);
    for (number, what) in BEHAVIOURS {
        let [found, none] = coverage.get(&number).copied().unwrap_or_default();
        felt += found;
        silent += none;
        if found + none > 0 {
            lines.push(format!(
                "{number} {what}: {found} found, {none} without effect"
            ));
        }
    }
    let mut out = std::io::stderr();
    let said = writeln!(
        out,
        "shown: {mode:?}: {felt} changes felt and found, {silent} felt by no packet and not reported"
    );
    assert!(said.is_ok(), "standard error is open");
    for line in lines {
        assert!(
            writeln!(out, "shown:   {line}").is_ok(),
            "standard error is open"
        );
    }
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn changes_of_iptables_rules_are_found_if_packets_feel_them_and_only_then() {
    each_change_is_found_if_packets_feel_it("mipt", Mode::Iptables, 0, 6);
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn further_changes_of_iptables_rules_are_found_if_packets_feel_them_and_only_then() {
    each_change_is_found_if_packets_feel_it("mipu", Mode::Iptables, 2, 6);
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn changes_of_nftables_rules_are_found_if_packets_feel_them_and_only_then() {
    each_change_is_found_if_packets_feel_it("mnft", Mode::Nftables, 0, 6);
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn further_changes_of_nftables_rules_are_found_if_packets_feel_them_and_only_then() {
    each_change_is_found_if_packets_feel_it("mnfu", Mode::Nftables, 2, 6);
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn changes_of_legacy_iptables_rules_are_found_if_packets_feel_them_and_only_then() {
    each_change_is_found_if_packets_feel_it("mleg", Mode::Legacy, 1, 8);
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn more_changes_of_iptables_rules_are_found_if_packets_feel_them_and_only_then() {
    each_change_is_found_if_packets_feel_it("mipv", Mode::Iptables, 4, 6);
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn more_changes_of_nftables_rules_are_found_if_packets_feel_them_and_only_then() {
    each_change_is_found_if_packets_feel_it("mnfv", Mode::Nftables, 4, 6);
}
