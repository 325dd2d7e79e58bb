//! `cargo xtask cluster`: a real Kubernetes cluster of two nodes on this machine, without an engine.
//!
//! Every component is the real one, unmodified. A node is a set of namespaces: its network, and a
//! view of the file system with /etc, /opt, /run and /var of its own. A cgroup holds all processes,
//! so a bed is ended whole whatever state it is in. Knows nothing of what is tested in it.

mod build;
mod cgroup;
mod control;
mod network;
mod node;

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};

use self::{build::Built, network::NODES};
use crate::{
    image,
    sh::{self, say},
};

/// Longest wait for nodes and pods to be ready.
const READY: &str = "--timeout=180s";

/// What `cargo xtask cluster` does.
#[derive(Subcommand)]
pub(crate) enum Cluster {
    /// Bring a cluster up, in place of one of the same name; returns when its pods are ready and reach each other
    Up {
        /// What it is like.
        #[command(flatten)]
        options: Options,
        /// Build the tracer's image, and run it as the DaemonSet of manifests/base
        #[arg(long)]
        tracer: bool,
    },
    /// End a cluster and remove all of it
    Down {
        /// As given to `up`
        #[arg(long, default_value = "bed")]
        name: String,
    },
}

/// What a cluster is like.
#[derive(Args, Clone)]
pub(crate) struct Options {
    /// What its namespaces and its cgroup are called
    #[arg(long, default_value = "bed")]
    pub(crate) name: String,
    /// How kube-proxy writes its rules
    #[arg(long, value_enum, default_value_t = ProxyMode::Iptables)]
    pub(crate) proxy: ProxyMode,
    /// The tracer's image, to run as the DaemonSet of manifests/base; `None` for a cluster without.
    #[arg(skip)]
    pub(crate) tracer: Option<PathBuf>,
}

/// kube-proxy's `--proxy-mode`.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(crate) enum ProxyMode {
    Iptables,
    Nftables,
}

impl ProxyMode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }
}

/// Does what was asked, and tells how to go on.
///
/// # Errors
/// See [`up`] and [`down`].
pub(crate) fn run(cluster: &Cluster) -> Result<()> {
    match cluster {
        Cluster::Up { options, tracer } => {
            let mut options = options.clone();
            if *tracer {
                let image = image::build(image::Architecture::own()?, true, image::NAME)?;
                options.tracer = Some(image);
            }
            let dir = up(&options)?;
            tell(&dir);
            Ok(())
        }
        Cluster::Down { name } => down(name),
    }
}

/// Brings the cluster up and returns its directory. In it, `kubectl`; by the name of each node, and as
/// `control`, a program that runs its arguments there; and by the name of each component, as `n1-kube-proxy`, one
/// that sends it a signal (`KILL`) or starts it again (`start`).
///
/// # Errors
/// Something cannot be built, a component ended, or the pods were not ready in three minutes. What
/// was started is left for its logs to be read; the next `up` or `down` removes it.
pub(crate) fn up(options: &Options) -> Result<PathBuf> {
    let start = Instant::now();
    let mut built = build::all(&sh::target().join("bed"))?;
    built.images.extend(options.tracer.clone());
    let _lock = lock(&options.name)?;
    clear(&options.name)?;
    let dir = dir(&options.name);
    fs::create_dir_all(dir.join("log"))?;
    let mut bed = Bed {
        name: options.name.clone(),
        dir,
        built,
        daemons: Vec::new(),
    };
    network::build(&bed.name)?;
    control::start(&mut bed)?;
    bed.apply(&NODES.map(node::object).concat())?;
    for node in NODES {
        node::start(&mut bed, node, options.proxy)?;
    }
    // Both, or the first one ready gets all pods.
    bed.await_condition(&["nodes", "--all", "--for=condition=Ready"])?;
    bed.wait("flanneld", Duration::from_secs(60), |bed| {
        Ok(NODES
            .iter()
            .all(|node| network::is_joined(&bed.name, *node)))
    })?;
    for file in ["coredns.yaml", "shop.yaml"] {
        let path = sh::root().join("tests/bed").join(file);
        bed.apply(&fs::read_to_string(&path).with_context(|| format!("read {file}"))?)?;
    }
    if options.tracer.is_some() {
        let base = sh::root().join("manifests/base").display().to_string();
        bed.kubectl(&["apply", "--kustomize", &base])?;
    }
    bed.await_pods()?;
    bed.await_services()?;
    let seconds = start.elapsed().as_secs_f32();
    say(&format!("cluster: up after {seconds:.0} s"));
    Ok(bed.dir)
}

/// Ends a cluster and removes all of it, whatever is left of it.
///
/// # Errors
/// A process does not end, or a file cannot be removed.
pub(crate) fn down(name: &str) -> Result<()> {
    let _lock = lock(name)?;
    clear(name)
}

/// Ends what runs, and leaves its logs.
///
/// # Errors
/// A process does not end, or a namespace cannot be removed.
pub(crate) fn stop(name: &str) -> Result<()> {
    let _lock = lock(name)?;
    end(name)
}

fn end(name: &str) -> Result<()> {
    ensure!(
        sh::output(Command::new("id").arg("-u"))? == "0",
        "a cluster takes namespaces and cgroups: run as root"
    );
    cgroup::end(name)?;
    network::remove(name)
}

fn clear(name: &str) -> Result<()> {
    end(name)?;
    let dir = dir(name);
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    Ok(())
}

fn dir(name: &str) -> PathBuf {
    sh::target().join("bed").join(format!("cluster-{name}"))
}

/// Held while a bed is built or removed: the namespaces of another workspace have the same names.
fn lock(name: &str) -> Result<File> {
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    ensure!(
        !name.is_empty() && name.len() <= 16 && name.bytes().all(valid),
        "cluster name {name:?} is not 1 to 16 lower-case letters and digits"
    );
    let file = File::create(format!("/run/lock/tracer-{name}.lock"))?;
    file.lock()?;
    Ok(file)
}

fn tell(dir: &Path) {
    let dir = dir.display();
    say(&format!(
        "
export KUBECONFIG={dir}/admin.conf   # in the cluster's own network only; its nodes are n1 and n2
{dir}/kubectl get pods -A -o wide
{dir}/kubectl exec -n shop ds/client -- nslookup web
{dir}/n1 {}/release/tracer trace   # on node n1
cargo xtask cluster down",
        sh::target().display()
    ));
}

/// A cluster on its way up.
struct Bed {
    name: String,
    dir: PathBuf,
    built: Built,
    daemons: Vec<Daemon>,
}

/// A component, which goes on when this program ends.
struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Bed {
    fn kubeconfig(&self, user: &str) -> PathBuf {
        self.dir.join(format!("{user}.conf"))
    }

    /// Starts a component in the cgroup of `role`; what it says goes to `log/ROLE-NAME`. Returns its pid.
    fn daemon(&mut self, role: &str, name: &str, command: &Command) -> Result<u32> {
        let name = format!("{role}-{name}");
        let cgroup = format!("{}/{role}/system", self.name);
        cgroup::make(&cgroup)?;
        let log = self.dir.join("log").join(&name);
        let output = File::create(&log)?;
        let mut daemon = Command::new("setsid");
        daemon
            .args(["sh", "-c", "echo $$ > \"$0\" && exec \"$@\""])
            .arg(cgroup::procs(&cgroup)?)
            .arg(command.get_program())
            .args(command.get_args());
        for (key, value) in command.get_envs() {
            daemon.env(key, value.unwrap_or_default());
        }
        let child = daemon
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let pid = child.id();
        self.write_switch(&name, command, &cgroup)?;
        fs::write(self.pid_file(&name), pid.to_string())?;
        self.daemons.push(Daemon { name, child, log });
        Ok(pid)
    }

    /// A component that whoever wants it starts, by its switch.
    fn spare(&self, role: &str, name: &str, command: &Command) -> Result<()> {
        let cgroup = format!("{}/{role}/system", self.name);
        self.write_switch(&format!("{role}-{name}"), command, &cgroup)
    }

    fn pid_file(&self, name: &str) -> PathBuf {
        self.dir.join("log").join(format!("{name}.pid"))
    }

    /// A program by the name of a daemon that sends it a signal, or, at the word `start`, starts it again with
    /// what words follow after its own.
    fn write_switch(&self, name: &str, command: &Command, cgroup: &str) -> Result<()> {
        let log = self.dir.join("log").join(name);
        let mut words = vec!["env".to_owned()];
        for (key, value) in command.get_envs() {
            let value = value.unwrap_or_default().to_string_lossy();
            words.push(format!("{}={value}", key.to_string_lossy()));
        }
        words.push(command.get_program().to_string_lossy().into_owned());
        words.extend(
            command
                .get_args()
                .map(|word| word.to_string_lossy().into_owned()),
        );
        let script = format!(
            "case $1 in
start)
    shift
    setsid sh -c 'echo $$ > \"$0\" && echo $$ > {pid} && exec \"$@\"' {procs} \\
        '{words}' \"$@\" >> {log} 2>&1 < /dev/null &
    ;;
*) kill \"-$1\" \"$(cat {pid})\" ;;
esac",
            pid = self.pid_file(name).display(),
            procs = cgroup::procs(cgroup)?.display(),
            words = words.join("' '"),
            log = log.display(),
        );
        self.write_script(name, &script)
    }

    /// Waits until `holds`, or a daemon has ended.
    fn wait(
        &mut self,
        what: &str,
        patience: Duration,
        mut holds: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !holds(self)? {
            self.check()?;
            ensure!(
                Instant::now() < deadline,
                "{what} is not ready after {} s: see {}",
                patience.as_secs(),
                self.dir.join("log").display()
            );
            sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// Every daemon still runs.
    fn check(&mut self) -> Result<()> {
        for Daemon { name, child, log } in &mut self.daemons {
            if let Some(status) = child.try_wait()? {
                let said = fs::read_to_string(&log).unwrap_or_default();
                let last = said.lines().last().unwrap_or("it said nothing");
                bail!("{name} ended, {status}: {last} (all in {})", log.display());
            }
        }
        Ok(())
    }

    /// A program of ours on a node.
    fn on(&self, node: &str, program: &str) -> Command {
        let mut command = Command::new(self.dir.join(node));
        command.arg(self.built.program(program));
        command
    }

    fn kubectl(&self, words: &[&str]) -> Result<String> {
        sh::output(Command::new(self.dir.join("kubectl")).args(words))
    }

    fn apply(&self, objects: &str) -> Result<()> {
        let mut kubectl = Command::new(self.dir.join("kubectl"));
        kubectl
            .args(["apply", "--filename=-"])
            .stdout(Stdio::null());
        sh::feed(&mut kubectl, objects)
    }

    fn await_condition(&mut self, words: &[&str]) -> Result<()> {
        let waited = self.kubectl(&[&["wait", READY], words].concat());
        self.check()?;
        waited.map(drop)
    }

    /// Waits until every Deployment and DaemonSet has all its pods.
    fn await_pods(&mut self) -> Result<()> {
        let found = self.kubectl(&[
            "get",
            "deployments,daemonsets",
            "-A",
            "--no-headers",
            "-o",
            "custom-columns=KIND:.kind,NS:.metadata.namespace,NAME:.metadata.name",
        ])?;
        for line in found.lines() {
            let [kind, namespace, name] = line.split_whitespace().collect::<Vec<_>>()[..] else {
                bail!("kubectl said {line:?}");
            };
            let waited = self.kubectl(&["rollout", "status", READY, "-n", namespace, kind, name]);
            self.check()?;
            waited.with_context(|| format!("wait for {kind} {namespace}/{name}"))?;
        }
        Ok(())
    }

    /// Waits until each node's kube-proxy has rules for what is ready: a pod there reaches a Service by name.
    fn await_services(&mut self) -> Result<()> {
        let clients = [
            "get",
            "pods",
            "-n",
            "shop",
            "-l",
            "app=client",
            "-o",
            "name",
        ];
        for client in self.kubectl(&clients)?.lines() {
            let ask = ["exec", "-n", "shop", client, "--"];
            let ask = [
                &ask[..],
                &["timeout", "3", "wget", "-q", "-O", "-", "http://web/"],
            ]
            .concat();
            let patience = Duration::from_secs(60);
            self.wait(&format!("Service web for {client}"), patience, |bed| {
                Ok(bed.kubectl(&ask).is_ok())
            })?;
        }
        Ok(())
    }

    /// A program in the bed's directory for whoever wants to look at it.
    fn write_script(&self, name: &str, line: &str) -> Result<()> {
        let path = self.dir.join(name);
        fs::write(&path, format!("#!/bin/sh\n{line}\n"))?;
        Ok(fs::set_permissions(
            &path,
            fs::Permissions::from_mode(0o755),
        )?)
    }
}
