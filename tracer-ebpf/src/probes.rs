//! The kernel programs, a file for each place they watch.
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "the attribute that makes a program wraps it in a function without documentation"
)]

pub mod conntrack;
pub mod device;
pub mod drop;
mod drops;
pub mod packet;
pub mod socket_calls;
pub mod socket_io;
pub mod tcp;
mod unconnected;
