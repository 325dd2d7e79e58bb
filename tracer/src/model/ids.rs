//! Newtypes for integers that must not be swapped; each says its unit and where it comes from.

use std::{ops::Sub, time::Duration};

/// Nanoseconds since boot, suspend excluded (`bpf_ktime_get_ns`, `CLOCK_MONOTONIC`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KtimeNs(pub u64);

impl Sub for KtimeNs {
    type Output = Duration;

    /// Time from `earlier` to `self`; zero when `earlier` is in truth later, as records of two
    /// processors may be by a few microseconds.
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl KtimeNs {
    /// The moment `duration` after this one.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// Nanoseconds since 1970-01-01T00:00:00Z (`CLOCK_REALTIME`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallNs(pub i64);

/// Network namespace, named by the inode of its nsfs file (`stat -L /proc/PID/ns/net`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetnsInode(pub u32);

/// Index of a network device within its namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ifindex(pub u32);

/// Cgroup v2 id: the inode of its directory in the v2 hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CgroupId(pub u64);

/// Address of a `struct sk_buff`; an identity while the packet lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SkbId(pub u64);

/// Address of a `struct sock`; an identity while the socket lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SockId(pub u64);
