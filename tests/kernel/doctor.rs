//! What doctor says of a node whose SELinux enforces, and of one whose clock is off: in a guest, both are real.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::{cannot, program};

/// Rows of docs/failures.md.
const ENFORCES: &str = "SELinux enforces, and the container runtime is a Docker of before 2018";
const AHEAD: &str = "the node's clock is ten minutes ahead of the API server's";

#[test]
fn the_documented_table_has_what_is_made_here() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/failures.md");
    let page = fs::read_to_string(path).expect("it is committed");
    for (what, found) in [(ENFORCES, "selinux"), (AHEAD, "clock")] {
        let row = format!("| {what} | vm | doctor: `{found}` |");
        assert!(page.contains(&row), "put this into docs/failures.md: {row}");
    }
}

/// What a check says, of the Nodes that an API server has.
fn said(api: &Api, check: &str) -> Value {
    let output = Command::new(program())
        .args(["doctor", "--output", "json", "--only", check])
        .env("KUBECONFIG", api.kubeconfig.path())
        .output()
        .expect("the program was built");
    let said = String::from_utf8_lossy(&output.stdout);
    let first = said.lines().next().unwrap_or_default();
    serde_json::from_str(first).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// An API server that has this machine as a Node, of this container runtime.
fn api(runtime: &str) -> Api {
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "guest"},
        "spec": {},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "10.0.2.15"}],
            "nodeInfo": {"containerRuntimeVersion": runtime},
        },
    });
    Api::with(&[("nodes", node)])
}

/// What is written to a file of the kernel's, and taken back on drop.
struct Written(&'static str, String);

impl Written {
    fn to(path: &'static str, text: &str) -> Option<Self> {
        let before = fs::read_to_string(path).ok()?;
        fs::write(path, text).ok()?;
        Some(Self(path, before))
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        drop(fs::write(self.0, &self.1));
    }
}

#[test]
#[ignore = "needs root and a kernel with SELinux; run `cargo xtask test vm`"]
fn selinux_that_enforces_is_a_problem_under_an_old_docker_and_none_under_containerd() {
    let Some(_enforcing) = Written::to("/sys/fs/selinux/enforce", "1") else {
        cannot("SELinux is off in this kernel");
        return;
    };
    let line = said(&api("docker://1.13.1"), "selinux");
    assert_eq!(line["verdict"], "warning", "{line:#}");
    assert_eq!(line["problems"][0]["object"], "SELinux of Node guest");
    let line = said(&api("containerd://2.4.2"), "selinux");
    assert_eq!(
        line["seen"], "enforcing, with containerd://2.4.2",
        "{line:#}"
    );
}

/// This machine's clock, set ahead until it is dropped.
struct Ahead(SystemTime, Instant);

impl Ahead {
    fn by(time: Duration) -> Self {
        let ahead = Self(SystemTime::now(), Instant::now());
        set(ahead.0 + time);
        ahead
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        set(self.0 + self.1.elapsed());
    }
}

fn set(time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).expect("it is past 1970");
    let set = Command::new("date")
        .arg(format!("-s@{}", since.as_secs()))
        .output();
    assert!(set.is_ok_and(|set| set.status.success()));
}

#[test]
#[ignore = "needs root and a machine of its own; run `cargo xtask test vm`"]
fn a_clock_that_is_off_is_told_by_how_far_and_which_way() {
    if std::env::var_os("host_dns").is_none() {
        cannot("the clock is the whole machine's, which is not the test's to set");
        return;
    }
    let api = api("containerd://2.4.2");
    let good = |line: &Value| assert_eq!(line["verdict"], "good", "{line:#}");
    good(&said(&api, "clock"));
    let ahead = Ahead::by(Duration::from_secs(600));
    let line = said(&api, "clock");
    drop(ahead);
    assert_eq!(line["verdict"], "broken", "{line:#}");
    let told = line["problems"][0]["sentence"].as_str().unwrap_or_default();
    let about = ["is 599 s ahead", "is 600 s ahead", "is 601 s ahead"];
    assert!(about.iter().any(|about| told.starts_with(about)), "{told}");
    good(&said(&api, "clock"));
}
