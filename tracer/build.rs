//! Compiles tracer-ebpf into one BPF object beside this crate's own output.
//!
//! `TRACER_EBPF=skip` writes an empty object, for documentation and pure tests where no
//! bpf-linker is at hand; a binary built so says it cannot load.

use std::{env, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use aya_build::{Package, Toolchain};

fn main() -> Result<()> {
    println!("cargo:rerun-if-env-changed=TRACER_EBPF");
    if env::var_os("TRACER_EBPF").is_some_and(|value| value == "skip") {
        let out = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?);
        return fs::write(out.join("tracer-ebpf"), []).context("write the empty object");
    }
    // The BPF target's core library has to be built from source, a nightly-only flag of cargo;
    // this lets the installed stable toolchain take it, for the nested build alone.
    // SAFETY: a build script's only thread is this one.
    #[expect(unsafe_code, reason = "aya-build reads the variable from this process")]
    unsafe {
        env::set_var("RUSTC_BOOTSTRAP", "1");
    }
    let toolchain = env::var("RUSTUP_TOOLCHAIN").unwrap_or_else(|_| "stable".to_owned());
    let package = Package {
        name: "tracer-ebpf",
        root_dir: concat!(env!("CARGO_MANIFEST_DIR"), "/../tracer-ebpf"),
        ..Package::default()
    };
    aya_build::build_ebpf([package], Toolchain::Custom(&toolchain)).context("build tracer-ebpf")
}
