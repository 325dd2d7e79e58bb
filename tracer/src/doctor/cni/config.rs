//! The CNI configuration directory: the file that the runtime takes, those that lie in wait, and
//! the plugins' binaries that they name.

use serde_json::Value;

use super::{Answer, Check, Problem, Root, Seen};
use crate::{doctor::causes, model::Severity};

pub(super) const CONFIG: Check = Check {
    name: "cni_config",
    subject: "cni",
    why: "the runtime takes the first file of the directory; without a good one the node is NotReady, and CoreDNS stays Pending",
    run: config,
};

pub(super) const BINARIES: Check = Check {
    name: "cni_binaries",
    subject: "cni",
    why: "where a plugin's binary is missing the node stays Ready, and every new pod fails to start",
    run: binaries,
};

/// What the runtime uses.
#[derive(Debug)]
pub(super) struct Configs {
    /// Where it looks for files.
    pub(super) dir: String,
    /// Where it looks for plugins.
    pub(super) bin_dirs: Vec<String>,
    /// All files that it would consider, in its order: that of their names' bytes.
    pub(super) files: Vec<File>,
}

/// One file.
#[derive(Debug)]
pub(super) struct File {
    pub(super) name: String,
    /// Its network; or what is wrong with it.
    pub(super) network: Result<Network, String>,
}

/// A network that a file describes.
#[derive(Debug, PartialEq)]
pub(super) struct Network {
    pub(super) name: String,
    /// Its plugins' configurations.
    pub(super) plugins: Vec<Value>,
}

impl Network {
    /// Types of its plugins, those of their address management among them.
    pub(super) fn types(&self) -> Vec<&str> {
        let types = self.plugins.iter().flat_map(|plugin| {
            [
                &plugin["type"],
                &plugin["ipam"]["type"],
                &plugin["delegate"]["type"],
            ]
        });
        types.filter_map(Value::as_str).collect()
    }
}

impl Configs {
    pub(super) fn of(root: &Root) -> Self {
        let (dir, bin_dirs) = runtime(root);
        let names = root.list(&dir).into_iter();
        // libcni takes these three (ConfFiles, pkg/cni/api.go of containernetworking/cni).
        let names = names.filter(|name| {
            let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
            ["conf", "conflist", "json"].contains(&extension)
        });
        let files = names.map(|name| {
            let network = root
                .read(&format!("{dir}/{name}"))
                .map_err(|error| format!("cannot be read: {error}"))
                .and_then(|text| parse(&name, &text));
            File { name, network }
        });
        Self {
            files: files.collect(),
            dir,
            bin_dirs,
        }
    }

    /// The one that the runtime takes; `None` when there is none, or it does not parse.
    pub(super) fn taken(&self) -> Option<&Network> {
        self.files.first()?.network.as_ref().ok()
    }
}

/// Directories of configuration and plugins, of containerd's or CRI-O's configuration where it
/// names others than the usual ones.
fn runtime(root: &Root) -> (String, Vec<String>) {
    let mut dir = "/etc/cni/net.d".to_owned();
    let mut bin_dirs = vec!["/opt/cni/bin".to_owned()];
    for path in ["/etc/containerd/config.toml", "/etc/crio/crio.conf"] {
        for line in root.read(path).unwrap_or_default().lines() {
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            let values: Vec<_> = value.split(['"', '\'']).skip(1).step_by(2).collect();
            match (key.trim(), values.first()) {
                ("conf_dir" | "network_dir", Some(value)) => (*value).clone_into(&mut dir),
                ("bin_dir" | "bin_dirs" | "plugin_dirs", Some(_)) => {
                    bin_dirs = values.iter().map(|value| (*value).to_owned()).collect();
                }
                _ => {}
            }
        }
    }
    (dir, bin_dirs)
}

fn parse(name: &str, text: &str) -> Result<Network, String> {
    let value: Value =
        serde_json::from_str(text).map_err(|error| format!("is no JSON: {error}"))?;
    let plugins = if name.ends_with(".conflist") {
        let plugins = value["plugins"].as_array().cloned().unwrap_or_default();
        if plugins.is_empty() {
            return Err("has no plugins".to_owned());
        }
        plugins
    } else {
        vec![value.clone()]
    };
    if plugins.iter().any(|plugin| !plugin["type"].is_string()) {
        return Err("has a plugin without a type".to_owned());
    }
    Ok(Network {
        name: value["name"].as_str().unwrap_or_default().to_owned(),
        plugins,
    })
}

fn config(seen: &Seen) -> Answer {
    let configs = Configs::of(&seen.root);
    let dir = &configs.dir;
    let Some(first) = configs.files.first() else {
        return Answer::Fails(vec![Problem {
            severity: Severity::Broken,
            follows: &[],
            object: dir.clone(),
            sentence: "holds no CNI configuration: the node is NotReady, no pod gets a network, and CoreDNS stays Pending".to_owned(),
            evidence: vec![if seen.root.exists(dir) {
                "there is no .conf, .conflist or .json file".to_owned()
            } else {
                "there is no such directory".to_owned()
            }],
            remedy: "apply the CNI plugin's manifest, or restart its pod on this node, which writes the file".to_owned(),
        }]);
    };
    let mut problems = Vec::new();
    for (index, file) in configs.files.iter().enumerate() {
        let Err(why) = &file.network else { continue };
        let (severity, sentence) = if index == 0 {
            let taken = "is the file that the runtime takes, and it does not pass on to the next: the node is NotReady";
            (Severity::Broken, format!("{why}; it {taken}"))
        } else {
            let later = "it would be taken if those before it went";
            (Severity::Warning, format!("{why}; {later}"))
        };
        problems.push(Problem {
            severity,
            follows: &[],
            object: format!("{dir}/{}", file.name),
            sentence,
            evidence: Vec::new(),
            remedy: format!("mend it, or move it away: mv {dir}/{} /root/", file.name),
        });
    }
    if let Some(problem) = shadowed(seen, &configs) {
        problems.push(problem);
    }
    Answer::of(problems, || {
        let types = configs.taken().map(|taken| taken.types().join(", "));
        let types = types.unwrap_or_default();
        let rest: Vec<_> = configs.files[1..]
            .iter()
            .map(|file| file.name.as_str())
            .collect();
        let rest = match rest.len() {
            0 => "no other file".to_owned(),
            _ => format!("in wait behind it {}", rest.join(", ")),
        };
        format!("{dir}/{} is taken ({types}); {rest}", first.name)
    })
}

/// A plugin that is at work on this node, whose file lies behind that of another.
fn shadowed(seen: &Seen, configs: &Configs) -> Option<Problem> {
    let behind = super::plugin::shadowed(seen, configs)?;
    let first = &configs.files[0];
    let dir = &configs.dir;
    Some(Problem {
        severity: Severity::Warning,
        follows: &[],
        object: format!("{dir}/{}", first.name),
        sentence: format!(
            "comes before {}, whose plugin is at work on this node: new pods get another network than the old ones",
            behind.name
        ),
        evidence: vec![format!(
            "in order: {}",
            configs
                .files
                .iter()
                .map(|file| file.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        )],
        remedy: format!(
            "mv {dir}/{} /root/, then delete the pods that were started meanwhile",
            first.name
        ),
    })
}

fn binaries(seen: &Seen) -> Answer {
    let configs = Configs::of(&seen.root);
    let Some(taken) = configs.taken() else {
        return Answer::Unknown("there is no good configuration to name them".to_owned());
    };
    let mut wanted = taken.types();
    // containerd runs it in every sandbox; Flannel's plugin hands on to these.
    wanted.push("loopback");
    if wanted.contains(&"flannel") {
        wanted.extend(["bridge", "host-local"]);
    }
    wanted.sort_unstable();
    wanted.dedup();
    let there = |name: &str| {
        let mut dirs = configs.bin_dirs.iter();
        dirs.any(|dir| seen.root.exists(&format!("{dir}/{name}")))
    };
    let missing: Vec<_> = wanted.iter().filter(|name| !there(name)).copied().collect();
    let dirs = configs.bin_dirs.join(", ");
    let links = missing.iter().filter_map(|name| {
        let path = configs.bin_dirs.iter().map(|dir| format!("{dir}/{name}"));
        let mut links = path.filter_map(|path| Some((seen.root.link(&path)?, path)));
        links.next()
    });
    if let Some((target, path)) = links.into_iter().next()
        && !seen.root.is_whole()
    {
        return Answer::Unknown(format!(
            "{path} is a link to {target}, which this pod does not see: look on the node itself"
        ));
    }
    if missing.is_empty() {
        return Answer::Holds(format!("{} are in {dirs}", wanted.join(", ")));
    }
    Answer::Fails(vec![Problem {
        severity: Severity::Broken,
        follows: causes::CONFIGURATION,
        object: dirs,
        sentence: format!(
            "lacks {}, which {} names: new pods fail with `failed to find plugin`",
            missing.join(", "),
            configs.files[0].name
        ),
        evidence: Vec::new(),
        remedy: "install the CNI plugins' package (containernetworking-plugins), or restart the CNI plugin's pod, whose init container copies its own".to_owned(),
    }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::scratch::Scratch;

    const FLANNEL: &str = r#"{"name": "cbr0", "cniVersion": "1.0.0",
        "plugins": [{"type": "flannel"}, {"type": "portmap"}]}"#;

    fn check(files: &[(&str, &str)], run: fn(&Seen) -> Answer, expected: &str) {
        let root = Scratch::new(files);
        let said = match run(&Seen::of(Root::new(root.path()))) {
            Answer::Holds(seen) => seen,
            Answer::Unknown(why) => why,
            Answer::Fails(problems) => problems
                .iter()
                .map(|problem| {
                    format!(
                        "{} {} {}",
                        problem.severity.name(),
                        problem.object,
                        problem.sentence
                    )
                })
                .collect::<Vec<_>>()
                .join("\n"),
        };
        assert!(said.contains(expected), "{said}");
    }

    #[test]
    fn without_a_file_coredns_stays_pending() {
        check(&[], config, "CoreDNS stays Pending");
        let others = [("etc/cni/net.d/calico-kubeconfig", "")];
        check(&others, config, "holds no CNI configuration");
    }

    #[test]
    fn the_first_in_order_is_taken_and_the_others_lie_in_wait() {
        let files = [
            ("etc/cni/net.d/10-flannel.conflist", FLANNEL),
            (
                "etc/cni/net.d/87-podman.conflist",
                r#"{"plugins": [{"type": "bridge"}]}"#,
            ),
        ];
        check(
            &files,
            config,
            "/etc/cni/net.d/10-flannel.conflist is taken (flannel, portmap); in wait behind it 87-podman.conflist",
        );
    }

    #[test]
    fn a_first_file_that_is_no_json_is_not_passed_over() {
        let files = [
            ("etc/cni/net.d/00-broken.conflist", "{"),
            ("etc/cni/net.d/10-flannel.conflist", FLANNEL),
        ];
        check(
            &files,
            config,
            "broken /etc/cni/net.d/00-broken.conflist is no JSON",
        );
    }

    #[test]
    fn a_binary_that_is_missing_is_named() {
        let conf = ("etc/cni/net.d/10-flannel.conflist", FLANNEL);
        let mut files = vec![conf];
        for name in ["flannel", "bridge", "host-local", "loopback"] {
            files.push(match name {
                "flannel" => ("opt/cni/bin/flannel", ""),
                "bridge" => ("opt/cni/bin/bridge", ""),
                "host-local" => ("opt/cni/bin/host-local", ""),
                _ => ("opt/cni/bin/loopback", ""),
            });
        }
        check(
            &files,
            binaries,
            "lacks portmap, which 10-flannel.conflist names",
        );
        files.push(("opt/cni/bin/portmap", ""));
        check(&files, binaries, "are in /opt/cni/bin");
    }

    #[test]
    fn the_runtimes_own_directories_count() {
        let files = [
            (
                "etc/containerd/config.toml",
                "[plugins]\n  conf_dir = \"/etc/cni/k8s\"\n  bin_dirs = ['/usr/lib/cni', '/opt/cni/bin']\n",
            ),
            ("etc/cni/k8s/10-flannel.conflist", FLANNEL),
            ("usr/lib/cni/flannel", ""),
        ];
        check(&files, config, "/etc/cni/k8s/10-flannel.conflist is taken");
        check(&files, binaries, "/usr/lib/cni, /opt/cni/bin lacks bridge");
    }
}
