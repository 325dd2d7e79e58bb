//! CoreDNS: its objects, its Corefile, its pods, and who is let to them.

use super::super::policies;
use super::Step::Run;
use super::{Cluster, Failure, check};

/// Everything as it was, and CoreDNS as new as that.
fn apply(cluster: &Cluster) {
    cluster.apply(&Cluster::bed_file("coredns.yaml"));
}

pub(super) fn restart(cluster: &Cluster) {
    cluster.kubectl("delete pods -n kube-system -l k8s-app=kube-dns --grace-period=0 --force");
}

pub(super) fn apply_and_restart(cluster: &Cluster) {
    apply(cluster);
    restart(cluster);
    cluster.kubectl("rollout status -n kube-system deployment coredns --timeout=50s");
}

/// The Deployment made again: applying does not take away what it does not name.
fn anew(cluster: &Cluster) {
    cluster.kubectl("delete -n kube-system deployment coredns");
    apply_and_restart(cluster);
}

/// Merges `patch`, JSON without blanks, into an object of kube-system.
fn patch(cluster: &Cluster, object: &str, patch: &str) {
    cluster.kubectl(&format!(
        "patch -n kube-system {object} --type=merge -p {patch}"
    ));
}

/// A Corefile as those of before 2019, which ends CoreDNS at once when it is told to end.
pub(super) fn without_lameduck(cluster: &Cluster) {
    let yaml = Cluster::bed_file("coredns.yaml");
    let lameduck = "health {\n           lameduck 5s\n        }";
    assert!(yaml.contains(lameduck));
    cluster.apply(&yaml.replace(lameduck, "health"));
}

/// The Corefile with `from` replaced, and pods that begin with it.
fn corefile(cluster: &Cluster, from: &str, to: &str) {
    let yaml = Cluster::bed_file("coredns.yaml");
    assert!(yaml.contains(from));
    cluster.apply(&yaml.replace(from, to));
    restart(cluster);
}

pub(super) const OBJECTS: &[Failure] = &[
    Failure {
        what: "CoreDNS's ClusterRoleBinding is missing",
        make: Run(|cluster| {
            cluster.kubectl("delete clusterrolebinding system:coredns");
        }),
        mend: Run(apply),
        found: &[("coredns_rbac", "ServiceAccount kube-system/coredns")],
    },
    Failure {
        what: "CoreDNS's ClusterRole lets it see no EndpointSlices",
        make: Run(|cluster| {
            cluster.kubectl(
                    "patch clusterrole system:coredns --type=json -p [{\"op\":\"remove\",\"path\":\"/rules/1\"}]",
                );
        }),
        mend: Run(apply),
        found: &[(
            "coredns_rbac",
            "ClusterRole system:coredns: does not let CoreDNS list endpointslices",
        )],
    },
    Failure {
        what: "the selector of Service kube-dns chooses no pod",
        make: Run(|cluster| {
            patch(
                cluster,
                "service kube-dns",
                "{\"spec\":{\"selector\":{\"k8s-app\":\"coredns\"}}}",
            );
        }),
        mend: Run(apply),
        found: &[(
            "kube_dns_service",
            "Service kube-system/kube-dns: has no endpoint, for its selector k8s-app=coredns chooses no pod",
        )],
    },
    Failure {
        what: "Service kube-dns has no port 53 over TCP",
        make: Run(|cluster| {
            cluster.kubectl("patch service -n kube-system kube-dns --type=json -p [{\"op\":\"remove\",\"path\":\"/spec/ports/1\"}]");
        }),
        // `kubectl apply` takes ports of one number for the same.
        mend: Run(|cluster| {
            cluster.kubectl("patch service -n kube-system kube-dns --type=json -p [{\"op\":\"add\",\"path\":\"/spec/ports/1\",\"value\":{\"name\":\"dns-tcp\",\"port\":53,\"protocol\":\"TCP\"}}]");
        }),
        found: &[("kube_dns_service", "has no port 53 over TCP")],
    },
    Failure {
        what: "CoreDNS has no replicas",
        make: Run(|cluster| {
            drop(cluster.kubectl("scale -n kube-system deployment coredns --replicas=0"));
        }),
        mend: Run(apply_and_restart),
        found: &[(
            "coredns_objects",
            "Deployment kube-system/coredns: is scaled to 0",
        )],
    },
];

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`"]
fn objects_of_coredns_that_lack_or_disagree_are_named() {
    check(OBJECTS);
}

pub(super) const COREFILE: &[Failure] = &[
    Failure {
        what: "the Corefile has no lameduck",
        make: Run(without_lameduck),
        mend: Run(apply),
        found: &[("corefile", "has no lameduck")],
    },
    Failure {
        what: "the Corefile has an unknown directive",
        make: Run(|cluster| corefile(cluster, "loadbalance", "loadbalanse")),
        mend: Run(apply_and_restart),
        found: &[("corefile", "line 19 of Corefile")],
    },
    Failure {
        what: "CoreDNS forwards to itself: a loop",
        make: Run(|cluster| corefile(cluster, "/etc/resolv.conf", "127.0.0.1")),
        mend: Run(apply_and_restart),
        found: &[(
            "corefile",
            "forwards to 127.0.0.1, which in the pod is CoreDNS itself: a loop",
        )],
    },
];

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`"]
fn a_corefile_that_is_wrong_is_named_by_its_line() {
    check(COREFILE);
}

pub(super) const OTHER_COREFILE: &[Failure] = &[
    Failure {
        what: "the Corefile has the removed plugin `proxy`",
        make: Run(|cluster| {
            corefile(
                cluster,
                "forward . /etc/resolv.conf {\n           max_concurrent 1000\n        }",
                "proxy . /etc/resolv.conf",
            );
        }),
        mend: Run(apply_and_restart),
        found: &[("corefile", "proxy")],
    },
    Failure {
        what: "the Corefile serves another cluster domain than the kubelet tells pods",
        make: Run(|cluster| {
            corefile(
                cluster,
                "kubernetes cluster.local",
                "kubernetes cluster.example",
            );
        }),
        mend: Run(apply_and_restart),
        found: &[("corefile", "cluster.local")],
    },
];

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`"]
fn a_corefile_of_an_older_coredns_or_another_domain_is_named() {
    check(OTHER_COREFILE);
}

pub(super) const PENDING: &[Failure] = &[
    Failure {
        what: "CoreDNS is Pending: a taint that it does not tolerate",
        make: Run(|cluster| {
            cluster.kubectl("taint nodes --all kept=free:NoSchedule");
            restart(cluster);
        }),
        mend: Run(|cluster| {
            cluster.kubectl("taint nodes --all kept-");
            cluster.kubectl("rollout status -n kube-system deployment coredns --timeout=50s");
        }),
        found: &[("coredns_pods", "taint")],
    },
    Failure {
        what: "CoreDNS is Pending: it asks for more CPU than any node has",
        make: Run(|cluster| {
            patch(
                cluster,
                "deployment coredns",
                "{\"spec\":{\"strategy\":{\"rollingUpdate\":{\"maxUnavailable\":2,\"maxSurge\":0}},\"template\":{\"spec\":{\"containers\":[{\"name\":\"coredns\",\"image\":\"docker.io/bed/coredns:1\",\"resources\":{\"requests\":{\"cpu\":\"900\"}}}]}}}}",
            );
        }),
        mend: Run(anew),
        found: &[("coredns_pods", "no node has the processor time or memory")],
    },
];

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`"]
fn why_pods_of_coredns_are_pending_is_named() {
    check(PENDING);
}

/// What a hardened Deployment asks for, on a node where ports below 1024 are root's.
const UNPRIVILEGED: &str = r#"{"spec":{"template":{"spec":{"securityContext":{"sysctls":[{"name":"net.ipv4.ip_unprivileged_port_start","value":"1024"}]},"containers":[{"name":"coredns","image":"docker.io/bed/coredns:1","imagePullPolicy":"Never","args":["-conf","/etc/coredns/Corefile"],"securityContext":{"runAsUser":1000,"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]}},"volumeMounts":[{"name":"config","mountPath":"/etc/coredns"}]}]}}}}"#;

/// Has a client ask again and again, four questions at once, until the file is there.
const ASK: &str = "for i in 1 2 3 4; do (while [ ! -e /stop ]; do nslookup -type=a web.shop.svc.cluster.local; done) >/dev/null 2>&1 & done";

/// Has a shell of n1's client do it.
fn in_client(cluster: &Cluster, words: &str) {
    let client = cluster.client("n1").name;
    cluster.kubectl_words(&["exec", "-n", "shop", &client, "--", "sh", "-c", words]);
}

pub(super) const PODS: &[Failure] = &[
    Failure {
        what: "CoreDNS's CPU limit is too low for what it is asked",
        make: Run(|cluster| {
            cluster.kubectl(
                "set resources -n kube-system deployment/coredns --limits=cpu=20m --requests=cpu=1m",
            );
            cluster.kubectl("rollout status -n kube-system deployment coredns --timeout=50s");
            in_client(cluster, ASK);
        }),
        mend: Run(|cluster| {
            in_client(cluster, "touch /stop; sleep 2; rm /stop");
            anew(cluster);
        }),
        found: &[("coredns_cpu", "is held back by its CPU limit")],
    },
    Failure {
        what: "CoreDNS may not bind port 53: no capability, and no way to gain one",
        make: Run(|cluster| {
            let words = ["patch", "deployment", "-n", "kube-system", "coredns"];
            cluster.kubectl_words(&[&words[..], &["--type=merge", "-p", UNPRIVILEGED]].concat());
            restart(cluster);
        }),
        mend: Run(anew),
        found: &[("coredns_pods", "may not bind port 53")],
    },
    Failure {
        what: "CoreDNS's new image cannot be had, during a rollout",
        make: Run(|cluster| {
            cluster.kubectl(
                "set image -n kube-system deployment/coredns coredns=docker.io/bed/coredns:9",
            );
        }),
        mend: Run(anew),
        found: &[("coredns_pods", "waits for its image")],
    },
    Failure {
        what: "CoreDNS's memory limit is too low: the kernel ends it",
        make: Run(|cluster| {
            cluster.kubectl("set resources -n kube-system deployment/coredns --limits=memory=18Mi");
            restart(cluster);
        }),
        mend: Run(anew),
        found: &[("coredns_memory", "has a memory limit below")],
    },
    Failure {
        what: "CoreDNS's readiness is asked where nobody answers",
        make: Run(|cluster| {
            cluster.kubectl("patch deployment -n kube-system coredns --type=json -p [{\"op\":\"replace\",\"path\":\"/spec/template/spec/containers/0/readinessProbe/httpGet/port\",\"value\":8182}]");
        }),
        mend: Run(anew),
        found: &[("coredns_pods", "not ready")],
    },
    Failure {
        what: "CoreDNS inherits a local stub, and is started with it: it ends in a loop",
        make: Run(|cluster| {
            for node in ["n1", "n2"] {
                cluster.sh(node, "echo 'nameserver 127.0.0.53' > /etc/resolv.conf");
            }
            restart(cluster);
        }),
        mend: Run(|cluster| {
            for node in ["n1", "n2"] {
                cluster.sh(node, "echo 'nameserver 192.0.2.10' > /etc/resolv.conf");
            }
            apply_and_restart(cluster);
        }),
        found: &[(
            "resolv_conf",
            "names 127.0.0.53, which in CoreDNS's pod is CoreDNS itself",
        )],
    },
];

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`"]
fn why_pods_of_coredns_do_not_run_is_named() {
    check(PODS);
}

/// Egress rules for CoreDNS's pods that nearly are what is needed.
const BY_TCP: &str = "
  - to: [{namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: kube-dns}}}]
    ports: [{port: 53}]";
const OF_SHOP: &str = "
  - to: [{podSelector: {matchLabels: {k8s-app: kube-dns}}}]
    ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]";

pub(super) const POLICIES: &[Failure] = &[
    Failure {
        what: "a NetworkPolicy, which kube-router enforces, lets pods ask web servers and no DNS",
        make: Run(|cluster| policies::enforce(cluster, &policies::egress(policies::TO_WEB))),
        mend: Run(policies::forget),
        found: &[("dns_policies", "NetworkPolicy shop/of-client: no rule lets")],
    },
    Failure {
        what: "a NetworkPolicy lets pods ask DNS over TCP alone: its port names no protocol",
        make: Run(|cluster| policies::enforce(cluster, &policies::egress(BY_TCP))),
        mend: Run(policies::forget),
        found: &[("dns_policies", "at UDP 53: no name resolves there")],
    },
    Failure {
        what: "a NetworkPolicy names CoreDNS's pods and not their namespace",
        make: Run(|cluster| policies::enforce(cluster, &policies::egress(OF_SHOP))),
        mend: Run(policies::forget),
        found: &[(
            "dns_policies",
            "at UDP 53 and TCP 53: no name resolves there",
        )],
    },
    Failure {
        what: "a NetworkPolicy of CoreDNS's lets pods of kube-system ask it alone",
        make: Run(|cluster| {
            cluster.apply(&policies::of_coredns(" [{from: [{podSelector: {}}]}]"));
            cluster.component("n1-kube-router", "start");
        }),
        mend: Run(policies::forget),
        found: &[(
            "dns_policies",
            "NetworkPolicy kube-system/of-coredns: no rule lets CoreDNS's pods be sent to",
        )],
    },
];

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`"]
fn a_policy_that_keeps_pods_from_coredns_is_named() {
    check(POLICIES);
}
