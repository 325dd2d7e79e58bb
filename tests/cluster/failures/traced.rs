//! What is broken while packets move: the end of `tracer trace` names it, of what a pod asks, and nothing else.

use super::Step::{self, Run, Sh};
use super::{Cluster, Made};
use crate::cluster::bed::shown;
use crate::support::trace::Tracer;

/// A failure, and the findings that a trace of a pod's queries ends with.
pub(super) struct Traced {
    what: &'static str,
    make: Step,
    mend: Step,
    /// Name, and how the object begins, of each of them: there is one for each pod of CoreDNS that was asked.
    found: &'static str,
}

/// Has the runtime do something to all containers of CoreDNS.
fn coredns(cluster: &Cluster, what: &str) {
    for pod in cluster
        .pods("-n kube-system -l k8s-app=kube-dns")
        .into_values()
    {
        cluster.task(&pod, what);
    }
}

/// Sets the port that pods of kube-dns are asked at over UDP, and waits until kube-proxy has done it.
fn target_port(cluster: &Cluster, port: u16) {
    let patch = format!(r#"[{{"op":"add","path":"/spec/ports/0/targetPort","value":{port}}}]"#);
    let words = ["patch", "service", "-n", "kube-system", "kube-dns"];
    cluster.kubectl_words(&[&words[..], &["--type=json", "-p", &patch]].concat());
    let rule = format!("p udp .*--to-destination .*:{port}$");
    cluster.sh(
        "n1",
        &format!("until iptables-save -t nat | grep -q -e '-{rule}'; do sleep 0.1; done"),
    );
}

pub(super) const FAILURES: &[Traced] = &[
    Traced {
        what: "a rule of the node drops pods' DNS",
        make: Sh("iptables -I FORWARD -p udp --dport 53 -j DROP"),
        mend: Sh("iptables -D FORWARD -p udp --dport 53 -j DROP"),
        found: "forward_drop: netfilter's hook FORWARD",
    },
    Traced {
        what: "Service kube-dns has no endpoint, and pods ask",
        make: Run(|cluster| {
            cluster.kubectl("scale -n kube-system deployment coredns --replicas=0");
            // It serves on for the time of its lameduck.
            cluster
                .kubectl("wait --for=delete pods -n kube-system -l k8s-app=kube-dns --timeout=30s");
        }),
        mend: Run(|cluster| {
            cluster.kubectl("scale -n kube-system deployment coredns --replicas=2");
            cluster.kubectl("rollout status -n kube-system deployment coredns --timeout=50s");
        }),
        found: "no_endpoints: Service 10.96.0.10 (kube-system/kube-dns)",
    },
    Traced {
        what: "CoreDNS hangs",
        make: Run(|cluster| coredns(cluster, "pause")),
        mend: Run(|cluster| coredns(cluster, "resume")),
        found: "server_overloaded: server 10.244.",
    },
    Traced {
        what: "the targetPort of Service kube-dns is another than CoreDNS listens on",
        make: Run(|cluster| target_port(cluster, 5353)),
        mend: Run(|cluster| target_port(cluster, 53)),
        found: "backend_refuses: backend 10.244.",
    },
];

/// Its row in docs/failures.md.
pub(super) fn row(failure: &Traced) -> String {
    let name = failure.found.split(':').next().unwrap_or_default();
    format!("| {} | cluster | trace: `{name}` |", failure.what)
}

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`"]
fn a_trace_ends_with_what_was_broken_meanwhile() {
    let cluster = Cluster::up();
    let client = cluster.client("n1");
    for failure in FAILURES {
        let made = Made::make(&cluster, &failure.make, &failure.mend);
        let mut command = cluster.tracer_on("n1");
        command.env("KUBECONFIG", cluster.admin());
        let tracer = Tracer::start_by(
            command,
            &format!(
                "--dns --path --unanswered-after 1s --pod shop/{}",
                client.name
            ),
        );
        // It fails, as it should.
        cluster.kubectl_words(&[
            "exec",
            "-n",
            "shop",
            &client.name,
            "--",
            "sh",
            "-c",
            "for i in 1 2 3; do timeout 1 nslookup -type=a web.shop.svc.cluster.local; done; true",
        ]);
        let traced = tracer.stop();
        drop(made);
        let found = traced.found();
        assert!(
            !found.is_empty() && found.iter().all(|found| found.starts_with(failure.found)),
            "{}: {found:#?} of {:#?}",
            failure.what,
            traced.briefs()
        );
        shown(&row(failure));
    }
}
