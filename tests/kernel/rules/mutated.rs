//! kube-proxy's own rules with one thing changed by hand at a time: real packets, sent before and after,
//! decide whether the change makes a difference, and to which Service; what `tracer verify` finds must be
//! just that, and what the evaluator foretells must be what happened.

mod changes;
mod foretold;
mod iptables;
mod ipvs;
mod nftables;
mod replies;
mod seen;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::{env, fs};

use tracer::model::Finding;
use tracer::rules::{Host, Ruleset};

use self::changes::{Change, Text};
use self::seen::{Baseline, Counts, Seen};
use self::world::World;
use super::judged::{Fixture, read};
use super::proxy::{Mode, takes, within};
use crate::support::behaviours::BEHAVIOURS;
use crate::support::{Topology, cannot, run_in};

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
    /// Whose rules it changes.
    mode: String,
    changes: fn(&[Text]) -> Vec<Change>,
    counts: Counts,
    world: World,
    fixture: Fixture,
    texts: Vec<Text>,
}

impl Bench {
    fn new(test: &str, mode: Mode) -> Self {
        let changes = match mode {
            Mode::Nftables => nftables::changes,
            Mode::Iptables | Mode::Legacy => iptables::changes,
        };
        Self::of(test, mode, changes)
    }

    fn of(test: &str, mode: Mode, changes: fn(&[Text]) -> Vec<Change>) -> Self {
        let mut fixture = Fixture::of(mode);
        if mode != Mode::Nftables {
            fixture.texts[0].1.push_str(replies::RAW);
        }
        Self::with(test, &format!("{mode:?}"), fixture, changes, Counts::MANY)
    }

    fn with(
        test: &str,
        mode: &str,
        fixture: Fixture,
        changes: fn(&[Text]) -> Vec<Change>,
        counts: Counts,
    ) -> Self {
        let texts = fixture
            .texts
            .iter()
            .map(|(_, text)| Text::of(text))
            .collect();
        Self {
            mode: mode.to_owned(),
            changes,
            counts,
            world: World::new(test, counts.slowness),
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

    /// Makes a change, sends packets, and compares what they meet with what is found.
    fn look(&self, baseline: &Baseline, change: &Change) -> Look {
        let mut wrong = Vec::new();
        if !self.load(Some(change)) {
            wrong.push(format!("{}: cannot be loaded", change.words));
        }
        let seen = Seen::take(&self.world, baseline, change);
        let (ruleset, host) = self.read();
        let findings = felt(self.fixture.judge_by(&ruleset, &host).findings);
        let differing = seen.differing(baseline);
        let (mut named, more) = named_by(&findings);
        // Rules may name a Service that there is not.
        named.retain(|name| self.is_there(name));
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
        let otherwise = seen.against(&self.world, baseline, &ruleset, &host);
        if !otherwise.is_empty() {
            wrong.push(format!("{}\n  evaluator: {otherwise:#?}", change.words));
        }
        Look {
            wrong,
            is_felt: !differing.is_empty(),
        }
    }

    fn is_there(&self, name: &str) -> bool {
        let mut services = self.fixture.snapshot.services.iter();
        services.any(|service| service.name.to_string() == name)
    }
}

/// What came of a change.
struct Look {
    /// What is not as foretold, or not as found.
    wrong: Vec<String>,
    is_felt: bool,
}

/// How many changes of a kind of behaviour were felt and found, and how many made no difference and
/// were not reported.
type Coverage = BTreeMap<u8, [u32; 2]>;

/// Makes every so many of the changes, from one of them on.
fn each_change_is_found_if_packets_feel_it(test: &str, mode: Mode, from: usize, step: usize) {
    each_change_of(&Bench::new(test, mode), from, step);
}

fn each_change_of(bench: &Bench, from: usize, step: usize) {
    let step = match env::var("TRACER_CHANGES").as_deref() {
        Ok("all") => 1,
        _ => step,
    };
    assert!(bench.load(None));
    let (ruleset, host) = bench.read();
    let clean = bench.fixture.judge_by(&ruleset, &host);
    assert_eq!(clean.findings, []);
    let baseline = Baseline::take(&bench.world, &bench.fixture.snapshot, bench.counts);
    let as_foretold = baseline.against(&bench.world, &ruleset, &host);
    assert!(as_foretold.is_empty(), "{as_foretold:#?}");
    let mut coverage = Coverage::new();
    let mut wrong = Vec::new();
    let all = (bench.changes)(&bench.texts);
    for change in all.iter().skip(from).step_by(step) {
        let mut looks = (0..bench.counts.looks).map(|_| bench.look(&baseline, change));
        let first = looks.next().expect("it looks once at least");
        let look = match first.wrong.as_slice() {
            [] => first,
            _ => looks.find(|look| look.wrong.is_empty()).unwrap_or(first),
        };
        wrong.extend(look.wrong);
        let counts = coverage.entry(change.behaviour).or_default();
        counts[usize::from(!look.is_felt)] += 1;
    }
    print(&coverage, &bench.mode);
    assert!(
        wrong.is_empty(),
        "{} of {} wrong:\n{}",
        wrong.len(),
        all.len(),
        wrong.join("\n")
    );
}

/// Has the tier show what was covered.
fn print(coverage: &Coverage, mode: &str) {
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
        "shown: {mode}: {felt} changes felt and found, {silent} felt by no packet and not reported"
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

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn changes_that_replies_alone_feel_are_found_among_iptables_rules() {
    each_change_of(&Bench::of("mrei", Mode::Iptables, replies::iptables), 0, 2);
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn changes_that_replies_alone_feel_are_found_among_nftables_rules() {
    each_change_of(&Bench::of("mren", Mode::Nftables, replies::nftables), 0, 2);
}

/// Every so many of them in a test of its own: emulated guests are slow.
const IPVS_STEP: usize = 8;

fn changes_in_ipvs_mode(test: &str, from: usize) {
    let Some(fixture) = ipvs::fixture() else {
        return;
    };
    let mut topology = Topology::new(test);
    let netns = topology.netns("limit");
    let limit = run_in(&netns, &["sysctl", "-n", "net.ipv4.icmp_msgs_per_sec"]);
    if !limit.status.success() {
        cannot(
            "this kernel limits the ICMP errors of all namespaces together, so that some refusals are lost",
        );
        return;
    }
    let bench = Bench::with(test, "Ipvs", fixture, ipvs::changes, Counts::FEW);
    each_change_of(&bench, from, IPVS_STEP);
}

#[test]
#[ignore = "needs root and ip_vs; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn changes_in_ipvs_mode_are_found_if_packets_feel_them_and_only_then() {
    changes_in_ipvs_mode("mvsa", 0);
}

#[test]
#[ignore = "needs root and ip_vs; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn further_changes_in_ipvs_mode_are_found_if_packets_feel_them_and_only_then() {
    changes_in_ipvs_mode("mvsb", 4);
}
