//! The process, and what it was told: mode, the node's name, how to reach the API server.

use std::net::{SocketAddr, ToSocketAddrs as _};

use serde_json::Value;

use super::{Answer, Check, NAME, Problem, Root, Seen};
use crate::{doctor::seen::process::Process, model::Severity};

pub(super) const PROCESS: Check = Check {
    name: "kube_proxy_process",
    subject: "kube_proxy",
    why: "without it rules stay as they are: new Services are not reached, and old ones lead to pods that are gone",
    run: process,
};

pub(super) const MODE: Check = Check {
    name: "kube_proxy_mode",
    subject: "kube_proxy",
    why: "where it runs in another mode than it was told, what was tuned for that mode has no effect",
    run: mode,
};

pub(super) const HOSTNAME: Check = Check {
    name: "kube_proxy_hostname",
    subject: "kube_proxy",
    why: "it tells this node's endpoints by the Node's name; under another name no endpoint is local, and externalTrafficPolicy: Local drops everything",
    run: hostname,
};

pub(super) const KUBECONFIG: Check = Check {
    name: "kube_proxy_kubeconfig",
    subject: "kube_proxy",
    why: "without the API server it learns of no change",
    run: kubeconfig,
};

/// The process's configuration file (`--config`), as it sees it; `Null` without one.
pub(in crate::doctor) fn config(root: &Root, process: &Process) -> Value {
    let Some(path) = process.flag("config") else {
        return Value::Null;
    };
    // In a container its root is another.
    let inside = format!("/proc/{}/root{path}", process.pid);
    root.yaml(&inside)
        .or_else(|_| root.yaml(path))
        .unwrap_or_default()
}

/// Path and text of the process's kubeconfig.
///
/// # Errors
/// In words: none is named, or it cannot be read.
pub(in crate::doctor) fn kubeconfig_of(
    root: &Root,
    process: &Process,
) -> Result<(String, Value), String> {
    let config = config(root, process);
    let named = process.flag("kubeconfig");
    let named = named.or_else(|| config["clientConnection"]["kubeconfig"].as_str());
    let path = named.filter(|path| !path.is_empty());
    let path = path.ok_or("neither --kubeconfig nor its configuration names one")?;
    let inside = format!("/proc/{}/root{path}", process.pid);
    let value = root.yaml(&inside).or_else(|_| root.yaml(path))?;
    Ok((path.to_owned(), value))
}

/// The address of the API server in a kubeconfig.
pub(in crate::doctor) fn server(kubeconfig: &Value) -> Option<(String, SocketAddr)> {
    let url = kubeconfig["clusters"][0]["cluster"]["server"].as_str()?;
    let host = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))?;
    let host = host.split('/').next()?;
    let host = if host.ends_with(']') || !host.contains(':') {
        format!("{host}:443")
    } else {
        host.to_owned()
    };
    Some((url.to_owned(), host.to_socket_addrs().ok()?.next()?))
}

/// The text of the ConfigMap that the DaemonSet mounts, as plain values.
fn config_map(seen: &Seen) -> Option<Value> {
    let maps = seen.objects.as_ref().ok()?.config_maps.as_ref().ok()?;
    crate::doctor::root::yaml(maps.get(NAME)?.get("config.conf")?).ok()
}

fn process(seen: &Seen) -> Answer {
    if let Some(process) = seen.process(NAME) {
        return Answer::Holds(format!("runs as process {}", process.pid));
    }
    if let Some(why) = seen.unplaced(NAME) {
        return Answer::Unknown(why);
    }
    let replaced = seen
        .process("cilium-agent")
        .or_else(|| seen.process("kube-router"));
    let workloads = seen
        .objects
        .as_ref()
        .ok()
        .and_then(|objects| objects.workloads.as_ref().ok());
    let mut daemon_sets = workloads.into_iter().flatten();
    let daemon_set = daemon_sets.find(|workload| workload.name == NAME);
    if let (Some(by), None) = (replaced, daemon_set) {
        return Answer::Holds(format!("does not run here: {} does its work", by.comm));
    }
    let evidence = match daemon_set {
        Some(set) => format!(
            "DaemonSet kube-system/kube-proxy has {} of {} pods ready",
            set.ready, set.wanted
        ),
        None => "no DaemonSet of that name is known".to_owned(),
    };
    let remedy = match daemon_set {
        Some(_) => {
            "kubectl -n kube-system get pods -l k8s-app=kube-proxy -o wide; kubectl -n kube-system rollout restart ds/kube-proxy"
        }
        None => "start it: systemctl start kube-proxy, or kubeadm init phase addon kube-proxy",
    };
    Answer::Fails(vec![Problem {
        severity: Severity::Broken,
        follows: &[],
        object: NAME.to_owned(),
        sentence: "does not run on this node".to_owned(),
        evidence: vec![
            "no process of the node's network is called kube-proxy".to_owned(),
            evidence,
        ],
        remedy: remedy.to_owned(),
    }])
}

fn absent(seen: &Seen) -> Answer {
    let why = seen.unplaced(NAME);
    Answer::Unknown(why.unwrap_or_else(|| "kube-proxy does not run here".to_owned()))
}

/// The mode that it says it runs in.
pub(super) fn mode_found(seen: &Seen) -> Result<String, String> {
    match seen.http.get("127.0.0.1:10249/proxyMode") {
        Some(Ok(page)) => Ok(page.body.trim().to_owned()),
        Some(Err(why)) => Err(format!("its mode cannot be asked: {why}")),
        None => Err("its mode was not asked".to_owned()),
    }
}

fn mode(seen: &Seen) -> Answer {
    let Some(process) = seen.process(NAME) else {
        return absent(seen);
    };
    let config = config(&seen.root, process);
    let flag = process.flag("proxy-mode").map(str::to_owned);
    let file = config["mode"].as_str().map(str::to_owned);
    // A configuration file counts alone (cmd/kube-proxy/app/options.go).
    let asked = if config.is_null() { flag } else { file };
    let asked = asked.filter(|mode| !mode.is_empty());
    let found = match mode_found(seen) {
        Ok(found) => found,
        Err(why) => return Answer::Unknown(why),
    };
    let mut problems = Vec::new();
    if let Some(asked) = asked.as_ref().filter(|asked| **asked != found) {
        problems.push(Problem {
            severity: Severity::Warning,
            follows: &[],
            object: NAME.to_owned(),
            sentence: format!("runs in mode {found}, and was told {asked}"),
            evidence: vec![format!("127.0.0.1:10249/proxyMode says {found}")],
            remedy: "its log's first lines tell why; the kernel may lack that mode's modules"
                .to_owned(),
        });
    }
    let in_map = config_map(seen).and_then(|map| map["mode"].as_str().map(str::to_owned));
    if let Some(in_map) = in_map.filter(|mode| !mode.is_empty() && *mode != found)
        && problems.is_empty()
    {
        problems.push(Problem {
            severity: Severity::Warning,
            follows: &[],
            object: "ConfigMap kube-system/kube-proxy".to_owned(),
            sentence: format!("says {in_map}, and this node's kube-proxy runs in mode {found}"),
            evidence: Vec::new(),
            remedy: "it reads its file at start only: kubectl -n kube-system rollout restart ds/kube-proxy".to_owned(),
        });
    }
    Answer::of(problems, || match asked {
        Some(_) => format!("{found}, as it was told"),
        None => format!("{found}, by default"),
    })
}

pub(super) fn hostname(seen: &Seen) -> Answer {
    let Some(process) = seen.process(NAME) else {
        return absent(seen);
    };
    let Some(node) = seen.this_node() else {
        return Answer::Unknown("which Node this machine is, is not known".to_owned());
    };
    let config = config(&seen.root, process);
    let told = process.flag("hostname-override").map(str::to_owned);
    let told = told.or_else(|| config["hostnameOverride"].as_str().map(str::to_owned));
    let told = told.filter(|name| !name.is_empty());
    let own = seen
        .root
        .read("/proc/sys/kernel/hostname")
        .unwrap_or_default();
    let name = told.clone().unwrap_or(own).trim().to_ascii_lowercase();
    if name == node.name {
        return Answer::Holds(format!("{name}, as the Node is called"));
    }
    let object = if told.is_some() {
        "kube-proxy's --hostname-override"
    } else {
        "this machine's hostname"
    };
    Answer::Fails(vec![Problem {
        severity: Severity::Broken,
        follows: &[],
        object: object.to_owned(),
        sentence: format!(
            "is {name}, and the Node is called {}: no endpoint counts as local",
            node.name
        ),
        evidence: Vec::new(),
        remedy: format!(
            "start kube-proxy with --hostname-override={}, or set hostnameOverride in its configuration",
            node.name
        ),
    }])
}

fn kubeconfig(seen: &Seen) -> Answer {
    let Some(process) = seen.process(NAME) else {
        return absent(seen);
    };
    let (path, _) = match kubeconfig_of(&seen.root, process) {
        Ok(found) => found,
        Err(why) => {
            return Answer::Fails(vec![Problem {
                severity: Severity::Broken,
                follows: &[],
                object: "kube-proxy's kubeconfig".to_owned(),
                sentence: format!("cannot be read: {why}"),
                evidence: vec![process.args.join(" ")],
                remedy: "see that ConfigMap kube-system/kube-proxy has the key kubeconfig.conf and that the DaemonSet mounts it".to_owned(),
            }]);
        }
    };
    match &seen.proxy_server {
        Some((url, Ok(()))) => Answer::Holds(format!("{path}: {url} accepts connections")),
        Some((url, Err(why))) => Answer::Fails(vec![Problem {
            severity: Severity::Broken,
            follows: &[],
            object: path,
            sentence: format!("names {url}, which does not answer: kube-proxy learns of no change"),
            evidence: vec![why.clone()],
            remedy:
                "put the API server's address there, or mend the way to it; then restart kube-proxy"
                    .to_owned(),
        }]),
        None => Answer::Holds(format!("{path}; whether its server answers was not asked")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{cni::fixtures, seen::http::Page};

    fn with_proxy(args: &[&str]) -> fixtures::Node {
        let mut node = fixtures::flannel();
        node.run(7, args);
        node
    }

    #[test]
    fn a_proxy_that_does_not_run_is_broken_unless_another_does_its_work() {
        let mut node = fixtures::flannel();
        assert_eq!(process(&node.seen).verdict(), "broken");
        node.seen.processes[0].comm = "cilium-agent".to_owned();
        assert_eq!(process(&node.seen).verdict(), "good");
    }

    #[test]
    fn of_a_proxy_whose_network_nobody_may_see_nothing_is_claimed() {
        let mut node = with_proxy(&["kube-proxy"]);
        for process in &mut node.seen.processes {
            process.here = false;
        }
        for check in [process, hostname, kubeconfig] {
            let Answer::Unknown(why) = check(&node.seen) else {
                panic!("nobody could look");
            };
            assert!(why.contains("CAP_SYS_PTRACE"), "{why}");
        }
    }

    #[test]
    fn the_mode_told_is_compared_with_the_mode_found() {
        let check = |args: &[&str], found: &str, expected: &str| {
            let mut node = with_proxy(args);
            node.write(
                "proc/7/root/config.conf",
                "mode: nftables\nhostnameOverride: n1\n",
            );
            let page = Page {
                status: 200,
                body: found.to_owned(),
            };
            node.seen
                .http
                .insert("127.0.0.1:10249/proxyMode".to_owned(), Ok(page));
            assert_eq!(mode(&node.seen).verdict(), expected);
        };
        check(&["kube-proxy", "--proxy-mode=iptables"], "iptables", "good");
        check(&["kube-proxy", "--proxy-mode=ipvs"], "iptables", "warning");
        check(&["kube-proxy", "--config=/config.conf"], "nftables", "good");
        check(
            &["kube-proxy", "--config=/config.conf"],
            "iptables",
            "warning",
        );
        check(&["kube-proxy"], "iptables", "good");
    }

    #[test]
    fn another_name_than_the_nodes_is_named() {
        let node = with_proxy(&["kube-proxy", "--hostname-override=n1"]);
        assert_eq!(hostname(&node.seen).verdict(), "good");
        let node = with_proxy(&["kube-proxy", "--hostname-override=n1.example"]);
        assert_eq!(hostname(&node.seen).verdict(), "broken");
        let node = with_proxy(&["kube-proxy"]);
        node.write("proc/sys/kernel/hostname", "N1\n");
        assert_eq!(hostname(&node.seen).verdict(), "good");
    }

    #[test]
    fn a_kubeconfig_that_is_missing_or_does_not_answer_is_named() {
        let mut node = with_proxy(&["kube-proxy", "--kubeconfig=/k.conf"]);
        assert_eq!(kubeconfig(&node.seen).verdict(), "broken");
        let text = "clusters:\n- cluster:\n    server: https://192.0.2.10:6443\n";
        node.write("proc/7/root/k.conf", text);
        assert_eq!(kubeconfig(&node.seen).verdict(), "good");
        let url = "https://192.0.2.10:6443".to_owned();
        node.seen.proxy_server = Some((url, Err("connection refused".to_owned())));
        assert_eq!(kubeconfig(&node.seen).verdict(), "broken");
    }

    #[test]
    fn a_servers_port_is_443_unless_it_is_told() {
        let at = |url: &str| {
            let text = format!("clusters: [{{cluster: {{server: \"{url}\"}}}}]");
            server(&crate::doctor::root::yaml(&text).unwrap())
                .unwrap()
                .1
                .to_string()
        };
        assert_eq!(at("https://192.0.2.10"), "192.0.2.10:443");
        assert_eq!(at("https://192.0.2.10:6443/x"), "192.0.2.10:6443");
        assert_eq!(at("https://[2001:db8::1]:6443"), "[2001:db8::1]:6443");
    }
}
