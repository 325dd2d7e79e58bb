//! The wiring of `tracer verify`: read rules, routes and API objects; judge, or walk one packet;
//! print.

use std::{
    collections::{HashMap, HashSet},
    io::{self, BufWriter, IsTerminal as _, Write as _},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    End, Exit,
    lag::{Lags, service_of},
    tell,
};
use crate::{
    cli::{Output, VerifyArgs},
    cluster::{self, Cluster},
    model::{
        ClusterChange, Finding, Index, Snapshot, WallNs,
        change::{Kind, Object},
        cluster::{Node, ObjectName, PortProtocol},
        index::Standing,
        verified::{Objects as By, Verified},
    },
    record,
    report::{self, Format},
    rules::{Flow, Host, Ruleset, unanswered},
    verify::{Ask, AskError, Besides, Client, judge_alone, judge_with, walk},
};

/// Longest wait for the API server to say all it has.
const PATIENCE: Duration = Duration::from_secs(30);

/// kube-proxy writes a change within a second or so; what differs for longer is a finding.
const LAG: Duration = Duration::from_millis(1500);

/// Of Services whose objects changed within this time nothing is said: while they change again and again, rules
/// and objects are never of one moment.
const CHANGING: Duration = Duration::from_secs(3);

/// Between two looks with `--watch`: at least this, and so many times what a look takes.
const EACH: Duration = Duration::from_secs(2);
const PAUSE: u32 = 20;

/// Looks until nothing new is found twice.
const LOOKS: u32 = 4;

/// Judges this node's rules, or walks the packet that was asked for.
///
/// # Errors
/// The rules or the objects cannot be read, nobody has the names, or output cannot be written.
pub async fn verify(args: &VerifyArgs) -> Result<Exit> {
    let stdout = io::stdout();
    let format = match args.output {
        Output::Json => Format::Json,
        Output::Text => Format::Text {
            zone: report::Zone::Local,
            colour: stdout.is_terminal(),
        },
    };
    let mut out = BufWriter::new(stdout.lock());
    if let (Some(from), Some(to)) = (&args.from, &args.to) {
        one_packet(from, to, args.udp, format, &mut out)?;
        out.flush().context("write")?;
        return Ok(Exit::Done);
    }
    if args.watch {
        drop(out);
        return watch(args, format).await;
    }
    let verified = all(args).await?;
    report::verified(format, &verified, &mut out)?;
    out.flush().context("write")?;
    Ok(if verified.findings.is_empty() {
        Exit::Done
    } else {
        Exit::Problem
    })
}

fn one_packet(
    from: &str,
    to: &str,
    udp: bool,
    format: Format,
    out: &mut impl io::Write,
) -> Result<()> {
    let ruleset = Ruleset::read()?;
    let host = Host::read()?;
    let protocol = if udp {
        PortProtocol::Udp
    } else {
        PortProtocol::Tcp
    };
    let from = client(from)?;
    let ask = Ask::new(&from, to, protocol, &ruleset.services(), &host)?;
    let walk = walk(&ruleset, &host, &ask);
    report::walk(format, &walk, out).context("write")
}

fn client(from: &str) -> Result<Client, AskError> {
    if from == "node" {
        return Ok(Client::Node);
    }
    let address = from.parse().map_err(|_| AskError::NoSource {
        from: from.to_owned(),
    })?;
    Ok(Client::Addresses(vec![address], None))
}

/// Judges all. What the API server said a moment ago may still be on its way into the rules: only
/// what is found twice is told.
async fn all(args: &VerifyArgs) -> Result<Verified> {
    if !args.objects.is_empty() {
        let snapshot = cluster::read_files(&args.objects)?;
        let mut verified = look(args, &snapshot, HashSet::new)?;
        verified.objects = By::Files;
        return Ok(verified);
    }
    match heard(args).await {
        Ok(mut objects) => settled(args, &mut objects).await,
        Err(why) => unheard(args, &why),
    }
}

/// All that the API server has.
async fn heard(args: &VerifyArgs) -> Result<Objects> {
    let mut objects = Objects::connect(args)?;
    objects.settle().await?;
    Ok(objects)
}

/// Judges by what the API server said before, or by the rules alone.
fn unheard(args: &VerifyArgs, why: &anyhow::Error) -> Result<Verified> {
    let file = &args.names_file;
    let shown = file.display();
    let kept = kept(file).with_context(|| format!("use what was kept in {shown}"));
    match kept {
        Ok(Some(snapshot)) => {
            let age = WallNs::from(SystemTime::now()) - snapshot.taken;
            tell(&format!(
                "{why:#}: judged by what it said before, as kept in {shown}"
            ));
            let mut verified = look(args, &snapshot, HashSet::new)?;
            verified.objects = By::Kept(age);
            return Ok(verified);
        }
        Ok(None) => tell(&format!(
            "{why:#}, and nothing that it said is kept in {shown}: judged by the rules alone"
        )),
        Err(error) => tell(&format!("{why:#}; {error:#}: judged by the rules alone")),
    }
    let (ruleset, host) = (Ruleset::read()?, Host::read()?);
    Ok(judge_alone(&ruleset, &host, &unanswered()?))
}

/// What was kept of the objects; `None` where nothing was.
fn kept(file: &Path) -> Result<Option<Snapshot>> {
    let mut snapshot = Snapshot::default();
    record::read_kept(file, |at, object| {
        snapshot.taken = at;
        match object {
            Object::Pod(pod) => snapshot.pods.push(pod),
            Object::Service(service) => snapshot.services.push(service),
            Object::Slice(slice) => snapshot.slices.push(slice),
            Object::Node(node) => snapshot.nodes.push(node),
        }
    })?;
    Ok((!snapshot.services.is_empty()).then_some(snapshot))
}

/// The same for doctor, of this node by the API server that is found.
///
/// # Errors
/// As [`verify`].
pub(super) async fn summary() -> Result<Verified> {
    let args = VerifyArgs::default();
    let mut objects = heard(&args).await?;
    settled(&args, &mut objects).await
}

/// What is found twice in a row.
async fn settled(args: &VerifyArgs, objects: &mut Objects) -> Result<Verified> {
    let mut verified = objects.look(args)?;
    for _ in 1..LOOKS {
        if verified.findings.is_empty() {
            break;
        }
        objects.follow(LAG).await;
        let mut again = objects.look(args)?;
        let new = again.findings.len();
        let before = std::mem::take(&mut verified.findings);
        again.findings.retain(|finding| {
            let mut before = before.iter();
            before.any(|one| one.name == finding.name && one.object == finding.object)
        });
        let steady = again.findings.len() == new;
        verified = again;
        if steady {
            break;
        }
    }
    Ok(verified)
}

/// Judges by `snapshot`; `changing` tells, once the rules are read, which Services' objects have just changed.
fn look(
    args: &VerifyArgs,
    snapshot: &Snapshot,
    changing: impl FnOnce() -> HashSet<ObjectName>,
) -> Result<Verified> {
    let ruleset = Ruleset::read()?;
    let host = Host::read()?;
    let node = this_node(args, snapshot, &host)?;
    let besides = Besides {
        flows: &Flow::read()?,
        changing: &changing(),
    };
    Ok(judge_with(&ruleset, &host, snapshot, &node, besides))
}

/// The Node that is told, or that has one of this host's addresses.
fn this_node(args: &VerifyArgs, snapshot: &Snapshot, host: &Host) -> Result<Arc<Node>> {
    let mut nodes = snapshot.nodes.iter();
    let found = match &args.node {
        Some(name) => nodes.find(|node| *node.name == **name),
        None => nodes.find(|node| node.addresses.iter().any(|one| host.is_local(*one))),
    };
    match (found, &args.node) {
        (Some(node), _) => Ok(Arc::clone(node)),
        (None, Some(name)) => bail!("no Node is called {name}"),
        (None, None) if snapshot.nodes.is_empty() => {
            bail!(
                "the objects have no Node: which endpoints are local is not known; add `kubectl get nodes -o json`"
            )
        }
        (None, None) => {
            bail!("none of the Nodes has an address of this machine; name it with --node")
        }
    }
}

/// Tells what changes, until a signal comes.
async fn watch(args: &VerifyArgs, format: Format) -> Result<Exit> {
    let mut end = End::new()?;
    let mut objects = Objects::connect(args)?;
    objects.settle().await?;
    objects.lags = Lags::start();
    let mut told: Vec<Finding> = Vec::new();
    let mut first = true;
    let mut looks = 0;
    loop {
        let began = Instant::now();
        let mut verified = tokio::select! {
            verified = settled(args, &mut objects) => verified?,
            () = end.reached() => break,
        };
        // A look at a large cluster takes seconds of a processor.
        let pause = EACH.max(began.elapsed() * PAUSE);
        let mut out = BufWriter::new(io::stdout());
        if first {
            report::verified(format, &verified, &mut out)?;
        } else {
            let is_in = |all: &[Finding], one: &Finding| {
                let mut all = all.iter();
                all.any(|other| other.name == one.name && other.object == one.object)
            };
            for finding in verified.findings.iter().filter(|one| !is_in(&told, one)) {
                report::found(format, finding, &mut out)?;
            }
            let (unsure, gone) = told
                .iter()
                .filter(|one| !is_in(&verified.findings, one))
                .partition::<Vec<_>, _>(|one| objects.may_change(one));
            for finding in gone {
                report::mended(format, finding, &mut out)?;
            }
            let unsure = unsure.into_iter().cloned().collect::<Vec<_>>();
            verified.findings.extend(unsure);
        }
        out.flush().context("write")?;
        first = false;
        looks += 1;
        told = verified.findings;
        tokio::select! {
            () = objects.follow(pause) => {}
            () = end.reached() => break,
        }
    }
    let lag = objects.lags.take().map(Lags::finish);
    let mut out = BufWriter::new(io::stdout());
    report::watched(format, looks, told.len(), lag.as_ref(), &mut out)?;
    out.flush().context("write")?;
    Ok(if told.is_empty() {
        Exit::Done
    } else {
        Exit::Problem
    })
}

/// What the API server says, kept up to date.
struct Objects {
    cluster: Cluster,
    index: Index,
    /// When a Service's objects changed last, since all were there.
    changed: HashMap<ObjectName, Instant>,
    /// Where changes are watched.
    lags: Option<Lags>,
}

impl Objects {
    fn connect(args: &VerifyArgs) -> Result<Self> {
        let options = cluster::Options {
            kubeconfig: args.kubeconfig.clone(),
            own_pods: true,
        };
        let cluster = cluster::connect(&options).context("read the kubeconfig")?;
        let cluster = cluster.context(
            "no kubeconfig is found: name one with --kubeconfig, or give the objects as files with --objects",
        )?;
        Ok(Self {
            cluster,
            index: Index::default(),
            changed: HashMap::new(),
            lags: None,
        })
    }

    /// Waits until all kinds are there.
    async fn settle(&mut self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut awaited = false;
            for kind in Kind::ALL {
                match self.index.standing(kind) {
                    Standing::Watched { .. } => {}
                    Standing::Awaited => awaited = true,
                    Standing::Lost { why, .. } => {
                        let place = &self.cluster.place;
                        bail!(
                            "the API server ({place}) does not list {}: {why}",
                            kind.name()
                        );
                    }
                }
            }
            if !awaited {
                return Ok(());
            }
            match timeout_at(end, self.cluster.changes.recv()).await {
                Ok(Some(change)) => self.index.apply(change),
                Ok(None) => bail!("the API server is not asked any more"),
                Err(_) => bail!(
                    "the API server has not listed its objects within {} s",
                    PATIENCE.as_secs()
                ),
            }
        }
    }

    /// Takes what changes meanwhile.
    async fn follow(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while let Ok(change) = timeout_at(end, self.cluster.changes.recv()).await {
            match change {
                Some(change) => self.apply(change),
                None => sleep_until(end).await,
            }
        }
        self.take();
    }

    fn apply(&mut self, change: ClusterChange) {
        if let Some(service) = service_of(&change.what) {
            self.changed.insert(service, Instant::now());
        }
        match &mut self.lags {
            Some(lags) => lags.apply(change, &mut self.index),
            None => self.index.apply(change),
        }
    }

    fn take(&mut self) {
        let now = Instant::now();
        while let Ok(change) = self.cluster.changes.try_recv() {
            self.apply(change);
        }
        if let Some(lags) = &mut self.lags {
            lags.tick(SystemTime::now().into());
        }
        self.changed.retain(|_, at| now - *at < CHANGING);
    }

    /// Judges by what is known now.
    fn look(&mut self, args: &VerifyArgs) -> Result<Verified> {
        let snapshot = self.index.snapshot(SystemTime::now().into());
        look(args, &snapshot, || {
            // What was said while the rules were read is younger than they may be, or older.
            self.take();
            self.changed.keys().cloned().collect()
        })
    }

    /// Whether a finding may be missing because objects of what it is about have just changed.
    fn may_change(&self, finding: &Finding) -> bool {
        // What many Services have in common does not name them all.
        let of_many = finding.object.ends_with("Service ports") && !self.changed.is_empty();
        let of_one = |name: &ObjectName| {
            let rest = finding.object.strip_prefix(&format!("Service {name}"));
            rest.is_some_and(|rest| rest.starts_with([',', ':']) || rest.is_empty())
        };
        of_many || self.changed.keys().any(of_one)
    }
}
