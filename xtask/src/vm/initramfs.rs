//! The guest's whole file system: busybox, network tools with their libraries, and modules.
//!
//! Paths are laid out as on a merged-usr Debian, so a program finds in the guest what it found
//! here. Knows nothing of QEMU.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{Guest, kernel::Kernel};
use crate::sh;

/// Programs every guest has; `setup` installs their packages.
const TOOLS: &[&str] = &[
    "/bin/bash",
    "/bin/kmod",
    "/bin/ip",
    "/sbin/tc",
    "/sbin/sysctl",
    "/usr/sbin/conntrack",
    "/usr/bin/dig",
    "/usr/bin/dnsperf",
    "/usr/sbin/xtables-nft-multi",
    "/usr/sbin/xtables-legacy-multi",
    "/usr/sbin/nft",
    "/usr/sbin/ipvsadm",
    "/usr/sbin/ipset",
];

/// Names under which a program is called, beside its own.
const LINKS: &[(&str, &str)] = &[
    ("/usr/bin/bash", "/usr/bin/sh"),
    ("/usr/bin/kmod", "/usr/sbin/modprobe"),
    ("/usr/bin/kmod", "/usr/sbin/lsmod"),
    ("/usr/bin/ip", "/usr/sbin/ip"),
    ("/usr/sbin/xtables-nft-multi", "/usr/sbin/iptables"),
    ("/usr/sbin/xtables-nft-multi", "/usr/sbin/iptables-save"),
    ("/usr/sbin/xtables-nft-multi", "/usr/sbin/iptables-restore"),
    ("/usr/sbin/xtables-nft-multi", "/usr/sbin/ip6tables"),
    ("/usr/sbin/xtables-nft-multi", "/usr/sbin/ip6tables-save"),
    ("/usr/sbin/xtables-nft-multi", "/usr/sbin/ip6tables-restore"),
    (
        "/usr/sbin/xtables-legacy-multi",
        "/usr/sbin/iptables-legacy",
    ),
    (
        "/usr/sbin/xtables-legacy-multi",
        "/usr/sbin/iptables-legacy-save",
    ),
    (
        "/usr/sbin/xtables-legacy-multi",
        "/usr/sbin/iptables-legacy-restore",
    ),
];

/// iptables' matches and targets, which it loads by name.
const XTABLES: &str = "/usr/lib/x86_64-linux-gnu/xtables";

/// What name look-ups and port names read, and whom TLS trusts.
const ETC: &[&str] = &[
    "/etc/protocols",
    "/etc/services",
    "/etc/nsswitch.conf",
    "/etc/ethertypes",
    "/etc/iproute2/rt_tables",
    "/etc/ssl/certs/ca-certificates.crt",
];

/// Modules by name, `*` at the end for all that begin so. Most load by themselves when asked for.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_net",
    "veth",
    "bridge",
    "br_netfilter",
    "dummy",
    "vxlan",
    "tun",
    "ipip",
    "af_packet",
    "nfnetlink*",
    "nf_conntrack*",
    "nf_nat*",
    "nf_reject*",
    "nf_tables*",
    "nf_log*",
    "nf_defrag*",
    "nft_*",
    "xt_*",
    "x_tables",
    "ip_tables",
    "iptable_*",
    "ip6_tables",
    "ip6table_*",
    "ipt_*",
    "ip6t_*",
    "ip_set*",
    "ip_vs*",
    "sch_*",
    "cls_bpf",
    "cls_matchall",
    "act_bpf",
    "act_mirred",
    "inet_diag",
    "udp_diag",
    "tcp_diag",
];

/// Writes the initramfs of `guest` to `into`, an uncompressed cpio: QEMU copies it faster than
/// an emulated processor decompresses it.
///
/// # Errors
/// A program or file is missing here, or the disk is full.
pub(super) fn build(guest: &Guest<'_>, kernel: &Kernel, into: &Path) -> Result<()> {
    let root = into.with_extension("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    let mut tree = Tree {
        root,
        copied: BTreeSet::new(),
    };
    tree.skeleton()?;
    for tool in TOOLS {
        tree.program(Path::new(tool), Path::new(tool))?;
    }
    for (target, link) in LINKS {
        symlink(target, tree.at(Path::new(link))?)?;
    }
    tree.xtables()?;
    for file in ETC.iter().map(Path::new).filter(|file| file.exists()) {
        tree.copy(file, file)?;
    }
    tree.modules(kernel)?;
    for (source, target) in guest.files {
        tree.program(source, target)?;
    }
    fs::write(tree.at(Path::new("/script"))?, guest.script)?;
    tree.pack(into)?;
    fs::remove_dir_all(&tree.root)?;
    Ok(())
}

/// A directory on its way to becoming an initramfs.
struct Tree {
    root: PathBuf,
    copied: BTreeSet<PathBuf>,
}

impl Tree {
    fn skeleton(&self) -> Result<()> {
        for dir in [
            "usr/bin",
            "usr/sbin",
            "usr/lib",
            "usr/lib64",
            "busybox",
            "etc",
            "proc",
            "sys",
            "dev",
            "run",
            "tmp",
            "root",
            "var/lib",
        ] {
            fs::create_dir_all(self.root.join(dir))?;
        }
        for dir in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{dir}"), self.root.join(dir))?;
        }
        symlink("/run", self.root.join("var/run"))?;
        fs::write(
            self.root.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\n",
        )?;
        fs::write(self.root.join("etc/group"), "root:x:0:\n")?;
        fs::write(self.root.join("etc/hosts"), "127.0.0.1 localhost guest\n")?;
        fs::copy("/bin/busybox", self.root.join("busybox/busybox")).context("copy busybox")?;
        let init = self.root.join("init");
        fs::write(&init, include_str!("init.sh"))?;
        sh::run(Command::new("chmod").arg("755").arg(init))
    }

    /// Where the guest's absolute `path` lies here, its directories made; /bin is /usr/bin and so on.
    fn at(&self, path: &Path) -> Result<PathBuf> {
        let path = path
            .strip_prefix("/")
            .with_context(|| format!("{} is no absolute path of the guest", path.display()))?;
        let merged = ["bin", "sbin", "lib", "lib64"]
            .iter()
            .any(|dir| path.starts_with(dir));
        let full = if merged {
            self.root.join("usr").join(path)
        } else {
            self.root.join(path)
        };
        if let Some(parent) = full.parent() {
            fs::create_dir_all(parent)?;
        }
        Ok(full)
    }

    fn copy(&mut self, source: &Path, target: &Path) -> Result<()> {
        if self.copied.insert(target.to_owned()) {
            fs::copy(source, self.at(target)?)
                .with_context(|| format!("copy {} into the guest", source.display()))?;
        }
        Ok(())
    }

    /// Copies a file and, when it is a program, the libraries it is linked with.
    fn program(&mut self, source: &Path, target: &Path) -> Result<()> {
        ensure!(
            source.exists(),
            "{} is not on this machine",
            source.display()
        );
        self.copy(source, target)?;
        // ldd fails on what is no dynamic program; such files need no libraries.
        let linked = sh::output(Command::new("ldd").arg(source)).unwrap_or_default();
        for library in libraries(&linked) {
            self.copy(&library, &library)?;
        }
        Ok(())
    }

    fn xtables(&mut self) -> Result<()> {
        for entry in fs::read_dir(XTABLES).context("list iptables' plug-ins")? {
            let path = entry?.path();
            self.copy(&path, &path)?;
        }
        Ok(())
    }

    fn modules(&mut self, kernel: &Kernel) -> Result<()> {
        let dir = Path::new("/lib/modules").join(&kernel.release);
        let files = kernel.modules(MODULES)?.into_iter().chain(kernel.lists());
        for (source, below) in files {
            self.copy(&source, &dir.join(below))?;
        }
        sh::run(
            Command::new("depmod")
                .arg("-b")
                .arg(&self.root)
                .arg(&kernel.release),
        )
    }

    fn pack(&self, into: &Path) -> Result<()> {
        sh::run(
            Command::new("bash")
                .args(["-c", "set -o pipefail; find . -print0 | cpio --null --create --format=newc --quiet --owner=+0:+0 >\"$1\"", "pack"])
                .arg(into)
                .current_dir(&self.root),
        )
        .context("pack the initramfs")
    }
}

/// Absolute paths in what ldd prints: `NAME => PATH (ADDRESS)` and the loader's `PATH (ADDRESS)`.
fn libraries(ldd: &str) -> Vec<PathBuf> {
    ldd.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_names_libraries_and_the_loader() {
        let said = "\tlinux-vdso.so.1 (0x00007ffd)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f00)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f01)\n";
        assert_eq!(
            libraries(said),
            [
                PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"),
                PathBuf::from("/lib64/ld-linux-x86-64.so.2"),
            ]
        );
    }

    #[test]
    fn a_static_program_has_no_libraries() {
        assert_eq!(
            libraries("\tnot a dynamic executable\n"),
            Vec::<PathBuf>::new()
        );
    }
}
