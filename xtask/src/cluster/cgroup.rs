//! One cgroup holds everything that runs in a bed, so that all of it, and nothing else, can be
//! ended: daemons, shims and containers, also those that a crash left behind.
//!
//! Works with cgroup v2, and with v1 where v2 is mounted beside it (hybrid).

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

/// Longest wait for killed processes to be gone.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the hierarchies are mounted.
struct Hierarchies {
    v2: PathBuf,
    v1: Vec<PathBuf>,
}

/// Makes `path` (such as `bed/n1`) in every hierarchy and lets it have every controller.
///
/// # Errors
/// No cgroup v2, not root, or a hierarchy is mounted read-only.
pub(super) fn make(path: &str) -> Result<()> {
    let Hierarchies { v2, v1 } = hierarchies()?;
    for (root, is_v2) in v1.iter().map(|root| (root, false)).chain([(&v2, true)]) {
        let mut dir = root.clone();
        for part in path.split('/') {
            if is_v2 {
                delegate(&dir)?;
            }
            let parent = dir.clone();
            dir.push(part);
            fs::create_dir_all(&dir).with_context(|| format!("make cgroup {}", dir.display()))?;
            // A v1 cpuset begins empty, and takes no process until it has both.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if !is_v2 && parent.join(file).exists() {
                    fs::write(dir.join(file), fs::read(parent.join(file))?)?;
                }
            }
        }
    }
    Ok(())
}

/// Hands all controllers of a v2 cgroup on to its children.
fn delegate(dir: &Path) -> Result<()> {
    let controllers = fs::read_to_string(dir.join("cgroup.controllers"))?;
    for controller in controllers.split_whitespace() {
        fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"))
            .with_context(|| format!("hand controller {controller} on in {}", dir.display()))?;
    }
    Ok(())
}

/// The file that takes a process into the cgroup.
pub(super) fn procs(path: &str) -> Result<PathBuf> {
    Ok(hierarchies()?.v2.join(path).join("cgroup.procs"))
}

/// Kills every process in `path` and below and removes the cgroups. Does nothing when there is none.
///
/// # Errors
/// Processes would not die, or a cgroup could not be removed.
pub(super) fn end(path: &str) -> Result<()> {
    let Hierarchies { v2, v1 } = hierarchies()?;
    let dir = v2.join(path);
    if dir.exists() {
        fs::write(dir.join("cgroup.kill"), "1")
            .context("kill a cgroup: this takes Linux 5.14 or later")?;
        let deadline = Instant::now() + PATIENCE;
        while fs::read_to_string(dir.join("cgroup.events"))?.contains("populated 1") {
            ensure!(
                Instant::now() < deadline,
                "processes in {} do not end",
                dir.display()
            );
            sleep(Duration::from_millis(50));
        }
    }
    for root in v1.iter().chain([&v2]) {
        remove(&root.join(path))?;
    }
    Ok(())
}

/// Removes a cgroup, its children first.
fn remove(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    if dir.exists() {
        fs::remove_dir(dir).with_context(|| format!("remove cgroup {}", dir.display()))?;
    }
    Ok(())
}

fn hierarchies() -> Result<Hierarchies> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let of = |kind: &str| -> Vec<PathBuf> {
        let mount = |line: &str| {
            let words: Vec<_> = line.split(' ').collect();
            (words.get(2) == Some(&kind)).then(|| PathBuf::from(words[1]))
        };
        mounts.lines().filter_map(mount).collect()
    };
    Ok(Hierarchies {
        v2: of("cgroup2")
            .into_iter()
            .next()
            .context("no cgroup v2 is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")?,
        v1: of("cgroup"),
    })
}
