//! Giving back memory that start-up needed and tracing does not.

/// Returns freed heap to the kernel. glibc keeps it otherwise: parsing the kernel's types takes
/// 20 MB for a moment.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "malloc_trim has no safe wrapper")]
pub(super) fn release_freed() {
    // SAFETY: malloc_trim(3) may be called at any time and from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other C libraries give freed memory back by themselves.
#[cfg(not(target_env = "gnu"))]
pub(super) fn release_freed() {}
