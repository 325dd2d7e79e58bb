//! A Corefile as CoreDNS reads it: server blocks, their zones and plugins, snippets imported; what
//! it would not start with, by line. Its grammar is Caddy's
//! (<https://github.com/coredns/caddy/tree/v1.1.1/caddyfile>).

mod judge;
mod tokens;

use std::collections::HashMap;

use self::{
    judge::judge,
    tokens::{Line, lines},
};

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

#[cfg(test)]
mod tests;
