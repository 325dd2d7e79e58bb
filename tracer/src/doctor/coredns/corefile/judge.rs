//! What CoreDNS would refuse to start with: plugins it does not know, options it does not take,
//! zones served twice.

use super::{Corefile, Fault, Plugin};

/// Plugins of CoreDNS itself (plugin.cfg), beside those of its own directives.
const PLUGINS: &[&str] = &[
    "acl",
    "any",
    "auto",
    "autopath",
    "azure",
    "bind",
    "bufsize",
    "cache",
    "cancel",
    "chaos",
    "clouddns",
    "debug",
    "dns64",
    "dnssec",
    "dnstap",
    "erratic",
    "errors",
    "etcd",
    "file",
    "forward",
    "geoip",
    "grpc",
    "grpc_server",
    "header",
    "health",
    "hosts",
    "https",
    "https3",
    "k8s_external",
    "kubernetes",
    "loadbalance",
    "local",
    "log",
    "loop",
    "metadata",
    "minimal",
    "multisocket",
    "nomad",
    "nsid",
    "on",
    "pprof",
    "prometheus",
    "proxyproto",
    "quic",
    "ready",
    "reload",
    "rewrite",
    "root",
    "route53",
    "secondary",
    "sign",
    "template",
    "timeouts",
    "tls",
    "trace",
    "transfer",
    "tsig",
    "view",
    "whoami",
];

/// Plugins that were taken out, with what to write instead.
const REMOVED: &[(&str, &str)] = &[
    ("proxy", "was removed in CoreDNS 1.5: write forward instead"),
    ("federation", "was removed in CoreDNS 1.7: delete it"),
];

/// Options of `kubernetes` (plugin/kubernetes/setup.go).
const KUBERNETES: &[&str] = &[
    "apiserver_burst",
    "apiserver_max_inflight",
    "apiserver_qps",
    "endpoint",
    "endpoint_pod_names",
    "fallthrough",
    "ignore",
    "kubeconfig",
    "labels",
    "multicluster",
    "namespace_labels",
    "namespaces",
    "noendpoints",
    "pods",
    "startup_timeout",
    "tls",
    "ttl",
    "transfer",
    "upstream",
    "resyncperiod",
];

/// Options of `forward` (plugin/forward/setup.go).
const FORWARD: &[&str] = &[
    "doh_method",
    "except",
    "expire",
    "failfast_all_unhealthy_upstreams",
    "failover",
    "force_tcp",
    "health_check",
    "max_age",
    "max_concurrent",
    "max_connect_attempts",
    "max_fails",
    "max_idle_conns",
    "next",
    "policy",
    "prefer_udp",
    "tls",
    "tls_servername",
];

/// Plugins that may stand once in a block, of those that clusters use.
const ONCE: &[&str] = &[
    "cache",
    "errors",
    "health",
    "kubernetes",
    "loop",
    "prometheus",
    "ready",
    "reload",
];

/// What CoreDNS would refuse to start with.
pub(super) fn judge(file: &mut Corefile) {
    let mut faults = Vec::new();
    let mut fault = |line, what| faults.push(Fault { line, what });
    let mut served: Vec<(String, u16)> = Vec::new();
    for server in &file.servers {
        for zone in &server.zones {
            if served.contains(zone) {
                fault(
                    server.line,
                    format!("{}:{} is served by a block above already", zone.0, zone.1),
                );
            }
            served.push(zone.clone());
        }
        for (index, plugin) in server.plugins.iter().enumerate() {
            let name = plugin.name.as_str();
            if let Some((_, instead)) = REMOVED.iter().find(|(removed, _)| *removed == name) {
                fault(plugin.line, format!("plugin {name} {instead}"));
            } else if !PLUGINS.contains(&name) {
                fault(
                    plugin.line,
                    format!("there is no plugin {name}{}", like(name, PLUGINS)),
                );
            }
            let before = &server.plugins[..index];
            if ONCE.contains(&name) && before.iter().any(|other| other.name == name) {
                fault(
                    plugin.line,
                    format!("plugin {name} stands twice in one block"),
                );
            }
            if let Some(what) = options(plugin) {
                fault(what.0, what.1);
            }
        }
    }
    file.faults.extend(faults);
}

/// The first option or argument that a plugin would not take.
fn options(plugin: &Plugin) -> Option<(usize, String)> {
    let name = plugin.name.as_str();
    let known = match name {
        "kubernetes" => KUBERNETES,
        "forward" => FORWARD,
        _ => return None,
    };
    if name == "forward" && plugin.args.len() < 2 {
        return Some((
            plugin.line,
            "forward wants a zone and where to: forward . /etc/resolv.conf".to_owned(),
        ));
    }
    for option in &plugin.options {
        let (word, line) = (option.name.as_str(), option.line);
        if !known.contains(&word) {
            return Some((
                line,
                format!("{name} has no option {word}{}", like(word, known)),
            ));
        }
        let value = option.args.first().map(String::as_str);
        match (word, value) {
            ("pods", Some("disabled" | "insecure" | "verified")) => {}
            ("pods", _) => {
                return Some((line, "pods wants disabled, insecure or verified".to_owned()));
            }
            ("ttl", value) if name == "kubernetes" => {
                let ttl = value.and_then(|value| value.parse::<u32>().ok());
                if ttl.is_none_or(|ttl| ttl > 3600) {
                    return Some((
                        line,
                        "ttl wants a number of seconds from 0 to 3600".to_owned(),
                    ));
                }
            }
            ("resyncperiod" | "upstream" | "transfer", _) if name == "kubernetes" => {
                return Some((
                    line,
                    format!("kubernetes takes no {word} any more: delete the line"),
                ));
            }
            _ => {}
        }
    }
    None
}

/// A word that the unknown one may have been meant for: one letter more, less, other or two swapped.
fn like(word: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .find(|other| distance(word, other) <= 2 && other.len() > 3);
    near.map_or(String::new(), |near| format!(": is {near} meant?"))
}

/// Levenshtein's distance.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let cost = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}
