//! Newtypes for integers that must not be swapped; each says its unit and where it comes from.

use std::{
    ops::Sub,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

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

impl Sub for WallNs {
    type Output = Duration;

    /// Time from `earlier` to `self`; zero when `earlier` is in truth later.
    fn sub(self, earlier: Self) -> Duration {
        let nanos = self.0.saturating_sub(earlier.0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }
}

impl From<SystemTime> for WallNs {
    /// A time before 1970 is 0.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }
}

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
