//! Reads the tables of legacy iptables by getsockopt(2): those that this network namespace has, each
//! whole. The kernel would make a table that is asked for and not there, so only those are asked
//! for that /proc lists.

mod blob;

use std::{fs, io, os::fd::OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use self::blob::Layout;
use super::{Error, Family, Table};
use crate::kernel::sockopt;

// IPT_SO_GET_INFO and IPT_SO_GET_ENTRIES, include/uapi/linux/netfilter_ipv4/ip_tables.h; those of
// ip6_tables.h are the same.
const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;
// SOL_IP and SOL_IPV6, include/linux/socket.h.
const LEVEL_V4: i32 = 0;
const LEVEL_V6: i32 = 41;

/// XT_TABLE_MAXNAMELEN
const NAME: usize = 32;
/// `struct ipt_getinfo`
const INFO: usize = 84;
/// `struct ipt_get_entries`, before its entries.
const HEADER: usize = 40;

/// kube-proxy writes every second at most; a table is read in a few milliseconds.
const TRIES: u32 = 8;

/// What `struct ipt_getinfo` says, and the entries themselves.
struct Blob {
    /// A bit for each hook that the table has a chain for.
    hooks: u32,
    /// Where each hook's chain begins.
    begins: [u32; 5],
    /// The entry of each hook's policy, which is its chain's last.
    policies: [u32; 5],
    entries: Vec<u8>,
}

/// All tables; empty when legacy iptables is not in use here.
pub(super) fn read() -> Result<Vec<Table>, Error> {
    read_of(|_| true)
}

/// Those that translate.
pub(super) fn nat() -> Result<Vec<Table>, Error> {
    read_of(|name| name == "nat")
}

fn read_of(wanted: impl Fn(&str) -> bool) -> Result<Vec<Table>, Error> {
    let mut tables = Vec::new();
    let families = [
        (Family::V4, "ip_tables_names"),
        (Family::V6, "ip6_tables_names"),
    ];
    for (family, list) in families {
        let names = names(list).map_err(Error::asked("names of iptables' legacy tables"))?;
        for name in names.into_iter().filter(|name| wanted(name)) {
            let blob = blob(family, &name).map_err(Error::asked("legacy tables of iptables"))?;
            let Some(blob) = blob else {
                return Err(Error::Unsteady { tries: TRIES });
            };
            tables.push(Layout::of(family).table(&name, &blob));
        }
    }
    Ok(tables)
}

/// Tables of this thread's network namespace; none when the kernel has no such file.
fn names(list: &str) -> io::Result<Vec<String>> {
    match fs::read_to_string(format!("/proc/thread-self/net/{list}")) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// A table of one moment; `None` when it never stands still.
fn blob(family: Family, name: &str) -> io::Result<Option<Blob>> {
    let (address_family, level) = match family {
        Family::V4 => (AddressFamily::INET, LEVEL_V4),
        Family::V6 => (AddressFamily::INET6, LEVEL_V6),
    };
    let socket = socket_with(
        address_family,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    for _ in 0..TRIES {
        match once(&socket, level, name) {
            // Its size is another than a moment ago (get_entries, net/ipv4/netfilter/ip_tables.c).
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            read => return read.map(Some),
        }
    }
    Ok(None)
}

fn once(socket: &OwnedFd, level: i32, name: &str) -> io::Result<Blob> {
    let mut info = [0; INFO];
    named(&mut info, name);
    let length = sockopt::ask(socket, level, GET_INFO, &mut info)?;
    if length < INFO {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let words = |at: usize| -> [u32; 5] {
        std::array::from_fn(|index| number(&info, at + index * 4).unwrap_or(u32::MAX))
    };
    let size = number(&info, 80).unwrap_or(0);
    let mut entries = vec![0; HEADER + size as usize];
    named(&mut entries, name);
    entries[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
    let length = sockopt::ask(socket, level, GET_ENTRIES, &mut entries)?;
    entries.truncate(length);
    entries.drain(..HEADER.min(length));
    Ok(Blob {
        hooks: number(&info, NAME).unwrap_or(0),
        begins: words(36),
        policies: words(56),
        entries,
    })
}

fn named(question: &mut [u8], name: &str) {
    // A final zero stays.
    let length = name.len().min(NAME - 1);
    question[..length].copy_from_slice(&name.as_bytes()[..length]);
}

/// A number in host order.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}
