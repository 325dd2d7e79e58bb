//! NetworkPolicies under a plugin that ignores them.

use super::{Answer, Check, Problem, Seen, plugin, plugin::Plugin};
use crate::model::Severity;

pub(super) const POLICIES: Check = Check {
    name: "network_policies",
    subject: "cni",
    why: "the API server takes a NetworkPolicy whether or not anybody enforces it",
    run,
};

/// Daemons that enforce policies beside a plugin that does not: Calico's Felix (as Canal), and
/// SIG Network's own.
const ENFORCERS: &[&str] = &["calico-node", "kube-network-po", "kube-router"];

fn run(seen: &Seen) -> Answer {
    let policies = match seen
        .objects
        .as_ref()
        .map(|objects| &objects.network_policies)
    {
        Ok(Ok(policies)) => policies,
        Ok(Err(why)) | Err(why) => return Answer::Unknown(why.clone()),
    };
    let Some((plugin, _)) = plugin::plugin(seen) else {
        return Answer::Unknown("which plugin would enforce them is not known".to_owned());
    };
    if policies.is_empty() {
        return Answer::Holds("there are none".to_owned());
    }
    let count = policies.len();
    let ignores = matches!(plugin, Plugin::Flannel | Plugin::Bridge);
    let enforcer = ENFORCERS
        .iter()
        .find(|comm| seen.processes.iter().any(|process| process.comm == **comm));
    match enforcer {
        Some(enforcer) if ignores => {
            Answer::Holds(format!("{count}, which {enforcer} enforces beside {plugin}"))
        }
        _ if !ignores => Answer::Holds(format!("{count}, which {plugin} enforces")),
        _ => Answer::Fails(vec![Problem {
            severity: Severity::Warning,
            follows: &[],
            object: format!("NetworkPolicy {}", policies[0]),
            sentence: format!(
                "is ignored, as are all {count} of them: {plugin} enforces none, and nothing else on this node does"
            ),
            evidence: vec![policies.iter().take(10).cloned().collect::<Vec<_>>().join(", ")],
            remedy: "run kube-network-policies or Calico's policy part (Canal) beside it, or take the policies away so that nobody relies on them".to_owned(),
        }]),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fixtures, *};

    #[test]
    fn flannel_ignores_them_and_doctor_says_so() {
        let check = |mut node: fixtures::Node, expected: &str| {
            assert_eq!(run(&node.seen).verdict(), "good");
            node.seen.objects.as_mut().unwrap().network_policies = Ok(vec!["shop/deny".to_owned()]);
            assert_eq!(run(&node.seen).verdict(), expected);
        };
        check(fixtures::flannel(), "warning");
        check(fixtures::calico(), "good");
        check(fixtures::weave(), "good");
    }
}
