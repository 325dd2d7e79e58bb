//! The capabilities that the DaemonSet's manifest lists, and no other, are enough: the tracer sees with them
//! what it sees as root.

use std::fs;
use std::process::Command;
use std::thread;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};
use serde_json::Value;
use tracer::lab::services::{CLIENT1, CLIENT2};

use crate::support::trace::{Traced, Tracer, without_code};
use crate::support::{cannot, dig, lab, program, run_in};

const BASE: &str = include_str!("../../manifests/base/daemonset.yaml");
const LINUX_5_10: &str = include_str!("../../manifests/linux-5.10/daemonset.yaml");

/// What the tracer's container has, by its manifest for this kernel.
pub(crate) fn granted() -> CapabilitySet {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs is mounted");
    let manifest = if release.starts_with("5.10.") {
        LINUX_5_10
    } else {
        BASE
    };
    let manifest: Value = serde_saphyr::from_str(manifest).expect("kubectl takes it");
    let container = &manifest["spec"]["template"]["spec"]["containers"][0];
    let added = &container["securityContext"]["capabilities"]["add"];
    let added = added.as_array().expect("it is a list").iter();
    added
        .map(|name| {
            let name = name.as_str().expect("it is a list of names");
            CapabilitySet::from_name(name).unwrap_or_else(|| panic!("{name} is no capability"))
        })
        .collect()
}

/// Starts the tracer as a runtime starts the container: root by number, with `granted` in every set, and
/// nothing ever gained again. A child inherits from the thread that makes it.
pub(crate) fn start_with(granted: CapabilitySet, words: &str) -> Tracer {
    let limited = move || {
        for capability in CapabilitySet::all().iter() {
            // A kernel need not know the newest.
            if !granted.contains(capability)
                && capability_is_in_bounding_set(capability).unwrap_or(false)
            {
                remove_capability_from_bounding_set(capability).expect("root may");
            }
        }
        set_no_new_privs(true).expect("anybody may");
        let sets = CapabilitySets {
            effective: granted,
            permitted: granted,
            inheritable: granted,
        };
        set_capabilities(None, sets).expect("all are root's");
        Tracer::start_by(Command::new(program()), words)
    };
    thread::scope(|scope| scope.spawn(limited).join()).expect("it starts")
}

/// What was seen of each row, and by whom. Without what the application was told of an error: a sweep may
/// end the row before that, and each trace sweeps at moments of its own.
fn told(traced: &Traced) -> Vec<String> {
    let mut told: Vec<_> = traced
        .rows()
        .iter()
        .map(|row| {
            let brief = crate::support::trace::brief(row);
            let brief = brief.replace("; the application got ECONNREFUSED", "");
            let client = &row["client"];
            format!("{} {} {brief}", client["netns"], client["process"]["name"])
        })
        .collect();
    told.sort();
    told
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn with_the_manifests_capabilities_alone_all_is_seen_that_root_sees() {
    let lab = lab("caps");
    let [one, two] = [CLIENT1, CLIENT2].map(|pod| lab.netns(pod));
    let words = format!("--no-api --path --netns {one} --netns {two}");
    let mut limited = start_with(granted(), &words);
    let mut root = Tracer::start(&words);
    dig(&one, "@10.96.0.10 host1.lab.test");
    dig(&two, "+tcp @fd00:10:96::a host2.lab.test");
    // Rejected; and dropped by a rule, in a function that has a name.
    dig(&one, "@10.96.0.12 host1.lab.test");
    dig(&one, "@10.96.0.13 host1.lab.test");
    run_in(&one, &["bash", "-c", "echo >/dev/tcp/10.96.0.80/80"]);
    for tracer in [&mut limited, &mut root] {
        tracer.wait_for(5);
    }
    let [limited, root] = [limited, root].map(Tracer::stop);
    limited.assert_whole();
    assert_eq!(told(&limited), told(&root));
    let rows = told(&limited);
    assert!(
        rows.iter().any(|row| without_code(row) != *row),
        "no function is named: {rows:#?}"
    );
    let [by_limited, by_root] = [&limited, &root].map(unseen);
    let more: Vec<_> = by_limited
        .iter()
        .filter(|line| !by_root.contains(line))
        .collect();
    // What goes through perf may be kept from all but CAP_SYS_ADMIN; payload in pages does not go that way alone.
    assert!(
        more.iter().all(|line| perf_is_closed()
            && line.contains("kernel.perf_event_paranoid is 3: set it to 2")
            && !line.contains("page fragments")),
        "{more:#?}"
    );
    assert_eq!(limited.count("\"journey\""), 5);
}

/// What the tracer says that it does not see.
fn unseen(traced: &Traced) -> Vec<String> {
    let lines = traced.summary["unseen"].as_array().expect("it is a list");
    let lines = lines.iter().filter_map(Value::as_str);
    lines.map(str::to_owned).collect()
}

/// Whether perf is open to CAP_SYS_ADMIN alone, as Debian's kernels have it.
fn perf_is_closed() -> bool {
    let sysctl = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
    sysctl.is_ok_and(|value| value.trim().parse::<i32>().is_ok_and(|value| value > 2))
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn payload_in_pages_that_is_out_of_reach_is_said_to_be_unseen() {
    if !perf_is_closed() {
        cannot("perf is open to CAP_PERFMON here");
        return;
    }
    let lab = lab("pages");
    let one = lab.netns(CLIENT1);
    // Without it the kernel does not tell where pages are mapped.
    let granted = granted().difference(CapabilitySet::SYSLOG);
    let mut tracer = start_with(granted, &format!("--no-api --netns {one}"));
    dig(&one, "@10.96.0.10 host1.lab.test");
    dig(&one, "+tcp @10.96.0.10 host2.lab.test");
    tracer.wait_for(1);
    let traced = tracer.stop();
    let names = traced.rows();
    let names: Vec<_> = names
        .iter()
        .filter_map(|row| row["name"].as_str())
        .collect();
    assert_eq!(names, ["host1.lab.test"]);
    let unseen = unseen(&traced);
    let said = |line: &&String| {
        line.starts_with("payload in page fragments (DNS over TCP")
            && line.contains("a perf buffer was refused: ")
            && line.contains("kernel.perf_event_paranoid is 3: set it to 2, or add CAP_SYS_ADMIN")
    };
    assert!(unseen.iter().any(|line| said(&line)), "{unseen:#?}");
    // Nothing counts as lost for it: it was never to be had.
    assert_eq!(traced.summary["lost"]["ring_full"], 0, "{}", traced.summary);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn no_capability_of_the_manifest_is_needless() {
    // SYSLOG and SYS_PTRACE are for names, NET_ADMIN for rules: the cluster's tests miss them.
    for needed in [CapabilitySet::BPF, CapabilitySet::PERFMON] {
        let granted = granted();
        assert!(granted.contains(needed));
        let spawned = thread::spawn(move || start_with(granted.difference(needed), "--no-api"));
        assert!(spawned.join().is_err(), "it starts without {needed:?}");
    }
}
