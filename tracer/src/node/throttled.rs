//! How often a process may not run though it would, for the CPU limit of its cgroup or of one above it: what the
//! kernel counts of CFS bandwidth, in both versions of cgroups.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

use super::cgroup;

/// Shortest time that a cgroup had to wait that is told.
const LEAST: Duration = Duration::from_millis(250);

/// Periods from which on what was counted since a cgroup was made says something of its ordinary state: ten seconds
/// of work, if they are as long as usual.
const LONG: u64 = 100;

/// How long after a look a later one counts from there on.
const ANEW: Duration = Duration::from_millis(900);

/// What a CPU limit did (Documentation/scheduler/sched-bwc.rst).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttled {
    /// Thousandths of a processor that may be used.
    millicpus: u64,
    /// Periods in which there was something to run, and those of them in which it had to wait.
    periods: u64,
    halted: u64,
    /// How long it waited, on all processors together.
    waited: Duration,
}

impl Throttled {
    /// What is counted of a process, given by its directory in /proc, since its cgroup was made: of the first of its
    /// own cgroup and those above it that has a limit; `None` where none has. Files are those below `root`.
    pub fn of(root: &Path, process: &Path) -> Option<Self> {
        let dirs = directories(root, process);
        dirs.iter().find_map(|dir| Self::read(dir))
    }

    /// What a cgroup's files say; `None` where they set no limit.
    fn read(dir: &Path) -> Option<Self> {
        let text = |name: &str| fs::read_to_string(dir.join(name)).ok();
        let numbers = |text: &str| {
            let mut words = text.split_whitespace().map(|word| word.parse::<u64>().ok());
            Some((words.next()??, words.next()??))
        };
        // `max`, or of version 1 -1, is no number: there is no limit.
        let (quota, period) = match text("cpu.max") {
            Some(limit) => numbers(&limit)?,
            None => {
                let quota = text("cpu.cfs_quota_us")?;
                numbers(&format!("{quota} {}", text("cpu.cfs_period_us")?))?
            }
        };
        let mut all = Self {
            millicpus: (quota * 1000).checked_div(period)?,
            ..Self::default()
        };
        for line in text("cpu.stat")?.lines() {
            let Some((name, value)) = line.split_once(' ') else {
                continue;
            };
            let Ok(value) = value.trim_end().parse() else {
                continue;
            };
            match name {
                "nr_periods" => all.periods = value,
                "nr_throttled" => all.halted = value,
                "throttled_usec" => all.waited = Duration::from_micros(value),
                "throttled_time" => all.waited = Duration::from_nanos(value),
                _ => {}
            }
        }
        Some(all)
    }

    /// What was counted since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            millicpus: self.millicpus,
            periods: self.periods.saturating_sub(before.periods),
            halted: self.halted.saturating_sub(before.halted),
            waited: self.waited.saturating_sub(before.waited),
        }
    }

    /// Whether work had to wait in every fourth period, and long: a query that comes then waits, too.
    pub fn is_much(self) -> bool {
        self.waited >= LEAST && self.halted * 4 >= self.periods
    }

    /// Whether it had to wait in most periods, of many: so that more than its start was throttled.
    pub fn is_usual(self) -> bool {
        self.periods >= LONG && self.halted * 2 >= self.periods
    }
}

impl fmt::Display for Throttled {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            millicpus,
            periods,
            halted,
            waited,
        } = self;
        let seconds = waited.as_secs_f64();
        write!(
            out,
            "CPU limit of {millicpus}m: it had to wait in {halted} of {periods} periods, {seconds:.1} s in all"
        )
    }
}

/// The directories of a process's cgroup of CPU time and of those above it, the innermost first.
fn directories(root: &Path, process: &Path) -> Vec<PathBuf> {
    let groups = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
    let mounts = fs::read_to_string(root.join("proc/self/mounts")).unwrap_or_default();
    let mut all = Vec::new();
    for group in groups.lines() {
        let Some(at) = cgroup::directory(group, &mounts, "cpu") else {
            continue;
        };
        let mut dir = at.dir.as_path();
        while dir.starts_with(&at.mount) {
            all.push(root.join(dir.strip_prefix("/").unwrap_or(dir)));
            let Some(above) = dir.parent() else { break };
            dir = above;
        }
    }
    all
}

/// What was counted of each cgroup with a limit, from when tracing began on.
#[derive(Debug)]
pub(super) struct Looks {
    root: PathBuf,
    last: FxHashMap<PathBuf, Look>,
}

/// A look at a cgroup: when, what was counted then, and since what before it a server was held back "lately".
/// Others that ask at nearly the same time, of another socket of the same container, are told the same.
#[derive(Clone, Copy, Debug)]
struct Look {
    when: Instant,
    then: Throttled,
    before: Throttled,
}

impl Look {
    fn new(then: Throttled, before: Throttled) -> Self {
        Self {
            when: Instant::now(),
            then,
            before,
        }
    }
}

impl Looks {
    /// Looks at all cgroups of CPU time below `root`.
    pub(super) fn begin(root: &Path) -> Self {
        let mut looks = Self {
            root: root.to_owned(),
            last: FxHashMap::default(),
        };
        let mounts = fs::read_to_string(root.join("proc/self/mounts")).unwrap_or_default();
        for mount in cgroup::mounts(&mounts, "cpu") {
            looks.walk(&root.join(mount.trim_start_matches('/')), cgroup::DEPTH);
        }
        looks
    }

    fn walk(&mut self, dir: &Path, depth: usize) {
        if let Some(told) = Throttled::read(dir) {
            self.last.insert(dir.to_owned(), Look::new(told, told));
        }
        let below = fs::read_dir(dir).into_iter().flatten().flatten();
        for entry in below.take_while(|_| depth > 0) {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.walk(&entry.path(), depth - 1);
            }
        }
    }

    /// In words, what the CPU limit of a process did since the last look; `None` where that is little. A cgroup that
    /// was not there then is new.
    pub(super) fn at(&mut self, process: &Path) -> Option<String> {
        let dirs = directories(&self.root, process);
        let (dir, now) = dirs
            .iter()
            .find_map(|dir| Some((dir, Throttled::read(dir)?)))?;
        let new = Look::new(now, Throttled::default());
        let last = self.last.entry(dir.clone()).or_insert(new);
        if last.when.elapsed() >= ANEW {
            *last = Look::new(now, last.then);
        }
        let lately = now.since(last.before);
        lately
            .is_much()
            .then(|| format!("is held back by its {lately}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(mounts: &str, group: &str, dir: &str, files: &[(&str, &str)]) -> Option<Throttled> {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("proc/self/mounts", mounts);
        put("proc/7/cgroup", group);
        for (name, text) in files {
            put(&format!("{dir}/{name}"), text);
        }
        Throttled::of(root.path(), &root.path().join("proc/7"))
    }

    #[test]
    fn both_versions_of_cgroups_tell_what_a_limit_did() {
        let expected = Throttled {
            millicpus: 50,
            periods: 120,
            halted: 60,
            waited: Duration::from_millis(2500),
        };
        let found = node(
            "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n",
            "0::/kubepods/pod1/c1\n",
            "sys/fs/cgroup/kubepods/pod1",
            &[
                ("cpu.max", "5000 100000\n"),
                (
                    "cpu.stat",
                    "usage_usec 1\nnr_periods 120\nnr_throttled 60\nthrottled_usec 2500000\n",
                ),
                ("c1/cpu.max", "max 100000\n"),
            ],
        );
        assert_eq!(found, Some(expected), "the limit is the pod's");
        let found = node(
            "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n",
            "4:memory:/a\n3:cpu,cpuacct:/a\n",
            "sys/fs/cgroup/cpu,cpuacct/a",
            &[
                ("cpu.cfs_quota_us", "5000\n"),
                ("cpu.cfs_period_us", "100000\n"),
                (
                    "cpu.stat",
                    "nr_periods 120\nnr_throttled 60\nthrottled_time 2500000000\n",
                ),
            ],
        );
        assert_eq!(found, Some(expected));
        assert_eq!(
            expected.to_string(),
            "CPU limit of 50m: it had to wait in 60 of 120 periods, 2.5 s in all"
        );
        let found = node(
            "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n",
            "3:cpu:/a\n",
            "sys/fs/cgroup/cpu/a",
            &[
                ("cpu.cfs_quota_us", "-1\n"),
                ("cpu.cfs_period_us", "100000\n"),
            ],
        );
        assert_eq!(found, None, "there is no limit");
    }

    #[test]
    fn two_sockets_of_one_container_are_told_the_same_of_it() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("sys/fs/cgroup/a");
        let process = root.path().join("proc/7");
        for dir in [&dir, &process, &root.path().join("proc/self")] {
            fs::create_dir_all(dir).unwrap();
        }
        let mounts = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        fs::write(root.path().join("proc/self/mounts"), mounts).unwrap();
        fs::write(process.join("cgroup"), "0::/a\n").unwrap();
        fs::write(dir.join("cpu.max"), "5000 100000\n").unwrap();
        let count = |periods: u32| {
            let stat = format!(
                "nr_periods {periods}\nnr_throttled {periods}\nthrottled_usec {}\n",
                periods * 95_000
            );
            fs::write(dir.join("cpu.stat"), stat).unwrap();
        };
        count(40);
        let mut looks = Looks::begin(root.path());
        assert_eq!(looks.at(&process), None, "it was before the trace began");
        count(50);
        let told = "is held back by its CPU limit of 50m: it had to wait in 10 of 10 periods, 0.9 s in all";
        assert_eq!(looks.at(&process).as_deref(), Some(told));
        assert_eq!(looks.at(&process).as_deref(), Some(told));
    }

    #[test]
    fn a_start_that_was_throttled_is_not_the_usual_state() {
        let of = |periods, halted: u32| Throttled {
            periods,
            halted: halted.into(),
            waited: Duration::from_millis(90) * halted,
            ..Throttled::default()
        };
        assert!(of(12, 3).is_much());
        assert!(!of(13, 3).is_much());
        assert!(!of(2, 2).is_much());
        assert!(of(100, 50).is_usual());
        assert!(!of(30, 30).is_usual());
        assert!(of(110, 55).since(of(100, 50)).is_much());
        assert!(!of(150, 55).since(of(100, 50)).is_much());
    }
}
