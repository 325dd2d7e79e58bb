//! A process within a pod, by the pod's name.

use std::fs;

use super::{cgroup, runtime::Containers};

/// Processes in containers of the pod called `name` (`NAMESPACE/NAME`), in order.
pub(super) fn processes(name: &str, containers: &mut Containers) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<u32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids.retain(|pid| {
        // Threads of the kernel, and what ended meanwhile, have none.
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let container = cgroups.lines().find_map(cgroup::container);
        let pod = container.and_then(|container| containers.pod(&container));
        pod.is_some_and(|found| found.pod.to_string() == name)
    });
    pids
}
