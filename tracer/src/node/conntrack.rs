//! Conntrack's own statistics, asked of the kernel by netlink in each namespace whose packets have
//! entries. Nothing is held between two looks: an open socket would keep a namespace alive.
//!
//! Format: include/uapi/linux/netlink.h, nfnetlink.h and nfnetlink_conntrack.h of the kernel.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    thread,
    time::Duration,
};

use rustc_hash::FxHashSet;
use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send,
        socket_with, sockopt,
    },
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::netns;
use crate::model::{
    KtimeNs, NetnsInode,
    conntrack::{ConntrackChange, ConntrackCounts, ConntrackTable, ConntrackTotals},
};

/// Most namespaces that are watched.
const MOST: usize = 256;

/// Longest to wait for the kernel's answer, which it has at once.
const PATIENCE: Duration = Duration::from_millis(100);

/// `NFNL_SUBSYS_CTNETLINK << 8` and `IPCTNL_MSG_CT_GET_STATS_CPU`, `IPCTNL_MSG_CT_GET_STATS`.
const STATS_CPU: u16 = 0x0104;
const STATS: u16 = 0x0105;
/// `NLM_F_REQUEST`, and with `NLM_F_DUMP`.
const REQUEST: u16 = 1;
const DUMP: u16 = 0x301;
/// `NLMSG_ERROR`, `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Bytes of `struct nlmsghdr`, and of `struct nfgenmsg` after it.
const HEADER: usize = 16;
const GENERIC: usize = 4;
/// Both.
const REQUEST_BYTES: u32 = 20;

/// Takes the attributes of one message: type and value.
type Answer<'a> = &'a mut dyn FnMut(&mut dyn Iterator<Item = (u16, u64)>);

/// The namespaces whose tables are looked at.
#[derive(Debug, Default)]
pub(super) struct Watch {
    seen: HashMap<NetnsInode, Seen>,
    /// Had packets with entries since the last look.
    active: FxHashSet<NetnsInode>,
}

/// One namespace's table.
#[derive(Clone, Copy, Debug)]
struct Seen {
    first: ConntrackTable,
    last: ConntrackTable,
    when: KtimeNs,
}

impl Watch {
    /// A packet of `netns` has an entry, or may have failed to get one. Whether that is news, so
    /// that the table is worth a first look at once.
    pub(super) fn note(&mut self, netns: NetnsInode) -> bool {
        self.active.insert(netns) && !self.seen.contains_key(&netns) && self.seen.len() < MOST
    }

    /// Looks at the tables of those that were noted since the last look; returns what was counted
    /// meanwhile. `now` is the time of the look.
    pub(super) fn look(
        &mut self,
        now: KtimeNs,
        namespaces: &mut netns::Names,
    ) -> Vec<ConntrackChange> {
        let active = self.active.drain().filter_map(|netns| {
            let room = self.seen.contains_key(&netns) || self.seen.len() < MOST;
            let file = room.then(|| namespaces.open(netns)).flatten()?;
            Some((netns, file))
        });
        let tables = visit(active.collect());
        let mut changes = Vec::new();
        for (netns, table) in tables {
            if let Some(seen) = self.seen.get_mut(&netns) {
                changes.push(ConntrackChange {
                    netns,
                    from: seen.when,
                    to: now,
                    counts: table.counts.since(&seen.last.counts),
                });
                (seen.last, seen.when) = (table, now);
            } else if self.seen.len() < MOST {
                let (first, last, when) = (table, table, now);
                self.seen.insert(netns, Seen { first, last, when });
            }
        }
        changes
    }

    /// All namespaces looked at, by name, with what was counted since they were first.
    pub(super) fn totals(&self, namespaces: &mut netns::Names) -> Vec<ConntrackTotals> {
        let mut totals: Vec<_> = self
            .seen
            .iter()
            .map(|(&netns, seen)| ConntrackTotals {
                netns: namespaces.name(netns),
                table: ConntrackTable {
                    counts: seen.last.counts.since(&seen.first.counts),
                    ..seen.last
                },
            })
            .collect();
        totals.sort_by(|a, b| a.netns.cmp(&b.netns));
        totals
    }
}

/// The namespace this process is in.
pub(super) fn own() -> Option<NetnsInode> {
    let inode = fs::metadata("/proc/self/ns/net").ok()?.ino();
    u32::try_from(inode).ok().map(NetnsInode)
}

/// Asks in each namespace, on a thread of its own: the others stay where they are. Those that
/// cannot be entered, which takes CAP_SYS_ADMIN, or asked, which takes CAP_NET_ADMIN, are left out.
fn visit(namespaces: Vec<(NetnsInode, File)>) -> Vec<(NetnsInode, ConntrackTable)> {
    if namespaces.is_empty() {
        return Vec::new();
    }
    let visit = move || {
        let ask = |(netns, file): (NetnsInode, File)| {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(file.as_fd(), kind).ok()?;
            let table = table().inspect_err(|error| {
                tracing::debug!(netns = netns.0, %error, "no conntrack statistics");
            });
            Some((netns, table.ok()?))
        };
        namespaces.into_iter().filter_map(ask).collect()
    };
    let thread = thread::Builder::new().name("conntrack".to_owned());
    let visited = thread.spawn(visit).map(thread::JoinHandle::join);
    visited.ok().and_then(Result::ok).unwrap_or_default()
}

/// The table of the namespace that this thread is in.
fn table() -> io::Result<ConntrackTable> {
    let mut table = ConntrackTable::default();
    ask(STATS_CPU, DUMP, &mut |attributes| {
        add_counts(&mut table.counts, attributes);
    })?;
    ask(STATS, REQUEST, &mut |attributes| {
        for (kind, value) in attributes {
            // enum ctattr_stats_global
            match kind {
                1 => table.entries = value,
                2 => table.max = Some(value),
                _ => {}
            }
        }
    })?;
    Ok(table)
}

/// Adds one processor's counters (`enum ctattr_stats_cpu`).
fn add_counts(counts: &mut ConntrackCounts, attributes: impl Iterator<Item = (u16, u64)>) {
    for (kind, value) in attributes {
        match kind {
            4 => counts.invalid += value,
            9 => counts.insert_failed += value,
            10 => counts.drop += value,
            11 => counts.early_drop += value,
            14 => counts.clash_resolve += value,
            15 => counts.chain_toolong += value,
            _ => {}
        }
    }
}

/// Sends a request and hands over the attributes of each message that answers it.
fn ask(request: u16, flags: u16, answer: Answer<'_>) -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::NETFILTER),
    )?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
    let mut message = Vec::with_capacity(HEADER + GENERIC);
    message.extend(REQUEST_BYTES.to_ne_bytes());
    message.extend(request.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // Sequence number, port, and a struct nfgenmsg of any family.
    message.extend([0; 4 + 4 + GENERIC]);
    send(&socket, &message, SendFlags::empty())?;
    let mut buffer = vec![0; 32 << 10];
    loop {
        let (length, _) = recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        let end = messages(buffer.get(..length).unwrap_or_default(), answer)?;
        if end || flags == REQUEST {
            return Ok(());
        }
    }
}

/// Hands over the attributes of each message; whether the last one was among them.
fn messages(mut bytes: &[u8], answer: Answer<'_>) -> io::Result<bool> {
    while let Some(length) = word(bytes, 0) {
        let kind = half(bytes, 4).unwrap_or(DONE);
        let length = length as usize;
        let Some(body) = bytes.get(HEADER..length) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        match kind {
            DONE => return Ok(true),
            ERROR => {
                // Negative; 0 acknowledges.
                let code = word(body, 0).unwrap_or(0).cast_signed().saturating_neg();
                return if code == 0 {
                    Ok(true)
                } else {
                    Err(Errno::from_raw_os_error(code).into())
                };
            }
            _ => answer(&mut Attributes(body.get(GENERIC..).unwrap_or_default())),
        }
        // NLMSG_ALIGN
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// `struct nlattr`s that hold a number of four bytes in network order, as conntrack's counters do.
struct Attributes<'a>(&'a [u8]);

impl Iterator for Attributes<'_> {
    type Item = (u16, u64);

    fn next(&mut self) -> Option<Self::Item> {
        let (length, kind) = (half(self.0, 0)?, half(self.0, 2)?);
        let length = usize::from(length);
        let value = self.0.get(4..8.min(length))?;
        let value = u32::from_be_bytes(value.try_into().ok()?);
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        // NLA_TYPE_MASK
        Some((kind & 0x3fff, u64::from(value)))
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of this kind with these attributes.
    fn message(kind: u16, attributes: &[(u16, u32)]) -> Vec<u8> {
        let mut body = vec![0; GENERIC];
        for (kind, value) in attributes {
            body.extend(8_u16.to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(value.to_be_bytes());
        }
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(body);
        message
    }

    #[test]
    fn counters_of_all_processors_are_added_up() {
        let mut bytes = message(STATS_CPU, &[(9, 2), (10, 3), (99, 7)]);
        bytes.extend(message(STATS_CPU, &[(9, 40), (14, 1)]));
        bytes.extend(message(DONE, &[]));
        let mut counts = ConntrackCounts::default();
        let end = messages(&bytes, &mut |attributes| {
            add_counts(&mut counts, attributes);
        });
        assert!(end.unwrap());
        let expected = ConntrackCounts {
            insert_failed: 42,
            drop: 3,
            clash_resolve: 1,
            ..ConntrackCounts::default()
        };
        assert_eq!(counts, expected);
    }

    #[test]
    fn a_refusal_is_an_error_and_every_truncation_harmless() {
        let mut refusal = message(ERROR, &[]);
        refusal[HEADER..HEADER + 4].copy_from_slice(&(-1_i32).to_ne_bytes());
        let error = messages(&refusal, &mut |_| {}).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(1));
        let whole = message(STATS, &[(1, 5), (2, 6)]);
        for length in 0..whole.len() {
            let _ = messages(&whole[..length], &mut |attributes| {
                attributes.for_each(drop);
            });
        }
    }

    #[test]
    fn our_own_table_tells_how_many_entries_it_may_hold() {
        let mut namespaces = netns::Names::default();
        let mut watch = Watch::default();
        assert!(watch.note(own().unwrap()));
        assert!(watch.look(KtimeNs(1), &mut namespaces).is_empty());
        let totals = watch.totals(&mut namespaces);
        // Without CAP_NET_ADMIN, or conntrack, there is none.
        if rustix::process::geteuid().is_root()
            && fs::exists("/proc/net/stat/nf_conntrack").unwrap()
        {
            assert!(totals[0].table.max > Some(0), "{totals:?}");
        }
        assert!(!watch.note(own().unwrap()));
        let changes = watch.look(KtimeNs(2), &mut namespaces);
        assert_eq!(changes.len(), totals.len());
    }
}
