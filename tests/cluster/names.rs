//! Every name right, while pods come and go: what the tracer in the DaemonSet says, against what the test itself
//! knows of who had which address and who served.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

use super::bed::{Cluster, Load, Pod, shown};
use crate::support::trace::{Traced, address};

/// Rows of `kind` whose client is `pod`.
fn rows_of(traced: &Traced, pod: &Pod, kind: &str) -> Vec<Value> {
    let mut rows = traced.rows();
    rows.retain(|row| row["type"] == kind && row["client"]["container"] == pod.container.as_str());
    rows.sort_by_key(|row| row["ktime_ns"].as_u64());
    for row in &rows {
        let client = &row["client"]["pod"];
        assert_eq!(client["name"], pod.name.as_str(), "{row}");
        assert_eq!(client["uid"], pod.uid.as_str(), "{row}");
        assert_eq!(row["client"]["node"], pod.node.as_str(), "{row}");
    }
    rows
}

/// The Service that a row asked.
fn service(row: &Value) -> String {
    let service = &row["asked"]["service"];
    let word = |key: &str| service[key].as_str().unwrap_or("?").to_owned();
    format!("{}/{}:{}", word("namespace"), word("name"), word("port"))
}

/// Every DNS row's backend is the CoreDNS pod that had the address; how many there were.
fn dns_is_right(traced: &Traced, client: &Pod, pods: &BTreeMap<IpAddr, String>) -> usize {
    let rows = rows_of(traced, client, "dns");
    for row in &rows {
        assert_eq!(service(row), "kube-system/kube-dns:dns", "{row}");
        if let Some(backend) = address(&row["backend"]) {
            let known = pods.get(&backend.ip());
            let named = row["backend"]["pod"]["name"].as_str();
            assert_eq!(named, known.map(String::as_str), "{row}");
        }
    }
    rows.len()
}

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`, in each mode"]
fn during_a_rollout_each_connection_is_the_pods_that_had_the_address_then() {
    let cluster = Cluster::up();
    let nodes = ["n1", "n2"];
    let clients = nodes.map(|node| cluster.client(node));
    let mut pods = cluster.addresses("-n kube-system -l k8s-app=kube-dns");
    pods.extend(cluster.addresses("-n shop -l app=web"));
    let tracers = nodes.map(|node| cluster.tracer_in(node, ""));
    let ask = "timeout 3 wget -q -O - http://web/ || echo failed";
    let loads = clients
        .each_ref()
        .map(|pod| Load::start(&cluster, pod, ask));
    cluster.kubectl("rollout restart -n shop deployment/web");
    cluster.kubectl("rollout status -n shop deployment/web --timeout=60s");
    let [one, two] = loads;
    let served = [
        one.stop(&cluster, &clients[0]),
        two.stop(&cluster, &clients[1]),
    ];
    pods.extend(cluster.addresses("-n shop -l app=web"));
    for (tracer, node) in tracers.into_iter().zip(nodes) {
        let traced = tracer.stop();
        traced.assert_whole();
        let (mut connections, mut queries) = (0, 0);
        for (client, served) in clients.iter().zip(&served) {
            let rows = rows_of(&traced, client, "connection");
            let mut backends = Vec::new();
            for row in rows {
                assert_eq!(service(&row), "shop/web:http", "{row}");
                connections += 1;
                let Some(backend) = address(&row["backend"]) else {
                    continue;
                };
                let named = row["backend"]["pod"]["name"].as_str();
                let named = named.unwrap_or_else(|| panic!("no name: {row}"));
                assert_eq!(
                    pods.get(&backend.ip()).map_or(named, |pod| pod),
                    named,
                    "{row}"
                );
                if row["first_byte_us"].is_number() {
                    backends.push(named.to_owned());
                }
            }
            let mut served = served.clone();
            served.retain(|name| name != "failed");
            assert_eq!(backends, served, "of {} on {node}", client.name);
            queries += dns_is_right(&traced, client, &pods);
        }
        assert!(connections > 40 && queries > 40, "{connections}, {queries}");
        shown(&format!(
            "{node}: {connections} connections and {queries} exchanges during a rollout of web, all named right"
        ));
    }
    let replaced: std::collections::BTreeSet<_> = served.iter().flatten().collect();
    assert!(replaced.len() > 3, "nothing was rolled out: {replaced:?}");
}

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`, in each mode"]
fn with_coredns_pods_deleted_under_load_each_answer_is_the_pods_that_gave_it() {
    let cluster = Cluster::up();
    let client = cluster.client("n1");
    let of_dns = "-n kube-system -l k8s-app=kube-dns";
    let mut pods = cluster.addresses(of_dns);
    let tracer = cluster.tracer_in("n1", "--dns");
    let ask = "timeout 2 nslookup -type=a web.shop.svc.cluster.local >/dev/null && echo ok || echo failed";
    let load = Load::start(&cluster, &client, ask);
    cluster.kubectl(&format!("delete pods {of_dns} --wait=false"));
    cluster.kubectl("rollout status -n kube-system deployment/coredns --timeout=60s");
    // It may be over before many have asked.
    std::thread::sleep(std::time::Duration::from_secs(2));
    let said = load.stop(&cluster, &client);
    pods.extend(cluster.addresses(of_dns));
    let traced = tracer.stop();
    traced.assert_whole();
    let exchanges = dns_is_right(&traced, &client, &pods);
    let failed = said.iter().filter(|said| *said == "failed").count();
    assert!(exchanges > 20, "{exchanges}");
    assert!(pods.len() > 4, "nothing was replaced: {pods:?}");
    shown(&format!(
        "n1: {exchanges} exchanges while CoreDNS was replaced, all named right; {failed} of {} look-ups failed",
        said.len()
    ));
}

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`, in each mode"]
fn a_node_port_and_clients_in_a_nodes_network_are_named_for_what_they_are() {
    let cluster = Cluster::up();
    cluster.apply(include_str!("host.yaml"));
    cluster.kubectl("wait -n shop pod/host --for=condition=Ready --timeout=60s");
    let host = cluster.pods("-n shop -l app=host").remove("host");
    let host = host.expect("it is ready");
    let web = cluster.kubectl("get service -n shop web -o jsonpath={.spec.clusterIP}");
    let tracer = cluster.tracer_in("n1", "--connections");
    let inside = format!("exec -n shop host -- timeout 3 wget -q -O - http://{web}/");
    let served = cluster.kubectl(&inside);
    let outside = cluster.on("control", "timeout 3 curl -s http://192.0.2.11:30080/");
    let traced = tracer.stop();
    cluster.kubectl("delete -n shop pod/host service/web-node --wait=false");
    let rows = rows_of(&traced, &host, "connection");
    let [row] = &rows[..] else {
        panic!("{rows:#?}");
    };
    assert_eq!(service(row), "shop/web:http", "{row}");
    assert_eq!(row["backend"]["pod"]["name"], served.trim(), "{row}");
    let node_port = |row: &Value| row["asked"]["service"]["via"] == "node_port";
    let rows: Vec<_> = traced.rows().into_iter().filter(node_port).collect();
    let [row] = &rows[..] else {
        panic!("{:#?}", traced.lines());
    };
    assert_eq!(service(row), "shop/web-node:http", "{row}");
    assert_eq!(row["client"]["ip"], "192.0.2.10", "{row}");
    assert!(row["client"]["pod"].is_null(), "{row}");
    assert_eq!(row["asked"]["node"], "n1", "{row}");
    assert_eq!(row["backend"]["pod"]["name"], outside.trim(), "{row}");
    shown("n1: a hostNetwork client, and an external one at a node port, named right");
}

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`"]
fn without_any_coredns_queries_are_rejected_by_a_service_that_has_its_name() {
    let cluster = Cluster::up();
    let client = cluster.client("n1");
    cluster.kubectl("scale -n kube-system deployment/coredns --replicas=0");
    cluster.kubectl("wait -n kube-system pods -l k8s-app=kube-dns --for=delete --timeout=60s");
    let tracer = cluster.tracer_in("n1", "--dns");
    let ask = "timeout 3 nslookup -type=a web.shop.svc.cluster.local 2>&1 || echo failed";
    let ask = ["exec", "-n", "shop", &client.name, "--", "sh", "-c", ask];
    let said = cluster.kubectl_words(&ask);
    let traced = tracer.stop();
    cluster.kubectl("scale -n kube-system deployment/coredns --replicas=2");
    cluster.kubectl("rollout status -n kube-system deployment/coredns --timeout=60s");
    assert!(said.contains("failed"), "{said}");
    let rows = rows_of(&traced, &client, "dns");
    assert!(!rows.is_empty());
    for row in &rows {
        assert_eq!(service(row), "kube-system/kube-dns:dns", "{row}");
        assert_eq!(row["outcome"], "rejected", "{row}");
    }
    let found = traced.found();
    assert!(
        found.iter().any(|found| found.starts_with("no_endpoints")),
        "{found:?}"
    );
}
