//! The kernel programs, a file for each place they watch.

pub mod device;
pub mod drop;
pub mod packet;
pub mod tcp;
