//! This node's clock against the API server's, which tells its time with each answer, to the second.

use super::{Answer, Check, Problem, Seen};
use crate::model::Severity;

pub(super) const CLOCK: Check = Check {
    name: "clock",
    subject: "node",
    why: "certificates and tokens hold from and until a time: a node whose clock is off refuses them, or is refused, and its logs and traces cannot be laid beside another's",
    run,
};

/// Seconds from which on a difference is none of the asking: the time comes in whole seconds, and the answer takes
/// a moment.
const OFF: u64 = 3;

/// Seconds from which on certificates fail: those that the cluster signs hold from five minutes before they are
/// signed (`backdate`, pkg/controller/certificates/signer/signer.go).
const REFUSED: u64 = 300;

fn run(seen: &Seen) -> Answer {
    let objects = match &seen.objects {
        Ok(objects) => objects,
        Err(why) => return Answer::Unknown(why.clone()),
    };
    let Some(ahead) = objects.clock_ahead else {
        return Answer::Unknown("the API server does not tell its time".to_owned());
    };
    let off = ahead.unsigned_abs();
    if off < OFF {
        return Answer::Holds("that of the API server, to the second or two".to_owned());
    }
    let way = if ahead > 0 { "ahead of" } else { "behind" };
    let (severity, more) = if off < REFUSED {
        (Severity::Warning, "")
    } else {
        let more = ": certificates signed now are refused, as not valid yet";
        (Severity::Broken, more)
    };
    Answer::Fails(vec![Problem {
        severity,
        follows: &[],
        object: "clock of this node".to_owned(),
        sentence: format!("is {off} s {way} the API server's{more}"),
        evidence: vec!["by the Date of the API server's answer".to_owned()],
        remedy: "timedatectl, or chronyc tracking, on both tells which of them is right and whether it follows a time server; chronyc makestep sets it"
            .to_owned(),
    }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::cni::fixtures;

    #[test]
    fn a_clock_is_judged_by_how_far_it_is_off_either_way() {
        let check = |ahead, verdict: &str, said: &str| {
            let mut node = fixtures::flannel();
            node.seen.objects.as_mut().unwrap().clock_ahead = ahead;
            let answer = run(&node.seen);
            assert_eq!(answer.verdict(), verdict);
            assert!(format!("{answer:?}").contains(said), "{answer:?}");
        };
        check(Some(0), "good", "");
        check(Some(-2), "good", "");
        check(Some(40), "warning", "is 40 s ahead of the API server's\"");
        check(Some(-400), "broken", "is 400 s behind");
        check(None, "unknown", "does not tell");
    }
}
