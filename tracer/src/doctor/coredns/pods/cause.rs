//! Why a pod of CoreDNS does not run, in words.

use crate::{
    cluster::objects::{Container, PodObject},
    doctor::{
        Problem, Seen, causes,
        node::resolv::{self, ResolvConf},
    },
    model::Severity,
};

fn broken(sentence: String, evidence: Vec<String>, remedy: String) -> Problem {
    consequence(&[], sentence, evidence, remedy)
}

/// The same, of what one of the checks `follows` finds.
fn consequence(
    follows: &'static [&'static str],
    sentence: String,
    evidence: Vec<String>,
    remedy: String,
) -> Problem {
    Problem {
        severity: Severity::Broken,
        follows,
        object: String::new(),
        sentence,
        evidence,
        remedy,
    }
}

/// Why `pod` is not ready. In this order: nobody schedules it, its network is not set up, its
/// container ended, it runs and is not ready.
pub(super) fn cause_of_pod(seen: &Seen, pod: &PodObject) -> Problem {
    let mut problem = told(seen, pod);
    problem.object = format!("Pod {}/{}", pod.namespace, pod.name);
    let warning = pod.warnings.last();
    if problem.evidence.is_empty() {
        problem.evidence.extend(warning.cloned());
    }
    problem
}

fn told(seen: &Seen, pod: &PodObject) -> Problem {
    if let Some(why) = &pod.unscheduled {
        return pending(seen, why);
    }
    let sandbox = pod
        .warnings
        .iter()
        .rfind(|line| line.starts_with("FailedCreatePodSandBox"));
    if let Some(line) = sandbox
        && pod
            .containers
            .iter()
            .all(|container| container.ended.is_none())
    {
        return consequence(
            causes::NO_NETWORK,
            "gets no network: the CNI plugin fails".to_owned(),
            vec![line.clone()],
            "tracer doctor --only cni on its node".to_owned(),
        );
    }
    for container in &pod.containers {
        if let Some(problem) = ended(seen, container) {
            return problem;
        }
    }
    let mount = pod
        .warnings
        .iter()
        .rfind(|line| line.starts_with("FailedMount"));
    if let Some(line) = mount {
        return consequence(
causes::NO_OBJECT,

            "waits for a volume: what it mounts does not exist".to_owned(),
            vec![line.clone()],
            "kubectl -n kube-system get configmap coredns; kubeadm init phase addon coredns makes it anew".to_owned(),
        );
    }
    let node = pod.node.as_deref().unwrap_or("no node");
    broken(
        format!("is {} on {node} and not ready", pod.phase),
        pod.warnings.iter().rev().take(2).cloned().collect(),
        format!(
            "kubectl -n {} describe pod {}; kubectl -n {} logs {}",
            pod.namespace, pod.name, pod.namespace, pod.name
        ),
    )
}

/// Why nobody schedules it: the scheduler's own words, and what is behind them.
fn pending(seen: &Seen, why: &str) -> Problem {
    let nodes = seen
        .objects
        .as_ref()
        .ok()
        .and_then(|objects| objects.nodes.as_ref().ok());
    let nodes = nodes.into_iter().flatten();
    let cni = nodes.clone().find(|node| {
        let message = node.ready.as_ref().err();
        message.is_some_and(|message| message.contains("cni") || message.contains("NetworkPlugin"))
    });
    if let Some(node) = cni {
        let message = node.ready.clone().err().unwrap_or_default();
        return consequence(
            causes::NO_NETWORK,
            format!("is Pending, for Node {} has no CNI plugin", node.name),
            vec![message],
            format!("tracer doctor --only cni on {}", node.name),
        );
    }
    if why.contains("untolerated taint") {
        let taints = nodes.flat_map(|node| {
            node.taints
                .iter()
                .map(|taint| format!("{}: {taint}", node.name))
        });
        let taints: Vec<_> = taints.collect();
        return broken(
            "is Pending: every node has a taint that it does not tolerate".to_owned(),
            [vec![why.to_owned()], taints].concat(),
            "kubectl taint nodes NODE KEY-, or a toleration in Deployment coredns".to_owned(),
        );
    }
    if why.contains("Insufficient") {
        return broken(
            "is Pending: no node has the processor time or memory it asks for".to_owned(),
            vec![why.to_owned()],
            "free a node, or lower the requests: kubectl -n kube-system edit deployment coredns"
                .to_owned(),
        );
    }
    broken(
        "is Pending: no node suits it".to_owned(),
        vec![why.to_owned()],
        "kubectl -n kube-system describe pod of it, and the nodeSelector, affinity and topology constraints of Deployment coredns".to_owned(),
    )
}

/// Why a container ended, or does not start.
fn ended(seen: &Seen, container: &Container) -> Option<Problem> {
    if let Some((reason, code, message)) = &container.ended
        && reason == "OOMKilled"
    {
        return Some(consequence(
            causes::NO_MEMORY,
            "is ended by the kernel again and again: its memory limit is too low".to_owned(),
            vec![format!(
                "last state OOMKilled, exit code {code}, {} restarts {message}",
                container.restarts
            )],
            "raise limits.memory: kubectl -n kube-system edit deployment coredns".to_owned(),
        ));
    }
    let lines: Vec<_> = container.log.iter().map(String::as_str).collect();
    if let Some(problem) = cause_of_log(seen, &lines) {
        return Some(problem);
    }
    let (reason, message) = container.waiting.as_ref()?;
    match reason.as_str() {
        "CrashLoopBackOff" => Some(broken(
            "starts and ends again and again".to_owned(),
            container.log.iter().rev().take(3).cloned().collect(),
            "kubectl -n kube-system logs --previous of it".to_owned(),
        )),
        "ImagePullBackOff" | "ErrImagePull" | "ErrImageNeverPull" | "InvalidImageName" => Some(broken(
            "waits for its image".to_owned(),
            vec![format!("{reason}: {message}")],
            "see that the node reaches the registry, and that Deployment coredns names an image that exists".to_owned(),
        )),
        "RunContainerError" | "CreateContainerError" | "CreateContainerConfigError" => Some(broken(
            "cannot be started by the runtime: SELinux with an old runtime forbids what allowPrivilegeEscalation: false asks for, or its configuration is wrong".to_owned(),
            vec![format!("{reason}: {message}")],
            "upgrade the runtime; or allowPrivilegeEscalation: true in Deployment coredns".to_owned(),
        )),
        _ => None,
    }
}

/// What the last lines of CoreDNS's log say, the last one first.
pub(super) fn cause_of_log(seen: &Seen, lines: &[&str]) -> Option<Problem> {
    lines.iter().rev().find_map(|line| {
        let evidence = |more: Vec<String>| [vec![(*line).to_owned()], more].concat();
        if line.contains("plugin/loop: Loop") {
            let path = resolv::path(&seen.root);
            let text = seen.root.read(&path).unwrap_or_default();
            let handed = ResolvConf::parse(&text);
            let (by, remedy) = if handed.loopback().is_empty() {
                (
                    "a server in its Corefile, or in the resolv.conf of its node, leads back to it".to_owned(),
                    "see forward in ConfigMap kube-system/coredns, and resolv_conf of tracer doctor on its node".to_owned(),
                )
            } else {
                let servers = handed.nameservers.join(", ");
                (
                    format!("the kubelet hands it {path}, which names {servers}"),
                    resolv::remedy_for_loopback(&seen.root),
                )
            };
            return Some(consequence(
                causes::LOOP,
                format!("forwards to itself: {by}"),
                evidence(Vec::new()),
                remedy,
            ));
        }
        if let Some((place, what)) = line.split_once(" - Error during parsing: ") {
            let number = place.rsplit_once(':').map_or("?", |(_, number)| number);
            return Some(consequence(
causes::COREFILE,

                format!("cannot read line {number} of Corefile: {what}"),
                evidence(Vec::new()),
                "kubectl -n kube-system edit configmap coredns; then kubectl -n kube-system rollout restart deployment coredns".to_owned(),
            ));
        }
        if line.contains("bind: permission denied") {
            return Some(broken(
                "may not bind port 53".to_owned(),
                evidence(Vec::new()),
                "in Deployment coredns: securityContext.capabilities.add: [NET_BIND_SERVICE]; with SELinux and an old runtime allowPrivilegeEscalation: true".to_owned(),
            ));
        }
        if line.contains("is forbidden: User \"system:serviceaccount:") {
            return Some(consequence(
causes::NO_RIGHT,

                "may not read what it serves".to_owned(),
                evidence(Vec::new()),
                "tracer doctor --only coredns_rbac names what its ClusterRole lacks".to_owned(),
            ));
        }
        let api = line.contains(":443") && (line.contains("i/o timeout") || line.contains("connection refused") || line.contains("no route to host"));
        if api {
            return Some(consequence(
causes::NO_API_SERVER,

                "does not reach the API server through the Service kubernetes".to_owned(),
                evidence(Vec::new()),
                "tracer doctor --only kube_proxy and --only cni on its node".to_owned(),
            ));
        }
        None
    })
}
