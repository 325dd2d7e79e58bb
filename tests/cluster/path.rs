//! What a real pod asks, through real kube-proxy rules: who it was, and which backend answered.

use std::net::SocketAddr;

use serde_json::Value;

use super::bed::{Cluster, Pod};
use crate::support::trace::{Tracer, address};

const KUBE_DNS: &str = "10.96.0.10:53";

/// Rows of one type whose client is `pod`, by its container: another cluster on this machine may use its
/// address.
fn rows_of(rows: &[Value], pod: &Pod, kind: &str) -> Vec<Value> {
    let is =
        |row: &&Value| row["type"] == kind && row["client"]["container"] == pod.container.as_str();
    let rows: Vec<_> = rows.iter().filter(is).cloned().collect();
    for row in &rows {
        let client = address(&row["client"]);
        assert!(
            client.is_some_and(|client| pod.ips.contains(&client.ip())),
            "{row}"
        );
        assert_eq!(
            row["client"]["pod"]["namespace"],
            pod.namespace.as_str(),
            "{row}"
        );
        assert_eq!(row["client"]["pod"]["name"], pod.name.as_str(), "{row}");
        assert_eq!(row["client"]["pod"]["uid"], pod.uid.as_str(), "{row}");
        assert_eq!(row["client"]["pod"]["source"], "runtime", "{row}");
    }
    rows
}

/// The backend's name is that of `pod`, where the tracer's node, n1, can know it.
fn assert_backend(row: &Value, pod: &Pod) {
    let named = &row["backend"]["pod"];
    if pod.node == "n1" {
        assert_eq!(named["name"], pod.name.as_str(), "{row}");
        assert_eq!(named["uid"], pod.uid.as_str(), "{row}");
        assert_eq!(named["source"], "cni", "{row}");
    } else {
        assert!(named.is_null(), "{row}");
    }
}

/// The backend that a node's conntrack holds for `client` and kube-dns.
///
/// A line of `conntrack -L` holds both tuples, the original first.
fn translated(listed: &str, client: SocketAddr) -> Option<SocketAddr> {
    let line = listed.lines().find(|line| {
        let (src, sport) = (client.ip(), client.port());
        line.contains(&format!(" src={src} dst=10.96.0.10 sport={sport} "))
    })?;
    let last = |key: &str| Some(line.rsplit_once(key)?.1.split(' ').next()?.to_owned());
    Some(SocketAddr::new(
        last(" src=")?.parse().ok()?,
        last(" sport=")?.parse().ok()?,
    ))
}

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`, in each mode"]
fn a_name_asked_by_a_pod_shows_its_container_and_the_coredns_that_answered() {
    let cluster = Cluster::up();
    let client = cluster.client("n1");
    let coredns = cluster.pods("-n kube-system -l k8s-app=kube-dns");
    let web = cluster.kubectl("get service -n shop web -o jsonpath={.spec.clusterIP}");
    let tracer = Tracer::start_by(
        cluster.tracer_on("n1"),
        "--no-api --names-file /nowhere --dns",
    );
    let name = "web.shop.svc.cluster.local";
    for _ in 0..20 {
        let said = cluster.kubectl(&format!(
            "exec -n shop {} -- nslookup -type=a {name}",
            client.name
        ));
        assert!(said.contains(&format!("Address: {web}\n")), "{said}");
    }
    let held = cluster.on("n1", "conntrack -L -p udp");
    let traced = tracer.stop();
    traced.assert_whole();
    let rows = rows_of(&traced.rows(), &client, "dns");
    assert_eq!(rows.len(), 20, "{rows:#?}");
    let mut backends = Vec::new();
    for row in rows {
        assert_eq!(row["name"], name, "{row}");
        assert_eq!(row["qtype"], "A", "{row}");
        assert_eq!(row["rcode"], "NOERROR", "{row}");
        assert_eq!(address(&row["asked"]), KUBE_DNS.parse().ok(), "{row}");
        let from = address(&row["client"]).expect("it was chosen by its client");
        let backend = address(&row["backend"]).unwrap_or_else(|| panic!("no NAT: {row}"));
        assert_eq!(translated(&held, from), Some(backend), "{row}\n{held}");
        let pod = coredns.values().find(|pod| pod.ips.contains(&backend.ip()));
        assert_backend(&row, pod.unwrap_or_else(|| panic!("no CoreDNS: {row}")));
        backends.push(backend.ip());
    }
    // One of them is on the other node: by chance alone twenty go to one in 500,000 runs.
    for pod in coredns.values() {
        assert!(backends.contains(&pod.ips[0]), "{pod:?}: {backends:?}");
    }
}

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`, in each mode"]
fn a_connection_shows_the_pod_that_says_it_served_it() {
    let cluster = Cluster::up();
    let client = cluster.client("n1");
    let web = cluster.pods("-n shop -l app=web");
    let tracer = Tracer::start_by(
        cluster.tracer_on("n1"),
        "--no-api --names-file /nowhere --connections",
    );
    let mut served = Vec::new();
    for _ in 0..20 {
        let said = cluster.kubectl(&format!(
            "exec -n shop {} -- wget -q -O - http://web/",
            client.name
        ));
        served.push(said.trim().to_owned());
    }
    let traced = tracer.stop();
    traced.assert_whole();
    let rows = rows_of(&traced.rows(), &client, "connection");
    let shown: Vec<_> = rows
        .iter()
        .map(|row| {
            assert_eq!(row["outcome"], "answered", "{row}");
            let backend = address(&row["backend"]).unwrap_or_else(|| panic!("no NAT: {row}"));
            let pod = web.values().find(|pod| pod.ips.contains(&backend.ip()));
            let pod = pod.unwrap_or_else(|| panic!("no web pod: {row}"));
            assert_backend(row, pod);
            pod.name.clone()
        })
        .collect();
    assert_eq!(shown, served);
}
