//! kube-proxy's rules against what the API objects ask for, and what the evaluator makes of them against the
//! kernel itself: Services and EndpointSlices of every kind are generated, the real kube-proxy writes their
//! rules on both nodes, and real packets are sent from every kind of source.

mod health;

use std::collections::BTreeSet;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;
use tracer::cluster::read_files;
use tracer::model::{Finding, Snapshot};
use tracer::rules::{Host, Ruleset};
use tracer::verify::judge;

use super::api::Api;
use super::bed::{Cluster, shown};
use crate::support::generated::objects::{self, Made, NAMESPACE};
use crate::support::generated::world::{NODES, PLACES, Pace, World, ZONES, file};
use crate::support::generated::{
    Evenness, LEAST, SEED, WANTED, assert_covered, assert_foretold, cells, covered, lines,
    otherwise, packets,
};
use crate::support::probe::{serve, within};
use crate::support::tally::Tally;

const PACE: Pace = Pace {
    threads: 16,
    slowness: 1,
    few: 4,
    many: 50,
};

/// Longest until kube-proxy has written what it was told: after an API server's restart, as other tests make one, it
/// tries again after half a minute and more.
const PATIENCE: Duration = Duration::from_secs(90);

/// A pod on `n1` that is never ready, for two Services that select it.
const NEVER_READY: &str = "apiVersion: v1
kind: Pod
metadata: {name: never-ready, namespace: generated, labels: {app: never-ready}}
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: docker.io/bed/busybox:1
    imagePullPolicy: Never
    args: ['exec sleep 2147483647']
    readinessProbe:
      exec: {command: ['false']}
      periodSeconds: 1
";

/// The objects, removed on drop.
struct Objects<'a>(&'a Cluster);

impl<'a> Objects<'a> {
    fn make(cluster: &'a Cluster, made: &[Made], api: &mut Api) -> Self {
        let objects = Self(cluster);
        cluster.kubectl(&format!("create namespace {NAMESPACE}"));
        // No pod is admitted before its account.
        cluster.kubectl(&format!(
            "wait serviceaccount/default -n {NAMESPACE} --for=create --timeout=30s"
        ));
        cluster.apply(NEVER_READY);
        for (node, zone) in NODES.iter().zip(ZONES) {
            let labels = json!({"metadata": {"labels": {ZONE: zone}}});
            api.patch(&format!("/api/v1/nodes/{node}"), &labels);
        }
        let services = format!("/api/v1/namespaces/{NAMESPACE}/services");
        let slices = format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices");
        for one in made {
            for slice in &one.slices {
                api.create(&slices, slice);
            }
            api.create(&services, &one.service);
            if !one.ingress.is_empty() {
                let ingress = one.ingress.iter().map(|ip| json!({"ip": ip}));
                let ingress: Vec<_> = ingress.collect();
                let status = json!({"status": {"loadBalancer": {"ingress": ingress}}});
                api.patch(&format!("{services}/{}/status", one.name), &status);
            }
        }
        objects
    }
}

const ZONE: &str = "topology.kubernetes.io/zone";

impl Drop for Objects<'_> {
    fn drop(&mut self) {
        let mut kubectl = self.0.kubectl_program();
        let words = ["delete", "namespace", NAMESPACE];
        drop(kubectl.args(words).output());
        let label = format!("{ZONE}-");
        let mut kubectl = self.0.kubectl_program();
        drop(kubectl.args(["label", "nodes", "--all", &label]).output());
    }
}

/// What the API server has, as `tracer verify --objects` reads it.
fn snapshot(cluster: &Cluster) -> Snapshot {
    let path = std::env::temp_dir().join(format!("tracer-objects-{}", std::process::id()));
    let listed = cluster.kubectl("get nodes,services,endpointslices,pods -A -o json");
    fs::write(&path, listed).expect("there is room");
    let snapshot = read_files(std::slice::from_ref(&path)).expect("kubectl wrote it");
    fs::remove_file(&path).expect("it was just written");
    snapshot
}

/// The rules of each node.
fn rules(cluster: &Cluster) -> Vec<(Ruleset, Host)> {
    let nodes = NODES.iter().map(|name| {
        within(&file(&cluster.netns(name)), || {
            (
                Ruleset::read().expect("it reads"),
                Host::read().expect("it reads"),
            )
        })
    });
    nodes.collect()
}

/// What is found wrong on each node.
fn judged(rules: &[(Ruleset, Host)], snapshot: &Snapshot) -> Vec<Finding> {
    let nodes = NODES.iter().zip(rules).flat_map(|(name, (ruleset, host))| {
        let mut nodes = snapshot.nodes.iter();
        let node = nodes.find(|node| *node.name == **name);
        judge(ruleset, host, snapshot, node.expect("it is a Node")).findings
    });
    nodes.collect()
}

/// Waits until the Service whose endpoint need not be ready has it, in both families.
fn await_early(cluster: &Cluster) {
    let words = format!(
        "get endpointslices -n {NAMESPACE} -l kubernetes.io/service-name=early -o jsonpath={{.items[*].endpoints[*].addresses[*]}}"
    );
    let deadline = Instant::now() + PATIENCE;
    while cluster.kubectl(&words).split_whitespace().count() < 2 {
        assert!(Instant::now() < deadline, "the pod has no address");
        sleep(Duration::from_millis(200));
    }
}

/// Waits until both nodes' rules do what the objects say, which the judgement says.
fn settled(cluster: &Cluster) -> (Snapshot, Vec<(Ruleset, Host)>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // A pod may get ready yet.
        let snapshot = snapshot(cluster);
        let rules = rules(cluster);
        let findings = judged(&rules, &snapshot);
        if findings.is_empty() {
            return (snapshot, rules);
        }
        assert!(Instant::now() < deadline, "{findings:#?}");
        sleep(Duration::from_millis(500));
    }
}

/// A pod of the cluster serves where `places` do.
fn serve_in_pod(cluster: &Cluster, world: &mut World) {
    let deadline = Instant::now() + PATIENCE;
    let running = || {
        let words = format!("get pod -n {NAMESPACE} never-ready -o jsonpath={{.status.phase}}");
        cluster.kubectl(&words) == "Running"
    };
    while !running() {
        assert!(Instant::now() < deadline, "never-ready does not run");
        sleep(Duration::from_millis(200));
    }
    let pods = cluster.pods(&format!("-n {NAMESPACE}"));
    let pod = &pods["never-ready"];
    let at: Vec<_> = pod.ips.iter().map(|ip| (*ip, 8080).into()).collect();
    serve(&cluster.netns_of(pod), &at);
    world.served.known.extend(&pod.ips);
    world.served.at.extend(at);
}

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`, in each mode"]
fn packets_go_where_the_evaluator_foretells_for_services_of_every_kind() {
    let cluster = Cluster::up();
    let mut world = World::new(|name| cluster.netns(name), PACE);
    let mut made = objects::all(SEED, &PLACES);
    made.extend(objects::of_never_ready());
    let mut api = Api::connect(&cluster);
    let objects = Objects::make(&cluster, &made, &mut api);
    await_early(&cluster);
    serve_in_pod(&cluster, &mut world);
    let (snapshot, rules) = settled(&cluster);
    let mut cells = cells::all(&made, &snapshot, &[0, 1]);
    cells::foretell(&mut cells, &world, &rules);
    let tallies = packets::send(&world, &cells);
    let mut wrong = otherwise(&cells, &tallies);
    let even = Evenness::of(&cells, &tallies);
    let (checked, unlike) = health::checked(&cluster, &snapshot, &rules);
    wrong.extend(unlike);
    let modes: BTreeSet<_> = rules
        .iter()
        .flat_map(|(one, _)| one.proxy_modes())
        .collect();
    let sent: u32 = tallies.iter().map(Tally::count).sum();
    shown(&format!(
        "{modes:?}, seed {SEED}: {} Services, {} cases on two nodes, {sent} connections: {} not as foretold",
        made.len(),
        cells.len() + checked,
        wrong.len(),
    ));
    shown(&format!(
        "  of these {} where chance decides, {} connections: chi-squared {:.0} at {} degrees of freedom; each share within 5 standard deviations",
        even.cases, even.connections, even.statistic, even.freedom
    ));
    let mut covered = covered(&cells);
    covered.insert(16, checked);
    for line in lines(&covered) {
        shown(&line);
    }
    drop(objects);
    assert_foretold(&wrong, &cells);
    // Chance brings it within five standard deviations of what is to be expected.
    let off = (even.statistic - even.freedom).abs();
    assert!(
        off <= 5.0 * (2.0 * even.freedom).sqrt(),
        "{:.0} {}",
        even.statistic,
        even.freedom
    );
    assert!(cells.len() + checked >= LEAST, "{} cases", cells.len());
    assert_covered(&covered, WANTED.into_iter().chain([16]));
}
