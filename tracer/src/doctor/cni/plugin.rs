//! Which CNI plugin lays the pods' network, told from the file the runtime takes, from devices, from
//! files the plugins leave and from annotations of the Node; never from one of them alone where
//! others say otherwise.

use std::fmt;

use super::{
    Answer, Check, Seen,
    config::{Configs, File},
};

pub(super) const PLUGIN: Check = Check {
    name: "cni_plugin",
    subject: "cni",
    why: "which devices, routes and daemons a node must have depends on it",
    run,
};

/// The plugins that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plugin {
    Weave,
    Flannel,
    Calico,
    Cilium,
    Kindnet,
    KubeRouter,
    /// The reference plugin `bridge`, laid by hand or by a script.
    Bridge,
}

impl fmt::Display for Plugin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Weave => "Weave Net",
            Self::Flannel => "Flannel",
            Self::Calico => "Calico",
            Self::Cilium => "Cilium",
            Self::Kindnet => "kindnet",
            Self::KubeRouter => "kube-router",
            Self::Bridge => "plain bridge",
        })
    }
}

/// What says that a plugin is at work: (plugin, file, or device with its leading name).
const FILES: &[(Plugin, &str)] = &[
    (Plugin::Weave, "/var/lib/weave/weave-netdata.db"),
    (Plugin::Flannel, "/run/flannel/subnet.env"),
    (Plugin::Calico, "/var/lib/calico/nodename"),
    (Plugin::Cilium, "/var/run/cilium/cilium.sock"),
];
const DEVICES: &[(Plugin, &str)] = &[
    (Plugin::Weave, "weave"),
    (Plugin::Flannel, "flannel"),
    (Plugin::Calico, "cali"),
    (Plugin::Calico, "vxlan.calico"),
    (Plugin::Cilium, "cilium_"),
    (Plugin::KubeRouter, "kube-bridge"),
];
const ANNOTATIONS: &[(Plugin, &str)] = &[
    (Plugin::Flannel, "flannel.alpha.coreos.com/"),
    (Plugin::Calico, "projectcalico.org/"),
];

/// The plugin that a configuration's plugin types name; `None` for one that is not known.
pub(super) fn by_types(types: &[&str]) -> Option<Plugin> {
    let known = [
        ("weave-net", Plugin::Weave),
        ("flannel", Plugin::Flannel),
        ("calico", Plugin::Calico),
        ("cilium-cni", Plugin::Cilium),
        ("ptp", Plugin::Kindnet),
        ("bridge", Plugin::Bridge),
    ];
    let mut known = known.iter();
    let found = known.find(|(name, _)| types.contains(name));
    found.map(|(_, plugin)| *plugin)
}

/// What speaks for each plugin beside configuration files, in words.
fn signs(seen: &Seen) -> Vec<(Plugin, String)> {
    let files = FILES.iter().filter(|(_, path)| seen.root.exists(path));
    let files = files.map(|(plugin, path)| (*plugin, format!("file {path}")));
    let links = seen.network.iter().flat_map(|network| &network.links);
    let devices = DEVICES.iter().filter_map(|(plugin, prefix)| {
        let mut links = links.clone();
        let link = links.find(|link| link.name.starts_with(prefix))?;
        Some((*plugin, format!("device {}", link.name)))
    });
    let annotations = seen.this_node().into_iter().flat_map(|node| {
        ANNOTATIONS.iter().filter_map(|(plugin, prefix)| {
            let mut keys = node.annotations.keys();
            let key = keys.find(|key| key.starts_with(prefix))?;
            Some((*plugin, format!("annotation {key} of Node {}", node.name)))
        })
    });
    files.chain(devices).chain(annotations).collect()
}

/// The plugin that a file names; a plain bridge may be what Flannel's or kube-router's own plugin makes of its
/// file, so their signs count more.
fn of_file(file: &File, signs: &[(Plugin, String)]) -> Option<Plugin> {
    let network = file.network.as_ref().ok()?;
    let has = |plugin| signs.iter().any(|(sign, _)| *sign == plugin);
    Some(match by_types(&network.types())? {
        Plugin::Bridge if has(Plugin::Flannel) => Plugin::Flannel,
        Plugin::Bridge if has(Plugin::KubeRouter) => Plugin::KubeRouter,
        plugin => plugin,
    })
}

/// A file that lies behind the one that the runtime takes, and whose plugin is at work on this node, while that
/// of the first has left no sign: the first was left behind.
fn behind<'a>(configs: &'a Configs, signs: &[(Plugin, String)]) -> Option<(&'a File, Plugin)> {
    let has = |plugin| signs.iter().any(|(sign, _)| *sign == plugin);
    let (first, rest) = configs.files.split_first()?;
    if of_file(first, signs).is_some_and(has) {
        return None;
    }
    let mut rest = rest
        .iter()
        .filter_map(|file| Some((file, of_file(file, signs)?)));
    rest.find(|(_, plugin)| has(*plugin))
}

/// The same, of a node.
pub(super) fn shadowed<'a>(seen: &Seen, configs: &'a Configs) -> Option<&'a File> {
    configs.taken()?;
    Some(behind(configs, &signs(seen))?.0)
}

/// The plugin in use, and what says so.
///
/// 1. The file that the runtime takes names it; unless nothing else speaks for it, and one behind it names a
///    plugin that is at work.
/// 2. Without a good file, the first sign.
pub(super) fn plugin(seen: &Seen) -> Option<(Plugin, Vec<String>)> {
    let configs = Configs::of(&seen.root);
    let taken = configs.taken();
    let signs = signs(seen);
    let named = configs.files.first().and_then(|file| of_file(file, &signs));
    let named = behind(&configs, &signs).map_or(named, |(_, plugin)| Some(plugin));
    let plugin = match named {
        Some(plugin) => plugin,
        None => signs.first()?.0,
    };
    let mut evidence = Vec::new();
    if let (Some(taken), Some(file)) = (taken, configs.files.first()) {
        let types = taken.types().join(", ");
        evidence.push(format!("{} ({types})", file.name));
    }
    let of_it = signs.into_iter().filter(|(sign, _)| *sign == plugin);
    evidence.extend(of_it.map(|(_, sign)| sign));
    Some((plugin, evidence))
}

fn run(seen: &Seen) -> Answer {
    match plugin(seen) {
        Some((plugin, evidence)) => Answer::Holds(format!("{plugin}: {}", evidence.join(", "))),
        None => Answer::Unknown(
            "no configuration names a plugin that is known, and nothing on the node does"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fixtures, *};

    #[test]
    fn each_plugins_node_is_told_from_its_evidence() {
        let check = |node: &fixtures::Node, expected| {
            assert_eq!(plugin(&node.seen).map(|(plugin, _)| plugin), Some(expected));
        };
        check(&fixtures::flannel(), Plugin::Flannel);
        check(&fixtures::calico(), Plugin::Calico);
        check(&fixtures::weave(), Plugin::Weave);
    }

    #[test]
    fn without_a_file_the_devices_tell() {
        let node = fixtures::flannel();
        node.remove("etc/cni/net.d/10-flannel.conflist");
        let (plugin, evidence) = plugin(&node.seen).unwrap();
        assert_eq!(plugin, Plugin::Flannel);
        assert_eq!(evidence[0], "file /run/flannel/subnet.env");
    }
}
