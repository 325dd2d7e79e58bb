//! kube-proxy: whether it runs, under which name, and with whom it talks.

use super::Step::{Run, Sh};
use super::{Cluster, Failure, check};

/// Ends it and waits until it is gone.
fn end(cluster: &Cluster) {
    cluster.component("n1-kube-proxy", "TERM");
    cluster.sh(
        "n1",
        "while curl -s -o /dev/null http://127.0.0.1:10249/healthz; do sleep 0.1; done",
    );
}

fn restart(cluster: &Cluster) {
    end(cluster);
    cluster.component("n1-kube-proxy", "start");
}

pub(super) const FAILURES: &[Failure] = &[
    Failure {
        what: "kube-proxy does not run",
        make: Run(end),
        mend: Run(|cluster| cluster.component("n1-kube-proxy", "start")),
        found: &[("kube_proxy_process", "does not run on this node")],
    },
    Failure {
        what: "kube-proxy's --hostname-override is no Node's name",
        make: Run(|cluster| {
            end(cluster);
            cluster.component("n1-kube-proxy", "start --hostname-override=node-1");
        }),
        mend: Run(restart),
        found: &[(
            "kube_proxy_hostname",
            "is node-1, and the Node is called n1",
        )],
    },
    Failure {
        what: "kube-proxy's kubeconfig names a server that does not answer",
        make: Sh("sed -i 's/:6443/:6444/' /var/lib/kube-proxy/kubeconfig.conf"),
        mend: Sh("sed -i 's/:6444/:6443/' /var/lib/kube-proxy/kubeconfig.conf"),
        found: &[("kube_proxy_kubeconfig", "does not answer")],
    },
    Failure {
        what: "kube-proxy hangs",
        make: Run(|cluster| cluster.component("n1-kube-proxy", "STOP")),
        mend: Run(|cluster| cluster.component("n1-kube-proxy", "CONT")),
        found: &[("kube_proxy_health", "127.0.0.1:10256/healthz")],
    },
];

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`"]
fn a_kube_proxy_that_does_not_do_its_work_is_named() {
    check(FAILURES);
}
