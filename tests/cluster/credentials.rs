//! Credentials that are no longer good while a trace goes on, and good ones in their place.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::bed::{Cluster, Outage, Pod, shown};
use crate::support::trace::Tracer;

/// kube keeps a token for a minute; attempts are up to fifteen seconds apart.
const HEARD_AGAIN: Duration = Duration::from_secs(100);

const ACCOUNT: &str = "apiVersion: v1
kind: ServiceAccount
metadata: {name: watcher, namespace: shop}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: watcher}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: tracer}
subjects:
- {kind: ServiceAccount, name: watcher, namespace: shop}
";

/// A ServiceAccount of the tracer's rights, by a kubeconfig that names a file with its token.
struct Watcher<'a> {
    cluster: &'a Cluster,
    /// Of its kubeconfig, and its token beside it.
    home: TempDir,
}

impl<'a> Watcher<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let home = tempfile::tempdir().expect("there is room for temporary files");
        let watcher = Self { cluster, home };
        watcher.renew();
        let admin = fs::read_to_string(cluster.admin()).expect("the bed has it");
        let token = watcher.token().display().to_string();
        let own = admin.replace("token: admin", &format!("tokenFile: {token}"));
        assert_ne!(own, admin);
        fs::write(watcher.kubeconfig(), own).expect("there is room for temporary files");
        watcher
    }

    fn token(&self) -> PathBuf {
        self.home.path().join("token")
    }

    fn kubeconfig(&self) -> PathBuf {
        self.home.path().join("kubeconfig")
    }

    /// Makes the account, and a token for it.
    fn renew(&self) {
        self.cluster.apply(ACCOUNT);
        let token = self.cluster.kubectl("create token -n shop watcher");
        fs::write(self.token(), token.trim()).expect("there is room");
    }

    /// Its token is good no longer.
    fn end(&self) {
        self.cluster
            .kubectl("delete serviceaccount -n shop watcher");
    }
}

impl Drop for Watcher<'_> {
    fn drop(&mut self) {
        let made = [
            "serviceaccount/watcher",
            "clusterrolebinding/watcher",
            "service/news",
        ];
        for object in made {
            let words = format!("delete -n shop {object} --ignore-not-found");
            self.cluster.kubectl(&words);
        }
    }
}

/// One connection of `client` to `vip`; what the tracer says of it, which is newer than row `last`.
fn asked(tracer: &mut Tracer, cluster: &Cluster, client: &Pod, vip: &str, last: &mut u64) -> Value {
    let words = format!("timeout 2 wget -q -O /dev/null http://{vip}/");
    cluster.exec_by_runtime(client, &words);
    let mut wanted = 1;
    loop {
        let lines = tracer.wait_for(wanted);
        wanted = lines.len() + 1;
        let rows = lines.iter();
        let rows = rows.map(|line| serde_json::from_str(line).expect("lines are JSON"));
        let is = |row: &Value| {
            row["serial"].as_u64() > Some(*last)
                && row["client"]["container"] == client.container.as_str()
                && row["asked"]["ip"] == vip
        };
        let found = rows.into_iter().find(is);
        if let Some(row) = found {
            *last = row["serial"].as_u64().unwrap_or_default();
            return row;
        }
    }
}

/// The address of a Service of shop.
fn vip(cluster: &Cluster, name: &str) -> String {
    cluster.kubectl(&format!(
        "get service -n shop {name} -o jsonpath={{.spec.clusterIP}}"
    ))
}

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`"]
fn a_token_that_is_no_longer_good_costs_no_name_and_a_new_one_brings_news() {
    let cluster = Cluster::up();
    let client = cluster.client("n1");
    let web = vip(&cluster, "web");
    let watcher = Watcher::new(&cluster);
    let words = format!(
        "--connections --kubeconfig {}",
        watcher.kubeconfig().display()
    );
    let mut tracer = Tracer::start_by(cluster.tracer_on("n1"), &words);
    let mut last = 0;
    let row = asked(&mut tracer, &cluster, &client, &web, &mut last);
    assert_eq!(row["asked"]["service"]["source"], "api", "{row}");

    watcher.end();
    // Else its watches would last for two minutes.
    Outage::begin(&cluster).end();
    let said = tracer.wait_for_log("with their age", Duration::from_secs(60));
    assert!(said.contains("is not heard: "), "{said}");
    cluster.kubectl("expose deployment -n shop web --name=news --port=80 --target-port=8080");
    let news = vip(&cluster, "news");
    cluster.sh(
        "n1",
        &format!("until curl -s -o /dev/null -m 1 http://{news}/; do sleep 0.2; done"),
    );
    let row = asked(&mut tracer, &cluster, &client, &web, &mut last);
    assert_eq!(row["asked"]["service"]["name"], "web", "{row}");
    assert!(row["asked"]["service"]["age_s"].as_u64() > Some(0), "{row}");
    assert_eq!(row["client"]["pod"]["name"], client.name.as_str(), "{row}");
    let row = asked(&mut tracer, &cluster, &client, &news, &mut last);
    assert!(row["asked"]["service"]["name"].is_null(), "{row}");

    watcher.renew();
    tracer.wait_for_log("is heard again", HEARD_AGAIN);
    // An API server that answers again is heard; what it did meanwhile its watches bring a moment later.
    let deadline = Instant::now() + Duration::from_secs(10);
    let row = loop {
        let row = asked(&mut tracer, &cluster, &client, &news, &mut last);
        if row["asked"]["service"]["source"] == "api" || Instant::now() > deadline {
            break row;
        }
    };
    assert_eq!(row["asked"]["service"]["name"], "news", "{row}");
    assert_eq!(row["asked"]["service"]["source"], "api", "{row}");
    let traced = tracer.stop();
    assert_eq!(traced.code, Some(0));
    shown("n1: a token that was no longer good, and a new one: no name lost, and news again");
}
