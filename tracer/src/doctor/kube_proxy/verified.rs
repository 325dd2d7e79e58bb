//! The summary of `tracer verify`: whether every Service's port leads from every kind of source to just the endpoints
//! that it is to have. Judged elsewhere; here it becomes one answer.

use super::{Answer, Check, NAME, Problem, Seen};
use crate::doctor::causes;

pub(super) const SERVICE_RULES: Check = Check {
    name: "service_rules",
    subject: "kube_proxy",
    why: "the rules of all Services are too many to be read: each port is walked from each kind of source, and where it leads compared with what the API objects ask for",
    run,
};

fn run(seen: &Seen) -> Answer {
    let verified = match &seen.verified {
        Ok(verified) => verified,
        Err(why) => return Answer::Unknown(why.clone()),
    };
    let node = &verified.node;
    if verified.modes.is_empty() && seen.process(NAME).is_none() {
        return Answer::Unknown(
            "no rules of kube-proxy are here, and it does not run: another program serves Services"
                .to_owned(),
        );
    }
    // The worst comes first.
    let Some(first) = verified.findings.first() else {
        let modes = verified.modes.join(", ");
        let kept = verified.kept_away.iter().map(|kept| {
            let (packets, engine) = (kept.packets, kept.engine);
            format!("; NetworkPolicies keep {packets} of them away, by {engine}'s rules")
        });
        return Answer::Holds(format!(
            "{modes}: {} ports of {} Services lead where they are to, by {} packets walked through {} rules{}",
            verified.ports,
            verified.services,
            verified.packets,
            verified.rules,
            kept.collect::<String>()
        ));
    };
    let more = match verified.findings.len() {
        1 => String::new(),
        count => format!("; {} more are found", count - 1),
    };
    Answer::Fails(vec![Problem {
        severity: first.severity,
        follows: causes::OLD_RULES,
        object: format!("rules on Node {node}, {}", first.object),
        sentence: format!("{}{more}", first.sentence),
        evidence: first.evidence.clone(),
        remedy: "tracer verify on this node tells each, with what to do".to_owned(),
    }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        doctor::cni::fixtures,
        model::{
            Finding, Severity, WallNs,
            verified::{Objects, Verified},
        },
    };

    #[test]
    fn what_verify_finds_is_one_problem_and_nothing_is_an_answer() {
        let mut node = fixtures::flannel();
        assert_eq!(run(&node.seen).verdict(), "unknown");
        let mut verified = Verified {
            node: "n1".to_owned(),
            modes: vec!["iptables"],
            objects: Objects::Api,
            taken: WallNs(0),
            services: 2,
            ports: 3,
            changing: 0,
            packets: 40,
            rules: 99,
            findings: Vec::new(),
            kept_away: Vec::new(),
        };
        node.seen.verified = Ok(verified.clone());
        assert_eq!(
            run(&node.seen),
            Answer::Holds("iptables: 3 ports of 2 Services lead where they are to, by 40 packets walked through 99 rules".to_owned())
        );
        let finding = Finding {
            name: "missing_endpoint",
            severity: Severity::Broken,
            object: "Service shop/web:http".to_owned(),
            sentence: "does not lead to 10.244.1.2:80".to_owned(),
            stage: None,
            evidence: Vec::new(),
            since: None,
            share: None,
            remedy: String::new(),
            refuted_by: String::new(),
        };
        verified.findings = vec![finding.clone(), finding];
        node.seen.verified = Ok(verified);
        let Answer::Fails(problems) = run(&node.seen) else {
            panic!("something is found");
        };
        assert_eq!(
            problems[0].object,
            "rules on Node n1, Service shop/web:http"
        );
        assert!(
            problems[0]
                .sentence
                .ends_with("10.244.1.2:80; 1 more are found")
        );
    }
}
