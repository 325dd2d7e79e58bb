//! The API server gone: names without it, names while it is away, names when it is back. And the kubectl plugin,
//! with a DaemonSet and without.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::bed::{Cluster, Outage, Pod, shown};
use crate::support::trace::Tracer;

/// One connection to web by the runtime, for there is no API server to go by.
fn ask(cluster: &Cluster, client: &Pod, web: &str) {
    let words = format!("wget -q -O /dev/null http://{web}/");
    cluster.exec_by_runtime(client, &words);
}

fn connections(rows: &[Value], client: &Pod) -> Vec<Value> {
    let is = |row: &&Value| {
        row["type"] == "connection"
            && row["client"]["container"] == client.container.as_str()
            && row["asked"]["port"] == 80
    };
    rows.iter().filter(is).cloned().collect()
}

/// Within which names are there.
const SOON: Duration = Duration::from_secs(2);

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`, in each mode"]
fn with_the_api_server_dead_before_start_names_are_there_within_two_seconds() {
    let cluster = Cluster::up();
    let client = cluster.client("n1");
    let web = cluster.kubectl("get service -n shop web -o jsonpath={.spec.clusterIP}");
    let outage = Outage::begin(&cluster);
    let first_rows = || {
        let began = Instant::now();
        // What the DaemonSet kept would name Services, too.
        let words = "--connections --names-file /nowhere";
        let mut tracer = Tracer::start_by(cluster.tracer_on("n1"), words);
        for _ in 0..3 {
            ask(&cluster, &client, &web);
        }
        let mut wanted = 0;
        loop {
            wanted += 1;
            let lines = tracer.wait_for(wanted).iter();
            let rows = lines.map(|line| serde_json::from_str(line).expect("lines are JSON"));
            let rows = connections(&rows.collect::<Vec<_>>(), &client);
            if !rows.is_empty() {
                break (rows, began.elapsed());
            }
        }
    };
    let (mut rows, mut took) = first_rows();
    for _ in 0..2 {
        // This machine may be busy with something else.
        if took >= SOON {
            (rows, took) = first_rows();
        }
    }
    outage.end();
    let row = &rows[0];
    assert_eq!(row["client"]["pod"]["name"], client.name.as_str(), "{row}");
    assert_eq!(row["client"]["pod"]["source"], "runtime", "{row}");
    assert_eq!(row["asked"]["service"]["name"], "web", "{row}");
    assert_eq!(row["asked"]["service"]["source"], "rules", "{row}");
    assert!(took < SOON, "{took:?}");
    shown(&format!(
        "n1: API server dead: a pod named by the runtime, its Service by rules after {:.1} s",
        took.as_secs_f32()
    ));
}

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`"]
fn an_api_server_that_dies_and_returns_costs_no_name() {
    let cluster = Cluster::up();
    let client = cluster.client("n1");
    let web = cluster.kubectl("get service -n shop web -o jsonpath={.spec.clusterIP}");
    // The node's own credentials would not name pods of the other node.
    let words = format!("--connections --kubeconfig {}", cluster.admin().display());
    let tracer = Tracer::start_by(cluster.tracer_on("n1"), &words);
    ask(&cluster, &client, &web);
    let outage = Outage::begin(&cluster);
    sleep(Duration::from_secs(3));
    ask(&cluster, &client, &web);
    outage.end();
    // Attempts are five seconds apart by now, at most.
    sleep(Duration::from_secs(8));
    ask(&cluster, &client, &web);
    let traced = tracer.stop();
    let rows = connections(&traced.rows(), &client);
    assert_eq!(rows.len(), 3, "{rows:#?}");
    for row in &rows {
        assert_eq!(row["client"]["pod"]["name"], client.name.as_str(), "{row}");
        assert_eq!(row["asked"]["service"]["name"], "web", "{row}");
        assert_eq!(row["asked"]["service"]["source"], "api", "{row}");
        assert!(row["backend"]["pod"]["name"].is_string(), "{row}");
    }
    let ages = rows.iter().map(|row| &row["asked"]["service"]["age_s"]);
    let ages: Vec<_> = ages.filter_map(Value::as_u64).collect();
    assert!(ages[0] == 0 && ages[1] >= 1 && ages[2] == 0, "{ages:?}");
}

/// As README.md has it, the tracer in the DaemonSet's pod is reached by the runtime then.
#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`"]
fn the_daemon_sets_own_trace_goes_on_without_an_api_server_and_hears_it_again() {
    let cluster = Cluster::up();
    let client = cluster.client("n1");
    let vip = |name: &str| {
        cluster.kubectl(&format!(
            "get service -n shop {name} -o jsonpath={{.spec.clusterIP}}"
        ))
    };
    let web = vip("web");
    let of_n1 = "-n tracer -l app.kubernetes.io/name=tracer --field-selector spec.nodeName=n1";
    let mut pods = cluster.pods(of_n1).into_values();
    let pod = pods.next().expect("it has one pod on each node");
    let mut command = cluster.in_container(&pod);
    command.arg("/bin/tracer");
    let mut tracer = Tracer::start_by(command, "--connections");
    ask(&cluster, &client, &web);
    let outage = Outage::begin(&cluster);
    tracer.wait_for_log("with their age", Duration::from_secs(20));
    ask(&cluster, &client, &web);
    outage.end();
    tracer.wait_for_log("is heard again", Duration::from_secs(40));
    cluster.kubectl("expose deployment -n shop web --name=later --port=80 --target-port=8080");
    let later = vip("later");
    let reach = format!("until curl -s -o /dev/null -m 1 http://{later}/; do sleep 0.2; done");
    cluster.sh("n1", &reach);
    ask(&cluster, &client, &later);
    let traced = tracer.stop();
    cluster.kubectl("delete service -n shop later");
    let rows = connections(&traced.rows(), &client);
    let asked: Vec<_> = rows
        .iter()
        .map(|row| row["asked"]["service"]["name"].as_str())
        .collect();
    assert_eq!(
        asked,
        [Some("web"), Some("web"), Some("later")],
        "{rows:#?}"
    );
    for row in &rows {
        assert_eq!(row["client"]["pod"]["name"], client.name.as_str(), "{row}");
        assert!(row["backend"]["pod"]["name"].is_string(), "{row}");
    }
    let restarts = cluster.kubectl(&format!(
        "get pods {of_n1} -o jsonpath={{.items[0].status.containerStatuses[0].restartCount}}"
    ));
    assert_eq!(restarts, "0", "it records on");
    shown(
        "n1: the DaemonSet's own trace without an API server and with it again: every name right",
    );
}

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`"]
fn the_plugin_makes_a_pod_where_there_is_no_daemon_set_and_leaves_none() {
    let cluster = Cluster::up();
    let image = "--image ghcr.io/k8s-tracer/tracer:0.1.0";
    let run = |words: &str| {
        let mut command = cluster.plugin();
        let words = format!("node n2 {image} -- {words}");
        let output = command.args(words.split_whitespace()).output();
        let output = output.expect("it was built");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said, log)
    };
    let (code, said, log) = run("trace --summary --for 1s -o json");
    assert_eq!(code, Some(0), "{log}");
    assert!(
        log.contains("in debugging pod tracer/tracer-debug-"),
        "{log}"
    );
    assert!(said.contains(r#""type":"summary""#), "{said}");
    let (code, _, log) = run("trace --xyzzy");
    assert_eq!(code, Some(2), "{log}");
    assert!(log.contains("unexpected argument '--xyzzy'"), "{log}");
    gone(&cluster);
}

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`"]
fn a_plugin_that_is_killed_leaves_nothing_that_runs() {
    let cluster = Cluster::up();
    let mut child = cluster
        .plugin()
        .args("node n2 --image ghcr.io/k8s-tracer/tracer:0.1.0 -- trace --dns".split(' '))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it was built");
    let phase = |wanted: &str, patience: u64| {
        let deadline = Instant::now() + Duration::from_secs(patience);
        let get = "get pods -n tracer -l app.kubernetes.io/name=tracer-debug -o jsonpath={.items[*].status.phase}";
        while !cluster.kubectl(get).contains(wanted) {
            assert!(Instant::now() < deadline, "no pod is {wanted}");
            sleep(Duration::from_millis(300));
        }
    };
    phase("Running", 30);
    sleep(Duration::from_secs(1));
    child.kill().expect("it is our child");
    child.wait().expect("it is our child");
    // By SIGINT, with a summary: success.
    phase("Succeeded", 40);
    let mut next = cluster.plugin();
    let words = "node n2 --image ghcr.io/k8s-tracer/tracer:0.1.0 -- alive /nowhere";
    let status = next.args(words.split(' ')).stderr(Stdio::null()).status();
    assert_eq!(status.expect("it was built").code(), Some(2));
    gone(&cluster);
}

/// No debugging pod is left.
fn gone(cluster: &Cluster) {
    let wait =
        "wait -n tracer pods -l app.kubernetes.io/name=tracer-debug --for=delete --timeout=30s";
    cluster.kubectl(wait);
}

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`"]
fn where_the_image_or_the_api_server_is_out_of_reach_the_plugin_tells_the_way_by_ssh() {
    let cluster = Cluster::up();
    let told = |mut command: Command, words: &str| {
        let output = command.args(words.split(' ')).output();
        let output = output.expect("it was built");
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let words = "node n2 --image registry.example.test/none:1 -- trace --dns";
    let log = told(cluster.plugin(), words);
    assert!(log.contains("the node cannot get the image"), "{log}");
    let ssh = "ssh -t n2 sudo /tmp/tracer trace --dns";
    assert!(log.contains(ssh), "{log}");
    let outage = Outage::begin(&cluster);
    let log = told(cluster.plugin(), "node n2 -- trace --dns");
    outage.end();
    assert!(log.contains("the API server does not answer"), "{log}");
    assert!(log.contains(ssh), "{log}");
}

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`, in each mode"]
fn with_the_api_server_dead_rules_are_judged_by_what_was_kept_or_by_themselves() {
    let cluster = Cluster::up();
    let file = std::env::temp_dir().join(format!("tracer-kept-{}", std::process::id()));
    let file = file.to_str().expect("it is text");
    let tracer = |words: &str| {
        let mut command = cluster.tracer_on("n1");
        command
            .args(words.split(' '))
            .env("KUBECONFIG", cluster.admin());
        let output = command.output().expect("the program was built");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}{log}");
        let last = said.lines().last().unwrap_or_default();
        let last: Value = serde_json::from_str(last).unwrap_or_default();
        (last, log)
    };
    tracer(&format!(
        "trace --summary --for 4s --keep-names --names-file {file}"
    ));
    let outage = Outage::begin(&cluster);
    let (kept, log) = tracer(&format!("verify -o json --names-file {file}"));
    assert_eq!(kept["objects"], "kept", "{kept} {log}");
    assert!(log.contains("judged by what it said before"), "{log}");
    assert!(kept["services"].as_u64() >= Some(3), "{kept}");
    let (alone, log) = tracer("verify -o json --names-file /nowhere");
    assert_eq!(alone["objects"], "none", "{alone} {log}");
    assert!(log.contains("judged by the rules alone"), "{log}");
    assert!(alone["packets"].as_u64() >= Some(10), "{alone}");
    outage.end();
    std::fs::remove_file(file).expect("it was kept");
    shown(&format!("kept: {kept}"));
    shown(&format!("alone: {alone}"));
}
