//! What is broken while packets move: the end of `tracer trace` names it, of what a pod asks, and nothing else.

use super::Step::{self, Run, Sh};
use super::{Cluster, Made};
use crate::cluster::bed::shown;
use crate::support::trace::Tracer;

/// A failure, and the one finding that a trace of a pod's queries ends with.
pub(super) struct Traced {
    what: &'static str,
    make: Step,
    mend: Step,
    /// Name and object.
    found: &'static str,
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
            &format!("--dns --unanswered-after 1s --pod shop/{}", client.name),
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
        assert_eq!(
            traced.found(),
            [failure.found],
            "{}: {:#?}",
            failure.what,
            traced.briefs()
        );
        shown(&row(failure));
    }
}
