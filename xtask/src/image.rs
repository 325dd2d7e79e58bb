//! `cargo xtask image`: the tracer as a container image, one static program and nothing else, written
//! without an engine.
//!
//! musl instead of glibc, so that the program needs no file of any distribution's. The same program
//! gives the same bytes.

mod archive;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};

pub(crate) use self::archive::Image;
use crate::{
    setup,
    sh::{self, say},
};

/// What a cluster knows the image by; manifests/base names the same.
pub(crate) const NAME: &str = concat!("ghcr.io/k8s-tracer/tracer:", env!("CARGO_PKG_VERSION"));

/// What `cargo xtask image` takes.
#[derive(Args)]
pub(crate) struct Options {
    /// Whose processors it is for; else this machine's
    #[arg(long, value_enum)]
    arch: Option<Architecture>,
    /// Link fast instead of tightly, as the tiers of tests do
    #[arg(long)]
    quick: bool,
    /// Whole name, with registry and tag
    #[arg(long, default_value = NAME)]
    name: String,
}

/// Processors that the image can be built for.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Architecture {
    Amd64,
    Arm64,
}

impl Architecture {
    /// This machine's.
    ///
    /// # Errors
    /// The tracer is not built for it.
    pub(crate) fn own() -> Result<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self::Amd64),
            "aarch64" => Ok(Self::Arm64),
            other => bail!("no image is built on {other}: use an amd64 or arm64 machine"),
        }
    }

    /// In Go's words, which images use.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-musl",
            Self::Arm64 => "aarch64-unknown-linux-musl",
        }
    }
}

/// Builds the image and tells where it lies and how a node gets it.
///
/// # Errors
/// See [`build`].
pub(crate) fn run(options: &Options) -> Result<()> {
    let architecture = match options.arch {
        Some(architecture) => architecture,
        None => Architecture::own()?,
    };
    let path = build(architecture, options.quick, &options.name)?;
    let (size, path) = (fs::metadata(&path)?.len() / 1_000_000, path.display());
    say(&format!(
        "{path}: {} for {}, {size} MB
on a node: ctr --namespace k8s.io images import {path}",
        options.name,
        architecture.name()
    ));
    Ok(())
}

/// Builds the program and puts it into an OCI archive, whose path is returned.
///
/// # Errors
/// rustup has no such target, a C compiler for it is missing, or the program does not build.
pub(crate) fn build(architecture: Architecture, quick: bool, name: &str) -> Result<PathBuf> {
    setup::target(architecture.target())?;
    let program = program(architecture, if quick { "tests" } else { "image" })?;
    let dir = sh::target().join("image");
    fs::create_dir_all(&dir)?;
    let path = dir.join(format!("tracer-{}.tar", architecture.name()));
    let image = Image {
        name,
        programs: &[(program, "/bin/tracer")],
        links: &[("/bin/kubectl-tracer".to_owned(), "tracer")],
        entrypoint: &["/bin/tracer"],
        architecture: architecture.name(),
    };
    image.write(&path)?;
    Ok(path)
}

fn program(architecture: Architecture, profile: &str) -> Result<PathBuf> {
    let target = architecture.target();
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--quiet", "--package", "tracer", "--bin", "tracer"])
        .args(["--profile", profile, "--target", target]);
    if architecture != Architecture::own()? {
        cross(&mut cargo, architecture)?;
    }
    sh::run(&mut cargo)?;
    let program = sh::target().join(target).join(profile).join("tracer");
    is_static(&program)?;
    Ok(program)
}

/// Rust's own linker and Debian's C compiler for another architecture. The C code, zstd and ring,
/// needs no library but what musl has: fortified calls would be glibc's alone.
fn cross(cargo: &mut Command, architecture: Architecture) -> Result<()> {
    let (compiler, package) = match architecture {
        Architecture::Amd64 => ("x86_64-linux-gnu-gcc", "gcc-x86-64-linux-gnu"),
        Architecture::Arm64 => ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    };
    let why = "compiles C for the other architecture";
    setup::package(package, why)?;
    let target = architecture.target().replace('-', "_");
    cargo
        .env(format!("CC_{target}"), compiler)
        .env(
            format!("CFLAGS_{target}"),
            "-U_FORTIFY_SOURCE -fno-stack-protector",
        )
        .env(
            format!("CARGO_TARGET_{}_LINKER", target.to_uppercase()),
            "rust-lld",
        );
    Ok(())
}

/// A program that asks for an interpreter would not start in an empty image. ELF-64, little-endian:
/// <https://refspecs.linuxfoundation.org/elf/gabi4+/ch5.pheader.html>.
fn is_static(program: &Path) -> Result<()> {
    const PT_INTERP: u32 = 3;
    let bytes = fs::read(program).with_context(|| format!("read {}", program.display()))?;
    let types = program_header_types(&bytes).context("the program is no ELF-64 file")?;
    ensure!(
        !types.contains(&PT_INTERP),
        "{} is not static",
        program.display()
    );
    Ok(())
}

/// `p_type` of each program header.
fn program_header_types(elf: &[u8]) -> Option<Vec<u32>> {
    let half = |at: usize| Some(u16::from_le_bytes(*elf.get(at..)?.first_chunk()?));
    elf.strip_prefix(b"\x7fELF\x02\x01")?;
    // e_phoff, e_phentsize, e_phnum
    let offset = u64::from_le_bytes(*elf.get(32..)?.first_chunk()?);
    let (size, count) = (usize::from(half(54)?), usize::from(half(56)?));
    let offset = usize::try_from(offset).ok()?;
    (0..count)
        .map(|header| {
            let at = offset.checked_add(header * size)?;
            Some(u32::from_le_bytes(*elf.get(at..)?.first_chunk()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_this_machines_asks_for_an_interpreter() {
        let own = std::env::current_exe().unwrap();
        let refused = is_static(&own).unwrap_err().to_string();
        assert!(refused.ends_with("is not static"), "{refused}");
        assert_eq!(program_header_types(b"#!/bin/sh"), None);
    }

    #[test]
    fn the_manifests_name_the_image() {
        let path = sh::root().join("manifests/base/daemonset.yaml");
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains(&format!("image: {NAME}\n")), "{NAME}");
    }
}
