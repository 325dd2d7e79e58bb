//! Clients' sockets that are not connected, as musl's resolver has them: which ones they are is
//! learnt from the queries that they send, with `Config::paths` alone. Attaches to nothing itself.

use aya_ebpf::{macros::map, maps::LruHashMap};

use super::socket_io::Sock;
use crate::{
    output::{config, offset},
    skb::{self, Skb},
};

/// Local port, network order, of each such `struct sock` by its address. The kernel uses an address
/// again for another socket: the port tells one from the next.
#[map]
static UNCONNECTED: LruHashMap<u64, [u8; 2]> = LruHashMap::with_max_entries(16384, 0);

/// Learns whose query leaves by a device: its socket's, while it is in that one's namespace.
#[inline(always)]
pub(super) fn asks<const DIRECT: bool>(skb: Skb<DIRECT>) {
    if config!(paths) == 0 {
        return;
    }
    let (dev, sock) = (skb.dev(), skb.sock());
    if dev.is_null() || sock.is_null() {
        return;
    }
    let here = skb::netns::<DIRECT>(dev, offset!(dev_net)).0;
    let home = skb::netns::<DIRECT>(sock, offset!(sk_net)).0;
    if home as u64 != here as u64 {
        return;
    }
    let sock = Sock::<DIRECT>(sock);
    if let Some(ports) = sock.udp_ports()
        && !ports.is_connected()
        && !has_asked(sock, ports.local)
    {
        let _ = UNCONNECTED.insert(sock.0 as u64, ports.local, 0);
    }
}

/// Whether this socket, whose local port is `local`, has sent a query unconnected. Looking keeps it
/// from being forgotten.
#[inline(always)]
pub(super) fn has_asked<const DIRECT: bool>(sock: Sock<DIRECT>, local: [u8; 2]) -> bool {
    if config!(paths) == 0 {
        return false;
    }
    // SAFETY: an element is two bytes, written at once.
    unsafe { UNCONNECTED.get(sock.0 as u64) }.is_some_and(|known| *known == local)
}
