//! Namespace inode → name: as `ip netns` calls it, "host" for the host's own, else the process
//! that lives in it.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::model::NetnsInode;

/// How often at most everything is looked at again because one name is missing.
const AGAIN: Duration = Duration::from_secs(1);

/// Names by inode.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: HashMap<u32, Arc<str>>,
    looked: Option<Instant>,
}

impl Names {
    /// The name of namespace `inode`, or its number where nobody has a name for it.
    pub(super) fn name(&mut self, inode: NetnsInode) -> Arc<str> {
        if let Some(name) = self.known.get(&inode.0) {
            return Arc::clone(name);
        }
        if self.looked.is_none_or(|when| when.elapsed() >= AGAIN) {
            self.look();
            self.looked = Some(Instant::now());
        }
        let name = self.known.get(&inode.0).cloned();
        name.unwrap_or_else(|| Arc::from(inode.0.to_string()))
    }

    /// Whether a namespace has this name, or this inode, now.
    pub(super) fn knows(&mut self, name: &str) -> bool {
        self.look();
        self.known
            .iter()
            .any(|(inode, known)| &**known == name || inode.to_string() == name)
    }

    /// Later sources do not overwrite earlier ones, so the best come first. Names already known
    /// stay: a namespace that is gone is still spoken of for a while.
    fn look(&mut self) {
        // Either may be hidden; kthreadd, process 2, never leaves the host's own.
        for own in ["/proc/1/ns/net", "/proc/2/ns/net"] {
            self.note(Path::new(own), || Some("host".to_owned()));
        }
        for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            self.note(&entry.path(), || entry.file_name().into_string().ok());
        }
        let mut pids: Vec<u32> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        pids.sort_unstable();
        for pid in pids {
            self.note(Path::new(&format!("/proc/{pid}/ns/net")), || {
                let comm = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
                Some(format!("{}[{pid}]", comm.trim_end()))
            });
        }
    }

    fn note(&mut self, path: &Path, name: impl FnOnce() -> Option<String>) {
        let Ok(found) = fs::metadata(path) else {
            return;
        };
        let Ok(inode) = u32::try_from(found.ino()) else {
            return;
        };
        if !self.known.contains_key(&inode)
            && let Some(name) = name()
        {
            self.known.insert(inode, Arc::from(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_nobody_knows_is_its_number() {
        assert_eq!(&*Names::default().name(NetnsInode(7)), "7");
    }

    #[test]
    fn our_own_namespace_has_a_name() {
        let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
        let name = Names::default().name(NetnsInode(u32::try_from(own).unwrap()));
        assert_ne!(&*name, own.to_string());
    }
}
