//! CoreDNS's CPU limit: how often its processes on this node had to wait for it.

use super::{Answer, Check, Problem, Seen};
use crate::model::Severity;

pub(super) const CPU: Check = Check {
    name: "coredns_cpu",
    subject: "coredns",
    why: "beyond its CPU limit CoreDNS stands still for the rest of each 100 ms, and so does every query that it has",
    run: cpu,
};

fn cpu(seen: &Seen) -> Answer {
    if seen.coredns.is_empty() {
        return Answer::Holds("no CoreDNS is seen to run on this node".to_owned());
    }
    let limited = || {
        let all = seen.coredns.iter();
        all.filter_map(|(pid, told)| Some((*pid, (*told)?)))
    };
    let problems: Vec<_> = limited()
        .filter(|(_, [began, lately])| lately.is_much() || began.is_usual())
        .map(|(pid, [began, lately])| Problem {
            severity: Severity::Warning,
            follows: &[],
            object: format!("process coredns[{pid}]"),
            sentence: "is held back by its CPU limit: queries wait until it may run again".to_owned(),
            evidence: vec![
                format!("since it began: {began}"),
                format!("within this look: {lately}"),
            ],
            remedy: "kubectl -n kube-system set resources deployment coredns --limits=cpu=1, or remove the limit; more replicas".to_owned(),
        })
        .collect();
    if !problems.is_empty() {
        return Answer::Fails(problems);
    }
    Answer::Holds(match limited().next() {
        Some((_, [began, _])) => format!("since it began: {began}"),
        None => "no CPU limit is set".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::doctor::Root;

    #[test]
    fn a_limit_that_holds_it_back_most_of_the_time_is_a_warning() {
        let said = |limit: &str, stat: &str| {
            let root = tempfile::tempdir().unwrap();
            let put = |path: &str, text: &str| {
                let path = root.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            };
            put(
                "proc/self/mounts",
                "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n",
            );
            put("proc/7/comm", "coredns\n");
            put("proc/7/cgroup", "0::/pod\n");
            put("sys/fs/cgroup/pod/cpu.max", limit);
            put("sys/fs/cgroup/pod/cpu.stat", stat);
            match cpu(&Seen::of(Root::new(root.path()))) {
                Answer::Holds(said) | Answer::Unknown(said) => said,
                Answer::Fails(problems) => {
                    format!("{}: {}", problems[0].object, problems[0].evidence[0])
                }
            }
        };
        let stat = "nr_periods 1000\nnr_throttled 900\nthrottled_usec 60000000\n";
        assert_eq!(
            said("10000 100000", stat),
            "process coredns[7]: since it began: CPU limit of 100m: it had to wait in 900 of 1000 periods, 60.0 s in all"
        );
        let little = "nr_periods 1000\nnr_throttled 30\nthrottled_usec 1000000\n";
        assert_eq!(
            said("10000 100000", little),
            "since it began: CPU limit of 100m: it had to wait in 30 of 1000 periods, 1.0 s in all"
        );
        assert_eq!(said("max 100000", stat), "no CPU limit is set");
    }
}
