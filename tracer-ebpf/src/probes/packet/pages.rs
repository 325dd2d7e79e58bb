//! Bytes of a packet, wherever they lie: its buffer first, then its page fragments, read where the kernel maps
//! every page. Knows how x86-64 lays `struct page` out; asks no helper that a kernel may refuse.

use crate::{
    output::pages,
    record::CAPTURE_LIMIT,
    skb::{self, Bounds},
};

/// Most fragments that are looked at: four pages hold more than is captured.
const FRAGMENTS: u32 = 4;

/// Bytes of a page, as a power of two (arch/x86/include/asm/page_types.h).
const PAGE_SHIFT: u64 = 12;

/// Both places that `Pages` leads to begin on a gigabyte (`kaslr_regions`, arch/x86/mm/kaslr.c).
const GIGABYTE: u64 = 1 << 30;

/// Memory for what is read on the way, in a map: the stack has none to spare. What comes from a map is an unknown
/// number to the verifier.
#[repr(C)]
pub(super) struct Scratch {
    /// Where `struct page` of the first page is, and where that page is mapped.
    page_array: u64,
    direct_map: u64,
    /// `struct skb_frag`, first one of its own and then a typedef of `bio_vec`: address of its `struct page`, odd
    /// where it is no memory of this machine's (`netmem_is_net_iov`); length; offset in the page.
    page: u64,
    len: u32,
    offset: u32,
    /// `sk_buff.end`
    end: u32,
    /// `skb_shared_info.nr_frags`
    fragments: u8,
    pad: [u8; 3],
    /// A length that is to be known to be within `CAPTURE_LIMIT`.
    length: u64,
}

/// Copies up to `wanted` bytes of the packet to `to`, from its first on; returns how many.
///
/// # Safety
/// `scratch` is this program's own memory in a map, and so is `to`. There is room for twice [`CAPTURE_LIMIT`]
/// there: the verifier knows of each length by itself only.
#[inline(always)]
pub(super) unsafe fn copy(
    to: *mut u8,
    scratch: *mut Scratch,
    skb: *const u8,
    bounds: &Bounds,
    wanted: u32,
) -> u32 {
    // SAFETY: the caller's.
    unsafe {
        let linear = limited(scratch, wanted.min(bounds.linear));
        if linear > 0 && !skb::copy(to, linear, bounds.data) {
            return 0;
        }
        let read = skb::copy((&raw mut (*scratch).page_array).cast(), 8, bases()[0])
            && skb::copy((&raw mut (*scratch).direct_map).cast(), 8, bases()[1])
            && skb::copy((&raw mut (*scratch).end).cast(), 4, end_of(skb));
        let shared = bounds.head + u64::from((&raw const (*scratch).end).read_volatile());
        if !read || !skb::copy(&raw mut (*scratch).fragments, 1, count_of(shared)) {
            return linear;
        }
        let mut copied = linear;
        for index in 0..FRAGMENTS {
            let fragments = (&raw const (*scratch).fragments).read_volatile();
            if index >= u32::from(fragments) || copied >= wanted {
                break;
            }
            let fragment = fragment_of(shared, index);
            let read = skb::copy((&raw mut (*scratch).page).cast(), 16, fragment);
            let Some(mapped) = mapped(scratch).filter(|_| read) else {
                break;
            };
            let len = (&raw const (*scratch).len).read_volatile();
            let at = limited(scratch, copied);
            let len = limited(scratch, len.min(wanted - at));
            if len == 0 || !skb::copy(to.add(at as usize), len, mapped) {
                break;
            }
            copied = at + len;
        }
        copied
    }
}

/// Addresses of the two variables that tell where pages are.
#[inline(always)]
fn bases() -> [u64; 2] {
    [pages!(page_array), pages!(direct_map)]
}

/// Address of `sk_buff.end`.
#[inline(always)]
fn end_of(skb: *const u8) -> u64 {
    skb as u64 + u64::from(pages!(skb_end))
}

/// Address of `skb_shared_info.nr_frags`.
#[inline(always)]
fn count_of(shared: u64) -> u64 {
    shared + u64::from(pages!(fragments))
}

/// Address of a `struct skb_frag`.
#[inline(always)]
fn fragment_of(shared: u64, index: u32) -> u64 {
    shared + u64::from(pages!(first)) + u64::from(index) * 16
}

/// Where the fragment in `scratch` is mapped; `None` where anything about it looks odd.
///
/// # Safety
/// As [`copy`].
#[inline(always)]
unsafe fn mapped(scratch: *const Scratch) -> Option<u64> {
    // SAFETY: the caller's.
    let (page_array, direct_map, page, offset) = unsafe {
        (
            (&raw const (*scratch).page_array).read_volatile(),
            (&raw const (*scratch).direct_map).read_volatile(),
            (&raw const (*scratch).page).read_volatile(),
            (&raw const (*scratch).offset).read_volatile(),
        )
    };
    let size = u64::from(pages!(page));
    let away = page.wrapping_sub(page_array);
    let whole = size != 0 && away.is_multiple_of(size) && page & 1 == 0 && page >= page_array;
    let regular = page_array.is_multiple_of(GIGABYTE) && direct_map.is_multiple_of(GIGABYTE);
    (whole && regular).then(|| direct_map + ((away / size) << PAGE_SHIFT) + u64::from(offset))
}

/// `len`, which the verifier sees to be within [`CAPTURE_LIMIT`] whatever the compiler does.
///
/// # Safety
/// As [`copy`].
#[inline(always)]
unsafe fn limited(scratch: *mut Scratch, len: u32) -> u32 {
    // SAFETY: the caller's.
    unsafe {
        let length = &raw mut (*scratch).length;
        length.write_volatile(u64::from(len));
        length.read_volatile() as u32 & CAPTURE_LIMIT as u32
    }
}
