//! What is broken while packets move: the end of `tracer trace` names it, of what a pod asks, and nothing else.

use super::Step::{self, Run, Sh};
use super::{Cluster, Made};
use crate::cluster::bed::{Load, Pod, shown};
use crate::cluster::policies;
use crate::support::trace::{self, Tracer};

/// A failure, and the findings that a trace of what a pod asks ends with.
pub(super) struct Traced {
    what: &'static str,
    make: Step,
    mend: Step,
    asks: Asks,
    /// Name, and how the object begins, of each of them: there is one for each pod of CoreDNS that was asked.
    found: &'static str,
}

/// What the pod asks meanwhile.
enum Asks {
    /// For a name of the cluster, three times, a second each.
    Name,
    /// The same eight times, for each server of DNS to be asked.
    Names,
    /// For a name outside it, until it is told something.
    Outside,
    /// For the page of a web server, ten times.
    Web,
    /// The same by IPv4, twenty times.
    WebByIpv4,
    /// The cache of its node, for a name of the cluster.
    LocalCache,
    /// For a name of the cluster, by a hundred sockets in all, while CoreDNS's pods are replaced.
    WhileReplaced,
}

/// What node-cache makes of its node (KEP-1024): its address, and rules that leave its packets untracked.
const CACHE_RULES: &str = "ip address add 169.254.20.10/32 dev lo
for chain in PREROUTING OUTPUT; do
  iptables -t raw -A $chain -d 169.254.20.10/32 -p udp -m udp --dport 53 -j NOTRACK
done
iptables -t raw -A OUTPUT -s 169.254.20.10/32 -p udp -m udp --sport 53 -j NOTRACK
iptables -A INPUT -d 169.254.20.10/32 -p udp -m udp --dport 53 -j ACCEPT
iptables -A OUTPUT -s 169.254.20.10/32 -p udp -m udp --sport 53 -j ACCEPT";
const NO_CACHE: &str = "iptables -D OUTPUT -s 169.254.20.10/32 -p udp -m udp --sport 53 -j ACCEPT
iptables -D INPUT -d 169.254.20.10/32 -p udp -m udp --dport 53 -j ACCEPT
iptables -t raw -D OUTPUT -s 169.254.20.10/32 -p udp -m udp --sport 53 -j NOTRACK
for chain in PREROUTING OUTPUT; do
  iptables -t raw -D $chain -d 169.254.20.10/32 -p udp -m udp --dport 53 -j NOTRACK
done
ip address del 169.254.20.10/32 dev lo";

impl Asks {
    /// Words of `tracer trace`, and of a shell.
    fn words(&self) -> (&'static str, &'static str) {
        match self {
            Self::Name => (
                "--dns --path --unanswered-after 1s",
                "for i in 1 2 3; do timeout 1 nslookup -type=a web.shop.svc.cluster.local; done",
            ),
            Self::Names => (
                "--dns --path --unanswered-after 1s",
                "for i in 1 2 3 4 5 6 7 8; do timeout 1 nslookup -type=a web.shop.svc.cluster.local; done",
            ),
            Self::Outside => (
                "--dns --path --unanswered-after 9s",
                "timeout 15 nslookup -type=a www.example.test.",
            ),
            Self::Web => (
                "--connections --path --unanswered-after 1s",
                "for i in 1 2 3 4 5 6 7 8 9 10; do timeout 1 wget -q -O - http://web/; done",
            ),
            Self::WebByIpv4 => (
                "--connections --path --unanswered-after 1s",
                "for i in $(seq 20); do timeout 1 wget -q -O - http://$WEB_SERVICE_HOST/; done",
            ),
            Self::LocalCache => (
                "--dns --path --unanswered-after 1s",
                "for i in 1 2 3; do timeout 1 nslookup -type=a web.shop.svc.cluster.local 169.254.20.10; done",
            ),
            Self::WhileReplaced => (
                "--dns --path --unanswered-after 1s --ring-kib 65536",
                "for i in $(seq 200); do timeout 1 nslookup -type=a web.shop.svc.cluster.local >/dev/null; sleep 0.05; done",
            ),
        }
    }
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
        asks: Asks::Name,
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
        asks: Asks::Name,
        found: "no_endpoints: Service 10.96.0.10 (kube-system/kube-dns)",
    },
    Traced {
        what: "CoreDNS's containers are paused",
        make: Run(|cluster| coredns(cluster, "pause")),
        mend: Run(|cluster| coredns(cluster, "resume")),
        asks: Asks::Name,
        found: "server_paused: server 10.244.",
    },
    Traced {
        what: "the targetPort of Service kube-dns is another than CoreDNS listens on",
        make: Run(|cluster| target_port(cluster, 5353)),
        mend: Run(|cluster| target_port(cluster, 53)),
        asks: Asks::Name,
        found: "backend_refuses: backend 10.244.",
    },
    Traced {
        what: "the DNS server that CoreDNS forwards to hangs",
        make: Run(|cluster| cluster.component("control-upstream", "STOP")),
        mend: Run(|cluster| cluster.component("control-upstream", "CONT")),
        asks: Asks::Outside,
        found: "upstream_timeout: upstream server 192.0.2.10",
    },
    Traced {
        what: "flannel.1 has no forwarding entry for the other node, and pods ask",
        make: Sh(super::cni::FDB_GONE),
        mend: Sh(super::cni::FDB_BACK),
        asks: Asks::Names,
        found: "tunnel_target: address 10.244.2.",
    },
    Traced {
        what: "pods ask NodeLocal DNSCache, which was never deployed",
        make: Sh("true"),
        mend: Sh("true"),
        asks: Asks::LocalCache,
        found: "node_cache: NodeLocal DNSCache at 169.254.20.10:53",
    },
    Traced {
        what: "NodeLocal DNSCache has ended, and its address is there still",
        make: Sh(CACHE_RULES),
        mend: Sh(NO_CACHE),
        asks: Asks::LocalCache,
        found: "node_cache: NodeLocal DNSCache at 169.254.20.10:53",
    },
    Traced {
        what: "CoreDNS's pods are replaced without lameduck, under load",
        make: Run(|cluster| {
            super::coredns::without_lameduck(cluster);
            super::coredns::restart(cluster);
            cluster.kubectl("rollout status -n kube-system deployment coredns --timeout=50s");
        }),
        mend: Run(super::coredns::apply_and_restart),
        asks: Asks::WhileReplaced,
        found: "ended_early: backend 10.244.",
    },
    Traced {
        what: "kube-proxy hangs while all endpoints of a Service are replaced",
        make: Run(|cluster| {
            // First it is to lead to the CoreDNS that there is now.
            std::thread::sleep(std::time::Duration::from_secs(3));
            cluster.component("n1-kube-proxy", "STOP");
            cluster.kubectl("delete pods -n shop -l app=web --wait");
            cluster.kubectl("rollout status -n shop deployment web --timeout=50s");
        }),
        mend: Run(|cluster| cluster.component("n1-kube-proxy", "CONT")),
        asks: Asks::Web,
        found: "stale_rules: Service ",
    },
    Traced {
        what: "a NetworkPolicy of the client's, which kube-router enforces, allows no DNS",
        make: Run(|cluster| policies::enforce(cluster, &policies::egress(policies::TO_WEB))),
        mend: Run(policies::forget),
        asks: Asks::Name,
        found: "network_policy: traffic of pod 10.244.1.",
    },
    Traced {
        what: "a NetworkPolicy of the server's, which kube-router enforces, lets others in",
        make: Run(|cluster| policies::enforce(cluster, &policies::ingress("admin"))),
        mend: Run(policies::forget),
        asks: Asks::WebByIpv4,
        found: "network_policy: traffic to 10.244.1.",
    },
];

/// Whether a finding tells of a pod that was gone when a packet came.
fn is_of_an_end(found: &str) -> bool {
    ["no_neighbour: ", "ended_early: ", "unreachable: "]
        .iter()
        .any(|name| found.starts_with(name))
}

/// Its row in docs/failures.md.
pub(super) fn row(failure: &Traced) -> String {
    let name = failure.found.split(':').next().unwrap_or_default();
    format!("| {} | cluster | trace: `{name}` |", failure.what)
}

/// Traces what the pod asks while it is broken.
fn trace(cluster: &Cluster, client: &Pod, failure: &Traced) -> trace::Traced {
    let _made = Made::make(cluster, &failure.make, &failure.mend);
    let mut command = cluster.tracer_on("n1");
    command.env("KUBECONFIG", cluster.admin());
    let (words, asks) = failure.asks.words();
    let words = format!("{words} --pod shop/{}", client.name);
    let tracer = Tracer::start_by(command, &words);
    // It fails, as it should.
    let asks = format!("{asks}; true");
    std::thread::scope(|threads| {
        if matches!(failure.asks, Asks::WhileReplaced) {
            threads.spawn(|| {
                std::thread::sleep(std::time::Duration::from_secs(1));
                cluster.kubectl("rollout restart -n kube-system deployment coredns");
                cluster.kubectl("rollout status -n kube-system deployment coredns --timeout=50s");
            });
        }
        cluster.kubectl_words(&["exec", "-n", "shop", &client.name, "--", "sh", "-c", &asks]);
    });
    tracer.stop()
}

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`"]
fn a_trace_ends_with_what_was_broken_meanwhile() {
    let cluster = Cluster::up();
    let client = cluster.client("n1");
    for failure in FAILURES {
        // When a packet comes to a pod that ends is chance: it may meet the pod's socket, its device or its address
        // gone, or none may.
        let replaced = matches!(failure.asks, Asks::WhileReplaced);
        let is_it = |found: &String| found.starts_with(failure.found);
        let is_right = |traced: &trace::Traced| {
            let found = traced.found();
            found.iter().any(is_it)
                && found
                    .iter()
                    .all(|one| is_it(one) || replaced && is_of_an_end(one))
        };
        let mut traced = trace(&cluster, &client, failure);
        for _ in 0..if replaced { 3 } else { 0 } {
            if is_right(&traced) {
                break;
            }
            traced = trace(&cluster, &client, failure);
        }
        assert!(
            is_right(&traced),
            "{}: {:#?} of {:#?}",
            failure.what,
            traced.found(),
            traced.briefs()
        );
        shown(&row(failure));
    }
}

/// Pods of web that are ready to go when they are told to, as a rollout without failures needs them.
fn graceful(cluster: &Cluster) {
    let yaml = Cluster::bed_file("shop.yaml");
    let (from, to) = (
        "terminationGracePeriodSeconds: 1
      containers:
      - name: web
",
        "terminationGracePeriodSeconds: 20
      containers:
      - name: web
        lifecycle: {preStop: {exec: {command: [sleep, \"6\"]}}}
",
    );
    assert!(yaml.contains(from));
    cluster.apply(&yaml.replace(from, to));
    cluster.kubectl("rollout status -n shop deployment web --timeout=50s");
}

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`, in each mode"]
fn a_rollout_of_web_and_of_coredns_and_pods_that_come_and_go_lead_to_no_finding() {
    let cluster = Cluster::up();
    let back = Run(|cluster| {
        cluster.kubectl("delete -n shop deployment web");
        cluster.apply(&Cluster::bed_file("shop.yaml"));
        cluster.kubectl("rollout status -n shop deployment web --timeout=50s");
    });
    let made = Made::make(&cluster, &Run(graceful), &back);
    let nodes = ["n1", "n2"];
    let clients = nodes.map(|node| cluster.client(node));
    let tracers = nodes.map(|node| {
        let mut command = cluster.tracer_on(node);
        command.env("KUBECONFIG", cluster.admin());
        Tracer::start_by(command, "--path --namespace shop --ring-kib 65536")
    });
    // What is not there is asked for, too.
    let ask = "timeout 3 wget -q -O - http://web/ || echo failed; nslookup -type=a nobody.shop.svc.cluster.local >/dev/null";
    let loads = clients
        .each_ref()
        .map(|client| Load::start(&cluster, client, ask));
    for deployment in [
        "-n shop deployment/web",
        "-n kube-system deployment/coredns",
    ] {
        cluster.kubectl(&format!("rollout restart {deployment}"));
        for guest in 1..4 {
            cluster.kubectl_words(&[
                "run",
                "-n",
                "shop",
                &format!("guest{guest}"),
                "--image=docker.io/bed/busybox:1",
                "--image-pull-policy=Never",
                "--restart=Never",
                "--rm",
                "-i",
                "--quiet",
                "--",
                "wget -q -O - http://web.shop.svc.cluster.local/",
            ]);
        }
        cluster.kubectl(&format!("rollout status {deployment} --timeout=60s"));
    }
    let [one, two] = loads;
    let said = [
        one.stop(&cluster, &clients[0]),
        two.stop(&cluster, &clients[1]),
    ];
    let mut rows = 0;
    for (tracer, node) in tracers.into_iter().zip(nodes) {
        let traced = tracer.stop();
        rows += traced.lines().len();
        // A pod of web ends at once: a packet may be on its way to it, and the tracer may say so.
        let mut found = traced.found();
        found.retain(|found| !(found.contains("(shop/web-") && is_of_an_end(found)));
        assert_eq!(found, [""; 0], "{node}");
    }
    drop(made);
    let served = said.concat();
    assert!(!served.contains(&"failed".to_owned()), "{served:?}");
    assert!(rows > 200, "{rows}");
    shown(&format!(
        "{rows} rows of two nodes during rollouts of web and CoreDNS, with pods that came and went: no finding"
    ));
}
