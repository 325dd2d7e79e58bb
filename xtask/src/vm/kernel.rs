//! Debian's kernels: which versions are tested, where each comes from, and its modules.
//!
//! A kernel is fetched once and stays unpacked under `target/vm/VERSION`; remove that directory
//! to get the suite's present build. The cloud flavour is the one nodes run on, and has virtio.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    debian,
    sh::{self, say},
};

/// A kernel version as `cargo xtask test vm VERSION` spells it, and the suites that have it, the
/// first that answers being taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Version {
    pub(crate) name: &'static str,
    suites: &'static [&'static str],
    /// What its guest is booted with beside the usual; one of them locks itself down, as with Secure Boot, and one has
    /// SELinux, without a policy.
    pub(crate) parameters: &'static str,
}

/// Oldest to newest. 5.10 is the oldest with the ring buffer and BTF in a Debian; it goes from
/// the mirrors when bullseye does, and has no fallback there.
pub(crate) const ALL: &[Version] = &[
    Version {
        name: "5.10",
        suites: &["bullseye"],
        parameters: "",
    },
    Version {
        name: "6.1",
        suites: &["bookworm"],
        parameters: "security=selinux",
    },
    Version {
        name: "6.12",
        suites: &["trixie"],
        parameters: "lockdown=integrity",
    },
    Version {
        name: "newest",
        suites: &["trixie-backports", "forky"],
        parameters: "",
    },
];

/// An unpacked kernel package.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// What `uname -r` says in the guest.
    pub(crate) release: String,
    pub(crate) vmlinuz: PathBuf,
    /// Holds `lib/modules/RELEASE`, with `modules.dep` and every module uncompressed.
    modules: PathBuf,
}

impl Version {
    /// The version called `name`.
    ///
    /// # Errors
    /// No such version; the error lists those there are.
    pub(crate) fn named(name: &str) -> Result<Self> {
        let found = ALL.iter().find(|version| version.name == name);
        found.copied().with_context(|| {
            let known: Vec<_> = ALL.iter().map(|version| version.name).collect();
            format!("no kernel {name}; there are {}", known.join(", "))
        })
    }

    /// The unpacked kernel, fetched unless it is there.
    ///
    /// # Errors
    /// No suite that has it answers, or its packages lack a part.
    pub(crate) fn fetch(self) -> Result<Kernel> {
        let dir = sh::target().join("vm").join(self.name);
        let done = dir.join("unpacked");
        if !done.exists() {
            let mut failures = Vec::new();
            let fetched = self.suites.iter().any(|suite| {
                say(&format!(
                    "vm: fetching kernel {} from suite {suite}",
                    self.name
                ));
                unpack(suite, &dir)
                    .inspect_err(|error| failures.push(format!("{error:#}")))
                    .is_ok()
            });
            ensure!(fetched, "kernel {}: {}", self.name, failures.join("; "));
            fs::write(done, "")?;
        }
        Kernel::at(&dir)
    }
}

/// Unpacks the suite's `linux-image-cloud-amd64`, that is, those packages it depends on that hold
/// a part of the kernel: one up to 6.12; `linux-binary-…`, `-modules-…` and `-base-…` since then.
fn unpack(suite: &str, dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    let mut wanted = vec!["linux-image-cloud-amd64".to_owned()];
    let mut seen = 0;
    while let Some(package) = wanted.get(seen).cloned() {
        seen += 1;
        debian::unpack(&debian::download(suite, &package)?, dir)?;
        for dependency in debian::depends(suite, &package)? {
            if holds_kernel(&dependency) && !wanted.contains(&dependency) {
                wanted.push(dependency);
            }
        }
    }
    let kernel = Kernel::at(dir)?;
    // Uncompressed once here: under QEMU's emulation xz takes seconds at every boot.
    sh::run(
        Command::new("find")
            .arg(&kernel.modules)
            .args(["-name", "*.ko.xz", "-exec", "xz", "-d", "{}", "+"]),
    )?;
    sh::run(
        Command::new("depmod")
            .arg("-b")
            .arg(&kernel.modules)
            .arg(&kernel.release),
    )
}

fn holds_kernel(package: &str) -> bool {
    [
        "linux-image-",
        "linux-binary-",
        "linux-modules-",
        "linux-base-",
    ]
    .iter()
    .any(|prefix| package.starts_with(prefix))
}

impl Kernel {
    fn at(dir: &Path) -> Result<Self> {
        // Since forky modules are below usr/, and the kernel lies among them.
        for modules in [dir.join("usr"), dir.to_owned()] {
            let releases = modules.join("lib/modules");
            for entry in fs::read_dir(&releases).into_iter().flatten() {
                let release = entry?.file_name().to_string_lossy().into_owned();
                let places = [
                    releases.join(&release).join("vmlinuz"),
                    dir.join("boot").join(format!("vmlinuz-{release}")),
                ];
                if let Some(vmlinuz) = places.into_iter().find(|place| place.exists()) {
                    return Ok(Self {
                        release,
                        vmlinuz,
                        modules,
                    });
                }
            }
        }
        bail!("{} holds no kernel with modules", dir.display())
    }

    /// Files of the modules `names` and of all they depend on, as paths below `lib/modules/RELEASE`.
    /// A name this kernel lacks is left out: what is a module differs between kernels.
    ///
    /// # Errors
    /// `modules.dep` cannot be read.
    pub(crate) fn modules(&self, names: &[&str]) -> Result<Vec<(PathBuf, String)>> {
        let dir = self.modules.join("lib/modules").join(&self.release);
        let dep = fs::read_to_string(dir.join("modules.dep"))
            .with_context(|| format!("read modules.dep of {}", self.release))?;
        let files = closure(&dep, names);
        Ok(files
            .into_iter()
            .map(|file| (dir.join(&file), file))
            .collect())
    }

    /// `modules.builtin` and `modules.order`, which depmod wants beside the modules.
    pub(crate) fn lists(&self) -> Vec<(PathBuf, String)> {
        let dir = self.modules.join("lib/modules").join(&self.release);
        [
            "modules.builtin",
            "modules.builtin.modinfo",
            "modules.order",
        ]
        .iter()
        .map(|name| (dir.join(name), (*name).to_owned()))
        .filter(|(path, _)| path.exists())
        .collect()
    }
}

/// Lines of `modules.dep` are `FILE: FILE …`, the dependencies being complete already. A name
/// that ends in `*` stands for every module that begins so; `-` and `_` are one, as to modprobe.
fn closure(dep: &str, names: &[&str]) -> Vec<String> {
    let mut files = Vec::new();
    for line in dep.lines() {
        let Some((file, needs)) = line.split_once(':') else {
            continue;
        };
        let module = module_name(file);
        let wanted = names.iter().any(|name| match name.strip_suffix('*') {
            Some(prefix) => module.starts_with(prefix),
            None => module == *name,
        });
        if wanted {
            files.push(file.to_owned());
            files.extend(needs.split_whitespace().map(str::to_owned));
        }
    }
    files.sort();
    files.dedup();
    files
}

fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/net/veth.ko:\n\
        kernel/net/netfilter/xt_nat.ko: kernel/net/netfilter/nf_nat.ko kernel/lib/libcrc32c.ko\n\
        kernel/net/netfilter/xt_mark.ko:\n\
        kernel/net/br-netfilter.ko: kernel/net/bridge.ko\n";

    fn check(names: &[&str], expected: &[&str]) {
        assert_eq!(closure(DEP, names), expected);
    }

    #[test]
    fn a_module_comes_with_what_it_depends_on() {
        check(
            &["br_netfilter"],
            &["kernel/net/br-netfilter.ko", "kernel/net/bridge.ko"],
        );
    }

    #[test]
    fn a_star_stands_for_every_module_that_begins_so() {
        check(
            &["xt_*"],
            &[
                "kernel/lib/libcrc32c.ko",
                "kernel/net/netfilter/nf_nat.ko",
                "kernel/net/netfilter/xt_mark.ko",
                "kernel/net/netfilter/xt_nat.ko",
            ],
        );
    }

    #[test]
    fn a_module_this_kernel_lacks_is_left_out() {
        check(&["ip_vs"], &[]);
    }
}
