//! Compiles tracer-ebpf.
fn main() {}
