//! Sockets that wait for whoever comes, as /proc/net lists them, and which process has one.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

/// A socket that is connected to nobody: of UDP, or one of TCP that listens.
#[derive(Debug, PartialEq)]
pub struct Waiting {
    /// Its address and port.
    pub at: SocketAddr,
    /// By which processes' files name it.
    pub inode: String,
}

impl Waiting {
    /// By a line of /proc/net/tcp or its like: the second word is its address, the third the other's, the tenth the
    /// inode (proc_net(5)). `None` of one that is connected, and of the title.
    pub fn of(line: &str) -> Option<Self> {
        let words: Vec<_> = line.split_whitespace().collect();
        let (address, port) = words.get(1)?.rsplit_once(':')?;
        if !words.get(2)?.ends_with(":0000") {
            return None;
        }
        Some(Self {
            at: SocketAddr::new(ip(address)?, u16::from_str_radix(port, 16).ok()?),
            inode: (*words.get(9)?).to_owned(),
        })
    }
}

/// An address as words of four bytes in hexadecimal digits, each in the processor's byte order.
fn ip(digits: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = digits.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match digits.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (at, chunk) in bytes.chunks_mut(4).enumerate() {
                chunk.copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

/// Whether a process, given by its directory in /proc, has a socket of one of these inodes.
pub fn has_one_of(process: &Path, inodes: &BTreeSet<String>) -> bool {
    let sockets = fs::read_dir(process.join("fd")).into_iter().flatten();
    sockets.flatten().any(|socket| {
        fs::read_link(socket.path()).is_ok_and(|link| {
            let link = link.to_string_lossy();
            let inode = link
                .strip_prefix("socket:[")
                .and_then(|link| link.strip_suffix(']'));
            inode.is_some_and(|inode| inodes.contains(inode))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_those_that_wait_for_whoever_comes() {
        let tail = "00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0";
        let check = |words: &str, expected: Option<&str>| {
            let found = Waiting::of(&format!("   0: {words} 0A {tail}"));
            let found = found.map(|socket| (socket.at.to_string(), socket.inode));
            let expected = expected.map(|at| (at.to_owned(), "4711".to_owned()));
            assert_eq!(found, expected, "{words}");
        };
        check("00000000:7580 00000000:0000", Some("0.0.0.0:30080"));
        check("0B0200C0:7580 00000000:0000", Some("192.0.2.11:30080"));
        check(
            "B80D0120000000000000000001000000:7580 00000000000000000000000000000000:0000",
            Some("[2001:db8::1]:30080"),
        );
        check("0B0200C0:7580 0C0200C0:1F90", None);
        check("junk 00000000:0000", None);
        // One of UDP has a line that is shorter.
        let line = "  12: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0 0";
        let found = Waiting::of(line).map(|socket| (socket.at.port(), socket.inode));
        assert_eq!(found, Some((53, "4711".to_owned())));
        assert_eq!(Waiting::of("  sl  local_address rem_address"), None);
        assert_eq!(Waiting::of("  sl  local_address rem_address   st"), None);
    }
}
