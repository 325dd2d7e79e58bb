//! The resolver's file that the kubelet hands to pods with dnsPolicy Default, CoreDNS among them:
//! which file it is, and whether what it says can work in a pod.

use std::net::IpAddr;

use super::{Answer, Check, KUBELET_CONFIG, Problem, Root, Seen, kubelet};
use crate::model::Severity;

pub(super) const RESOLV_CONF: Check = Check {
    name: "resolv_conf",
    subject: "node",
    why: "CoreDNS forwards to the servers in it; a loopback address there is CoreDNS itself, and it ends in a loop",
    run,
};

/// What systemd-resolved writes for programs that ask the servers themselves.
pub(in crate::doctor) const REAL: &str = "/run/systemd/resolve/resolv.conf";

/// What of a resolver's file matters (man 5 resolv.conf).
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::doctor) struct ResolvConf {
    pub(in crate::doctor) nameservers: Vec<String>,
    search: Vec<String>,
    ndots: Option<u32>,
}

impl ResolvConf {
    pub(in crate::doctor) fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => found.nameservers.extend(words.next()),
                Some("search" | "domain") => found.search = words.collect(),
                Some("options") => {
                    let mut ndots =
                        words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    found.ndots = ndots.next_back().or(found.ndots);
                }
                _ => {}
            }
        }
        found
    }

    /// Its servers that are the asker itself.
    pub(in crate::doctor) fn loopback(&self) -> Vec<&str> {
        let is = |server: &&str| {
            server
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback())
        };
        self.nameservers
            .iter()
            .map(String::as_str)
            .filter(is)
            .collect()
    }
}

/// Which file the kubelet hands on: `resolvConf` of its configuration.
pub(in crate::doctor) fn path(root: &Root) -> String {
    let configured = kubelet(root);
    let configured = configured["resolvConf"]
        .as_str()
        .filter(|path| !path.is_empty());
    configured.unwrap_or("/etc/resolv.conf").to_owned()
}

/// What the kubelet puts into a pod's resolv.conf at most, beside which it leaves away (`MaxDNSSearchPaths` and
/// `MaxDNSSearchListChars`, pkg/apis/core/validation/validation.go); the cluster's own are three of them.
const SEARCH: usize = 32;
const SEARCH_CHARS: usize = 2048;
const OWN: usize = 3;

/// glibc asks the first three (MAXNS, resolv.h); the kubelet hands on no more.
const SERVERS: usize = 3;

fn run(seen: &Seen) -> Answer {
    let path = path(&seen.root);
    let text = match seen.root.read(&path) {
        Ok(text) => text,
        Err(error) => {
            return Answer::Fails(vec![Problem {
                severity: Severity::Broken,
                follows: &[],
                object: path.clone(),
                sentence: format!(
                    "cannot be read ({error}), so no pod with dnsPolicy Default starts"
                ),
                evidence: vec![format!("{KUBELET_CONFIG} has resolvConf: {path}")],
                remedy: format!(
                    "set resolvConf in {KUBELET_CONFIG} to a file that exists; systemctl restart kubelet"
                ),
            }]);
        }
    };
    let found = ResolvConf::parse(&text);
    let mut problems = Vec::new();
    let problem = |severity, sentence: String, remedy: String| Problem {
        severity,
        follows: &[],
        object: path.clone(),
        sentence,
        evidence: vec![format!(
            "nameserver {}",
            found.nameservers.join(", nameserver ")
        )],
        remedy,
    };
    let loopback = found.loopback();
    if !loopback.is_empty() {
        problems.push(problem(
            Severity::Broken,
            format!("names {}, which in CoreDNS's pod is CoreDNS itself: it forwards to itself, notices the loop and ends", loopback.join(" and ")),
            remedy_for_loopback(&seen.root),
        ));
    }
    let cluster_dns = kubelet(&seen.root);
    let cluster_dns: Vec<_> = cluster_dns["clusterDNS"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    for server in &found.nameservers {
        if cluster_dns
            .iter()
            .any(|address| address.as_str() == Some(server))
        {
            problems.push(problem(
                Severity::Broken,
                format!("names {server}, the cluster's own DNS: CoreDNS forwards to itself"),
                format!("put the network's own DNS server in {path} instead of {server}; kubectl rollout restart -n kube-system deployment coredns"),
            ));
        }
    }
    if found.nameservers.is_empty() {
        problems.push(problem(
            Severity::Broken,
            "names no server, so CoreDNS has nobody to forward to".to_owned(),
            format!("put a nameserver line in {path}, or name the servers in the Corefile: forward . ADDRESS"),
        ));
    }
    if found.nameservers.len() > SERVERS {
        problems.push(problem(
            Severity::Warning,
            format!(
                "names {} servers, of which resolvers ask the first three",
                found.nameservers.len()
            ),
            format!("keep three nameserver lines in {path}"),
        ));
    }
    let chars: usize = found.search.iter().map(|domain| domain.len() + 1).sum();
    if found.search.len() + OWN > SEARCH || chars > SEARCH_CHARS {
        problems.push(problem(
            Severity::Warning,
            format!(
                "has {} search domains: with a pod's own three they are more than the {SEARCH}, or {SEARCH_CHARS} characters, that the kubelet hands on, and the last are left away",
                found.search.len()
            ),
            format!("keep in {path} the search domains that pods need; each name with fewer dots than ndots is asked with each of them"),
        ));
    }
    Answer::of(problems, || {
        let ndots = found
            .ndots
            .map_or(String::new(), |ndots| format!(", ndots {ndots}"));
        let servers = found.nameservers.join(", ");
        let search = match found.search.len() {
            0 => "no search list".to_owned(),
            count => format!("{count} search domains, added to each pod's own three"),
        };
        format!("{path}: {servers}; {search}{ndots}")
    })
}

/// The real file beside systemd-resolved's stub, where there is one.
pub(in crate::doctor) fn remedy_for_loopback(root: &Root) -> String {
    let real = root.read(REAL).map(|text| ResolvConf::parse(&text));
    match real {
        Ok(real) if !real.nameservers.is_empty() && real.loopback().is_empty() => format!(
            "set resolvConf: {REAL} in {KUBELET_CONFIG} (it names {}); systemctl restart kubelet; \
             kubectl rollout restart -n kube-system deployment coredns",
            real.nameservers.join(", ")
        ),
        _ => format!(
            "write a file with the network's own DNS servers, set resolvConf in {KUBELET_CONFIG} to \
             it; systemctl restart kubelet; kubectl rollout restart -n kube-system deployment coredns"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::scratch::Scratch;

    fn said(files: &[(&str, &str)]) -> Answer {
        let root = Scratch::new(files);
        run(&Seen::of(Root::new(root.path())))
    }

    #[test]
    fn the_last_search_line_and_the_last_ndots_count() {
        let text = "# a\nsearch a.test b.test\nnameserver 192.0.2.1 # x\ndomain c.test\n\
                    options timeout:1 ndots:2\noptions ndots:5\n";
        let found = ResolvConf::parse(text);
        assert_eq!(found.nameservers, ["192.0.2.1"]);
        assert_eq!(found.search, ["c.test"]);
        assert_eq!(found.ndots, Some(5));
    }

    #[test]
    fn systemd_resolveds_stub_is_a_loop_and_its_real_file_is_the_remedy() {
        let stub = "nameserver 127.0.0.53\noptions edns0 trust-ad\n";
        let files = [
            ("etc/resolv.conf", stub),
            ("run/systemd/resolve/resolv.conf", "nameserver 192.0.2.1\n"),
        ];
        let Answer::Fails(problems) = said(&files) else {
            panic!("it is a loop");
        };
        assert!(problems[0].sentence.contains("127.0.0.53"));
        assert!(
            problems[0]
                .remedy
                .contains("resolvConf: /run/systemd/resolve/resolv.conf")
        );
    }

    #[test]
    fn the_kubelets_own_choice_is_the_file_that_counts() {
        let files = [
            ("etc/resolv.conf", "nameserver 127.0.0.53\n"),
            ("run/systemd/resolve/resolv.conf", "nameserver 192.0.2.1\n"),
            (
                "var/lib/kubelet/config.yaml",
                "resolvConf: /run/systemd/resolve/resolv.conf\n",
            ),
        ];
        assert_eq!(said(&files).verdict(), "good");
    }

    #[test]
    fn a_search_list_longer_than_the_kubelet_hands_on_is_a_warning() {
        let list = |count: usize| {
            let domains: Vec<_> = (0..count).map(|number| format!("d{number}.test")).collect();
            format!("nameserver 192.0.2.1\nsearch {}\n", domains.join(" "))
        };
        let check = |count, verdict: &str| {
            let text = list(count);
            assert_eq!(said(&[("etc/resolv.conf", &text)]).verdict(), verdict);
        };
        check(29, "good");
        check(30, "warning");
    }

    #[test]
    fn the_clusters_own_dns_is_no_upstream() {
        let files = [
            ("etc/resolv.conf", "nameserver 10.96.0.10\n"),
            ("var/lib/kubelet/config.yaml", "clusterDNS: [10.96.0.10]\n"),
        ];
        assert_eq!(said(&files).verdict(), "broken");
    }
}
