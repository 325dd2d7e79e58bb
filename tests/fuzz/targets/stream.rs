//! Any bytes as pushes: no panic, bounded memory, no more bytes out than in.
//!
//! Each push: one byte of choice, two of distance to the last sequence number, one of length, then the captured bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer::correlate::stream::{BUFFER_LIMIT, Stream};

fuzz_target!(|bytes: &[u8]| {
    let (mut stream, mut rest) = match bytes {
        [choice, rest @ ..] if choice & 1 == 1 => (Stream::starting_at(u32::MAX - 9), rest),
        _ => (Stream::default(), bytes),
    };
    let (mut seq, mut pushed, mut delivered) = (u32::MAX - 8, 0, 0);
    while let [choice, high, low, len, behind @ ..] = rest {
        let (captured, after) = behind.split_at(behind.len().min(usize::from(*len)));
        let distance = i32::from(i16::from_be_bytes([*high, *low]));
        let at = match choice & 3 {
            0 | 1 => seq,
            2 => seq.wrapping_add_signed(distance),
            _ => seq.wrapping_add_signed(distance << 16),
        };
        let original_len = captured.len() + (usize::from(choice >> 4) << ((choice >> 2 & 3) * 3));
        stream.push(at, captured, original_len, &mut |message| {
            assert!(message.captured.len() <= message.original_len);
            delivered += message.captured.len();
        });
        pushed += captured.len();
        assert!(delivered + stream.buffered() <= pushed && stream.buffered() <= BUFFER_LIMIT);
        seq = at.wrapping_add(original_len as u32);
        rest = after;
    }
    stream.finish(&mut |message| delivered += message.captured.len());
    assert!(delivered <= pushed && stream.buffered() == 0);
});
