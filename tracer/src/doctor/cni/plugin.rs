//! Which CNI plugin lays the pods' network, told from the file the runtime takes, from devices, from
//! files the plugins leave and from annotations of the Node; never from one of them alone where
//! others say otherwise.

use std::fmt;

use super::{Answer, Check, Seen, config::Configs};

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

/// Plugins of which the node shows signs beside configuration files.
pub(super) fn at_work(seen: &Seen) -> Vec<Plugin> {
    signs(seen).into_iter().map(|(plugin, _)| plugin).collect()
}

/// The plugin in use, and what says so.
///
/// 1. The file that the runtime takes names it; a plain bridge may be what Flannel's or
///    kube-router's own plugin makes of its file, so their signs count more.
/// 2. Without a good file, the first sign.
pub(super) fn plugin(seen: &Seen) -> Option<(Plugin, Vec<String>)> {
    let configs = Configs::of(&seen.root);
    let taken = configs.taken();
    let signs = signs(seen);
    let named = taken.and_then(|taken| by_types(&taken.types()));
    let has = |plugin| signs.iter().any(|(sign, _)| *sign == plugin);
    let plugin = match named {
        Some(Plugin::Bridge) if has(Plugin::Flannel) => Plugin::Flannel,
        Some(Plugin::Bridge) if has(Plugin::KubeRouter) => Plugin::KubeRouter,
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
