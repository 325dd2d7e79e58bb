//! Any bytes as records of the kernel, each after its length: no panic, and as many facts as times.
#![no_main]

#[path = "../../support/records.rs"]
mod records;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    records::tell(bytes);
});
