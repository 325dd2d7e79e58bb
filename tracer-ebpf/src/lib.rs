//! What runs in the kernel, and the records that cross from there to user space.
//!
//! Three rules for the boundary:
//! 1. Only integers and byte arrays cross it, in structs declared by `abi!`, which have no padding.
//! 2. Kernel programs observe and copy; they decide nothing but whether a record is wanted.
//! 3. Kernel structures are read at offsets that user space took from the running kernel's BTF
//!    and handed over in [`Offsets`](config::Offsets) before load.
//!
//! On the host this library is the records alone; on the BPF target it is also the programs.
#![no_std]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        unsafe_code,
        reason = "kernel programs read kernel memory through helpers; each use says who guarantees it"
    ),
    expect(
        clippy::inline_always,
        reason = "the verifier follows values through inlined code, and a call costs stack"
    ),
    expect(
        clippy::cast_possible_truncation,
        reason = "the target has 64-bit words, and lengths of packets are below 2^32"
    ),
    expect(
        clippy::needless_pass_by_value,
        reason = "the signature that the attributes of programs want"
    )
)]

#[macro_use]
mod abi;
pub mod config;
pub mod record;

#[cfg(target_arch = "bpf")]
mod output;
#[cfg(target_arch = "bpf")]
pub mod probes;
#[cfg(target_arch = "bpf")]
mod skb;
#[cfg(target_arch = "bpf")]
mod task;

#[cfg(not(target_arch = "bpf"))]
pub use abi::{bytes, read};
