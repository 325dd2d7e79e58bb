//! Namespace inode → name: as `ip netns` calls it, "host" for the host's own, else the process
//! that lives in it.

use std::{
    collections::hash_map::Entry,
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

use crate::model::NetnsInode;

/// How often at most everything is looked at again because one name is missing.
const AGAIN: Duration = Duration::from_secs(1);

/// Names by inode.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: FxHashMap<u32, Known>,
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Known {
    name: Arc<str>,
    /// By which it can be entered, as long as whoever stands behind it lives.
    path: PathBuf,
}

impl Names {
    /// The name of namespace `inode`, or its number where nobody has a name for it.
    pub(super) fn name(&mut self, inode: NetnsInode) -> Arc<str> {
        if let Some(known) = self.known.get(&inode.0) {
            return Arc::clone(&known.name);
        }
        self.look_again();
        let known = self.known.get(&inode.0);
        known.map_or_else(
            || Arc::from(inode.0.to_string()),
            |known| Arc::clone(&known.name),
        )
    }

    /// Opens namespace `inode`, to enter it; `None` when nobody lives in it, or it may not be
    /// looked at.
    pub(super) fn open(&mut self, inode: NetnsInode) -> Option<File> {
        let open = |known: &Known| {
            let file = File::open(&known.path).ok()?;
            // The process may have gone, and its number may be another's.
            let found = file.metadata().ok()?.ino();
            (found == u64::from(inode.0)).then_some(file)
        };
        if let Some(file) = self.known.get(&inode.0).and_then(open) {
            return Some(file);
        }
        self.look_again();
        self.known.get(&inode.0).and_then(open)
    }

    /// Whether a namespace has this name, or this inode, now.
    pub(super) fn knows(&mut self, name: &str) -> bool {
        self.look();
        self.known
            .iter()
            .any(|(inode, known)| &*known.name == name || inode.to_string() == name)
    }

    fn look_again(&mut self) {
        if self.looked.is_none_or(|when| when.elapsed() >= AGAIN) {
            self.look();
            self.looked = Some(Instant::now());
        }
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
        match self.known.entry(inode) {
            Entry::Vacant(vacant) => {
                if let Some(name) = name() {
                    let (name, path) = (Arc::from(name), path.to_owned());
                    vacant.insert(Known { name, path });
                }
            }
            Entry::Occupied(mut known) => {
                if !known.get().path.exists() {
                    path.clone_into(&mut known.get_mut().path);
                }
            }
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
