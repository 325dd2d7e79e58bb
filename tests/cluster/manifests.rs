//! What is in manifests/, applied as README.md says it, and what then runs.

use std::path::Path;

use super::bed::{Cluster, shown};

/// A directory of manifests/.
fn dir(name: &str) -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests");
    Path::new(root).join(name).display().to_string()
}

/// Applies `overlay`, and waits until both nodes' pods are of it and alive.
fn apply(cluster: &Cluster, overlay: &str) {
    cluster.kubectl(&format!("apply -k {overlay}"));
    cluster.kubectl("rollout status -n tracer daemonset/tracer --timeout=50s");
}

/// The base again, whatever became of the test.
struct Base<'a>(&'a Cluster);

impl Drop for Base<'_> {
    fn drop(&mut self) {
        // What an overlay added to lists, the base does not take away.
        self.0.kubectl("delete -n tracer daemonset tracer");
        apply(self.0, &dir("base"));
    }
}

/// Whether the pods of the DaemonSet have a container with `words` as arguments.
fn args(cluster: &Cluster) -> String {
    cluster.kubectl(
        "get -n tracer daemonset tracer -o jsonpath={.spec.template.spec.containers[0].args}",
    )
}

/// What the tracer in the DaemonSet's pod on n1 prints, by the runtime.
fn in_pod(cluster: &Cluster, words: &str) -> (Option<i32>, String) {
    let mut command = cluster.plugin();
    command.args(["node", "n1", "--"]).args(words.split(' '));
    let output = command.output().expect("it was built");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said + &log)
}

/// Whether a container on this machine can be given CAP_SYS_RESOURCE (24 in linux/capability.h).
fn may_have_resources() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc is mounted");
    let mut bound = status
        .lines()
        .filter_map(|line| line.strip_prefix("CapBnd:"));
    let bound = bound.next().expect("the kernel tells it").trim();
    u64::from_str_radix(bound, 16).expect("it is a number") & 1 << 24 != 0
}

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`"]
fn every_overlay_runs() {
    let cluster = Cluster::up();
    let base = Base(&cluster);
    assert!(!args(&cluster).contains("--no-api"));

    apply(&cluster, &dir("outage"));
    assert!(args(&cluster).contains("--no-api"));
    let (code, said) = in_pod(&cluster, "trace --no-api --summary --for 1s");
    assert_eq!(code, Some(0), "{said}");
    let mounts = cluster.kubectl(
        "get pods -n tracer -o jsonpath={.items[*].spec.containers[0].volumeMounts[*].mountPath}",
    );
    assert!(!mounts.contains("serviceaccount"), "{mounts}");

    apply(&cluster, &dir("doctor"));
    let (code, said) = in_pod(&cluster, "doctor");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(" 0 broken"), "{said}");
    // Asked for where there are NetworkPolicies only.
    let may = "auth can-i list namespaces --as=system:serviceaccount:tracer:tracer";
    assert_eq!(cluster.kubectl(may).trim(), "yes");

    // As README.md has it: a kustomization of one's own, with the component beside the base.
    let home = tempfile::tempdir().expect("there is room for temporary files");
    let own = home.path();
    let yaml = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [base]\ncomponents: [linux-5.10]\n";
    for part in ["base", "linux-5.10"] {
        let copied = std::process::Command::new("cp")
            .args(["-r", &dir(part)])
            .arg(own.join(part))
            .status();
        assert!(copied.is_ok_and(|status| status.success()));
    }
    std::fs::write(own.join("kustomization.yaml"), yaml).expect("there is room");
    let own_dir = own.display().to_string();
    let ran = if may_have_resources() {
        apply(&cluster, &own_dir);
        "each seen running on both nodes"
    } else {
        cluster.kubectl(&format!("apply --dry-run=server -k {own_dir}"));
        "each seen running on both nodes, but linux-5.10, which the API server takes: this machine has no CAP_SYS_RESOURCE to give"
    };
    let rendered = cluster.kubectl(&format!("kustomize {own_dir}"));
    assert!(rendered.contains("- SYS_RESOURCE"), "{rendered}");
    drop(base);
    shown(&format!(
        "manifests: base, outage, doctor and linux-5.10 applied, {ran}"
    ));
}
