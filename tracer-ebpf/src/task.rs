//! Who runs on this processor just now: process, name of the thread, cgroup.
//!
//! BTF tracepoints read the `struct task_struct` by plain loads; others ask a helper for each.

use core::mem;

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated};

use crate::{config::ABSENT, output::offset, record::Origin, skb::load};

/// Writes the current task's process, name and cgroup to `origin`.
///
/// # Safety
/// `origin` is valid for writes.
#[inline(always)]
pub(crate) unsafe fn fill_current<const DIRECT: bool>(origin: *mut Origin) {
    if DIRECT && offset!(task_tgid) != ABSENT {
        // SAFETY: the helper has no preconditions.
        let task = unsafe { generated::bpf_get_current_task_btf() }
            .cast::<u8>()
            .cast_const();
        let process = load::<u32, DIRECT>(task, offset!(task_tgid));
        let name = [
            load::<u64, DIRECT>(task, offset!(task_comm)),
            load::<u64, DIRECT>(task, offset!(task_comm) + 8),
        ];
        let cgroups = load::<usize, DIRECT>(task, offset!(task_cgroups)) as *const u8;
        let cgroup = load::<usize, DIRECT>(cgroups, offset!(css_set_cgroup)) as *const u8;
        let node = load::<usize, DIRECT>(cgroup, offset!(cgroup_node)) as *const u8;
        let id = load::<u64, DIRECT>(node, offset!(node_id));
        // SAFETY: `origin` by the caller; both kinds of array are 16 bytes that mean the same.
        unsafe {
            (*origin).pid = process;
            (*origin).comm = mem::transmute::<[u64; 2], [u8; 16]>(name);
            (*origin).cgroup = id;
        }
    } else {
        // SAFETY: `origin` by the caller; the helpers have no preconditions.
        unsafe {
            (*origin).cgroup = generated::bpf_get_current_cgroup_id();
            (*origin).pid = (bpf_get_current_pid_tgid() >> 32) as u32;
            generated::bpf_get_current_comm((&raw mut (*origin).comm).cast(), 16);
        }
    }
}
