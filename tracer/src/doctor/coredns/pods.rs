//! CoreDNS's pods: whether they run, and if not, why: from what the API server says of them, from
//! the last lines of their logs, and on the node from /var/log/pods when the API server is away.

mod cause;

use self::cause::{cause_of_log, cause_of_pod};
use super::{
    Answer, Check, LABEL, Problem, Seen,
    corefile::{Corefile, Plugin},
    objects::deployment,
};
use crate::{cluster::objects::PodObject, doctor::causes, model::Severity};

pub(super) const PODS: Check = Check {
    name: "coredns_pods",
    subject: "coredns",
    why: "without a pod of CoreDNS that is ready no name resolves in the cluster",
    run: pods,
};

pub(super) const MEMORY: Check = Check {
    name: "coredns_memory",
    subject: "coredns",
    why: "CoreDNS holds all pods and Services in memory; beyond its limit the kernel ends it, and it begins anew with nothing",
    run: memory,
};

/// Where the kubelet keeps containers' logs.
const LOGS: &str = "/var/log/pods";

/// Lines at the end of a log that are read.
const TAIL: usize = 40;

pub(super) fn is_coredns(pod: &PodObject) -> bool {
    let label = pod.labels.get(LABEL.0);
    pod.namespace == "kube-system" && label.is_some_and(|value| value == LABEL.1)
}

fn pods(seen: &Seen) -> Answer {
    let pods = match seen.objects.as_ref().map(|objects| &objects.pods) {
        Ok(Ok(pods)) => pods,
        Ok(Err(why)) | Err(why) => return on_this_node(seen, why),
    };
    let pods: Vec<_> = pods.iter().filter(|pod| is_coredns(pod)).collect();
    if pods.is_empty() {
        return Answer::Fails(vec![Problem {
            severity: Severity::Broken,
            follows: causes::NO_OBJECT,
            object: "CoreDNS's pods".to_owned(),
            sentence: format!(
                "do not exist: no pod of kube-system has the label {}={}",
                LABEL.0, LABEL.1
            ),
            evidence: Vec::new(),
            remedy: "kubectl -n kube-system describe deployment coredns tells why none is created"
                .to_owned(),
        }]);
    }
    let ready = pods.iter().filter(|pod| pod.ready).count();
    let mut problems: Vec<Problem> = Vec::new();
    for pod in pods.iter().filter(|pod| !pod.ready) {
        let mut problem = cause_of_pod(seen, pod);
        if ready > 0 {
            problem.severity = Severity::Warning;
        }
        // Pods of one Deployment fail for one reason.
        match problems
            .iter_mut()
            .find(|told| told.sentence == problem.sentence)
        {
            Some(told) => told.evidence.extend(problem.evidence),
            None => problems.push(problem),
        }
    }
    for pod in pods.iter().filter(|pod| pod.ready) {
        let ended = pod
            .containers
            .iter()
            .filter_map(|container| container.ended.as_ref());
        let ended: Vec<_> = ended.filter(|(reason, ..)| reason == "OOMKilled").collect();
        if !ended.is_empty() {
            problems.push(Problem {
                severity: Severity::Warning,
                follows: &[],
                object: format!("Pod kube-system/{}", pod.name),
                sentence: "was ended by the kernel for want of memory, and runs again".to_owned(),
                evidence: vec![format!(
                    "restarts: {}",
                    pod.containers
                        .iter()
                        .map(|container| container.restarts)
                        .sum::<i32>()
                )],
                remedy: "raise its limits.memory: kubectl -n kube-system edit deployment coredns"
                    .to_owned(),
            });
        }
    }
    Answer::of(problems, || {
        let names: Vec<_> = pods.iter().map(|pod| pod.name.as_str()).collect();
        format!("{ready} of {} ready: {}", pods.len(), names.join(", "))
    })
}

/// What this node's own files say, when nobody else does.
fn on_this_node(seen: &Seen, why: &str) -> Answer {
    let pods = seen.root.list(LOGS);
    let pods: Vec<_> = pods
        .iter()
        .filter(|name| name.starts_with("kube-system_coredns-"))
        .collect();
    if pods.is_empty() {
        return Answer::Unknown(format!("{why}; no pod of CoreDNS has run on this node"));
    }
    let (mut problems, mut said) = (Vec::<Problem>::new(), Vec::new());
    for pod in pods {
        let dir = format!("{LOGS}/{pod}/coredns");
        // 0.log, 1.log, …: one for each start.
        let files = seen.root.list(&dir);
        let number = |name: &String| name.strip_suffix(".log")?.parse::<u32>().ok();
        let Some(last) = files.iter().filter_map(number).max() else {
            continue;
        };
        let text = seen
            .root
            .read(&format!("{dir}/{last}.log"))
            .unwrap_or_default();
        let lines: Vec<_> = text.lines().map(message).collect();
        let lines = &lines[lines.len().saturating_sub(TAIL)..];
        let name = pod.split('_').nth(1).unwrap_or(pod);
        match cause_of_log(seen, lines) {
            Some(mut problem) => {
                problem.object = format!("Pod kube-system/{name}");
                problem.evidence.push(format!("{dir}/{last}.log"));
                problems.push(problem);
            }
            None => said.push(format!("{name}'s log tells of nothing wrong")),
        }
    }
    Answer::of(problems, || format!("{}; {why}", said.join("; ")))
}

/// A line of a container's log without its time, stream and tag (the format that CRI prescribes).
fn message(line: &str) -> &str {
    line.splitn(4, ' ').nth(3).unwrap_or(line)
}

/// MiB that CoreDNS needs with its default settings, and with autopath: it holds pods and Services
/// (<https://github.com/coredns/deployment/blob/master/kubernetes/Scaling_CoreDNS.md>).
fn needed_mib(pods: u64, services: u64, autopath: bool) -> u64 {
    if autopath {
        (pods + services) / 250 + 56
    } else {
        (pods + services) / 1000 + 54
    }
}

/// MiB more that a cache needs which is to hold more than the usual number of answers; for those 30 MiB are in what
/// was published.
fn more_for_cache(file: &Corefile) -> u64 {
    let caches = file.servers.iter().flat_map(|server| &server.plugins);
    let caches = caches.filter(|plugin| plugin.name == "cache");
    let capacity = |cache: &Plugin, kind: &str| {
        let mut options = cache.options.iter();
        let option = options.find(|option| option.name == kind)?;
        option.args.first()?.parse::<u64>().ok()
    };
    let more = caches.flat_map(|cache| {
        ["success", "denial"].map(|kind| {
            capacity(cache, kind)
                .unwrap_or(CACHED)
                .saturating_sub(CACHED)
        })
    });
    more.sum::<u64>() * 30 / (2 * CACHED)
}

/// Answers that a cache holds of either kind, good ones and denials, where nothing else is said (plugin/cache).
const CACHED: u64 = 9984;

/// Share of the limit, in percent, from which on what is in use is a warning.
const NEARLY: u64 = 90;

/// The most memory that one of CoreDNS's pods uses, in MiB, by its own metrics.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a process's memory, in MiB, is far below 2^52"
)]
fn used_mib(seen: &Seen) -> Option<u64> {
    let pages = seen
        .http
        .iter()
        .filter(|(port, _)| port.ends_with(":9153/metrics"));
    let used = pages.filter_map(|(_, page)| {
        let mut lines = page.as_ref().ok()?.body.lines();
        let bytes = lines.find_map(|line| line.strip_prefix("process_resident_memory_bytes "))?;
        Some((bytes.parse::<f64>().ok()? / f64::from(1 << 20)) as u64)
    });
    used.max()
}

fn memory(seen: &Seen) -> Answer {
    let objects = match &seen.objects {
        Ok(objects) => objects,
        Err(why) => return Answer::Unknown(why.clone()),
    };
    let (pods, services) = match (&objects.pod_count, &objects.service_count) {
        (Ok(pods), Ok(services)) => (*pods, *services),
        (Err(why), _) | (_, Err(why)) => return Answer::Unknown(why.clone()),
    };
    let workload = match deployment(objects) {
        Ok(Some(workload)) => workload,
        Ok(None) => return Answer::Unknown("there is no CoreDNS".to_owned()),
        Err(why) => return Answer::Unknown(why),
    };
    let maps = objects.config_maps.as_ref().ok();
    let corefile = maps.and_then(|maps| maps.get("coredns")?.get("Corefile"));
    let autopath = corefile.is_some_and(|text| text.contains("autopath"));
    let file = corefile
        .map(|text| Corefile::parse(text))
        .unwrap_or_default();
    let needed = needed_mib(pods, services, autopath) + more_for_cache(&file);
    let used = used_mib(seen);
    let uses = used.map_or_else(String::new, |used| format!("; one uses {used} MiB"));
    let counted = format!("{pods} pods and {services} Services need {needed} MiB{uses}");
    let limit = workload
        .containers
        .first()
        .and_then(|container| container.memory_limit);
    let Some(limit) = limit else {
        return Answer::Holds(format!("{counted}; no limit is set"));
    };
    let limit = limit >> 20;
    // Pods that were started with another limit use what they use.
    if let Some(used) =
        used.filter(|used| *used <= limit && used * 100 >= limit * NEARLY && limit >= needed)
    {
        return Answer::Fails(vec![Problem {
            severity: Severity::Warning,
            follows: &[],
            object: format!("Deployment kube-system/{}", workload.name),
            sentence: format!(
                "uses nearly all of its memory: {used} of {limit} MiB; beyond it the kernel ends the pod"
            ),
            evidence: vec![format!("{counted}; the limit is {limit} MiB")],
            remedy: format!(
                "kubectl -n kube-system set resources deployment {} --limits=memory={}Mi",
                workload.name,
                needed.max(used) * 3 / 2
            ),
        }]);
    }
    if limit >= needed {
        return Answer::Holds(format!("{counted}; the limit is {limit} MiB"));
    }
    Answer::Fails(vec![Problem {
        severity: Severity::Warning,
        follows: &[],
        object: format!("Deployment kube-system/{}", workload.name),
        sentence: "has a memory limit below what a cluster of this size needs".to_owned(),
        evidence: vec![format!("{counted}; the limit is {limit} MiB")],
        remedy: format!(
            "kubectl -n kube-system set resources deployment {} --limits=memory={}Mi",
            workload.name,
            needed * 3 / 2
        ),
    }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::objects::{Container, ContainerSpec, Workload},
        doctor::cni::fixtures,
    };

    fn pod(name: &str, container: Container) -> PodObject {
        PodObject {
            namespace: "kube-system".to_owned(),
            name: name.to_owned(),
            labels: [("k8s-app".to_owned(), "kube-dns".to_owned())].into(),
            node: Some("n1".to_owned()),
            phase: "Running".to_owned(),
            containers: vec![container],
            ..PodObject::default()
        }
    }

    fn crashed(log: &str) -> Container {
        Container {
            name: "coredns".to_owned(),
            restarts: 4,
            waiting: Some(("CrashLoopBackOff".to_owned(), "back-off 1m20s".to_owned())),
            ended: Some(("Error".to_owned(), 1, String::new())),
            log: vec![log.to_owned()],
        }
    }

    fn said(pods: Vec<PodObject>) -> String {
        let mut node = fixtures::flannel();
        node.write("etc/resolv.conf", "nameserver 127.0.0.53\n");
        node.seen.objects.as_mut().unwrap().pods = Ok(pods);
        match super::pods(&node.seen) {
            Answer::Fails(problems) => problems
                .iter()
                .map(|problem| format!("{}: {}", problem.object, problem.sentence))
                .collect::<Vec<_>>()
                .join("\n"),
            other => format!("{other:?}"),
        }
    }

    /// Lines of CoreDNS 1.11 to 1.15, as its plugins write them.
    #[test]
    fn why_it_crashes_is_read_from_its_last_lines() {
        let check = |log: &str, expected: &str| {
            let said = said(vec![pod("coredns-1", crashed(log))]);
            assert!(said.contains(expected), "{said}");
        };
        check(
            "[FATAL] plugin/loop: Loop (127.0.0.1:55953 -> :53) detected for zone \".\", see https://coredns.io/plugins/loop#troubleshooting. Query: \"HINFO 45473 66.\"",
            "forwards to itself",
        );
        check(
            "/etc/coredns/Corefile:7 - Error during parsing: Unknown directive 'kubernets'",
            "line 7 of Corefile",
        );
        check(
            "Listen: listen tcp :53: bind: permission denied",
            "may not bind port 53",
        );
    }

    #[test]
    fn memory_is_told_from_the_containers_state() {
        let mut container = crashed("");
        container.ended = Some(("OOMKilled".to_owned(), 137, String::new()));
        assert!(said(vec![pod("coredns-1", container)]).contains("memory"));
    }

    #[test]
    fn pods_of_one_reason_are_one_problem() {
        let loops =
            || crashed("[FATAL] plugin/loop: Loop (127.0.0.1:1 -> :53) detected for zone \".\"");
        let said = said(vec![pod("coredns-1", loops()), pod("coredns-2", loops())]);
        assert_eq!(said.lines().count(), 1, "{said}");
    }

    #[test]
    fn a_pod_that_nobody_schedules_names_the_reason() {
        let mut pending = pod("coredns-1", Container::default());
        pending.node = None;
        pending.phase = "Pending".to_owned();
        pending.containers.clear();
        pending.unscheduled = Some(
            "0/1 nodes are available: 1 node(s) had untolerated taint(s). no new claims".to_owned(),
        );
        assert!(said(vec![pending]).contains("taint"));
    }

    #[test]
    fn without_an_api_server_the_nodes_logs_tell() {
        let mut node = fixtures::flannel();
        node.seen.objects = Err("connection refused".to_owned());
        assert_eq!(super::pods(&node.seen).verdict(), "unknown");
        let log = "2026-01-01T00:00:00.0Z stderr F [FATAL] plugin/loop: Loop (127.0.0.1:1 -> :53) detected for zone \".\"\n";
        node.write("var/log/pods/kube-system_coredns-abc_uid/coredns/0.log", "");
        node.write(
            "var/log/pods/kube-system_coredns-abc_uid/coredns/3.log",
            log,
        );
        let Answer::Fails(problems) = super::pods(&node.seen) else {
            panic!("it loops");
        };
        assert_eq!(problems[0].object, "Pod kube-system/coredns-abc");
    }

    #[test]
    fn a_limit_below_the_published_sizing_is_a_warning() {
        let mut node = fixtures::flannel();
        let objects = node.seen.objects.as_mut().unwrap();
        let container = ContainerSpec {
            memory_limit: Some(70 << 20),
            ..ContainerSpec::default()
        };
        objects.workloads = Ok(vec![Workload {
            kind: "Deployment",
            namespace: "kube-system".to_owned(),
            name: "coredns".to_owned(),
            containers: vec![container],
            ..Workload::default()
        }]);
        assert_eq!(memory(&node.seen).verdict(), "good");
        node.seen.objects.as_mut().unwrap().pod_count = Ok(50_000);
        assert_eq!(memory(&node.seen).verdict(), "warning");
        // A cache for ten times as many answers.
        let objects = node.seen.objects.as_mut().unwrap();
        objects.pod_count = Ok(10);
        let corefile = ".:53 {\n  cache 30 {\n    success 99840\n  }\n}\n".to_owned();
        let map = [("Corefile".to_owned(), corefile)].into();
        objects.config_maps = Ok([("coredns".to_owned(), map)].into());
        assert_eq!(memory(&node.seen).verdict(), "warning");
        node.seen.objects.as_mut().unwrap().config_maps = Ok(std::collections::BTreeMap::new());
        assert_eq!(memory(&node.seen).verdict(), "good");
        let page = crate::doctor::seen::http::Page {
            status: 200,
            body: "process_resident_memory_bytes 6.9e+07\n".to_owned(),
        };
        let port = "10.244.1.2:9153/metrics".to_owned();
        node.seen.http.insert(port, Ok(page));
        assert_eq!(memory(&node.seen).verdict(), "warning");
    }
}
