//! The cluster that `cargo xtask test cluster` has brought up: its objects, programs on its nodes.
//!
//! Knows it only through `kubectl` and the nodes' own view; every command is bounded.

use std::collections::BTreeMap;
use std::env;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support::program;

/// Where the cluster is.
pub(crate) struct Cluster {
    dir: PathBuf,
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
        Self { dir: dir.into() }
    }

    /// What `kubectl WORDS` printed; it must succeed.
    pub(crate) fn kubectl(&self, words: &str) -> String {
        let mut command = Command::new("timeout");
        command.arg("60").arg(self.dir.join("kubectl"));
        printed(command.args(words.split(' ')))
    }

    /// What `words` printed on a node; they must succeed.
    pub(crate) fn on(&self, node: &str, words: &str) -> String {
        let mut command = Command::new("timeout");
        command.arg("60").arg(self.dir.join(node));
        printed(command.args(words.split(' ')))
    }

    /// The tracer on a node, its arguments still to come.
    pub(crate) fn tracer_on(&self, node: &str) -> Command {
        let mut command = Command::new(self.dir.join(node));
        command.arg(program());
        command
    }

    /// Pods by name; `selector` is kubectl's, options and all.
    pub(crate) fn pods(&self, selector: &str) -> BTreeMap<String, Pod> {
        let listed = self.kubectl(&format!("get pods {selector} -o json"));
        let listed: Value = serde_json::from_str(&listed).expect("kubectl prints JSON");
        let items = listed["items"].as_array().expect("it is a list");
        let pods: BTreeMap<_, _> = items
            .iter()
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
