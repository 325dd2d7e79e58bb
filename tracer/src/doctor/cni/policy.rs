//! NetworkPolicies under a plugin that ignores them.

use super::{Answer, Check, Problem, Seen, plugin, plugin::Plugin};
use crate::model::{Severity, policy::Policy};

pub(super) const POLICIES: Check = Check {
    name: "network_policies",
    subject: "cni",
    why: "the API server takes a NetworkPolicy whether or not anybody enforces it",
    run,
};

/// Daemons that enforce policies beside a plugin that does not: Calico's Felix (as Canal), and
/// SIG Network's own.
const ENFORCERS: &[&str] = &["calico-node", "kube-network-po", "kube-router"];

/// Whether anybody enforces NetworkPolicies on this node, in words.
pub(in crate::doctor) enum Enforced {
    /// As `kube-router enforces beside Flannel`.
    By(String),
    /// As `Flannel enforces none`.
    Not(String),
}

/// Whether anybody does.
///
/// # Errors
/// In words: it is not known.
pub(in crate::doctor) fn enforced(seen: &Seen) -> Result<Enforced, String> {
    let Some((plugin, _)) = plugin::plugin(seen) else {
        return Err("which plugin would enforce them is not known".to_owned());
    };
    if !matches!(plugin, Plugin::Flannel | Plugin::Bridge) {
        return Ok(Enforced::By(format!("{plugin} enforces")));
    }
    let runs = |comm: &str| seen.processes.iter().any(|process| process.comm == comm);
    Ok(match ENFORCERS.iter().find(|comm| runs(comm)) {
        Some(enforcer) => Enforced::By(format!("{enforcer} enforces beside {plugin}")),
        None => Enforced::Not(format!(
            "{plugin} enforces none, and nothing else on this node does"
        )),
    })
}

fn run(seen: &Seen) -> Answer {
    let policies = match seen
        .objects
        .as_ref()
        .map(|objects| &objects.network_policies)
    {
        Ok(Ok(found)) => &found.policies,
        Ok(Err(why)) | Err(why) => return Answer::Unknown(why.clone()),
    };
    let enforced = match enforced(seen) {
        Ok(enforced) => enforced,
        Err(why) => return Answer::Unknown(why),
    };
    let Some(first) = policies.first() else {
        return Answer::Holds("there are none".to_owned());
    };
    let count = policies.len();
    let why = match enforced {
        Enforced::By(by) => return Answer::Holds(format!("{count}, which {by}")),
        Enforced::Not(why) => why,
    };
    let names: Vec<_> = policies.iter().take(10).map(Policy::full_name).collect();
    Answer::Fails(vec![Problem {
        severity: Severity::Warning,
        follows: &[],
        object: format!("NetworkPolicy {}", first.full_name()),
        sentence: format!("is ignored, as are all {count} of them: {why}"),
        evidence: vec![names.join(", ")],
        remedy: "run kube-network-policies or Calico's policy part (Canal) beside it, or take the policies away so that nobody relies on them".to_owned(),
    }])
}

#[cfg(test)]
mod tests {
    use super::{super::fixtures, *};
    use crate::cluster::objects::Policies;

    #[test]
    fn flannel_ignores_them_and_doctor_says_so() {
        let check = |mut node: fixtures::Node, expected: &str| {
            assert_eq!(run(&node.seen).verdict(), "good");
            let deny = Policy {
                namespace: "shop".to_owned(),
                name: "deny".to_owned(),
                ..Policy::default()
            };
            node.seen.objects.as_mut().unwrap().network_policies = Ok(Policies {
                policies: vec![deny],
                ..Policies::default()
            });
            assert_eq!(run(&node.seen).verdict(), expected);
        };
        check(fixtures::flannel(), "warning");
        check(fixtures::calico(), "good");
        check(fixtures::weave(), "good");
    }
}
