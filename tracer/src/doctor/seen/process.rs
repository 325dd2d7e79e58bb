//! Processes of this node's own network: those of pods in the host's network, and of the node.

use super::Root;

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its name, cut to 15 bytes by the kernel.
    pub comm: String,
    /// Its command line, program first.
    pub args: Vec<String>,
}

impl Process {
    /// The value of `--flag=value` or `--flag value`.
    pub fn flag(&self, flag: &str) -> Option<&str> {
        let mut args = self.args.iter();
        while let Some(arg) = args.next() {
            if let Some(rest) = arg.trim_start_matches('-').strip_prefix(flag) {
                if rest.is_empty() {
                    return args.next().map(String::as_str);
                }
                if let Some(value) = rest.strip_prefix('=') {
                    return Some(value);
                }
            }
        }
        None
    }
}

/// Those whose network namespace is ours: pods of their own network run other people's programs.
pub(in crate::doctor) fn of_node(root: &Root) -> Vec<Process> {
    let ours = root.link("/proc/self/ns/net");
    let pids = root.list("/proc").into_iter();
    let pids = pids.filter_map(|name| name.parse::<u32>().ok());
    pids.filter(|pid| root.link(&format!("/proc/{pid}/ns/net")) == ours)
        .filter_map(|pid| {
            let comm = root.read(&format!("/proc/{pid}/comm")).ok()?;
            let args = root
                .read(&format!("/proc/{pid}/cmdline"))
                .unwrap_or_default();
            Some(Process {
                pid,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flags_value_follows_an_equals_sign_or_a_space() {
        let process = Process {
            pid: 1,
            comm: "kube-proxy".to_owned(),
            args: [
                "kube-proxy",
                "--proxy-mode=nftables",
                "--config",
                "/c",
                "-v=2",
            ]
            .map(str::to_owned)
            .to_vec(),
        };
        assert_eq!(process.flag("proxy-mode"), Some("nftables"));
        assert_eq!(process.flag("config"), Some("/c"));
        assert_eq!(process.flag("v"), Some("2"));
        assert_eq!(process.flag("proxy"), None);
    }
}
