//! One question of getsockopt(2), for those options that no crate has a safe name for: iptables'
//! own tables. Knows no option's meaning.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

/// Asks for the option `name` of `level`. `buffer` goes in as the question and comes out as the
/// answer. How many bytes of it are the answer is returned.
///
/// # Errors
/// The kernel refuses, or knows no such option.
pub fn ask(socket: impl AsFd, level: i32, name: i32, buffer: &mut [u8]) -> io::Result<usize> {
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let mut length = libc::socklen_t::try_from(buffer.len()).map_err(too_long)?;
    let socket = socket.as_fd().as_raw_fd();
    let place = buffer.as_mut_ptr().cast();
    #[expect(unsafe_code, reason = "getsockopt of any option has no safe wrapper")]
    // SAFETY: `place` is `length` writable bytes of `buffer`, borrowed for the call, and the kernel
    // writes no more than `length`; any bytes are a valid `[u8]`.
    let done = unsafe { libc::getsockopt(socket, level, name, place, &raw mut length) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((length as usize).min(buffer.len()))
}
