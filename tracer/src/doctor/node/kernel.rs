//! Whether this kernel lets the tracer see: version, BTF, lockdown, and each probe.

use super::{Answer, Check, Problem, Seen};
use crate::model::Severity;

pub(super) const KERNEL: Check = Check {
    name: "kernel",
    subject: "node",
    why: "the tracer reads kernel structures, whose members BTF locates, and older kernels or a lockdown forbid it",
    run: kernel,
};

pub(super) const PROBES: Check = Check {
    name: "probes",
    subject: "node",
    why: "what a probe shows goes unseen where the kernel does not take it",
    run: probes,
};

/// Oldest kernel that works.
const OLDEST: (u32, u32) = (5, 10);

fn kernel(seen: &Seen) -> Answer {
    let Ok(release) = seen.root.read("/proc/sys/kernel/osrelease") else {
        return Answer::Unknown("/proc/sys/kernel/osrelease cannot be read".to_owned());
    };
    let release = release.trim();
    let broken = |object: &str, sentence: String, remedy: &str| Problem {
        severity: Severity::Broken,
        follows: &[],
        object: object.to_owned(),
        sentence,
        evidence: Vec::new(),
        remedy: remedy.to_owned(),
    };
    let mut problems = Vec::new();
    if version(release).is_some_and(|found| found < OLDEST) {
        problems.push(broken(
            &format!("Linux {release}"),
            "is older than 5.10, the oldest the tracer works on".to_owned(),
            "upgrade the node's kernel; doctor's other checks hold without it",
        ));
    }
    if !seen.root.exists("/sys/kernel/btf/vmlinux") {
        problems.push(broken(
            "/sys/kernel/btf/vmlinux",
            "is missing".to_owned(),
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y",
        ));
    }
    let lockdown = seen.root.read("/sys/kernel/security/lockdown");
    let lockdown = lockdown.unwrap_or_default();
    if lockdown.contains("[confidentiality]") {
        problems.push(broken(
            "/sys/kernel/security/lockdown",
            "is at confidentiality, which forbids BPF to read kernel memory".to_owned(),
            "boot with lockdown=integrity, or without lockdown",
        ));
    }
    Answer::of(problems, || {
        let lockdown = if lockdown.contains("[integrity]") {
            "lockdown for integrity, which is fine"
        } else {
            "no lockdown"
        };
        format!("Linux {release}, BTF, {lockdown}")
    })
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|char: char| !char.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// A probe less is no problem of the node's: it is said, and that is all.
fn probes(seen: &Seen) -> Answer {
    match &seen.unseen {
        Ok(unseen) if unseen.is_empty() => Answer::Holds("all attach".to_owned()),
        Ok(unseen) => Answer::Holds(format!("the others attach; {}", unseen.join("; "))),
        Err(why) => Answer::Unknown(why.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{doctor::Root, node::scratch::Scratch};

    #[test]
    fn an_old_kernel_without_btf_is_broken_twice() {
        let root = Scratch::new(&[("proc/sys/kernel/osrelease", "4.19.0-21-amd64\n")]);
        let Answer::Fails(problems) = kernel(&Seen::of(Root::new(root.path()))) else {
            panic!("it is too old");
        };
        assert_eq!(problems.len(), 2);
        assert_eq!(problems[0].object, "Linux 4.19.0-21-amd64");
    }

    #[test]
    fn a_kernel_with_btf_holds() {
        let root = Scratch::new(&[
            ("proc/sys/kernel/osrelease", "6.1.0-13-amd64\n"),
            ("sys/kernel/btf/vmlinux", ""),
            (
                "sys/kernel/security/lockdown",
                "none [integrity] confidentiality\n",
            ),
        ]);
        assert_eq!(
            kernel(&Seen::of(Root::new(root.path()))),
            Answer::Holds(
                "Linux 6.1.0-13-amd64, BTF, lockdown for integrity, which is fine".to_owned()
            )
        );
    }
}
