//! A Corefile as CoreDNS reads it: server blocks, their zones and plugins, snippets imported; what
//! it would not start with, by line. Its grammar is Caddy's
//! (<https://github.com/coredns/caddy/tree/v1.1.1/caddyfile>).

mod tokens;

use std::collections::HashMap;

use self::tokens::{Line, lines};

/// One fault, at a line from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) what: String,
}

/// A parsed Corefile, as far as it parses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Corefile {
    pub(super) servers: Vec<Server>,
    pub(super) faults: Vec<Fault>,
}

/// A server block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Server {
    /// Zones with their ports, lower case and without the last dot; the root is `.`.
    pub(super) zones: Vec<(String, u16)>,
    pub(super) plugins: Vec<Plugin>,
    pub(super) line: usize,
}

/// A plugin, or an option in a plugin's own block: name, arguments, block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plugin {
    pub(super) name: String,
    pub(super) args: Vec<String>,
    pub(super) options: Vec<Plugin>,
    pub(super) line: usize,
}

impl Server {
    /// The first use of a plugin in this block.
    pub(super) fn plugin(&self, name: &str) -> Option<&Plugin> {
        self.plugins.iter().find(|plugin| plugin.name == name)
    }
}

impl Corefile {
    /// Reads `text`.
    pub(super) fn parse(text: &str) -> Self {
        let mut reader = Reader {
            lines: lines(text),
            at: 0,
            snippets: HashMap::new(),
            file: Self::default(),
        };
        reader.read();
        let mut file = reader.file;
        judge(&mut file);
        file.faults.sort_by_key(|fault| fault.line);
        file
    }

    /// The block that answers for `zone` on `port`: that of the longest zone above it.
    pub(super) fn server(&self, zone: &str, port: u16) -> Option<&Server> {
        let holds = |of: &str| of == "." || zone == of || zone.ends_with(&format!(".{of}"));
        let length = |server: &&Server| {
            let zones = server.zones.iter();
            let zones = zones.filter(|(of, at)| *at == port && holds(of));
            zones.map(|(of, _)| of.len()).max()
        };
        self.servers
            .iter()
            .filter(|server| length(server).is_some())
            .max_by_key(|server| length(server))
    }
}

struct Reader {
    lines: Vec<Line>,
    at: usize,
    snippets: HashMap<String, Vec<Plugin>>,
    file: Corefile,
}

impl Reader {
    fn fault(&mut self, line: usize, what: String) {
        self.file.faults.push(Fault { line, what });
    }

    fn read(&mut self) {
        while let Some(line) = self.lines.get(self.at).cloned() {
            self.at += 1;
            let mut words = line.words.clone();
            let opens = words.last().is_some_and(|word| word == "{");
            if opens {
                words.pop();
            }
            match words.first().map(String::as_str) {
                Some("}") => self.fault(line.number, "a } closes nothing".to_owned()),
                Some("import") if !opens => self.import_at_top(&line),
                Some(name) if opens && name.starts_with('(') && name.ends_with(')') => {
                    let name = name.trim_matches(['(', ')']).to_owned();
                    let plugins = self.block(line.number);
                    self.snippets.insert(name, plugins);
                }
                _ => self.server(&line, words, opens),
            }
        }
    }

    /// A file's text is not here; a snippet holds plugins, and is imported within a block.
    fn import_at_top(&mut self, line: &Line) {
        if line.words.len() != 2 {
            self.fault(line.number, "import wants one argument".to_owned());
        }
    }

    /// Keys may go on over lines that end with a comma.
    fn server(&mut self, line: &Line, mut keys: Vec<String>, mut opens: bool) {
        while !opens && keys.last().is_some_and(|key| key.ends_with(',')) {
            let Some(next) = self.lines.get(self.at).cloned() else {
                break;
            };
            self.at += 1;
            keys.extend(next.words);
            opens = keys.last().is_some_and(|key| key == "{");
            if opens {
                keys.pop();
            }
        }
        if keys.is_empty() {
            self.fault(line.number, "a block has no zone before its {".to_owned());
        }
        let zones = keys.iter().map(|key| key.trim_end_matches(','));
        let zones: Vec<_> = zones.filter(|key| !key.is_empty()).collect();
        let mut server = Server {
            line: line.number,
            ..Server::default()
        };
        for key in zones {
            match zone(key) {
                Some(found) => server.zones.push(found),
                None => self.fault(line.number, format!("{key} is no zone")),
            }
        }
        if opens {
            server.plugins = self.block(line.number);
        } else {
            self.fault(
                line.number,
                format!("{} is followed by no {{", line.words.join(" ")),
            );
        }
        self.file.servers.push(server);
    }

    /// Up to the } that closes what was opened at line `opened`.
    fn block(&mut self, opened: usize) -> Vec<Plugin> {
        let mut plugins = Vec::new();
        while let Some(line) = self.lines.get(self.at).cloned() {
            self.at += 1;
            let mut words = line.words.clone();
            if words[0] == "}" {
                if words.len() > 1 {
                    self.fault(line.number, format!("{} stands behind a }}", words[1]));
                }
                return plugins;
            }
            let opens = words.last().is_some_and(|word| word == "{");
            if opens {
                words.pop();
            }
            if words.is_empty() {
                self.fault(line.number, "a { has no name before it".to_owned());
                self.block(line.number);
                continue;
            }
            let name = words.remove(0);
            if name == "import" {
                self.import(line.number, &words, &mut plugins);
                continue;
            }
            let options = if opens {
                self.block(line.number)
            } else {
                Vec::new()
            };
            plugins.push(Plugin {
                name,
                args: words,
                options,
                line: line.number,
            });
        }
        self.fault(opened, "the { of this line is never closed".to_owned());
        plugins
    }

    fn import(&mut self, line: usize, words: &[String], plugins: &mut Vec<Plugin>) {
        let Some(name) = words.first() else {
            self.fault(line, "import wants a name".to_owned());
            return;
        };
        match self.snippets.get(name) {
            Some(snippet) => plugins.extend(snippet.iter().cloned()),
            // A path or pattern: files of a directory, which kubeadm's custom maps use.
            None if name.contains(['/', '*', '.']) => {}
            None => self.fault(
                line,
                format!("import {name}: there is no snippet ({name}) above"),
            ),
        }
    }
}

/// `dns://example.org:5353` as zone and port; other transports have their own port.
fn zone(key: &str) -> Option<(String, u16)> {
    let (scheme, rest) = key.split_once("://").unwrap_or(("dns", key));
    let port = match scheme {
        "dns" => 53,
        "tls" | "quic" => 853,
        "grpc" | "https" | "https3" => 443,
        _ => return None,
    };
    let (name, port) = match rest.rsplit_once(':') {
        // The colons of an IPv6 prefix are none of a port's.
        Some((name, number)) if !name.contains(':') => (name, number.parse().ok()?),
        _ => (rest, port),
    };
    let name = name.to_ascii_lowercase();
    let name = name.trim_end_matches('.');
    let valid = |char: char| char.is_ascii_alphanumeric() || "-_.:/*".contains(char);
    if !name.chars().all(valid) {
        return None;
    }
    Some((if name.is_empty() { "." } else { name }.to_owned(), port))
}

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
fn judge(file: &mut Corefile) {
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

#[cfg(test)]
mod tests;
