//! The Corefile: faults by line, and whether what it says can serve this cluster.

use super::{
    Answer, Check, NAME, Problem, Seen,
    corefile::{Corefile, Server},
    node,
};
use crate::model::Severity;

pub(super) const COREFILE: Check = Check {
    name: "corefile",
    subject: "coredns",
    why: "CoreDNS does not start with a Corefile that it cannot read, and with reload goes on with the old one until it is restarted",
    run,
};

fn run(seen: &Seen) -> Answer {
    let objects = match &seen.objects {
        Ok(objects) => objects,
        Err(why) => return Answer::Unknown(why.clone()),
    };
    let text = match &objects.config_maps {
        Ok(maps) => maps.get(NAME).and_then(|map| map.get("Corefile")),
        Err(why) => return Answer::Unknown(why.clone()),
    };
    let Some(text) = text else {
        return Answer::Unknown("ConfigMap kube-system/coredns has no Corefile".to_owned());
    };
    let file = Corefile::parse(text);
    let lines: Vec<_> = text.lines().collect();
    let mut problems: Vec<_> = file
        .faults
        .iter()
        .map(|fault| Problem {
            severity: Severity::Broken,
            follows: &[],
            object: format!("ConfigMap kube-system/coredns, line {} of Corefile", fault.line),
            sentence: format!("{}; CoreDNS does not start with it", fault.what),
            evidence: lines
                .get(fault.line.wrapping_sub(1))
                .map(|line| line.trim().to_owned())
                .into_iter()
                .collect(),
            remedy: "kubectl -n kube-system edit configmap coredns; then kubectl -n kube-system rollout restart deployment coredns".to_owned(),
        })
        .collect();
    let domain = node::kubelet(&seen.root);
    let domain = domain["clusterDomain"].as_str().unwrap_or("cluster.local");
    let domain = domain.trim_end_matches('.').to_ascii_lowercase();
    if problems.is_empty() {
        problems = meaning(&file, &domain);
    }
    Answer::of(problems, || said(&file, &domain))
}

fn said(file: &Corefile, domain: &str) -> String {
    let server = file.server(domain, 53);
    let upstream = file
        .server(".", 53)
        .and_then(|server| server.plugin("forward"));
    let upstream = upstream.map_or("nobody".to_owned(), |forward| forward.args[1..].join(", "));
    let names = server.map_or(0, |server| server.plugins.len());
    format!("{domain} by kubernetes, the rest to {upstream}; {names} plugins")
}

/// What a file without faults can still fail to do.
fn meaning(file: &Corefile, domain: &str) -> Vec<Problem> {
    let Some(server) = file.server(domain, 53) else {
        return vec![problem(
            Severity::Broken,
            1,
            format!("no block serves {domain} on port 53"),
            "put a block .:53 { … } into it",
        )];
    };
    let mut problems = Vec::new();
    let kubernetes = server
        .plugins
        .iter()
        .filter(|plugin| plugin.name == "kubernetes");
    let zones: Vec<_> = kubernetes.flat_map(|plugin| plugin.args.iter()).collect();
    let serves = |zone: &&String| {
        let zone = zone.trim_end_matches('.').to_ascii_lowercase();
        domain == zone || domain.ends_with(&format!(".{zone}"))
    };
    // Without a zone the plugin takes those of its block.
    if server.plugin("kubernetes").is_none() {
        problems.push(problem(
            Severity::Broken,
            server.line,
            format!("the block that answers for {domain} has no plugin kubernetes: no Service resolves"),
            &format!("add kubernetes {domain} in-addr.arpa ip6.arpa {{ pods insecure; fallthrough in-addr.arpa ip6.arpa }}"),
        ));
    } else if !zones.is_empty() && !zones.iter().any(serves) {
        problems.push(problem(
            Severity::Broken,
            server
                .plugin("kubernetes")
                .map_or(server.line, |plugin| plugin.line),
            format!(
                "kubernetes serves {}, and the kubelet tells pods that the domain is {domain}",
                zones[0]
            ),
            &format!("write {domain} there, or set clusterDomain in the kubelet's configuration"),
        ));
    }
    let outside = file.server(".", 53);
    let forward = outside.and_then(|server| server.plugin("forward"));
    match (outside, forward) {
        (Some(outside), Some(forward)) => {
            let loopback = forward.args[1..]
                .iter()
                .find(|to| to.starts_with("127.") || to.as_str() == "::1");
            if let Some(to) = loopback {
                problems.push(problem(
                    Severity::Broken,
                    forward.line,
                    format!("forwards to {to}, which in the pod is CoreDNS itself: a loop"),
                    "name the network's own DNS servers there, or /etc/resolv.conf",
                ));
            }
            let by_file = forward.args[1..].iter().any(|to| to.starts_with('/'));
            if by_file && outside.plugin("loop").is_none() {
                problems.push(problem(
                    Severity::Warning,
                    outside.line,
                    "has no plugin loop: a resolv.conf that names CoreDNS itself would not be noticed, and queries would circle until memory ends".to_owned(),
                    "add a line loop",
                ));
            }
        }
        (Some(outside), None) => problems.push(problem(
            Severity::Warning,
            outside.line,
            "has no plugin forward: names outside the cluster do not resolve".to_owned(),
            "add forward . /etc/resolv.conf",
        )),
        (None, _) => {}
    }
    problems.extend(care(server));
    problems
}

/// A problem at a line, and what to write there.
fn problem(severity: Severity, line: usize, sentence: String, remedy: &str) -> Problem {
    Problem {
        severity,
        follows: &[],
        object: format!("ConfigMap kube-system/coredns, line {line} of Corefile"),
        sentence,
        evidence: Vec::new(),
        remedy: format!("kubectl -n kube-system edit configmap coredns: {remedy}"),
    }
}

/// What serves, and leaves its clients or its keepers alone when something goes wrong.
fn care(server: &Server) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(health) = server.plugin("health") {
        let waits = health
            .options
            .iter()
            .any(|option| option.name == "lameduck");
        if !waits {
            problems.push(problem(
                Severity::Warning,
                health.line,
                "has no lameduck: a pod of CoreDNS that is told to end stops answering at once, while nodes still send it queries".to_owned(),
                "write health { lameduck 5s }",
            ));
        }
    }
    if server.plugin("errors").is_none() {
        problems.push(problem(
            Severity::Warning,
            server.line,
            "has no plugin errors: failing upstream servers leave no line in the log".to_owned(),
            "add a line errors",
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::cni::fixtures;

    fn said_of(corefile: &str) -> Answer {
        let mut node = fixtures::flannel();
        let map = [("Corefile".to_owned(), corefile.to_owned())].into();
        let maps = [(NAME.to_owned(), map)].into();
        node.seen.objects.as_mut().unwrap().config_maps = Ok(maps);
        run(&node.seen)
    }

    fn sentence(corefile: &str) -> String {
        match said_of(corefile) {
            Answer::Fails(problems) => format!("{}: {}", problems[0].object, problems[0].sentence),
            other => format!("{other:?}"),
        }
    }

    const GOOD: &str =
        ".:53 {\n  errors\n  kubernetes cluster.local\n  forward . /etc/resolv.conf\n  loop\n}\n";

    #[test]
    fn a_good_file_tells_who_serves_what() {
        assert_eq!(
            said_of(GOOD),
            Answer::Holds(
                "cluster.local by kubernetes, the rest to /etc/resolv.conf; 4 plugins".to_owned()
            )
        );
    }

    #[test]
    fn a_fault_is_told_with_its_line() {
        let said = sentence(&GOOD.replace("forward", "proxy"));
        assert!(
            said.starts_with(
                "ConfigMap kube-system/coredns, line 4 of Corefile: plugin proxy was removed"
            ),
            "{said}"
        );
    }

    #[test]
    fn a_file_that_cannot_serve_the_cluster_is_told() {
        let check = |from: &str, to: &str, expected: &str| {
            let said = sentence(&GOOD.replace(from, to));
            assert!(said.contains(expected), "{said}");
        };
        check(
            "kubernetes cluster.local\n",
            "whoami\n",
            "no Service resolves",
        );
        check(
            "cluster.local",
            "cluster.test",
            "the domain is cluster.local",
        );
        check("/etc/resolv.conf", "127.0.0.53", "a loop");
        check("  loop\n", "", "has no plugin loop");
        check("  errors\n", "", "has no plugin errors");
        check("  loop\n", "  loop\n  health\n", "has no lameduck");
        check(".:53", ".:1053", "no block serves cluster.local on port 53");
    }
}
