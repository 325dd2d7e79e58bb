//! `tracer verify --watch` beside a real kube-proxy while EndpointSlices change a thousand times: it says nothing;
//! what is then done to the rules by hand it names, and tells when that is mended; and UDP flows that kube-proxy
//! itself leaves behind.

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::api::Api;
use super::bed::{Cluster, Load, shown};
use crate::support::probe::enter;
use crate::support::trace::Tracer;

const NAMESPACE: &str = "changing";

/// Services whose endpoints change.
const SERVICES: usize = 20;

/// Changes at once, and how often; between them rules come to rest.
const BURST: usize = 200;
const BURSTS: usize = 5;
const REST: Duration = Duration::from_secs(8);

/// Longest until what is done is told.
const PATIENCE: Duration = Duration::from_secs(45);

/// `tracer verify --watch` on `n1`; ended on drop.
struct Watch {
    child: Child,
    lines: Receiver<Value>,
}

impl Watch {
    fn start(cluster: &Cluster) -> Self {
        let mut child = cluster
            .tracer_on("n1")
            .args(["verify", "--watch", "--output", "json"])
            .env("KUBECONFIG", cluster.admin())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program was built");
        let out = child.stdout.take().expect("it is a pipe");
        let (told, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).expect("it prints JSON");
                if told.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// Waits for a line of this type about `object`; there must be no other before it.
    fn wait_for(&self, kind: &str, object: &str) -> Value {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                let about = line["object"].as_str().unwrap_or_default();
                assert!(
                    line["type"] == kind && about.starts_with(object),
                    "instead of {kind} of {object}: {line}"
                );
                line
            }
            Err(error) => panic!("{kind} of {object} is not told: {error}"),
        }
    }

    /// It must say nothing for so long.
    fn is_silent(&self, time: Duration) {
        match self.lines.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => {}
            other => panic!("it says {other:?}"),
        }
    }

    /// What it still said, and its exit code.
    fn stop(mut self) -> (Vec<Value>, Option<i32>) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
        let code = self.child.wait().expect("it is our child").code();
        (self.lines.iter().collect(), code)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The namespace; removed on drop.
struct Objects<'a> {
    cluster: &'a Cluster,
    api: Api,
    dice: u64,
}

impl<'a> Objects<'a> {
    fn make(cluster: &'a Cluster) -> Self {
        let namespace =
            format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n");
        cluster.apply(&namespace);
        let mut objects = Self {
            cluster,
            api: Api::connect(cluster),
            dice: 1,
        };
        for number in 0..SERVICES {
            let protocol = ["TCP", "UDP"][number % 2];
            let endpoints = objects.endpoints();
            objects.create(&format!("c{number}"), protocol, &endpoints);
        }
        objects
    }

    fn create(&mut self, name: &str, protocol: &str, endpoints: &Value) {
        let service = json!({
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": protocol}]},
        });
        let slice = json!({
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": {
                "kubernetes.io/service-name": name,
                "endpointslice.kubernetes.io/managed-by": "test",
            }},
            "addressType": "IPv4",
            "ports": [{"name": "", "port": 8080, "protocol": protocol}],
            "endpoints": endpoints,
        });
        self.api.create(SLICES, &slice);
        self.api.create(
            &format!("/api/v1/namespaces/{NAMESPACE}/services"),
            &service,
        );
    }

    /// Some of eight addresses, or none; a few are not ready.
    fn endpoints(&mut self) -> Value {
        let mut endpoints = Vec::new();
        for number in 0..8_u8 {
            // Knuth's multiplier (The Art of Computer Programming, 3.3.4, table 1, line 26).
            self.dice = self
                .dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let thrown = self.dice >> 60;
            if thrown < 9 {
                let node = 1 + number % 2;
                endpoints.push(endpoint([10, 244, node, 230 + number].into(), thrown > 0));
            }
        }
        json!(endpoints)
    }

    fn change(&mut self, name: &str, endpoints: &Value) {
        let change = json!({"endpoints": endpoints});
        self.api.patch(&format!("{SLICES}/{name}"), &change);
    }
}

impl Drop for Objects<'_> {
    fn drop(&mut self) {
        let mut kubectl = self.cluster.kubectl_program();
        drop(kubectl.args(["delete", "namespace", NAMESPACE]).output());
    }
}

const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/changing/endpointslices";

fn endpoint(address: IpAddr, ready: bool) -> Value {
    let node = match address {
        IpAddr::V4(address) => format!("n{}", address.octets()[2]),
        IpAddr::V6(_) => unreachable!("they are of IPv4"),
    };
    json!({"addresses": [address], "nodeName": node, "conditions": {"ready": ready}})
}

/// Takes what leads to a Service's endpoint out of the rules; what puts it back.
fn sabotage(cluster: &Cluster, name: &str) -> String {
    if cluster.sh("n1", "curl -s 127.0.0.1:10249/proxyMode") == "iptables" {
        // KUBE-SERVICES itself is written anew whenever anything changes.
        let rules = cluster.on("n1", "iptables -t nat -S");
        let words = [
            &format!("{NAMESPACE}/{name} "),
            "-A KUBE-SVC-",
            "-j KUBE-SEP-",
        ];
        let mut rules = rules.lines();
        let rule = rules.find(|line| words.iter().all(|word| line.contains(word)));
        let rule = rule.expect("kube-proxy wrote it").replacen("-A ", "", 1);
        cluster.sh("n1", &format!("iptables -t nat -D {rule}"));
        return format!("iptables -t nat -A {rule}");
    }
    let vip = vip(cluster, name);
    let map = "ip kube-proxy service-ips";
    let listed = cluster.sh("n1", &format!("nft list map {map}"));
    let at = listed
        .find(&format!("{vip} . "))
        .expect("kube-proxy wrote it");
    let element = &listed[at..];
    let element = &element[..element.find([',', '}']).expect("it ends")];
    let key = element.split(" comment ").next().expect("it has one");
    let key = key.split(" : ").next().expect("it has one");
    cluster.sh("n1", &format!("nft delete element {map} '{{ {key} }}'"));
    format!("nft add element {map} '{{ {} }}'", element.trim())
}

/// Sends to an address by UDP from one socket of the other node, until it is dropped.
struct Sender(Arc<AtomicBool>);

impl Sender {
    fn start(cluster: &Cluster, to: SocketAddr) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let netns = PathBuf::from("/run/netns").join(cluster.netns("n2"));
        let of_thread = Arc::clone(&stopped);
        thread::spawn(move || {
            enter(&netns);
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
            while !of_thread.load(Ordering::Relaxed) {
                // That nobody is there may be told of it.
                drop(socket.send_to(b"?", to));
                sleep(Duration::from_millis(200));
            }
        });
        Self(stopped)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn vip(cluster: &Cluster, name: &str) -> String {
    let words = format!("get service -n {NAMESPACE} {name} -o jsonpath={{.spec.clusterIP}}");
    cluster.kubectl(&words)
}

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`, in each mode"]
fn a_watch_is_silent_through_a_thousand_changes_and_tells_what_is_done_to_the_rules() {
    let cluster = Cluster::up();
    let mut objects = Objects::make(&cluster);
    let [odd, left] = ["sabotaged", "left"];
    let one = json!([endpoint([10, 244, 1, 240].into(), true)]);
    objects.create(odd, "TCP", &one);
    objects.create(left, "UDP", &one);
    let watch = Watch::start(&cluster);
    let first = watch.lines.recv_timeout(PATIENCE).expect("it judges");
    assert_eq!(
        (&first["type"], &first["findings"]),
        (&json!("verified"), &json!(0)),
        "{first}"
    );
    let began = Instant::now();
    for burst in 0..BURSTS {
        for number in 0..BURST {
            let endpoints = objects.endpoints();
            objects.change(&format!("c{}", (burst + number) % SERVICES), &endpoints);
        }
        watch.is_silent(REST);
    }
    shown(&format!(
        "{} changes of EndpointSlices in {:.0} s: nothing is found",
        BURST * BURSTS,
        began.elapsed().as_secs_f32()
    ));

    // While others change.
    let mend = sabotage(&cluster, odd);
    for number in 0..BURST {
        let endpoints = objects.endpoints();
        objects.change(&format!("c{}", number % SERVICES), &endpoints);
    }
    let object = format!("Service {NAMESPACE}/{odd}, port 80");
    let mut found = vec![watch.wait_for("finding", &object)];
    // One thing done shows at several addresses, each by its own finding.
    while let Ok(line) = watch.lines.recv_timeout(Duration::from_secs(3)) {
        let of_it = line["type"] == "finding" && line["object"] == found[0]["object"];
        assert!(of_it, "{line}");
        found.push(line);
    }
    for one in &found {
        shown(&format!("{object}: {}", one["sentence"]));
    }
    cluster.sh("n1", &mend);
    for _ in &found {
        watch.wait_for("mended", &object);
    }

    // Of a Service without an endpoint kube-proxy leaves conntrack's entries by node port alone: they stay.
    let words =
        format!("get service -n {NAMESPACE} {left} -o jsonpath={{.spec.ports[0].nodePort}}");
    let port = cluster.kubectl(&words).parse().expect("it is a port");
    let to = SocketAddr::from(([192, 0, 2, 11], port));
    let sender = Sender::start(&cluster, to);
    sleep(Duration::from_secs(1));
    objects.change(left, &json!([]));
    let object = format!("Service {NAMESPACE}/{left}, port 80");
    let found = watch.wait_for("finding", &object);
    assert_eq!(found["name"], "stale_flows", "{found}");
    shown(&format!("{object}: {}", found["sentence"]));
    drop(sender);
    let (rest, code) = watch.stop();
    assert_eq!(code, Some(1), "{rest:?}");
    let last = rest.last().expect("it sums up");
    let lag = &last["programming"];
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    // Of those that are ready for less than kube-proxy's second some are never written.
    let [ready, written] = ["endpoints_ready", "written"].map(|key| number(&lag[key]));
    assert!(ready > 500.0 && written > ready / 10.0, "{last}");
    let median = number(&lag["to_rules_us"]["p50"]);
    assert!(median > 0.0 && median < 5e6, "{last}");
    shown(&format!(
        "{} looks; {ready} endpoints became ready, {written} were written: {}",
        last["looks"], lag["to_rules_us"]
    ));
}

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`, in each mode"]
fn a_new_pod_is_followed_from_its_endpointslice_to_the_rules_to_its_first_packet() {
    let cluster = Cluster::up();
    let scale = |replicas: u8| {
        cluster.kubectl(&format!(
            "scale deployment -n shop web --replicas={replicas}"
        ));
        cluster.kubectl("rollout status deployment -n shop web --timeout=50s");
    };
    let mut command = cluster.tracer_on("n1");
    command.env("KUBECONFIG", cluster.admin());
    let tracer = Tracer::start_by(command, "--connections");
    let client = cluster.client("n1");
    let load = Load::start(&cluster, &client, "wget -q -O - http://web/");
    scale(5);
    sleep(Duration::from_secs(4));
    load.stop(&cluster, &client);
    let traced = tracer.stop();
    scale(3);
    let lag = &traced.summary["programming"];
    let number = |key: &str| lag[key].as_u64().unwrap_or_default();
    // Two pods, in both families; they are asked by IPv4, or by IPv6.
    assert!(number("endpoints_ready") >= 2, "{lag}");
    assert!(number("written") >= 2, "{lag}");
    assert!(number("asked") >= 1, "{lag}");
    shown(&format!("{lag}"));
}
