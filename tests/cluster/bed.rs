//! The cluster that `cargo xtask test cluster` has brought up: its objects, programs on its nodes.
//!
//! Knows it only through `kubectl` and the nodes' own view; every command is bounded.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::program;
use crate::support::trace::Tracer;

/// Where the cluster is.
pub(crate) struct Cluster {
    dir: PathBuf,
    /// Of the program under the name that kubectl knows it by.
    plugins: TempDir,
}

/// What the API server says of a pod.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) node: String,
    pub(crate) ips: Vec<IpAddr>,
    /// Id of its first container.
    pub(crate) container: String,
}

impl Cluster {
    /// The cluster in `TRACER_CLUSTER`, which the tier sets.
    pub(crate) fn up() -> Self {
        let dir = env::var_os("TRACER_CLUSTER");
        let dir = dir.expect("`cargo xtask test cluster` says where the cluster is");
        Self {
            dir: dir.into(),
            plugins: tempfile::tempdir().expect("there is room for temporary files"),
        }
    }

    /// What `kubectl WORDS` printed; it must succeed.
    pub(crate) fn kubectl(&self, words: &str) -> String {
        printed(self.bounded("kubectl").args(words.split(' ')))
    }

    /// What `words` printed on a node; they must succeed.
    pub(crate) fn on(&self, node: &str, words: &str) -> String {
        printed(self.bounded(node).args(words.split(' ')))
    }

    /// The same of separate words, which may hold spaces.
    pub(crate) fn kubectl_words(&self, words: &[&str]) -> String {
        printed(self.bounded("kubectl").args(words))
    }

    /// Runs what a person would type where kubectl is at hand; it must succeed.
    pub(crate) fn shell(&self, typed: &str) {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("sh");
        shell.args(["-c", typed]);
        shell.env("PATH", format!("{}:{path}", self.dir.display()));
        printed(&mut shell);
    }

    /// A program of the cluster's directory, `kubectl` or a node's, ended after a minute.
    fn bounded(&self, program: &str) -> Command {
        let mut command = Command::new("timeout");
        command.arg("60").arg(self.dir.join(program));
        command
    }

    /// kubectl, its arguments still to come.
    pub(crate) fn kubectl_program(&self) -> Command {
        Command::new(self.dir.join("kubectl"))
    }

    /// Name of the network namespace of a node, or of the control plane as `control`.
    pub(crate) fn netns(&self, role: &str) -> String {
        let name = self.dir.file_name().and_then(|name| name.to_str());
        let name = name.and_then(|name| name.strip_prefix("cluster-"));
        format!("{}-{role}", name.expect("the bed is called so"))
    }

    /// The network namespace of a pod's container.
    pub(crate) fn netns_of(&self, pod: &Pod) -> PathBuf {
        let listed = printed(self.tasks(pod).arg("list"));
        let line = listed.lines().find(|line| line.starts_with(&pod.container));
        let pid = line.and_then(|line| line.split_whitespace().nth(1));
        PathBuf::from(format!("/proc/{}/ns/net", pid.expect("it runs")))
    }

    /// Has kubectl apply `objects`.
    pub(crate) fn apply(&self, objects: &str) {
        let mut child = Command::new(self.dir.join("kubectl"))
            .args(["apply", "--filename=-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the bed has kubectl");
        let mut stdin = child.stdin.take().expect("it is a pipe");
        stdin.write_all(objects.as_bytes()).expect("it is read");
        drop(stdin);
        assert!(child.wait().expect("it is our child").success());
    }

    /// Names of pods by address.
    pub(crate) fn addresses(&self, selector: &str) -> BTreeMap<IpAddr, String> {
        let pods = self.pods(selector).into_values();
        let by_address = pods.flat_map(|pod| {
            let name = pod.name;
            pod.ips.into_iter().map(move |ip| (ip, name.clone()))
        });
        by_address.collect()
    }

    /// `kubectl tracer` from the control plane's network, its arguments still to come.
    pub(crate) fn plugin(&self) -> Command {
        let link = self.plugins.path().join("kubectl-tracer");
        if !link.exists() {
            symlink(program(), &link).expect("there is room for temporary files");
        }
        let mut command = Command::new(self.dir.join("control"));
        command.arg(link);
        command
    }

    /// `tracer trace WORDS` in the DaemonSet's pod on a node.
    pub(crate) fn tracer_in(&self, node: &str, words: &str) -> Tracer {
        let mut command = self.plugin();
        command.args(["node", node, "--"]);
        Tracer::start_by(command, words)
    }

    /// Has the runtime `pause` or `resume` a pod's container.
    pub(crate) fn task(&self, pod: &Pod, what: &str) {
        printed(self.tasks(pod).args([what, &pod.container]));
    }

    /// The runtime's program for containers that run, on the pod's node, its arguments still to come.
    fn tasks(&self, pod: &Pod) -> Command {
        let ctr = self.dir.with_file_name("bin").join("ctr");
        let mut command = Command::new(self.dir.join(&pod.node));
        command.arg(ctr).args(["--namespace", "k8s.io", "tasks"]);
        command
    }

    /// Runs `words` in a pod's container by the runtime alone.
    pub(crate) fn exec_by_runtime(&self, pod: &Pod, words: &str) {
        printed(self.in_container(pod).args(words.split(' ')));
    }

    /// A program of a pod's container, run there by the runtime, still to come.
    pub(crate) fn in_container(&self, pod: &Pod) -> Command {
        // The runtime wants letters and digits, never twice the same.
        let id = format!("{}{:?}", std::process::id(), Instant::now());
        let id: String = id.chars().filter(char::is_ascii_alphanumeric).collect();
        let mut command = self.tasks(pod);
        command.args(["exec", "--exec-id", &id, &pod.container]);
        command
    }

    /// Sends a component, as `n1-kube-proxy`, the signal that `words` name; or starts it again, by `start` and what
    /// more it is to be told.
    pub(crate) fn component(&self, name: &str, words: &str) {
        printed(Command::new(self.dir.join(name)).args(words.split(' ')));
    }

    /// Ends a component that ends when it is told to, and waits until it has.
    pub(crate) fn end(&self, name: &str) {
        self.component(name, "TERM");
        let pid = fs::read_to_string(self.dir.join("log").join(format!("{name}.pid")));
        let process = Path::new("/proc").join(pid.expect("it was started").trim());
        // One that has ended has no words any more, even before its parent has heard of it.
        let runs = || fs::read(process.join("cmdline")).is_ok_and(|words| !words.is_empty());
        let deadline = Instant::now() + Duration::from_secs(30);
        while runs() {
            assert!(Instant::now() < deadline, "{name} does not end");
            sleep(Duration::from_millis(50));
        }
    }

    /// What a shell's `script` printed on a node; it must succeed.
    pub(crate) fn sh(&self, node: &str, script: &str) -> String {
        printed(self.bounded(node).args(["sh", "-ec", script]))
    }

    /// A file of those that the cluster was made from, by its name in tests/bed.
    pub(crate) fn bed_file(name: &str) -> String {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/bed");
        fs::read_to_string(dir.join(name)).expect("it is committed")
    }

    /// The kubeconfig of who may do everything.
    pub(crate) fn admin(&self) -> PathBuf {
        self.dir.join("admin.conf")
    }

    /// The tracer on a node, its arguments still to come.
    pub(crate) fn tracer_on(&self, node: &str) -> Command {
        let mut command = Command::new(self.dir.join(node));
        command.arg(program());
        command
    }

    /// Pods by name, less those that are to go, which may be listed long after; `selector` is kubectl's, options and
    /// all.
    pub(crate) fn pods(&self, selector: &str) -> BTreeMap<String, Pod> {
        let listed = self.kubectl(&format!("get pods {selector} -o json"));
        let listed: Value = serde_json::from_str(&listed).expect("kubectl prints JSON");
        let items = listed["items"].as_array().expect("it is a list");
        let pods: BTreeMap<_, _> = items
            .iter()
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .map(pod)
            .map(|pod| (pod.name.clone(), pod))
            .collect();
        assert!(!pods.is_empty(), "no pod is {selector}");
        pods
    }

    /// The one client pod of a node.
    pub(crate) fn client(&self, node: &str) -> Pod {
        let selector = format!("-n shop -l app=client --field-selector spec.nodeName={node}");
        let mut pods = self.pods(&selector).into_values();
        let client = pods.next().expect("a DaemonSet runs on each node");
        assert!(pods.next().is_none());
        client
    }
}

/// Something that a pod does again and again.
pub(crate) struct Load {
    child: Child,
    lines: JoinHandle<Vec<String>>,
}

impl Load {
    /// `words`, of a shell, ten times a second.
    pub(crate) fn start(cluster: &Cluster, pod: &Pod, words: &str) -> Self {
        let script = format!("while ! [ -e /stop ]; do {words}; sleep 0.1; done; rm /stop");
        let mut child = Command::new(cluster.dir.join("kubectl"))
            .args(["exec", "-n", &pod.namespace, &pod.name, "--", "sh", "-c"])
            .arg(script)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the bed has kubectl");
        let out = child.stdout.take().expect("it is a pipe");
        let lines = spawn(move || {
            let lines = BufReader::new(out).lines().map_while(Result::ok);
            lines.collect()
        });
        sleep(Duration::from_secs(1));
        Self { child, lines }
    }

    /// Ends it; the lines that it printed.
    pub(crate) fn stop(mut self, cluster: &Cluster, pod: &Pod) -> Vec<String> {
        cluster.kubectl(&format!(
            "exec -n {} {} -- touch /stop",
            pod.namespace, pod.name
        ));
        self.child.wait().expect("it is our child");
        self.lines.join().expect("it reads")
    }
}

/// A time without API server; it is brought back on drop.
pub(crate) struct Outage<'a>(&'a Cluster);

impl<'a> Outage<'a> {
    /// Ends the API server.
    pub(crate) fn begin(cluster: &'a Cluster) -> Self {
        // A signal that it could act on would let watches go on.
        cluster.component("control-kube-apiserver", "KILL");
        let deadline = Instant::now() + Duration::from_secs(20);
        while cluster.answers() {
            assert!(Instant::now() < deadline, "the API server does not end");
            sleep(Duration::from_millis(100));
        }
        Self(cluster)
    }

    /// Brings it back, and waits until it is ready.
    pub(crate) fn end(self) {
        drop(self);
    }
}

impl Drop for Outage<'_> {
    fn drop(&mut self) {
        self.0.component("control-kube-apiserver", "start");
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.0.answers() && Instant::now() < deadline {
            sleep(Duration::from_millis(200));
        }
        // Each of its watches that failed is tried again later and later, up to a minute: a new one begins at once.
        let manager = "control-kube-controller-manager";
        self.0.end(manager);
        self.0.component(manager, "start");
    }
}

impl Cluster {
    /// Whether the API server is ready.
    fn answers(&self) -> bool {
        let mut command = Command::new("timeout");
        command.arg("5").arg(self.dir.join("kubectl"));
        let output = command.args(["get", "--raw", "/readyz"]).output();
        output.is_ok_and(|output| output.status.success())
    }
}

/// Has the tier show `what` came of a test.
pub(crate) fn shown(what: &str) {
    // Not by `eprintln!`, which libtest keeps for itself.
    let said = writeln!(std::io::stderr(), "shown: {what}");
    assert!(said.is_ok(), "standard error is open");
}

fn pod(object: &Value) -> Pod {
    let text = |value: &Value| value.as_str().expect("the pod runs").to_owned();
    let ips = object["status"]["podIPs"].as_array().expect("the pod runs");
    let container = &object["status"]["containerStatuses"][0]["containerID"];
    let container = text(container);
    Pod {
        namespace: text(&object["metadata"]["namespace"]),
        name: text(&object["metadata"]["name"]),
        uid: text(&object["metadata"]["uid"]),
        node: text(&object["spec"]["nodeName"]),
        ips: ips
            .iter()
            .map(|ip| text(&ip["ip"]).parse().expect("it is an address"))
            .collect(),
        container: container.replace("containerd://", ""),
    }
}

fn printed(command: &mut Command) -> String {
    let output = command.output().expect("timeout is installed");
    let [out, err] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{command:?}: {out}{err}");
    out
}
