//! The wiring of `tracer verify`: read rules, routes and API objects; judge, or walk one packet;
//! print.

use std::{
    io::{self, BufWriter, IsTerminal as _, Write as _},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use tokio::time::{Instant, sleep, timeout_at};

use super::{End, Exit};
use crate::{
    cli::{Output, VerifyArgs},
    cluster::{self, Cluster},
    model::{
        Finding, Index, Snapshot, WallNs,
        change::Kind,
        cluster::{Node, PortProtocol},
        index::Standing,
        verified::Verified,
    },
    report::{self, Format},
    rules::{Flow, Host, Ruleset},
    verify::{Ask, AskError, Client, judge, stale, walk},
};

/// Longest wait for the API server to say all it has.
const PATIENCE: Duration = Duration::from_secs(30);

/// kube-proxy writes a change within a second or so; what differs for longer is a finding.
const LAG: Duration = Duration::from_millis(1500);

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
        return look(args, &snapshot);
    }
    let mut objects = Objects::connect(args)?;
    objects.settle().await?;
    settled(args, &mut objects).await
}

/// What is found twice in a row.
async fn settled(args: &VerifyArgs, objects: &mut Objects) -> Result<Verified> {
    let mut verified = look(args, &objects.snapshot())?;
    for _ in 1..LOOKS {
        if verified.findings.is_empty() {
            break;
        }
        objects.follow(LAG).await;
        let mut again = look(args, &objects.snapshot())?;
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

fn look(args: &VerifyArgs, snapshot: &Snapshot) -> Result<Verified> {
    let ruleset = Ruleset::read()?;
    let host = Host::read()?;
    let node = this_node(args, snapshot, &host)?;
    let mut verified = judge(&ruleset, &host, snapshot, &node);
    let flows = Flow::read()?;
    let stale = stale(&flows, &ruleset, &host, snapshot, &node);
    verified.findings.extend(stale);
    Ok(verified)
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
    let mut told: Vec<Finding> = Vec::new();
    let mut first = true;
    loop {
        let began = Instant::now();
        let verified = tokio::select! {
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
            for finding in told.iter().filter(|one| !is_in(&verified.findings, one)) {
                report::mended(format, finding, &mut out)?;
            }
        }
        out.flush().context("write")?;
        first = false;
        told = verified.findings;
        tokio::select! {
            () = objects.follow(pause) => {}
            () = end.reached() => break,
        }
    }
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
        sleep(time).await;
        while let Ok(change) = self.cluster.changes.try_recv() {
            self.index.apply(change);
        }
    }

    fn snapshot(&self) -> Snapshot {
        self.index.snapshot(wall_now())
    }
}

/// Now by the wall clock.
fn wall_now() -> WallNs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = since.unwrap_or_default().as_nanos();
    WallNs(i64::try_from(since).unwrap_or(i64::MAX))
}
