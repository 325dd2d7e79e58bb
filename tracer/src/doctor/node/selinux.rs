//! SELinux's state, and whether the container runtime is one that it keeps from starting CoreDNS.

use super::{Answer, Check, Problem, Seen};
use crate::model::Severity;

pub(super) const SELINUX: Check = Check {
    name: "selinux",
    subject: "node",
    why: "where SELinux enforces, a Docker of before 2018 cannot start what sets allowPrivilegeEscalation: false, as CoreDNS does: it ends again and again",
    run,
};

/// 0 or 1 (Documentation/admin-guide/LSM/SELinux.rst); missing where SELinux is off.
const ENFORCE: &str = "/sys/fs/selinux/enforce";

/// The first Docker that knows `no_new_privs` under SELinux
/// (<https://kubernetes.io/docs/setup/production-environment/tools/kubeadm/troubleshooting-kubeadm/>).
const DOCKER: u32 = 18;

fn run(seen: &Seen) -> Answer {
    let state = match seen.root.number(ENFORCE) {
        Some(1) => "enforcing",
        Some(_) => "permissive",
        None if seen.root.exists("/sys/fs/selinux")
            && !seen.root.list("/sys/fs/selinux").is_empty() =>
        {
            return Answer::Unknown(format!("{ENFORCE} cannot be read"));
        }
        None => return Answer::Holds("off".to_owned()),
    };
    let Some(here) = seen.this_node() else {
        return match state {
            "enforcing" => {
                Answer::Unknown("enforcing; which runtime this node has is not known".to_owned())
            }
            _ => Answer::Holds(state.to_owned()),
        };
    };
    let runtime = &here.runtime;
    if state != "enforcing" || !is_old_docker(runtime) {
        return Answer::Holds(format!("{state}, with {runtime}"));
    }
    Answer::Fails(vec![Problem {
        severity: Severity::Warning,
        follows: &[],
        object: format!("SELinux of Node {}", here.name),
        sentence: format!(
            "enforces, and {runtime} cannot start what sets allowPrivilegeEscalation: false under it, as CoreDNS does"
        ),
        evidence: vec![format!("{ENFORCE} is 1")],
        remedy: "upgrade Docker, or use containerd; until then allowPrivilegeEscalation: true in Deployment coredns, or setenforce 0"
            .to_owned(),
    }])
}

/// `docker://1.13.1`, `docker://17.03.2-ce`: all that counts years before 18.
fn is_old_docker(runtime: &str) -> bool {
    let version = runtime.strip_prefix("docker://");
    let major = version.and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    major.is_some_and(|major| major < DOCKER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::cni::fixtures;

    /// SELinux cannot be had in the tests' machine, so its files stand for it.
    #[test]
    fn an_enforcing_selinux_is_a_problem_with_an_old_docker_only() {
        let check = |enforce: Option<&str>, runtime: &str, verdict: &str| {
            let mut node = fixtures::flannel();
            if let Some(enforce) = enforce {
                node.write("sys/fs/selinux/enforce", enforce);
            }
            let nodes = node.seen.objects.as_mut().unwrap().nodes.as_mut().unwrap();
            runtime.clone_into(&mut nodes[0].runtime);
            assert_eq!(run(&node.seen).verdict(), verdict, "{enforce:?} {runtime}");
        };
        check(Some("1"), "docker://1.13.1", "warning");
        check(Some("1"), "docker://17.03.2-ce", "warning");
        check(Some("1"), "docker://19.3.15", "good");
        check(Some("1"), "containerd://2.4.2", "good");
        check(Some("0"), "docker://1.13.1", "good");
        check(None, "docker://1.13.1", "good");
    }
}
