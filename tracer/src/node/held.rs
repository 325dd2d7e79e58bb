//! What keeps a server from reading its socket, or from answering: its process is stopped by a signal or a debugger,
//! frozen with its cgroup, or held back by its CPU limit. Looked up for a socket that was asked in vain, or took long,
//! by namespace and port.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

use super::{
    cgroup,
    sockets::{Waiting, has_one_of},
    throttled,
};
use crate::model::NetnsInode;

/// How long an answer holds, and how many are kept.
const HOLDS: Duration = Duration::from_secs(1);
const MOST: usize = 256;

/// A socket by its namespace and port.
type At = (NetnsInode, u16);

/// What was found of late.
#[derive(Debug)]
pub(super) struct Held {
    known: FxHashMap<At, (Instant, Option<Arc<str>>)>,
    throttled: throttled::Looks,
}

impl Held {
    /// With what CPU limits have done up to now, below `root`.
    pub(super) fn begin(root: &Path) -> Self {
        Self {
            throttled: throttled::Looks::begin(root),
            known: FxHashMap::default(),
        }
    }

    /// Which process with a socket at `port` in `netns` is held, and by what; `None` when none is.
    pub(super) fn at(&mut self, netns: NetnsInode, port: u16) -> Option<Arc<str>> {
        let known = self.known.get(&(netns, port));
        if let Some((when, found)) = known
            && when.elapsed() < HOLDS
        {
            return found.clone();
        }
        if self.known.len() >= MOST {
            self.known.clear();
        }
        let found = look(netns, port, &mut self.throttled).map(Arc::from);
        let entry = (Instant::now(), found.clone());
        self.known.insert((netns, port), entry);
        found
    }
}

fn look(netns: NetnsInode, port: u16, throttled: &mut throttled::Looks) -> Option<String> {
    let entries = fs::read_dir("/proc").ok()?.flatten();
    let processes = entries.map(|entry| entry.path()).filter(|process| {
        let inode = fs::metadata(process.join("ns/net")).map(|netns| netns.ino());
        inode.is_ok_and(|inode| inode == u64::from(netns.0))
    });
    let mut processes = processes.peekable();
    let sockets = sockets(processes.peek()?, port);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut servers = processes.filter(|process| has_one_of(process, &sockets));
    servers.find_map(|process| {
        let how = how(&process, &mounts).map(str::to_owned);
        let how = how.or_else(|| throttled.at(&process))?;
        let comm = fs::read_to_string(process.join("comm")).ok()?;
        let pid = process.file_name()?.to_str()?;
        Some(format!("{}[{pid}] {how}", comm.trim_end()))
    })
}

/// What holds a process, where cgroups are at `mounts`; `None` when it runs, or could.
fn how(process: &Path, mounts: &str) -> Option<&'static str> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    // The name before may hold blanks and brackets (proc_pid_stat(5)).
    let (_, after) = stat.rsplit_once(") ")?;
    match after.chars().next()? {
        'T' => return Some("is stopped by a signal"),
        't' => return Some("is stopped by a debugger"),
        _ => {}
    }
    let groups = fs::read_to_string(process.join("cgroup")).ok()?;
    let mut states = groups.lines().filter_map(|group| freezer(group, mounts));
    states
        .any(|(file, frozen)| {
            fs::read_to_string(file).is_ok_and(|text| text.lines().any(|line| line == frozen))
        })
        .then_some("is frozen, with its cgroup")
}

/// The file that tells whether a cgroup is frozen, of its own or with one above it, and the line that says so.
fn freezer(group: &str, mounts: &str) -> Option<(PathBuf, &'static str)> {
    let at = cgroup::directory(group, mounts, "freezer")?;
    Some(if at.is_v2 {
        (at.dir.join("cgroup.events"), "frozen 1")
    } else {
        (at.dir.join("freezer.state"), "FROZEN")
    })
}

/// Inodes of sockets of UDP at `port`, and of those of TCP that listen there, in the namespace of a process.
fn sockets(process: &Path, port: u16) -> BTreeSet<String> {
    let mut inodes = BTreeSet::new();
    for table in ["udp", "udp6", "tcp", "tcp6"] {
        let text = fs::read_to_string(process.join("net").join(table)).unwrap_or_default();
        let waiting = text.lines().filter_map(Waiting::of);
        let at_port = waiting.filter(|socket| socket.at.port() == port);
        inodes.extend(at_port.map(|socket| socket.inode));
    }
    inodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_cgroups_tell_whether_one_is_frozen() {
        let mounts = "cgroup /sys/fs/cgroup/freezer cgroup rw,relatime,freezer 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        let check = |group: &str, expected: Option<&str>| {
            let found = freezer(group, mounts);
            assert_eq!(found.map(|(file, _)| file), expected.map(PathBuf::from));
        };
        check(
            "6:freezer:/a/b",
            Some("/sys/fs/cgroup/freezer/a/b/freezer.state"),
        );
        check("0::/c", Some("/sys/fs/cgroup/unified/c/cgroup.events"));
        check("4:memory:/a", None);
    }

    #[test]
    fn who_runs_is_not_held() {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert_eq!(how(Path::new("/proc/self"), &mounts), None);
    }
}
