//! Whether kube-proxy still writes rules: its health port, its metrics, the errors in its log.

use super::{
    Answer, Check, NAME, Problem, Seen,
    process::{config, hostname},
};
use crate::model::Severity;

pub(super) const HEALTH: Check = Check {
    name: "kube_proxy_health",
    subject: "kube_proxy",
    why: "load balancers ask this port whether the node may have traffic",
    run: health,
};

pub(super) const SYNC: Check = Check {
    name: "kube_proxy_sync",
    subject: "kube_proxy",
    why: "a change that waits to be written leaves traffic going to pods that are gone",
    run: sync,
};

pub(super) const LOG: Check = Check {
    name: "kube_proxy_log",
    subject: "kube_proxy",
    why: "what it cannot do it says there, and nowhere else",
    run: log,
};

/// Longest time that a change may wait, in seconds; kube-proxy syncs each 30 s at the latest.
const LATE: f64 = 60.0;

fn health(seen: &Seen) -> Answer {
    match seen.http.get("127.0.0.1:10256/healthz") {
        Some(Ok(page)) if page.is_good() => {
            Answer::Holds(format!("10256 /healthz answers {}", page.status))
        }
        Some(Ok(page)) => Answer::Fails(vec![Problem {
            severity: Severity::Broken,
            follows: &[],
            object: "127.0.0.1:10256/healthz".to_owned(),
            sentence: format!(
                "answers {}: rules are not written, or the Node is being deleted",
                page.status
            ),
            evidence: vec![page.body.trim().to_owned()],
            remedy: "kubectl -n kube-system logs of this node's kube-proxy".to_owned(),
        }]),
        Some(Err(why)) => silent(seen, why),
        None => Answer::Unknown("it was not asked".to_owned()),
    }
}

/// The port does not answer: a kube-proxy that runs, and was not told to listen elsewhere, hangs or waits.
fn silent(seen: &Seen, why: &str) -> Answer {
    let Some(process) = seen.process(NAME) else {
        return Answer::Unknown(why.to_owned());
    };
    if matches!(hostname(seen), Answer::Fails(_)) {
        return Answer::Unknown(format!(
            "{why}; kube-proxy waits for the Node that it was told to be: see kube_proxy_hostname"
        ));
    }
    let config = config(&seen.root, process);
    let elsewhere = process.flag("healthz-bind-address").map(str::to_owned);
    let elsewhere = elsewhere.or_else(|| config["healthzBindAddress"].as_str().map(str::to_owned));
    if let Some(at) = elsewhere.filter(|at| !at.is_empty() && !at.starts_with("0.0.0.0")) {
        return Answer::Unknown(format!("{why}; kube-proxy was told to listen at {at}"));
    }
    Answer::Fails(vec![Problem {
        severity: Severity::Broken,
        follows: &[],
        object: "127.0.0.1:10256/healthz".to_owned(),
        sentence: "does not answer, though kube-proxy runs: it hangs, or has not begun to write rules"
            .to_owned(),
        evidence: vec![why.to_owned(), format!("kube-proxy is process {}", process.pid)],
        remedy: "its log tells what it waits for; ps -o stat= -p its process: T is stopped, D waits for the kernel; restart it"
            .to_owned(),
    }])
}

/// The value of a metric without labels.
fn value(text: &str, name: &str) -> Option<f64> {
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// The sum of a metric over its labels.
fn sum(text: &str, name: &str) -> f64 {
    let lines = text.lines().filter(|line| line.starts_with(name));
    let numbers = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    // The sum of nothing is -0 otherwise.
    numbers.fold(0.0, |sum, number| sum + number)
}

fn sync(seen: &Seen) -> Answer {
    let text = match seen.http.get("127.0.0.1:10249/metrics") {
        Some(Ok(page)) => &page.body,
        Some(Err(why)) => return Answer::Unknown(why.clone()),
        None => return Answer::Unknown("it was not asked".to_owned()),
    };
    let prefix = "kubeproxy_sync_proxy_rules";
    let at = |name: &str| {
        // With both families there is a sample for each; the later change counts.
        let plain = value(text, &format!("{prefix}_{name}"));
        plain.or_else(|| {
            let lines = text
                .lines()
                .filter(|line| line.starts_with(&format!("{prefix}_{name}{{")));
            lines
                .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok())
                .reduce(f64::min)
        })
    };
    let (Some(last), Some(queued)) = (
        at("last_timestamp_seconds"),
        at("last_queued_timestamp_seconds"),
    ) else {
        return Answer::Unknown("its metrics do not tell when it wrote rules last".to_owned());
    };
    let failures: f64 = [
        "iptables_restore_failures_total",
        "nftables_sync_failures_total",
    ]
    .iter()
    .map(|name| sum(text, &format!("{prefix}_{name}")))
    .sum();
    let waits = queued - last;
    if last == 0.0 || waits > LATE {
        return Answer::Fails(vec![Problem {
            severity: Severity::Broken,
            follows: &[],
            object: NAME.to_owned(),
            sentence: "has changes that it does not write".to_owned(),
            evidence: vec![format!("last change queued {waits:.0} s after rules were written last; {failures} failed writes")],
            remedy: "its log tells what iptables-restore or nft says; another program may hold the xtables lock".to_owned(),
        }]);
    }
    let services = sum(text, &format!("{prefix}_iptables_total"));
    let rules = if services > 0.0 {
        format!(", {services} iptables rules")
    } else {
        String::new()
    };
    Answer::Holds(format!(
        "no change waits; {failures} writes failed since the start{rules}"
    ))
}

/// Errors as klog writes them: `E0102 15:04:05.000000 1 file.go:1] "text"`.
fn errors(text: &str) -> Vec<String> {
    let lines = text
        .lines()
        .map(|line| line.splitn(4, ' ').nth(3).unwrap_or(line));
    let is = |line: &&str| {
        let mut bytes = line.bytes();
        bytes.next() == Some(b'E') && bytes.take(4).all(|byte| byte.is_ascii_digit())
    };
    lines.filter(is).map(str::to_owned).collect()
}

fn log(seen: &Seen) -> Answer {
    let pods = seen.root.list("/var/log/pods");
    let mut own = pods
        .iter()
        .filter(|name| name.starts_with("kube-system_kube-proxy-"));
    let Some(pod) = own.next_back() else {
        return Answer::Unknown("no pod of kube-proxy has a log on this node".to_owned());
    };
    let dir = format!("/var/log/pods/{pod}/{NAME}");
    let files = seen.root.list(&dir);
    let number = |name: &String| name.strip_suffix(".log")?.parse::<u32>().ok();
    let Some(last) = files.iter().filter_map(number).max() else {
        return Answer::Unknown(format!("{dir} holds no log"));
    };
    let path = format!("{dir}/{last}.log");
    let text = seen.root.read(&path).unwrap_or_default();
    let errors = errors(&text);
    if errors.is_empty() {
        return Answer::Holds(format!("{path} has no error"));
    }
    // Watches break and come back: what counts is that the last thing it said is an error.
    let last_is_error = text
        .lines()
        .rev()
        .take(20)
        .any(|line| line.contains(errors[errors.len() - 1].as_str()));
    if !last_is_error {
        return Answer::Holds(format!(
            "{path}: {} errors, none among its last lines",
            errors.len()
        ));
    }
    Answer::Fails(vec![Problem {
        severity: Severity::Warning,
        follows: &[],
        object: path,
        sentence: format!("has {} errors, the last ones among its last lines", errors.len()),
        evidence: errors.iter().rev().take(3).cloned().collect(),
        remedy: "what it names: rights of system:kube-proxy, the kernel's modules, or the way to the API server".to_owned(),
    }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{cni::fixtures, seen::http::Page};

    fn with_page(port: &str, status: u16, body: &str) -> fixtures::Node {
        let mut node = fixtures::flannel();
        let page = Page {
            status,
            body: body.to_owned(),
        };
        node.seen.http.insert(port.to_owned(), Ok(page));
        node
    }

    #[test]
    fn a_change_that_waits_is_broken() {
        let check = |last: &str, queued: &str, expected: &str| {
            let body = format!(
                "kubeproxy_sync_proxy_rules_last_timestamp_seconds {last}\n\
                 kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds {queued}\n"
            );
            let node = with_page("127.0.0.1:10249/metrics", 200, &body);
            assert_eq!(sync(&node.seen).verdict(), expected);
        };
        check("1.7e+09", "1.7e+09", "good");
        check("1.7000001e+09", "1.7e+09", "good");
        check("1.7e+09", "1.7000002e+09", "broken");
    }

    #[test]
    fn a_health_port_that_says_no_is_broken() {
        let check = |status, expected: &str| {
            let node = with_page("127.0.0.1:10256/healthz", status, "{}");
            assert_eq!(health(&node.seen).verdict(), expected);
        };
        check(200, "good");
        check(503, "broken");
    }

    #[test]
    fn a_health_port_that_does_not_answer_is_broken_where_kube_proxy_runs_and_was_told_nothing_else()
     {
        let check = |args: &[&str], expected: &str| {
            let mut node = fixtures::flannel();
            if !args.is_empty() {
                node.run(7, args);
            }
            let silence = Err("no answer within 2 s".to_owned());
            node.seen
                .http
                .insert("127.0.0.1:10256/healthz".to_owned(), silence);
            assert_eq!(health(&node.seen).verdict(), expected);
        };
        check(&[], "unknown");
        check(&["kube-proxy", "--hostname-override=n1"], "broken");
        check(
            &[
                "kube-proxy",
                "--hostname-override=n1",
                "--healthz-bind-address=192.0.2.11:10256",
            ],
            "unknown",
        );
    }

    #[test]
    fn errors_are_told_from_other_lines() {
        let text = "2026-01-01T00:00:00Z stderr F I0101 00:00:00.000000       1 a.go:1] \"Started\"\n\
                    2026-01-01T00:00:01Z stderr F E0101 00:00:01.000000       1 b.go:2] \"Failed\"\n";
        assert_eq!(
            errors(text),
            ["E0101 00:00:01.000000       1 b.go:2] \"Failed\""]
        );
    }
}
