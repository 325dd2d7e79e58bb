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

/// A Service with a node port, of the web servers.
const AT_NODES: &str = "apiVersion: v1
kind: Service
metadata: {name: at-nodes, namespace: shop}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http, nodePort: 30090}]
";
const LISTEN: &str = "busybox nc -ll -p 30090 -e true </dev/null >/dev/null 2>&1 &
echo $! >/run/listener.pid";

pub(super) const FAILURES: &[Failure] = &[
    Failure {
        what: "a program of the node listens on a Service's node port",
        make: Run(|cluster| {
            cluster.apply(AT_NODES);
            cluster.sh("n1", LISTEN);
        }),
        mend: Run(|cluster| {
            cluster.sh("n1", "kill $(cat /run/listener.pid)");
            cluster.kubectl("delete service -n shop at-nodes");
        }),
        found: &[(
            "node_ports",
            "node port 30090/tcp of Service shop/at-nodes:http: is a port that busybox[",
        )],
    },
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
    Failure {
        what: "kube-proxy's ConfigMap asks for another mode than it runs in",
        make: Run(|cluster| cluster.apply(IPVS)),
        mend: Run(|cluster| {
            cluster.kubectl("delete configmap -n kube-system kube-proxy");
        }),
        found: &[(
            "kube_proxy_mode",
            "ConfigMap kube-system/kube-proxy: says ipvs",
        )],
    },
    Failure {
        what: "rules of kube-proxy's other mode are left behind",
        make: Sh(
            "if [ \"$(curl -s 127.0.0.1:10249/proxyMode)\" = iptables ]; then nft add table ip kube-proxy; else iptables -t nat -N KUBE-SERVICES; iptables -t nat -A KUBE-SERVICES -d 10.96.0.77 -j RETURN; fi",
        ),
        mend: Sh(
            "if [ \"$(curl -s 127.0.0.1:10249/proxyMode)\" = iptables ]; then nft delete table ip kube-proxy; else iptables -t nat -F KUBE-SERVICES; iptables -t nat -X KUBE-SERVICES; fi",
        ),
        found: &[(
            "kube_proxy_leftovers",
            "left behind; kube-proxy runs in mode",
        )],
    },
    Failure {
        what: "kube-proxy's kubeconfig is missing",
        make: Sh("mv /var/lib/kube-proxy/kubeconfig.conf /var/lib/kube-proxy/kubeconfig"),
        mend: Sh("mv /var/lib/kube-proxy/kubeconfig /var/lib/kube-proxy/kubeconfig.conf"),
        found: &[(
            "kube_proxy_kubeconfig",
            "kube-proxy's kubeconfig: cannot be read",
        )],
    },
];

const IPVS: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: kube-proxy, namespace: kube-system}
data:
  config.conf: |
    apiVersion: kubeproxy.config.k8s.io/v1alpha1
    kind: KubeProxyConfiguration
    mode: ipvs
";

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`, in each mode"]
fn a_kube_proxy_that_does_not_do_its_work_is_named() {
    check(FAILURES);
}
