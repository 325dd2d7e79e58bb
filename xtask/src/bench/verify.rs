//! `cargo xtask bench verify`: how long `tracer verify` takes for a large cluster, and in how much
//! memory, in kube-proxy's modes. The rules are in kube-proxy's layout, loaded into a namespace of
//! their own; all must be found right.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::built;
use crate::sh::{self, say};

/// What `cargo xtask bench verify` can be told.
#[derive(clap::Args)]
pub(crate) struct Verify {
    /// How many Services
    #[arg(long, default_value_t = 10_000)]
    services: u32,
    /// How many endpoints each has
    #[arg(long, default_value_t = 10)]
    endpoints: u32,
    /// Measure this program instead of the workspace's release build
    #[arg(long)]
    tracer: Option<PathBuf>,
}

/// Nodes that the endpoints are spread over; this one has its share.
const NODES: u32 = 100;

/// The namespace.
const NETNS: &str = "bench-verify";

/// How often the program's memory is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Runs of each mode; the quickest counts.
const RUNS: usize = 3;

/// Measures and prints a line for each mode.
///
/// # Errors
/// A program cannot run, or the rules are not found right.
pub(crate) fn verify(options: &Verify) -> Result<()> {
    let tracer = match &options.tracer {
        Some(tracer) => tracer.clone(),
        None => built()?,
    };
    let dir = sh::target().join("bench");
    fs::create_dir_all(&dir)?;
    let objects = dir.join("verify-objects.json");
    fs::write(&objects, self::objects(options))?;
    for (mode, words, rules) in [
        ("iptables", &["iptables-restore"][..], iptables(options)),
        ("nftables", &["nft", "-f", "-"][..], nftables(options)),
    ] {
        let network = Network::new()?;
        let began = Instant::now();
        sh::feed(inside(words[0]).args(&words[1..]), &rules)?;
        say(&format!(
            "{mode}: loaded in {:.1} s",
            began.elapsed().as_secs_f64()
        ));
        let mut best: Option<(f64, u64)> = None;
        for _ in 0..RUNS {
            let run = measure(&tracer, &objects)?;
            best = Some(best.map_or(run, |best| (best.0.min(run.0), best.1.max(run.1))));
        }
        let (seconds, kib) = best.context("it ran")?;
        say(&format!(
            "{mode}: {} Services × {} endpoints verified in {seconds:.2} s with {} MiB at most",
            options.services,
            options.endpoints,
            kib >> 10
        ));
        drop(network);
    }
    Ok(())
}

fn inside(program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", NETNS, program]);
    command
}

/// Seconds, and KiB of memory at most.
fn measure(tracer: &Path, objects: &Path) -> Result<(f64, u64)> {
    let began = Instant::now();
    let mut child = Command::new("ip")
        .args(["netns", "exec", NETNS])
        .arg(tracer)
        .args(["verify", "--objects"])
        .arg(objects)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut most = 0;
    while child.try_wait()?.is_none() {
        most = most.max(resident(child.id()).unwrap_or(0));
        thread::sleep(LOOK);
    }
    let seconds = began.elapsed().as_secs_f64();
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let status = output.status;
    ensure!(status.success(), "the rules are not found right: {text}");
    Ok((seconds, most))
}

/// `VmHWM`, in KiB.
fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The node `n0`'s namespace; removed on drop.
struct Network;

impl Network {
    fn new() -> Result<Self> {
        let ip = |words: &str| sh::run(Command::new("ip").args(words.split(' ')));
        ip(&format!("netns add {NETNS}"))?;
        let network = Self;
        for words in [
            "link set lo up",
            "link add eth0 type veth peer name eth0p",
            "link set eth0 up",
            "link set eth0p up",
            "address add 192.0.2.1/24 dev eth0",
            "link add cni0 type veth peer name cni0p",
            "link set cni0 up",
            "link set cni0p up",
            "route add 10.100.0.0/16 dev cni0 src 192.0.2.1",
            "route add default via 192.0.2.254",
        ] {
            ip(&format!("-n {NETNS} {words}"))?;
        }
        sh::run(inside("sysctl").args(["-qw", "net.ipv4.ip_forward=1"]))?;
        Ok(network)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // It is the bench that has failed, if anything has.
        drop(sh::run(Command::new("ip").args(["netns", "delete", NETNS])));
    }
}

/// A Service's address.
fn vip(service: u32) -> String {
    let number = service + 10;
    format!("10.96.{}.{}", number >> 8, number & 0xff)
}

/// An endpoint's address, and the number of its node.
fn endpoint(options: &Verify, service: u32, index: u32) -> (String, u32) {
    let number = service * options.endpoints + index;
    let (node, pod) = (number % NODES, number / NODES);
    let address = format!("10.{}.{}.{}", 100 + node, pod / 250, pod % 250 + 1);
    (address, node)
}

/// What `kubectl get -o json` would print.
fn objects(options: &Verify) -> String {
    let mut items = Vec::new();
    for node in 0..NODES {
        let address = if node == 0 {
            "192.0.2.1".to_owned()
        } else {
            format!("198.18.0.{node}")
        };
        items.push(format!(
            r#"{{"kind":"Node","metadata":{{"name":"n{node}"}},"spec":{{"podCIDRs":["10.{}.0.0/16"]}},"status":{{"addresses":[{{"type":"InternalIP","address":"{address}"}}]}}}}"#,
            100 + node
        ));
    }
    for service in 0..options.services {
        items.push(format!(
            r#"{{"kind":"Service","metadata":{{"name":"s{service}","namespace":"shop","uid":"{service}"}},"spec":{{"type":"ClusterIP","clusterIP":"{0}","clusterIPs":["{0}"],"ports":[{{"name":"http","port":80,"protocol":"TCP"}}]}}}}"#,
            vip(service)
        ));
        let endpoints = (0..options.endpoints).map(|index| {
            let (address, node) = endpoint(options, service, index);
            format!(r#"{{"addresses":["{address}"],"conditions":{{"ready":true}},"nodeName":"n{node}"}}"#)
        });
        let endpoints: Vec<_> = endpoints.collect();
        items.push(format!(
            r#"{{"kind":"EndpointSlice","metadata":{{"name":"s{service}","namespace":"shop","labels":{{"kubernetes.io/service-name":"s{service}"}}}},"addressType":"IPv4","ports":[{{"name":"http","port":8080,"protocol":"TCP"}}],"endpoints":[{}]}}"#,
            endpoints.join(",")
        ));
    }
    format!(r#"{{"kind":"List","items":[{}]}}"#, items.join(",\n"))
}

/// `pkg/proxy/iptables/proxier.go`, for cluster IPs.
fn iptables(options: &Verify) -> String {
    let mut chains = String::new();
    let mut rules = String::from(
        "-A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n-A POSTROUTING -j KUBE-POSTROUTING\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0\n\
         -A KUBE-POSTROUTING -j MASQUERADE --random-fully\n-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n",
    );
    let mut line = |words: std::fmt::Arguments<'_>| {
        rules.write_fmt(words).expect("a String takes every line");
        rules.push('\n');
    };
    for service in 0..options.services {
        let svc = format!("KUBE-SVC-{service:016}");
        let to = format!("-d {}/32 -p tcp -m tcp --dport 80", vip(service));
        chains.extend([":", &svc, " - [0:0]\n"]);
        line(format_args!("-A KUBE-SERVICES {to} -j {svc}"));
        line(format_args!(
            "-A {svc} ! -s 10.0.0.0/8 {to} -j KUBE-MARK-MASQ"
        ));
        for index in 0..options.endpoints {
            let sep = format!("KUBE-SEP-{service:08}{index:08}");
            let (address, _) = endpoint(options, service, index);
            chains.extend([":", &sep, " - [0:0]\n"]);
            let left = options.endpoints - index;
            if left > 1 {
                let share = 1.0 / f64::from(left);
                line(format_args!(
                    "-A {svc} -m statistic --mode random --probability {share:.10} -j {sep}"
                ));
            } else {
                line(format_args!("-A {svc} -j {sep}"));
            }
            line(format_args!("-A {sep} -s {address}/32 -j KUBE-MARK-MASQ"));
            line(format_args!(
                "-A {sep} -p tcp -m tcp -j DNAT --to-destination {address}:8080"
            ));
        }
    }
    format!(
        "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n{chains}{rules}COMMIT\n"
    )
}

/// `pkg/proxy/nftables/proxier.go`, for cluster IPs.
fn nftables(options: &Verify) -> String {
    let mut lines = vec![String::from(
        "table ip kube-proxy {\n\
         set cluster-ips { type ipv4_addr; }\n\
         set hairpin-connections { type ipv4_addr . ipv4_addr . inet_proto . inet_service; }\n\
         map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }\n\
         chain services {\nip daddr @cluster-ips ip saddr != 10.0.0.0/8 mark set mark or 0x4000\n\
         ip daddr . meta l4proto . th dport vmap @service-ips\n}\n\
         chain masquerading {\nmark and 0x4000 != 0 mark set mark xor 0x4000 masquerade fully-random\n\
         ct status dnat ip saddr . ip daddr . meta l4proto . th dport @hairpin-connections masquerade fully-random\n}\n\
         chain nat-output { type nat hook output priority -100; jump services; }\n\
         chain nat-postrouting { type nat hook postrouting priority 100; jump masquerading; }\n\
         chain nat-prerouting { type nat hook prerouting priority -100; jump services; }\n}",
    )];
    let mut elements = [const { Vec::new() }; 3];
    for service in 0..options.services {
        let chain = format!("service-{service:08}-shop/s{service}/tcp/http");
        let endpoints: Vec<_> = (0..options.endpoints)
            .map(|index| endpoint(options, service, index))
            .collect();
        let choices = (0..).zip(&endpoints);
        let choices = choices.map(|(index, (at, _)): (u32, _)| format!("{index} : {at} . 8080"));
        let choices: Vec<_> = choices.collect();
        lines.push(format!(
            "add chain ip kube-proxy {chain}\nadd rule ip kube-proxy {chain} meta l4proto tcp dnat ip addr . port to numgen random mod {} map {{ {} }}",
            options.endpoints,
            choices.join(", ")
        ));
        elements[0].push(vip(service));
        elements[1].push(format!("{} . tcp . 80 : goto {chain}", vip(service)));
        for (at, _) in endpoints.iter().filter(|(_, node)| *node == 0) {
            elements[2].push(format!("{at} . {at} . tcp . 8080"));
        }
    }
    for (set, elements) in ["cluster-ips", "service-ips", "hairpin-connections"]
        .iter()
        .zip(elements)
    {
        lines.push(format!(
            "add element ip kube-proxy {set} {{ {} }}\n",
            elements.join(", ")
        ));
    }
    lines.join("\n")
}
