//! Addresses on this node's links that nobody answers for, as the kernel's neighbour tables know them.

use std::net::IpAddr;

use super::{
    Error,
    host::address_of,
    netlink::{Attributes, Netlink},
};

/// `RTM_GETNEIGH`, include/uapi/linux/rtnetlink.h.
const RTM_GETNEIGH: u16 = 30;
/// `struct ndmsg`, include/uapi/linux/neighbour.h; its state is at 8.
const HEADER: usize = 12;
const STATE: usize = 8;
/// `NUD_FAILED`: asked again and again, and never answered.
const FAILED: u16 = 0x20;
/// `NDA_DST`
const DESTINATION: u16 = 1;

/// Those that were asked for by ARP or neighbour discovery and did not answer.
///
/// # Errors
/// The kernel refuses to tell.
pub fn unanswered() -> Result<Vec<IpAddr>, Error> {
    let failed = Error::asked("neighbours");
    let mut netlink = Netlink::open(None).map_err(failed)?;
    let mut all = Vec::new();
    let dumped = netlink.dump(RTM_GETNEIGH, &[0; HEADER], |_, body| {
        let state = body.get(STATE..).and_then(|at| at.first_chunk());
        let state = state.map_or(0, |state| u16::from_ne_bytes(*state));
        if state & FAILED != 0
            && let Some(attributes) = body.get(HEADER..)
        {
            all.extend(
                Attributes(attributes)
                    .find(DESTINATION)
                    .and_then(address_of),
            );
        }
    });
    dumped.map_err(failed)?;
    Ok(all)
}
