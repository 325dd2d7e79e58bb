//! Processes of this node's own network: those of pods in the host's network, and of the node.

use std::{fs, io};

use super::Root;
use crate::node::Throttled;

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its name, cut to 15 bytes by the kernel.
    pub comm: String,
    /// Its command line, program first.
    pub args: Vec<String>,
    /// Whether it is known to run in this node's network: without CAP_SYS_PTRACE nobody may look, when it has
    /// capabilities that this program has not.
    pub here: bool,
}

impl Process {
    /// The value of `--flag=value` or `--flag value`; of several the last, as Go's programs take it.
    pub fn flag(&self, flag: &str) -> Option<&str> {
        let (mut args, mut last) = (self.args.iter(), None);
        while let Some(arg) = args.next() {
            if let Some(rest) = arg.trim_start_matches('-').strip_prefix(flag) {
                if rest.is_empty() {
                    last = args.next().map(String::as_str);
                } else if let Some(value) = rest.strip_prefix('=') {
                    last = Some(value);
                }
            }
        }
        last
    }
}

/// What a CPU limit did to each process called `comm` since it began, and, as yet, since the first look.
pub(super) fn throttled(comm: &str, root: &Root) -> Vec<(u32, Option<[Throttled; 2]>)> {
    let pids = root.list("/proc").into_iter();
    let pids = pids.filter_map(|name| name.parse::<u32>().ok());
    let called = pids.filter(|pid| {
        let name = root.read(&format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name.trim_end() == comm)
    });
    called
        .map(|pid| {
            (
                pid,
                limit_of(pid, root).map(|began| [began, Throttled::default()]),
            )
        })
        .collect()
}

/// The same at a second look.
pub(super) fn look_again(all: &mut [(u32, Option<[Throttled; 2]>)], root: &Root) {
    for (pid, told) in all {
        *told = match (told.take(), limit_of(*pid, root)) {
            (Some([before, _]), Some(now)) => Some([now, now.since(before)]),
            _ => None,
        };
    }
}

fn limit_of(pid: u32, root: &Root) -> Option<Throttled> {
    Throttled::of(&root.path("/"), &root.path(&format!("/proc/{pid}")))
}

/// Those whose network namespace is ours, for pods of their own network run other people's programs; and those
/// whose namespace may not be looked at.
pub(in crate::doctor) fn of_node(root: &Root) -> Vec<Process> {
    let ours = root.link("/proc/self/ns/net");
    let pids = root.list("/proc").into_iter();
    let pids = pids.filter_map(|name| name.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, here(root, pid, ours.as_deref())?)))
        .filter_map(|(pid, here)| {
            let comm = root.read(&format!("/proc/{pid}/comm")).ok()?;
            let args = root
                .read(&format!("/proc/{pid}/cmdline"))
                .unwrap_or_default();
            Some(Process {
                pid,
                here,
                comm: comm.trim_end().to_owned(),
                args: args
                    .trim_end_matches('\0')
                    .split('\0')
                    .map(str::to_owned)
                    .collect(),
            })
        })
        .collect()
}

/// Whether a process's network is `ours`: `None` when it is another one.
fn here(root: &Root, pid: u32, ours: Option<&str>) -> Option<bool> {
    match fs::read_link(root.path("/proc").join(format!("{pid}/ns/net"))) {
        Ok(theirs) => (theirs.to_str() == ours).then_some(true),
        Err(error) => (error.kind() == io::ErrorKind::PermissionDenied).then_some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flags_value_follows_an_equals_sign_or_a_space() {
        let process = Process {
            pid: 1,
            here: true,
            comm: "kube-proxy".to_owned(),
            args: [
                "kube-proxy",
                "--proxy-mode=nftables",
                "--config",
                "/c",
                "-v=2",
                "--v=3",
            ]
            .map(str::to_owned)
            .to_vec(),
        };
        assert_eq!(process.flag("proxy-mode"), Some("nftables"));
        assert_eq!(process.flag("config"), Some("/c"));
        assert_eq!(process.flag("v"), Some("3"));
        assert_eq!(process.flag("proxy"), None);
    }
}
