//! Links the library's programs and maps into one BPF object.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        unsafe_code,
        reason = "the licence is read by the kernel from a named section"
    )
)]

#[cfg(target_arch = "bpf")]
use tracer_ebpf as _;

/// The kernel allows GPL-only helpers (`bpf_probe_read_kernel`, …) to GPL programs alone.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
