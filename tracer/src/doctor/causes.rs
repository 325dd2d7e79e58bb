//! What follows from what: of problems that several checks see, one is the cause, and the others are told
//! with it. Here alone it stands which check's failure brings another's about.

use super::{Answer, Check, Problem};
use crate::model::Severity;

/// The runtime takes a CNI configuration that is not meant.
pub(super) const CONFIGURATION: &[&str] = &["cni_config"];
/// CoreDNS gets no network.
pub(super) const NO_NETWORK: &[&str] =
    &["cni_config", "cni_binaries", "cni_daemon", "cni_addresses"];
/// CoreDNS has no pod, or its pods wait for what they mount.
pub(super) const NO_OBJECT: &[&str] = &["coredns_objects"];
/// CoreDNS cannot read its Corefile.
pub(super) const COREFILE: &[&str] = &["corefile"];
/// CoreDNS forwards to itself.
pub(super) const LOOP: &[&str] = &["corefile", "resolv_conf"];
/// CoreDNS may not read what it serves.
pub(super) const NO_RIGHT: &[&str] = &["coredns_rbac"];
/// CoreDNS has too little memory.
pub(super) const NO_MEMORY: &[&str] = &["coredns_memory"];
/// CoreDNS does not reach the API server's VIP.
pub(super) const NO_API_SERVER: &[&str] = &["kube_proxy_process", "forward_rules", "forwarding"];
/// The Service kube-dns has no endpoint that is ready.
pub(super) const NO_SERVER: &[&str] = &["coredns_pods"];

/// Rules that kube-proxy keeps are old, or packets do not pass whatever they say.
pub(super) const OLD_RULES: &[&str] = &[
    "kube_proxy_process",
    "kube_proxy_hostname",
    "kube_proxy_kubeconfig",
    "kube_proxy_health",
    "kube_proxy_mode",
    "kube_proxy_leftovers",
    "kube_dns_rules",
    "forwarding",
    "forward_rules",
    "cni_device",
    "cni_peers",
];

/// What each check came to.
pub(super) type Answers = [(Check, Answer)];

/// The check that found what `problem` follows from, in the end; `None` where it is a cause itself.
pub(super) fn cause(answers: &Answers, problem: &Problem) -> Option<&'static str> {
    let mut found = None;
    let mut problem = problem;
    // No chain is longer than there are checks.
    for _ in answers {
        let next = problem.follows.iter().find_map(|name| {
            let (_, answer) = answers.iter().find(|(check, _)| check.name == *name)?;
            match answer {
                Answer::Fails(problems) => Some((*name, problems.first()?)),
                Answer::Holds(_) | Answer::Unknown(_) => None,
            }
        });
        let Some((name, of)) = next else { break };
        (found, problem) = (Some(name), of);
    }
    found
}

/// What follows from what `check` found: its problems, each with the check that saw it.
pub(super) fn consequences<'a>(
    answers: &'a Answers,
    check: &Check,
) -> impl Iterator<Item = (&'a Check, &'a Problem)> {
    let name = check.name;
    answers
        .iter()
        .flat_map(|(check, answer)| {
            let problems = match answer {
                Answer::Fails(problems) => &problems[..],
                Answer::Holds(_) | Answer::Unknown(_) => &[],
            };
            problems.iter().map(move |problem| (check, problem))
        })
        .filter(move |(_, problem)| cause(answers, problem) == Some(name))
}

/// How bad a problem that `check` found is: as bad as what follows from it.
pub(super) fn severity(answers: &Answers, check: &Check, problem: &Problem) -> Severity {
    let follow = consequences(answers, check).map(|(_, problem)| problem.severity);
    follow.fold(problem.severity, Severity::max)
}

/// The word for what a check came to: that of [`Answer::verdict`], or `consequence` where all that it found follows
/// from what another found.
pub(super) fn verdict(answers: &Answers, check: &Check, answer: &Answer) -> &'static str {
    match answer {
        Answer::Holds(_) | Answer::Unknown(_) => answer.verdict(),
        Answer::Fails(problems) => {
            let causes = problems
                .iter()
                .filter(|problem| cause(answers, problem).is_none());
            let worst = causes
                .map(|problem| severity(answers, check, problem))
                .max();
            worst.map_or("consequence", Severity::name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor;

    /// A check that finds one problem, which `follows`.
    fn fails(name: &'static str, follows: &'static [&'static str]) -> (Check, Answer) {
        let (check, _) = holds(name);
        let problem = Problem {
            severity: Severity::Broken,
            follows,
            object: name.to_owned(),
            sentence: String::new(),
            evidence: Vec::new(),
            remedy: String::new(),
        };
        (check, Answer::Fails(vec![problem]))
    }

    fn holds(name: &'static str) -> (Check, Answer) {
        let check = Check {
            name,
            subject: "coredns",
            why: "",
            run: |_| Answer::Unknown(String::new()),
        };
        (check, Answer::Holds(String::new()))
    }

    fn verdicts(answers: &Answers) -> Vec<&'static str> {
        let of = |(check, answer): &(Check, Answer)| verdict(answers, check, answer);
        answers.iter().map(of).collect()
    }

    #[test]
    fn causes_are_checks() {
        let all = [
            CONFIGURATION,
            NO_NETWORK,
            NO_OBJECT,
            COREFILE,
            LOOP,
            NO_RIGHT,
            NO_MEMORY,
            NO_API_SERVER,
            NO_SERVER,
            OLD_RULES,
        ];
        for name in all.concat() {
            assert!(doctor::chosen(&[name.to_owned()]).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_chain_leads_to_its_first_cause() {
        let answers = [
            fails("corefile", &[]),
            fails("coredns_pods", COREFILE),
            fails("kube_dns_service", NO_SERVER),
        ];
        assert_eq!(verdicts(&answers), ["broken", "consequence", "consequence"]);
        let seen: Vec<_> = consequences(&answers, &answers[0].0)
            .map(|(check, _)| check.name)
            .collect();
        assert_eq!(seen, ["coredns_pods", "kube_dns_service"]);
        assert_eq!(consequences(&answers, &answers[1].0).count(), 0);
    }

    #[test]
    fn a_cause_is_as_bad_as_its_consequences() {
        let mut answers = [fails("corefile", &[]), fails("coredns_pods", COREFILE)];
        if let Answer::Fails(problems) = &mut answers[0].1 {
            problems[0].severity = Severity::Warning;
        }
        assert_eq!(verdicts(&answers), ["broken", "consequence"]);
        assert_eq!(verdicts(&answers[..1]), ["warning"]);
    }

    #[test]
    fn what_follows_from_nothing_that_fails_is_a_problem_of_its_own() {
        let answers = [
            holds("corefile"),
            fails("coredns_pods", COREFILE),
            fails("kube_dns_service", NO_SERVER),
        ];
        assert_eq!(verdicts(&answers), ["good", "broken", "consequence"]);
    }
}
