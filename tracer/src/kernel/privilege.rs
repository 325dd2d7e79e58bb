//! Whether this process may load programs on this kernel at all, asked before trying.

use std::{fs, path::Path};

use super::Error;

/// Bits of the effective capability set, include/uapi/linux/capability.h.
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

/// Oldest kernel that works: BPF ring buffers (5.8), split capabilities (5.8), a long-term line.
const OLDEST: (u32, u32) = (5, 10);

/// Looks at kernel version, lockdown and capabilities, in this order.
///
/// # Errors
/// The first that forbids loading.
pub(super) fn check() -> Result<(), Error> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if version(&release).is_some_and(|found| found < OLDEST) {
        return Err(Error::TooOld {
            found: release.trim().to_owned(),
        });
    }
    let lockdown = fs::read_to_string(Path::new("/sys/kernel/security/lockdown"));
    if lockdown.is_ok_and(|modes| modes.contains("[confidentiality]")) {
        return Err(Error::Lockdown);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    match missing(&status) {
        Some(missing) => Err(Error::Privilege { missing }),
        None => Ok(()),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn missing(status: &str) -> Option<String> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    let set = u64::from_str_radix(line.trim(), 16).ok()?;
    let has = |bit: u32| set & (1 << bit) != 0 || set & (1 << SYS_ADMIN) != 0;
    let names: Vec<_> = [("CAP_BPF", BPF), ("CAP_PERFMON", PERFMON)]
        .into_iter()
        .filter(|&(_, bit)| !has(bit))
        .map(|(name, _)| name)
        .collect();
    (!names.is_empty()).then(|| names.join(" and "))
}

/// Before Linux 5.11 maps count against RLIMIT_MEMLOCK. A refusal shows when the map is made.
#[expect(
    unsafe_code,
    reason = "the standard library does not set resource limits"
)]
pub(super) fn raise_memlock() {
    let all = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: `all` is a valid rlimit to read from.
    unsafe {
        libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(version("5.10.0-28-amd64"), Some((5, 10)));
        assert!(version("5.4.0").unwrap() < OLDEST);
        assert!(version("6.1.0").unwrap() > OLDEST);
    }

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(
            missing("CapEff:\t0000000000000000\n").unwrap(),
            "CAP_BPF and CAP_PERFMON"
        );
        assert_eq!(missing("CapEff:\t0000004000000000\n").unwrap(), "CAP_BPF");
        assert_eq!(missing("CapEff:\t000000c000000000\n"), None);
        assert_eq!(missing("CapEff:\t0000000000200000\n"), None);
    }
}
