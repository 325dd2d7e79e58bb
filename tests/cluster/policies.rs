//! NetworkPolicies, which kube-router enforces on one node, and for IPv4, beside the plugin that ignores them.

use serde_json::Value;

use super::bed::{Cluster, Load};
use crate::support::trace::Tracer;

/// Peers and ports of an egress rule that clients need to reach the web servers.
pub(super) const TO_WEB: &str = "
  - to: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: 8080}]";
const TO_DNS: &str = "
  - to: [{namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: kube-dns}}}]
    ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]";

/// What clients may reach, by rules of YAML.
pub(super) fn egress(rules: &str) -> String {
    policy(
        "shop",
        "of-client",
        "app: client",
        &format!("policyTypes: [Egress]\n  egress:{rules}"),
    )
}

/// Pods of which app may reach the web servers.
pub(super) fn ingress(app: &str) -> String {
    let rule = format!("[{{from: [{{podSelector: {{matchLabels: {{app: {app}}}}}}}]}}]");
    policy(
        "shop",
        "of-web",
        "app: web",
        &format!("policyTypes: [Ingress]\n  ingress: {rule}"),
    )
}

/// Who may ask CoreDNS, by rules of YAML.
pub(super) fn of_coredns(rules: &str) -> String {
    policy(
        "kube-system",
        "of-coredns",
        "k8s-app: kube-dns",
        &format!("policyTypes: [Ingress]\n  ingress:{rules}"),
    )
}

fn policy(namespace: &str, name: &str, label: &str, rest: &str) -> String {
    format!(
        "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  podSelector: {{matchLabels: {{{label}}}}}
  {rest}
"
    )
}

/// Starts kube-router on n1 with these policies, and waits until its rules have them.
pub(super) fn enforce(cluster: &Cluster, policies: &str) {
    cluster.apply(policies);
    cluster.component("n1-kube-router", "start");
    let names = policies
        .lines()
        .filter_map(|line| line.strip_prefix("metadata: {name: "));
    for name in names.filter_map(|rest| rest.split(',').next()) {
        let has = format!("iptables-save -t filter | grep -q 'run through nw policy {name}\"'");
        cluster.sh("n1", &format!("until {has}; do sleep 0.1; done"));
    }
}

/// Takes policies away, ends kube-router, and removes its rules and sets: its own clean-up takes IPVS's with it.
pub(super) fn forget(cluster: &Cluster) {
    cluster.kubectl("delete networkpolicies --all --all-namespaces");
    cluster.end("n1-kube-router");
    let chains = "KUBE-ROUTER-|KUBE-POD-FW-|KUBE-NWPLCY-";
    cluster.sh(
        "n1",
        &format!(
            "iptables-save -t filter | grep -vE '{chains}' | iptables-restore --table=filter
ipset destroy"
        ),
    );
}

/// Removes them whatever comes.
struct Enforced<'a>(&'a Cluster);

impl Drop for Enforced<'_> {
    fn drop(&mut self) {
        forget(self.0);
    }
}

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`, in each mode"]
fn policies_that_allow_what_is_asked_lead_to_no_finding_and_what_they_keep_away_is_told() {
    let cluster = Cluster::up();
    let policies = egress(&format!("{TO_WEB}{TO_DNS}")) + &ingress("client");
    let _enforced = Enforced(&cluster);
    enforce(&cluster, &policies);
    let said = |words: &[&str]| {
        let output = cluster
            .tracer_on("n1")
            .args(words)
            .args(["--output", "json"])
            .env("KUBECONFIG", cluster.admin())
            .output()
            .expect("the program was built");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{words:?}: {said}");
        let lines = said.lines().map(serde_json::from_str);
        lines
            .collect::<Result<Vec<Value>, _>>()
            .expect("it is JSON")
    };
    let verified = said(&["verify"]);
    let last = verified.last().expect("it ends with one");
    assert_eq!(last["findings"], 0, "{verified:#?}");
    // Nobody but clients may reach the web servers.
    let kept = &last["kept_away"][0];
    assert_eq!(kept["engine"], "kube-router", "{last:#}");
    let first = kept["first"].to_string();
    assert!(first.contains("Service shop/web, port http: "), "{first}");
    let doctor = said(&["doctor"]);
    let seen = |name: &str| {
        let line = doctor.iter().find(|line| line["name"] == name);
        line.expect("it is a check")["seen"].to_string()
    };
    let told = seen("service_rules");
    assert!(told.contains("away, by kube-router's rules"), "{told}");
    let seen = seen("network_policies");
    assert!(
        seen.contains("2, which kube-router enforces beside Flannel"),
        "{seen}"
    );
    let client = cluster.client("n1");
    let mut command = cluster.tracer_on("n1");
    command.env("KUBECONFIG", cluster.admin());
    let tracer = Tracer::start_by(command, &format!("--path --pod shop/{}", client.name));
    let ask = "for host in web $WEB_SERVICE_HOST; do timeout 3 wget -q -O - http://$host/ || echo failed; done";
    let load = Load::start(&cluster, &client, ask);
    std::thread::sleep(std::time::Duration::from_secs(3));
    let pages = load.stop(&cluster, &client);
    let traced = tracer.stop();
    assert!(
        pages.len() > 10 && !pages.contains(&"failed".to_owned()),
        "{pages:?}"
    );
    assert_eq!(traced.found(), Vec::<String>::new());
}

#[test]
#[ignore = "needs a real cluster: kubelet, kube-proxy, CoreDNS; run `cargo xtask test cluster`, in each mode"]
fn what_doctor_says_to_do_lets_a_pod_that_no_policy_lets_to_coredns_ask_it() {
    let cluster = Cluster::up();
    let _enforced = Enforced(&cluster);
    enforce(&cluster, &egress(TO_WEB));
    let client = cluster.client("n1");
    let resolves = || {
        let words = ["exec", "-n", "shop", &client.name, "--"];
        let ask = [
            "timeout",
            "4",
            "nslookup",
            "kubernetes.default.svc.cluster.local",
        ];
        let mut command = cluster.kubectl_program();
        command
            .args(words)
            .args(ask)
            .output()
            .expect("the bed has kubectl")
            .status
            .success()
    };
    assert!(!resolves(), "the policy is enforced");
    let look = || {
        let output = cluster
            .tracer_on("n1")
            .args(["doctor", "--only", "dns_policies", "--output", "json"])
            .env("KUBECONFIG", cluster.admin())
            .output()
            .expect("the program was built");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = said.lines().next().expect("it is a check");
        serde_json::from_str::<Value>(line).expect("it is JSON")
    };
    let found = look();
    let pods = found["problems"][0]["evidence"][0].to_string();
    assert!(pods.contains(&format!("shop/{}", client.name)), "{found:#}");
    let remedy = found["problems"][0]["remedy"].as_str().expect("it has one");
    cluster.shell(remedy);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !resolves() {
        assert!(std::time::Instant::now() < deadline, "after {remedy}");
    }
    let found = look();
    assert_eq!(found["verdict"], "good", "{found:#}");
}
