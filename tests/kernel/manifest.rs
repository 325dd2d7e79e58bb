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
use crate::support::{dig, lab, program, run_in};

const BASE: &str = include_str!("../../manifests/base/daemonset.yaml");
const LINUX_5_10: &str = include_str!("../../manifests/linux-5.10/daemonset.yaml");

/// What the tracer's container has, by its manifest for this kernel.
fn granted() -> CapabilitySet {
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
fn start_with(granted: CapabilitySet, words: &str) -> Tracer {
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

/// What was seen of each row, and by whom.
fn told(traced: &Traced) -> Vec<String> {
    let mut told: Vec<_> = traced
        .rows()
        .iter()
        .map(|row| {
            let brief = crate::support::trace::brief(row);
            let client = &row["client"];
            format!("{} {} {brief}", client["netns"], client["process"]["name"])
        })
        .collect();
    told.sort();
    told
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
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
    assert_eq!(limited.summary["unseen"], root.summary["unseen"]);
    assert_eq!(limited.count("\"journey\""), 5);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn no_capability_of_the_manifest_is_needless() {
    // SYSLOG and SYS_PTRACE are for names, NET_ADMIN for rules: the cluster's tests miss them.
    for needed in [CapabilitySet::BPF, CapabilitySet::PERFMON] {
        let granted = granted();
        assert!(granted.contains(needed));
        let spawned = thread::spawn(move || start_with(granted.difference(needed), "--no-api"));
        assert!(spawned.join().is_err(), "it starts without {needed:?}");
    }
}
