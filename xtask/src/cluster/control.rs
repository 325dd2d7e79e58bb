//! The control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler; and a resolver
//! outside the cluster, to which CoreDNS forwards what it does not know.
//!
//! Tokens instead of client certificates. The API server signs its own serving certificate, and
//! the key of that signs service accounts' tokens too.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::Result;

use super::{
    Bed,
    network::{CONTROL, NODES, Node, SERVICE_RANGES, inside, netns},
};

/// Longest wait for the API server.
const PATIENCE: Duration = Duration::from_secs(120);

/// The world outside: of all names only `www.example.test` exists, and the rest of its zone fails.
const UPSTREAM: &str = "example.test:53 {
    bind 192.0.2.10
    hosts {
        192.0.2.10 www.example.test
    }
}
.:53 {
    bind 192.0.2.10
    template ANY ANY {
        rcode NXDOMAIN
    }
}
";

/// Starts the control plane; returns once the API server is ready.
///
/// # Errors
/// A component ended, or the API server was not ready in two minutes.
pub(super) fn start(bed: &mut Bed) -> Result<()> {
    let pki = bed.dir.join("pki");
    fs::create_dir_all(&pki)?;
    fs::write(bed.dir.join("tokens.csv"), tokens())?;
    fs::write(bed.dir.join("upstream.Corefile"), UPSTREAM)?;
    for user in ["admin", "controller-manager", "scheduler"] {
        fs::write(bed.kubeconfig(user), kubeconfig(bed, user))?;
    }
    bed.write_script(
        "kubectl",
        &format!(
            "exec nsenter --net=/run/netns/{} -- env KUBECONFIG={} {} \"$@\"",
            netns(&bed.name, "control"),
            bed.kubeconfig("admin").display(),
            bed.built.program("kubectl").display()
        ),
    )?;
    bed.write_script(
        "control",
        &format!(
            "exec nsenter --net=/run/netns/{} -- env KUBECONFIG={} \"$@\"",
            netns(&bed.name, "control"),
            bed.kubeconfig("admin").display()
        ),
    )?;
    let etcd = etcd(bed);
    bed.daemon("control", "etcd", &etcd)?;
    let apiserver = apiserver(bed);
    bed.daemon("control", "kube-apiserver", &apiserver)?;
    bed.wait("the API server", PATIENCE, |bed| {
        Ok(bed.kubectl(&["get", "--raw", "/readyz"]).is_ok())
    })?;
    let manager = controller_manager(bed);
    bed.daemon("control", "kube-controller-manager", &manager)?;
    let mut scheduler = component(bed, "kube-scheduler");
    scheduler.arg(flag("kubeconfig", &bed.kubeconfig("scheduler")));
    scheduler.arg("--leader-elect=false");
    bed.daemon("control", "kube-scheduler", &scheduler)?;
    let mut upstream = component(bed, "coredns");
    upstream.arg("-conf").arg(bed.dir.join("upstream.Corefile"));
    bed.daemon("control", "upstream", &upstream).map(drop)
}

fn etcd(bed: &Bed) -> Command {
    // Go names a program by the last part of its path that is no version.
    let mut etcd = component(bed, "server");
    etcd.args([
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--log-level=warn",
        // Nothing in it is to outlive the machine.
        "--unsafe-no-fsync",
    ]);
    etcd.arg(flag("data-dir", &bed.dir.join("etcd")));
    etcd
}

fn apiserver(bed: &Bed) -> Command {
    let mut apiserver = component(bed, "kube-apiserver");
    apiserver.args([
        "--etcd-servers=http://127.0.0.1:2379",
        "--authorization-mode=Node,RBAC",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        // Node names are no DNS names here; `kubectl exec` and `logs` go by address.
        "--kubelet-preferred-address-types=InternalIP",
        "--allow-privileged=true",
    ]);
    apiserver.arg(format!("--advertise-address={CONTROL}"));
    apiserver.arg(format!("--service-cluster-ip-range={SERVICE_RANGES}"));
    let pki = bed.dir.join("pki");
    for (name, path) in [
        ("cert-dir", pki.clone()),
        ("token-auth-file", bed.dir.join("tokens.csv")),
        (
            "service-account-signing-key-file",
            pki.join("apiserver.key"),
        ),
        ("service-account-key-file", pki.join("apiserver.key")),
    ] {
        apiserver.arg(flag(name, &path));
    }
    apiserver
}

fn controller_manager(bed: &Bed) -> Command {
    let mut manager = component(bed, "kube-controller-manager");
    manager.args([
        "--leader-elect=false",
        "--use-service-account-credentials=true",
    ]);
    let pki = bed.dir.join("pki");
    for (name, path) in [
        ("kubeconfig", bed.kubeconfig("controller-manager")),
        (
            "service-account-private-key-file",
            pki.join("apiserver.key"),
        ),
        ("root-ca-file", pki.join("apiserver.crt")),
    ] {
        manager.arg(flag(name, &path));
    }
    manager
}

fn component(bed: &Bed, program: &str) -> Command {
    inside(&netns(&bed.name, "control"), bed.built.program(program))
}

fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

/// Lines of token, user, uid, groups; the token is the user's short name, for nobody else gets
/// into the bed's network.
fn tokens() -> String {
    let roles = ["controller-manager", "scheduler", "proxy"]
        .map(|role| format!("{role},system:kube-{role},{role}\n"));
    let nodes = NODES
        .map(Node::name)
        .map(|node| format!("{node},system:node:{node},{node},system:nodes\n"));
    [
        "admin,admin,admin,system:masters\n",
        &roles.concat(),
        &nodes.concat(),
    ]
    .concat()
}

/// A kubeconfig for `user`, one of those in [`tokens`].
pub(super) fn kubeconfig(bed: &Bed, user: &str) -> String {
    let ca = bed.dir.join("pki/apiserver.crt");
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: bed
  cluster:
    server: https://{CONTROL}:6443
    certificate-authority: {}
users:
- name: {user}
  user:
    token: {user}
contexts:
- name: bed
  context:
    cluster: bed
    user: {user}
current-context: bed
",
        ca.display()
    )
}
