//! The plugin's daemon on this node: whether it runs, and what its own ports say.

use super::{Answer, Check, Problem, Seen, plugin, plugin::Plugin};
use crate::model::Severity;

pub(super) const DAEMON: Check = Check {
    name: "cni_daemon",
    subject: "cni",
    why: "old pods go on without it for a while, but new pods and new nodes are not connected, and the Node stays Ready",
    run,
};

/// What a plugin runs on each node.
struct Daemon {
    /// Names of its processes, each of which must run.
    comms: &'static [&'static str],
    /// What its DaemonSet's name begins with.
    workload: &'static str,
    /// What stops when it does.
    loss: &'static str,
    severity: Severity,
    /// Local ports to ask, with the path.
    ports: &'static [&'static str],
}

fn daemon(plugin: Plugin) -> Option<Daemon> {
    Some(match plugin {
        Plugin::Flannel => Daemon {
            comms: &["flanneld"],
            workload: "kube-flannel",
            loss: "traffic goes on, but new nodes are not learned and lost routes are not mended",
            severity: Severity::Warning,
            ports: &["127.0.0.1:8081/healthz"],
        },
        Plugin::Calico => Daemon {
            comms: &["calico-node"],
            workload: "calico-node",
            loss: "a new pod is Running, but its packets are dropped",
            severity: Severity::Broken,
            ports: &["127.0.0.1:9099/readiness"],
        },
        Plugin::Weave => Daemon {
            comms: &["weaver", "weave-npc"],
            workload: "weave-net",
            loss: "new pods get no address, or nothing may connect to them",
            severity: Severity::Broken,
            ports: &[],
        },
        Plugin::Cilium => Daemon {
            comms: &["cilium-agent"],
            workload: "cilium",
            loss: "new pods get no network",
            severity: Severity::Broken,
            ports: &[],
        },
        Plugin::Kindnet => Daemon {
            comms: &["kindnetd"],
            workload: "kindnet",
            loss: "routes to new nodes are not laid",
            severity: Severity::Warning,
            ports: &[],
        },
        Plugin::KubeRouter => Daemon {
            comms: &["kube-router"],
            workload: "kube-router",
            loss: "routes to other nodes are withdrawn",
            severity: Severity::Broken,
            ports: &[],
        },
        Plugin::Bridge => return None,
    })
}

fn run(seen: &Seen) -> Answer {
    let Some((plugin, _)) = plugin::plugin(seen) else {
        return Answer::Unknown("which plugin it would be is not known".to_owned());
    };
    let Some(daemon) = daemon(plugin) else {
        return Answer::Holds(format!("{plugin} has none"));
    };
    let missing: Vec<_> = daemon
        .comms
        .iter()
        .filter(|comm| seen.process(comm).is_none())
        .copied()
        .collect();
    if missing.is_empty() {
        return healthy(seen, &daemon);
    }
    if let Some(why) = missing.iter().find_map(|comm| seen.unplaced(comm)) {
        return Answer::Unknown(why);
    }
    let missing = missing.join(" and ");
    let workload = seen
        .objects
        .iter()
        .flat_map(|objects| objects.workloads.iter().flatten());
    let workload = workload
        .filter(|workload| workload.kind == "DaemonSet")
        .find(|workload| workload.name.starts_with(daemon.workload));
    let logs = seen.root.list("/var/log/pods");
    let log = logs
        .iter()
        .find(|name| name.contains(&format!("_{}", daemon.workload)));
    // Logs outlive their pod for a while.
    let meant = match (workload, log) {
        (Some(workload), _) => format!(
            "DaemonSet {}/{} has {} of {} pods ready",
            workload.namespace, workload.name, workload.ready, workload.wanted
        ),
        (None, _)
            if seen
                .objects
                .as_ref()
                .is_ok_and(|objects| objects.workloads.is_ok()) =>
        {
            return Answer::Holds(format!(
                "no {missing} runs and no DaemonSet would run it: what {plugin} lays was laid by somebody else, and stays as it is"
            ));
        }
        (None, Some(log)) => format!("it ran here: /var/log/pods/{log}"),
        (None, None) => {
            return Answer::Unknown(format!(
                "no {missing} runs, and whether it should nobody can tell without the API server"
            ));
        }
    };
    let (namespace, name) = workload.map_or(("NAMESPACE", daemon.workload), |workload| {
        (workload.namespace.as_str(), workload.name.as_str())
    });
    Answer::Fails(vec![Problem {
        severity: daemon.severity,
        follows: &[],
        object: format!("{plugin}'s {missing}"),
        sentence: format!("does not run on this node: {}", daemon.loss),
        evidence: vec![
            format!("no process of the node's network is called {missing}"),
            meant,
        ],
        remedy: format!(
            "kubectl -n {namespace} logs ds/{name} --previous; kubectl -n {namespace} rollout restart ds/{name}"
        ),
    }])
}

fn healthy(seen: &Seen, daemon: &Daemon) -> Answer {
    let mut said = vec![format!("{} runs", daemon.comms.join(" and "))];
    for port in daemon.ports {
        match seen.http.get(*port) {
            Some(Ok(page)) if page.is_good() => said.push(format!("{port} is good")),
            Some(Ok(page)) => {
                return Answer::Fails(vec![Problem {
                    severity: Severity::Warning,
                    follows: &[],
                    object: (*port).to_owned(),
                    sentence: format!("answers {}: the daemon runs, and is not well", page.status),
                    evidence: page.body.lines().take(5).map(str::to_owned).collect(),
                    remedy: "kubectl logs of the plugin's pod on this node tells why".to_owned(),
                }]);
            }
            // Its port may be another, or off.
            Some(Err(_)) | None => {}
        }
    }
    Answer::Holds(said.join("; "))
}

#[cfg(test)]
mod tests {
    use super::{super::fixtures, *};
    use crate::doctor::seen::http::Page;

    #[test]
    fn a_daemon_that_is_gone_is_broken_where_it_ran() {
        let node = fixtures::calico();
        assert_eq!(run(&node.seen).verdict(), "good");
        let mut node = fixtures::calico();
        node.seen.processes.clear();
        node.write(
            "var/log/pods/kube-system_calico-node-x7k2p_1/calico-node/0.log",
            "",
        );
        // Logs outlive what the API server no longer knows.
        assert_eq!(run(&node.seen).verdict(), "good");
        node.seen.objects = Err("no API server".to_owned());
        let Answer::Fails(problems) = run(&node.seen) else {
            panic!("it is gone");
        };
        assert_eq!(problems[0].object, "Calico's calico-node");
        assert!(problems[0].sentence.contains("dropped"));
    }

    #[test]
    fn weaves_npc_is_missed_by_itself() {
        let mut node = fixtures::weave();
        node.seen
            .processes
            .retain(|process| process.comm != "weave-npc");
        node.write(
            "var/log/pods/kube-system_weave-net-abcde_1/weave-npc/0.log",
            "",
        );
        node.seen.objects = Err("no API server".to_owned());
        let Answer::Fails(problems) = run(&node.seen) else {
            panic!("it is gone");
        };
        assert_eq!(problems[0].object, "Weave Net's weave-npc");
    }

    #[test]
    fn a_daemon_that_says_it_is_not_ready_is_quoted() {
        let mut node = fixtures::calico();
        let page = Page {
            status: 503,
            body: "calico/node is not ready: felix is not ready\n".to_owned(),
        };
        node.seen
            .http
            .insert("127.0.0.1:9099/readiness".to_owned(), Ok(page));
        assert_eq!(run(&node.seen).verdict(), "warning");
    }
}
