//! Any bytes as a captured message: no panic, a part tells what the whole tells, a spelled name is printable.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer::correlate::message::{Malformed, Peek, edns, whole};

fuzz_target!(|message: &[u8]| {
    let told = Peek::parse(message, message.len());
    let _ = (whole(message), edns(message));
    if let Ok(peek) = told {
        let name = peek.name(message);
        assert!(name.bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(name.is_empty(), peek.question.is_none());
    }
    let half = &message[..message.len() / 2];
    let part = Peek::parse(half, message.len());
    assert!(part == told || matches!(part, Err(Malformed::Cut | Malformed::Short)));
});
