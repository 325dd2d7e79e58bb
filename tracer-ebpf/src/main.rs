//! Links the library into one BPF object.
fn main() {}
