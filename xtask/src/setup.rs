//! What the machine needs before anything of ours builds or runs, one step a function.
//!
//! Every step looks first and does nothing when its thing is there, so a second run takes
//! well under a second. A step that cannot succeed names the exact missing thing. It knows
//! Debian; elsewhere it says what to install by hand.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::sh::{self, say};

/// Debian packages and why each is needed.
const PACKAGES: &[(&str, &str)] = &[
    ("llvm-22-dev", "bpf-linker links against rustc's LLVM"),
    ("libzstd-dev", "bpf-linker"),
    ("libxml2-dev", "bpf-linker"),
    ("zlib1g-dev", "bpf-linker"),
    ("iproute2", "the lab's namespaces and links"),
    ("iptables", "the lab's service rules"),
    ("conntrack", "kernel tests compare captured NAT with it"),
    ("bind9-dnsutils", "kernel tests ask with dig"),
    ("dnsperf", "load for kernel tests and benchmarks"),
    ("tcpdump", "the benchmark's yardstick"),
    ("qemu-system-x86", "tests on Debian's own kernels"),
    ("busybox-static", "the guests' userland"),
    ("kmod", "depmod for the guests' modules"),
    ("cpio", "the guests' initramfs"),
];

/// The bpf-linker this workspace builds with; its LLVM must equal rustc's major.
const BPF_LINKER: &str = "0.13.0";
const LLVM: &str = "22";

/// Brings the machine to where `cargo build` and every tier of tests work.
///
/// # Errors
/// The first step that could neither find nor install its thing.
pub(crate) fn all() -> Result<()> {
    packages()?;
    std_sources()?;
    bpf_linker()
}

fn packages() -> Result<()> {
    let missing: Vec<_> = PACKAGES
        .iter()
        .filter(|(package, _)| !installed(package))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    for (package, why) in &missing {
        say(&format!("setup: installing {package} ({why})"));
    }
    ensure!(
        Path::new("/usr/bin/apt-get").exists(),
        "this is no Debian machine: install the packages above with your own package manager"
    );
    // A third-party source that does not answer must not stop Debian's own from being read.
    let _ = Command::new("apt-get").args(["update", "-qq"]).status();
    sh::run(
        Command::new("apt-get")
            .args([
                "install",
                "-y",
                "-qq",
                "--no-install-recommends",
                "--no-upgrade",
            ])
            .args(missing.iter().map(|(package, _)| package))
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
    .context("install Debian packages (root and a reachable Debian mirror are needed)")
}

fn installed(package: &str) -> bool {
    sh::output(Command::new("dpkg-query").args(["-W", "-f=${db:Status-Status}", package]))
        .is_ok_and(|status| status == "installed")
}

/// `-Z build-std=core` compiles the standard library's sources for the BPF target.
fn std_sources() -> Result<()> {
    let sysroot = PathBuf::from(sh::output(
        Command::new("rustc").args(["--print", "sysroot"]),
    )?);
    let library = sysroot.join("lib/rustlib/src/rust/library");
    if library.join("Cargo.lock").exists() {
        return Ok(());
    }
    say("setup: fetching the standard library's sources (rust-src)");
    // rustup hangs where its server is out of reach, hence the limit.
    let by_rustup = Command::new("timeout")
        .args(["60", "rustup", "component", "add", "rust-src"])
        .status()
        .is_ok_and(|status| status.success());
    if by_rustup && library.join("Cargo.lock").exists() {
        return Ok(());
    }
    say("setup: rustup could not; taking Debian's rust-src package");
    let scratch = std::env::temp_dir().join(format!("tracer-rust-src-{}", std::process::id()));
    fs::create_dir_all(&scratch)?;
    let fetched = std_sources_from_debian(&scratch, &library);
    fs::remove_dir_all(&scratch)?;
    fetched
}

/// Fetches `rust-src` of exactly rustc's version through a private apt configuration, so that
/// the machine's own `/etc/apt` stays as it is.
fn std_sources_from_debian(scratch: &Path, library: &Path) -> Result<()> {
    let version = rustc_version()?;
    let mirror = debian_mirror()?;
    for dir in ["sources", "lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(scratch.join(dir))?;
    }
    fs::write(
        scratch.join("sources/backports.sources"),
        format!(
            "Types: deb\nURIs: {mirror}\nSuites: trixie-backports\nComponents: main\n\
             Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        ),
    )?;
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .current_dir(scratch)
            .args(["-qq", "-o", "Dir::Etc::sourcelist=/dev/null"])
            .args([
                "-o",
                &format!("Dir::Etc::sourceparts={}/sources", scratch.display()),
            ])
            .args([
                "-o",
                &format!("Dir::State::lists={}/lists", scratch.display()),
            ])
            .args(["-o", &format!("Dir::Cache={}/cache", scratch.display())])
            .args(["-o", "APT::Sandbox::User=root"])
            .args(args);
        sh::run(&mut command)
    };
    apt(&["update"])?;
    apt(&["download", &format!("rust-src={version}*")]).with_context(|| {
        format!("Debian has no rust-src {version}; run `rustup component add rust-src` where it can reach its server")
    })?;
    let package = fs::read_dir(scratch)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|ext| ext == "deb"))
        .context("apt-get download left no package")?;
    let unpacked = scratch.join("unpacked");
    sh::run(Command::new("dpkg").arg("-x").arg(&package).arg(&unpacked))?;
    let target = library.parent().context("the sysroot has a parent")?;
    fs::create_dir_all(target)?;
    sh::run(
        Command::new("cp")
            .arg("-r")
            .arg(unpacked.join(format!("usr/src/rustc-{version}/library")))
            .arg(target),
    )?;
    ensure!(
        library.join("Cargo.lock").exists(),
        "rust-src holds no library/Cargo.lock"
    );
    Ok(())
}

fn rustc_version() -> Result<String> {
    let text = sh::output(Command::new("rustc").arg("--version"))?;
    text.split(' ')
        .nth(1)
        .map(str::to_owned)
        .context("rustc --version has no version")
}

/// The first Debian mirror the machine itself is set up with.
pub(crate) fn debian_mirror() -> Result<String> {
    let mut files: Vec<_> = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.push(PathBuf::from("/etc/apt/sources.list"));
    files.sort();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        let found = text
            .lines()
            .filter(|line| line.starts_with("URIs:") || line.starts_with("deb "))
            .flat_map(str::split_whitespace)
            .find(|word| {
                word.starts_with("http") && word.trim_end_matches('/').ends_with("/debian")
            });
        if let Some(mirror) = found {
            return Ok(mirror.to_owned());
        }
    }
    bail!("no Debian mirror in /etc/apt/sources.list or sources.list.d")
}

fn bpf_linker() -> Result<()> {
    let found = sh::output(Command::new("bpf-linker").arg("--version")).unwrap_or_default();
    if found.contains(BPF_LINKER) {
        return Ok(());
    }
    say(&format!(
        "setup: building bpf-linker {BPF_LINKER} (about two minutes)"
    ));
    sh::run(
        Command::new("cargo")
            .args([
                "install",
                "bpf-linker",
                "--version",
                BPF_LINKER,
                "--locked",
                "--quiet",
            ])
            .args([
                "--no-default-features",
                "--features",
                &format!("llvm-{LLVM}"),
            ])
            .env("LLVM_PREFIX", format!("/usr/lib/llvm-{LLVM}")),
    )
    .context("build bpf-linker")
}
