//! A node: containerd, kubelet and kube-proxy in namespaces of their own, with the configuration
//! files of a real node at their usual places.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::Result;

use super::{
    Bed, ProxyMode, build, cgroup, control,
    network::{Node, POD_RANGES, SERVICE_RANGES, inside, netns},
};
use crate::sh;

/// Longest wait for containerd to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the kubelet sets, and would fail on elsewhere:
/// <https://github.com/kubernetes/kubernetes/blob/v1.37.0/pkg/kubelet/cm/container_manager_linux.go>,
/// `setupKernelTunables`.
const SYSCTLS: &[(&str, &str)] = &[
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
];

const RESOLV_CONF: &str = "nameserver 192.0.2.10\n";

/// The Node object, as the cloud's or kubeadm's allocator would complete it, with the MAC addresses that flanneld is to
/// give its devices.
pub(super) fn object(node: Node) -> String {
    let (name, mac) = (node.name(), node.vtep());
    let (pods_v4, pods_v6) = (node.pods_v4(), node.pods_v6());
    format!(
        "apiVersion: v1
kind: Node
metadata:
  name: {name}
  labels:
    kubernetes.io/hostname: {name}
  annotations:
    flannel.alpha.coreos.com/backend-data: '{{\"VNI\":1,\"VtepMAC\":\"{mac}\"}}'
    flannel.alpha.coreos.com/backend-v6-data: '{{\"VNI\":1,\"VtepMAC\":\"{mac}\"}}'
spec:
  podCIDR: {pods_v4}
  podCIDRs: [{pods_v4}, '{pods_v6}']
---
"
    )
}

/// Starts the node and brings the images to it; it is ready when its Node object says so.
///
/// # Errors
/// A component ended, or containerd does not answer.
pub(super) fn start(bed: &mut Bed, node: Node, mode: ProxyMode) -> Result<()> {
    let name = node.name();
    let cgroup = format!("{}/{name}", bed.name);
    cgroup::make(&cgroup)?;
    let root = bed.dir.join(format!("{name}.root"));
    write_files(bed, node, &root, &cgroup)?;

    let script = sh::root().join("xtask/src/cluster/node.sh");
    let mut containerd = inside(&netns(&bed.name, &name), "unshare");
    containerd
        .args(["--mount", "--uts", "--", "sh"])
        .arg(script)
        .arg(&root)
        .arg(&name)
        .arg(bed.built.program("containerd"))
        // Shims and plugins are looked up by name.
        .env("PATH", path(&bed.built.bin));
    let pid = bed.daemon(&name, "containerd", &containerd)?;
    let enter = format!("nsenter --target {pid} --mount --uts --net");
    bed.write_script(&name, &format!("exec {enter} --wdns=\"$PWD\" -- \"$@\""))?;
    import(bed, &name)?;

    let mut flanneld = bed.on(&name, "flanneld");
    flanneld.arg(format!(
        "--kubeconfig-file={}",
        bed.kubeconfig("admin").display()
    ));
    flanneld.env("NODE_NAME", &name);
    bed.daemon(&name, "flanneld", &flanneld)?;

    let mut kubelet = bed.on(&name, "kubelet");
    kubelet.args([
        "--config=/var/lib/kubelet/config.yaml",
        "--kubeconfig=/etc/kubernetes/kubelet.conf",
    ]);
    kubelet.arg(format!("--hostname-override={name}"));
    kubelet.arg(format!("--node-ip={},{}", node.v4(), node.v6()));
    bed.daemon(&name, "kubelet", &kubelet)?;

    let mut proxy = bed.on(&name, "kube-proxy");
    proxy.args([
        "--kubeconfig=/var/lib/kube-proxy/kubeconfig.conf",
        // These three are the whole machine's.
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
    ]);
    proxy.arg(format!("--hostname-override={name}"));
    proxy.arg(format!("--cluster-cidr={POD_RANGES}"));
    proxy.arg(format!("--proxy-mode={}", mode.name()));
    bed.daemon(&name, "kube-proxy", &proxy)?;
    spare_policies(bed, node)
}

/// kube-router, for NetworkPolicies alone, as beside another plugin; it runs when a test starts it. For IPv4: of IPv6
/// 2.1 writes rules that name sets which it has called otherwise.
fn spare_policies(bed: &Bed, node: Node) -> Result<()> {
    let name = node.name();
    let mut router = bed.on(&name, "kube-router");
    router.args([
        "--run-firewall=true",
        "--run-router=false",
        "--run-service-proxy=false",
        "--run-loadbalancer=false",
        "--enable-ipv6=false",
        "--health-port=0",
        "--metrics-port=0",
    ]);
    let services = SERVICE_RANGES.split(',').next().unwrap_or_default();
    router.arg(format!("--service-cluster-ip-range={services}"));
    router.arg(format!("--hostname-override={name}"));
    router.arg(format!(
        "--kubeconfig={}",
        bed.kubeconfig("admin").display()
    ));
    bed.spare(&name, "kube-router", &router)
}

fn path(bin: &Path) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{}:{path}", bin.display())
}

fn import(bed: &mut Bed, name: &str) -> Result<()> {
    bed.wait("containerd", PATIENCE, |bed| {
        Ok(sh::output(bed.on(name, "ctr").arg("version")).is_ok())
    })?;
    for image in bed.built.images.clone() {
        let mut ctr = bed.on(name, "ctr");
        ctr.args(["--namespace", "k8s.io", "images", "import"]);
        sh::output(ctr.arg(image))?;
    }
    Ok(())
}

fn write_files(bed: &Bed, node: Node, root: &Path, cgroup: &str) -> Result<()> {
    for dir in [
        "opt/cni",
        "run/netns",
        "run/lock",
        "var/lib/kubelet",
        "var/lib/kube-proxy",
        "var/log",
        "var/tmp",
    ] {
        fs::create_dir_all(root.join(dir))?;
    }
    std::os::unix::fs::symlink("/run", root.join("var/run"))?;
    sh::run(Command::new("cp").arg("-a").arg("/etc").arg(root))?;
    build::link_plugins(&bed.built.bin, &root.join("opt/cni/bin"))?;
    let name = node.name();
    let resolv_conf = root.join("etc/resolv.conf");
    // It may be a link to what is not there on the node.
    fs::remove_file(&resolv_conf)?;
    for (path, text) in [
        ("etc/resolv.conf", RESOLV_CONF.to_owned()),
        ("etc/hostname", format!("{name}\n")),
        (
            "etc/containerd/config.toml",
            CONTAINERD.replace("PAUSE", build::PAUSE),
        ),
        ("etc/cni/net.d/10-flannel.conflist", cni(node)),
        (
            "etc/kubernetes/kubelet.conf",
            control::kubeconfig(bed, &name),
        ),
        (
            "var/lib/kube-proxy/kubeconfig.conf",
            control::kubeconfig(bed, "proxy"),
        ),
        ("var/lib/kubelet/config.yaml", kubelet(cgroup)),
        ("etc/kube-flannel/net-conf.json", NET_CONF.to_owned()),
    ] {
        write(&root.join(path), &text)?;
    }
    for (sysctl, value) in SYSCTLS {
        write(&root.join("sysctl").join(sysctl), &format!("{value}\n"))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    Ok(fs::write(path, text)?)
}

/// `restrict_oom_score_adj`: without CAP_SYS_RESOURCE nobody can lower it, and runc would end.
const CONTAINERD: &str = "version = 3

[plugins.\"io.containerd.cri.v1.runtime\"]
restrict_oom_score_adj = true

[plugins.\"io.containerd.cri.v1.images\".pinned_images]
sandbox = \"PAUSE\"
";

/// Evicts nothing: the disk is the machine's, and how full it is is no business of the bed's.
fn kubelet(cgroup: &str) -> String {
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {{enabled: true}}
  webhook: {{enabled: false}}
authorization:
  mode: AlwaysAllow
cgroupDriver: cgroupfs
cgroupRoot: /{cgroup}
failCgroupV1: false
failSwapOn: false
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
evictionHard:
  imagefs.available: 0%
  imagefs.inodesFree: 0%
  memory.available: 10Mi
  nodefs.available: 0%
  nodefs.inodesFree: 0%
imageGCHighThresholdPercent: 100
localStorageCapacityIsolation: false
resolvConf: /etc/resolv.conf
"
    )
}

/// Flannel's, for both families.
const NET_CONF: &str = r#"{
  "Network": "10.244.0.0/16",
  "IPv6Network": "fd00:10:244::/56",
  "EnableIPv6": true,
  "Backend": {"Type": "vxlan"}
}
"#;

/// What Flannel's plugin makes of its own configuration and of `subnet.env`, and hands to `bridge`.
fn cni(node: Node) -> String {
    let (v4, v6) = (node.pods_v4(), node.pods_v6());
    format!(
        r#"{{
  "name": "cbr0",
  "cniVersion": "1.0.0",
  "plugins": [
    {{
      "type": "bridge",
      "bridge": "cni0",
      "mtu": 1450,
      "hairpinMode": true,
      "isDefaultGateway": true,
      "ipMasq": false,
      "ipam": {{
        "type": "host-local",
        "ranges": [[{{"subnet": "{v4}"}}], [{{"subnet": "{v6}"}}]],
        "routes": [{{"dst": "10.244.0.0/16"}}, {{"dst": "fd00:10:244::/56"}}]
      }}
    }},
    {{"type": "portmap", "capabilities": {{"portMappings": true}}}}
  ]
}}
"#
    )
}
