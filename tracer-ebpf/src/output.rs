//! The way in and the way out: load-time constants, the ring buffer, and what each program lost.
//!
//! Records are submitted without a wake-up, which costs ten times the record; the reader comes
//! by timer, and is woken early only when the ring fills to `Config::wake_at` bytes.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated,
    macros::map,
    maps::{PerCpuArray, RingBuf, ring_buf::RingBufEntry},
};

use crate::config::{Config, Lost, Offsets, Pages, program};

/// What is wanted; overwritten by the loader.
#[unsafe(no_mangle)]
pub(crate) static CONFIG: Config = Config::NONE;

/// Where kernel members lie; overwritten by the loader.
#[unsafe(no_mangle)]
pub(crate) static OFFSETS: Offsets = Offsets::NONE;

/// Where page fragments lie; overwritten by the loader.
#[unsafe(no_mangle)]
pub(crate) static PAGES: Pages = Pages::NONE;

/// One member of [`CONFIG`], without letting the compiler fold the placeholder.
macro_rules! config {
    ($($field:tt)+) => {
        // SAFETY: a static is valid for reads.
        unsafe { core::ptr::read_volatile(&raw const $crate::output::CONFIG.$($field)+) }
    };
}

/// One member of [`OFFSETS`], likewise.
macro_rules! offset {
    ($field:ident) => {
        // SAFETY: a static is valid for reads.
        unsafe { core::ptr::read_volatile(&raw const $crate::output::OFFSETS.$field) }
    };
}

/// One member of [`PAGES`], likewise.
macro_rules! pages {
    ($field:ident) => {
        // SAFETY: a static is valid for reads.
        unsafe { core::ptr::read_volatile(&raw const $crate::output::PAGES.$field) }
    };
}
pub(crate) use {config, offset, pages};

#[map]
static RECORDS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

#[map]
static LOST: PerCpuArray<Lost> = PerCpuArray::with_max_entries(program::COUNT, 0);

/// Room for one record; `None`, counted for `program`, when the ring is full.
#[inline(always)]
pub(crate) fn reserve<T: 'static>(program: u32) -> Option<RingBufEntry<T>> {
    let entry = RECORDS.reserve::<T>(0);
    if entry.is_none() {
        ring_full(program);
    }
    entry
}

/// Records of one program that pass between two looks at how full the ring is.
pub(crate) const LOOK_EVERY: u64 = 64;

/// Hands over `len` bytes at `record`, counted for `program` when the ring is full. `look` says
/// whether the reader may have to be woken: asking costs as much as a small record.
#[inline(always)]
pub(crate) fn output(record: *mut c_void, len: u64, program: u32, look: bool) {
    let flags = if look {
        wake()
    } else {
        u64::from(BPF_RB_NO_WAKEUP)
    };
    // SAFETY: the verifier proves that `len` bytes can be read; the map is a static.
    let result = unsafe {
        generated::bpf_ringbuf_output((&raw const RECORDS).cast_mut().cast(), record, len, flags)
    };
    if result != 0 {
        ring_full(program);
    }
}

/// Whether the reader is to be woken.
#[inline(always)]
fn wake() -> u64 {
    let full = RECORDS.query(u64::from(BPF_RB_AVAIL_DATA)) >= u64::from(config!(wake_at));
    u64::from(if full {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    })
}

/// Wakes the reader though there is nothing for it in the ring.
#[inline(always)]
pub(crate) fn wake_reader() {
    if let Some(entry) = RECORDS.reserve::<u64>(0) {
        entry.discard(u64::from(BPF_RB_FORCE_WAKEUP));
    }
}

/// Counts a record for which there was no room.
#[inline(always)]
pub(crate) fn ring_full(program: u32) {
    count(program, |lost| lost.ring_full += 1);
}

/// Hands a filled record to the reader.
#[inline(always)]
pub(crate) fn submit<T>(entry: RingBufEntry<T>) {
    entry.submit(wake());
}

/// Counts a packet of which not even the headers could be read.
#[inline(always)]
pub(crate) fn unreadable(program: u32) {
    count(program, |lost| lost.unreadable += 1);
}

/// Counts a packet passed over because the program was busy with another.
#[inline(always)]
pub(crate) fn nested(program: u32) {
    count(program, |lost| lost.nested += 1);
}

#[inline(always)]
fn count(program: u32, add: impl FnOnce(&mut Lost)) {
    if let Some(lost) = LOST.get_ptr_mut(program) {
        // SAFETY: the map hands out this CPU's own element.
        add(unsafe { &mut *lost });
    }
}
