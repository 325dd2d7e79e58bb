//! Namespace and ifindex → name of the device, as the kernel tells a socket of that namespace.

use std::{
    fs::File,
    os::fd::AsFd as _,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;
use rustix::{
    net::{AddressFamily, SocketType, netdevice::index_to_name, socket},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::netns;
use crate::model::{Ifindex, NetnsInode};

/// How often at most the same device is asked for again in vain.
const AGAIN: Duration = Duration::from_secs(1);

/// Names found, and when one was not.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: FxHashMap<(NetnsInode, Ifindex), Result<Arc<str>, Instant>>,
}

impl Names {
    /// The name of device `ifindex` in `netns`; `None` when it is gone, or its namespace may not
    /// be entered, which takes CAP_SYS_ADMIN.
    pub(super) fn name(
        &mut self,
        netns: NetnsInode,
        ifindex: Ifindex,
        namespaces: &mut netns::Names,
    ) -> Option<Arc<str>> {
        if ifindex == Ifindex(0) {
            return None;
        }
        let key = (netns, ifindex);
        match self.known.get(&key) {
            Some(Ok(name)) => return Some(Arc::clone(name)),
            Some(Err(when)) if when.elapsed() < AGAIN => return None,
            _ => {}
        }
        let found = namespaces.open(netns).and_then(|file| ask(file, ifindex));
        let known = found.map(Arc::from).ok_or_else(Instant::now);
        let name = known.as_ref().ok().cloned();
        self.known.insert(key, known);
        name
    }
}

/// Asks in the namespace itself, on a thread of its own: the others stay where they are.
fn ask(netns: File, ifindex: Ifindex) -> Option<String> {
    let visit = move || {
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(netns.as_fd(), kind).ok()?;
        let socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None).ok()?;
        index_to_name(socket, ifindex.0).ok()
    };
    let thread = thread::Builder::new().name("device names".to_owned());
    thread.spawn(visit).ok()?.join().ok()?
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _};

    use super::*;

    #[test]
    fn a_namespace_nobody_knows_has_no_names() {
        let mut namespaces = netns::Names::default();
        let name = Names::default().name(NetnsInode(7), Ifindex(1), &mut namespaces);
        assert_eq!(name, None);
    }

    /// linux/net/core/dev.c, dev_new_index: loopback is the first device of every namespace.
    #[test]
    fn the_first_device_of_our_own_namespace_is_the_loopback() {
        let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
        let own = NetnsInode(u32::try_from(own).unwrap());
        let mut namespaces = netns::Names::default();
        let mut names = Names::default();
        // Without CAP_SYS_ADMIN not even one's own can be entered.
        let expected = (rustix::process::geteuid().is_root()).then_some("lo");
        let name = names.name(own, Ifindex(1), &mut namespaces);
        assert_eq!(name.as_deref(), expected);
        assert_eq!(names.name(own, Ifindex(0x7fff_ffff), &mut namespaces), None);
    }
}
