//! The cluster's components and images, built once from the Go tool modules under `tests/bed`.
//!
//! Programs and images lie in `target/bed`. Go keeps sources and objects in caches of its own,
//! outside the workspace, so another workspace links what this one compiled.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::{
    image::{Architecture, Image},
    setup,
    sh::{self, say},
};

/// One `go.mod` and how its tools are built.
struct Module {
    dir: &'static str,
    /// Build tags: file systems that nobody here has, and their C libraries, are left out.
    tags: &'static str,
    /// The requirement whose version the programs are to report, and the variables that hold it.
    versioned: (&'static str, &'static [&'static str]),
}

const MODULES: &[Module] = &[
    Module {
        dir: "tests/bed/containerd",
        tags: "no_btrfs no_zfs no_devmapper",
        versioned: (
            "github.com/containerd/containerd/v2",
            &["github.com/containerd/containerd/v2/version.Version"],
        ),
    },
    Module {
        dir: "tests/bed/k8s",
        tags: "",
        versioned: (
            "k8s.io/kubernetes",
            &[
                "k8s.io/component-base/version.gitVersion",
                "k8s.io/client-go/pkg/version.gitVersion",
            ],
        ),
    },
    Module {
        dir: "tests/bed/flanneld",
        tags: "",
        versioned: (
            "github.com/flannel-io/flannel",
            &["github.com/flannel-io/flannel/pkg/version.Version"],
        ),
    },
    Module {
        dir: "tests/bed/policy",
        tags: "",
        versioned: (
            "github.com/cloudnativelabs/kube-router/v2",
            &["github.com/cloudnativelabs/kube-router/v2/pkg/version.Version"],
        ),
    },
];

/// Images by the name under which pods ask for them.
const BUSYBOX: &str = "docker.io/bed/busybox:1";
const COREDNS: &str = "docker.io/bed/coredns:1";
pub(super) const PAUSE: &str = "docker.io/bed/pause:1";

/// What was built.
pub(super) struct Built {
    /// Directory of the programs.
    pub(super) bin: PathBuf,
    /// OCI archives, one an image.
    pub(super) images: Vec<PathBuf>,
}

impl Built {
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

/// Builds what is missing or of another version.
///
/// # Errors
/// The Go module proxy cannot be reached, or the disk is full: from nothing the build takes 9 GB.
pub(super) fn all(dir: &Path) -> Result<Built> {
    let go = setup::go()?;
    let bin = dir.join("bin");
    fs::create_dir_all(&bin)?;
    for module in MODULES {
        tools(&go, module, &bin).with_context(|| format!("build the tools of {}", module.dir))?;
    }
    let images = dir.join("images");
    fs::create_dir_all(&images)?;
    Ok(Built {
        images: write_images(&bin, &images)?,
        bin,
    })
}

fn tools(go: &Path, module: &Module, bin: &Path) -> Result<()> {
    let dir = sh::root().join(module.dir);
    let go_mod = fs::read_to_string(dir.join("go.mod"))?;
    let name = module.dir.replace('/', "-");
    let stamp = bin.join(format!(".{name}"));
    let version = sh::output(Command::new(go).arg("version").current_dir(&dir))?;
    // One of them is put together here.
    let own = fs::read_to_string(dir.join("main.go")).unwrap_or_default();
    let pinned = HEXLOWER.encode(&Sha256::digest(version + &go_mod + &own));
    if fs::read_to_string(&stamp).is_ok_and(|built| built == pinned) {
        return Ok(());
    }
    say(&format!(
        "cluster: building the tools of {} (twelve minutes from nothing on two processors)",
        module.dir
    ));
    let (requirement, variables) = module.versioned;
    let version = required(&go_mod, requirement)
        .with_context(|| format!("go.mod does not require {requirement}"))?;
    let report = variables.iter().map(|name| format!("-X {name}={version} "));
    let ldflags = format!("-s -w {}", report.collect::<String>());
    sh::run(
        Command::new(go)
            .current_dir(&dir)
            .args(["build", "-trimpath", "-tags", module.tags])
            .args(["-ldflags", &ldflags, "-o"])
            .arg(bin)
            .arg("tool")
            // Static, so that a program runs in an image of its own.
            .env("CGO_ENABLED", "0")
            .env("GOTOOLCHAIN", "local"),
    )?;
    Ok(fs::write(stamp, pinned)?)
}

/// The version that a `require` block asks of `module`.
fn required<'a>(go_mod: &'a str, module: &str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == module).then(|| words.next())?
    })
}

fn write_images(bin: &Path, into: &Path) -> Result<Vec<PathBuf>> {
    let busybox = [(PathBuf::from("/bin/busybox"), "/bin/busybox")];
    let applets = sh::output(Command::new("/bin/busybox").arg("--list"))?;
    let applets: Vec<_> = applets
        .lines()
        .filter(|applet| *applet != "busybox")
        .map(|applet| (format!("/bin/{applet}"), "busybox"))
        .collect();
    let coredns = [(bin.join("coredns"), "/coredns")];
    let architecture = Architecture::own()?.name();
    let images = [
        Image {
            name: BUSYBOX,
            programs: &busybox,
            links: &applets,
            entrypoint: &["/bin/sh", "-c"],
            architecture,
        },
        Image {
            name: PAUSE,
            programs: &busybox,
            links: &[],
            entrypoint: &["/bin/busybox", "sleep", "2147483647"],
            architecture,
        },
        Image {
            name: COREDNS,
            programs: &coredns,
            links: &[],
            entrypoint: &["/coredns"],
            architecture,
        },
    ];
    let write = |image: &Image<'_>| {
        let name = image.name.rsplit('/').next().unwrap_or(image.name);
        let path = into.join(format!("{}.tar", name.replace(':', "-")));
        image.write(&path).map(|()| path)
    };
    images.iter().map(write).collect()
}

/// Puts the CNI plugins where a node looks for them.
pub(super) fn link_plugins(bin: &Path, into: &Path) -> Result<()> {
    fs::create_dir_all(into)?;
    for plugin in ["bridge", "host-local", "loopback", "portmap"] {
        symlink(bin.join(plugin), into.join(plugin))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_requirement_not_of_a_replacement() {
        let go_mod = "require (\n\tk8s.io/kubernetes v1.37.2\n)\nreplace (\n\tk8s.io/api => k8s.io/api v0.37.2\n)\n";
        assert_eq!(required(go_mod, "k8s.io/kubernetes"), Some("v1.37.2"));
        assert_eq!(required(go_mod, "k8s.io/kube"), None);
    }
}
