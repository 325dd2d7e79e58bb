//! `tracer doctor --probe`: one DNS query and one connection to a VIP, sent from within a pod and
//! followed on their way as any others.

use std::{
    fs::{self, File},
    io::Read as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::AsFd as _,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{End, Exit, Tracing, tell};
use crate::{
    cli::{Cli, Command, DoctorArgs, Output, TraceArgs, TraceOutput},
    node::Node,
};

/// Longest wait for an answer, and for a handshake.
const PATIENCE: Duration = Duration::from_secs(3);

/// Until what was sent last is a row: the limit for an answer, and a sweep.
const SETTLED: Duration = Duration::from_millis(500);

/// From where, and what is asked.
struct Probe {
    /// In words.
    from: String,
    netns: PathBuf,
    server: SocketAddr,
    name: String,
    /// The API server's VIP, from a pod's environment; else what `name` resolves to.
    vip: Option<SocketAddr>,
}

/// What came of it.
struct Came {
    dns: Result<(), String>,
    vip: Result<SocketAddr, String>,
}

/// Sends from within `whom` and tells the way of what was sent.
///
/// # Errors
/// Nobody is called so, or tracing fails.
pub(super) async fn probe(whom: &str, doctor: &DoctorArgs) -> Result<Exit> {
    let probe = Probe::of(whom)?;
    let inode = fs::metadata(&probe.netns)
        .with_context(|| format!("look at {}", probe.netns.display()))?
        .ino();
    let args = trace_args(inode, doctor)?;
    let mut end = End::new()?;
    let mut tracing = Tracing::start(&args, false)?;
    tell(&format!(
        "probe from {}: {} is asked for {}",
        probe.from, probe.server, probe.name
    ));
    end.limit(Some(PATIENCE + SETTLED));
    let sent = thread::spawn(move || probe.send());
    tracing.until(end).await?;
    let Ok(came) = sent.join() else {
        bail!("the thread that sends the probe ended");
    };
    let exit = tracing.finish()?;
    let came = came?;
    let mut good = true;
    for (what, said) in [
        ("DNS", came.dns.map(|()| "answered".to_owned())),
        ("VIP", came.vip.map(|at| format!("{at} connects"))),
    ] {
        match said {
            Ok(said) => tell(&format!("probe: {what}: {said}")),
            Err(why) => {
                good = false;
                tell(&format!("probe: {what}: {why}"));
            }
        }
    }
    Ok(if good { exit } else { Exit::Problem })
}

/// A trace of that namespace alone, with paths, and with names that the node itself knows.
fn trace_args(inode: u64, doctor: &DoctorArgs) -> Result<TraceArgs> {
    let inode = inode.to_string();
    let words = [
        "tracer",
        "trace",
        "--path",
        "--netns",
        &inode,
        "--unanswered-after",
        "3s",
    ];
    let Command::Trace(args) = Cli::try_parse_from(words)?.command else {
        bail!("these words are a trace's");
    };
    Ok(TraceArgs {
        output: match doctor.output {
            Output::Text => TraceOutput::Text,
            Output::Json => TraceOutput::Json,
        },
        ..args
    })
}

impl Probe {
    /// `whom` is a namespace of `ip netns`, a process id, or a pod as `NAMESPACE/NAME`.
    fn of(whom: &str) -> Result<Self> {
        let named = PathBuf::from("/run/netns").join(whom);
        let pid = if whom.contains('/') {
            let pids = Node::default().processes_of(whom);
            let pid = pids.iter().find(|pid| api_vip(**pid).is_some());
            let pid = pid.or(pids.first());
            Some(*pid.with_context(|| format!("no process of a pod {whom} runs on this node"))?)
        } else {
            whom.parse().ok()
        };
        let (netns, files) = match pid {
            Some(pid) => (
                PathBuf::from(format!("/proc/{pid}/ns/net")),
                format!("/proc/{pid}/root/etc/resolv.conf"),
            ),
            None if named.exists() => (named, format!("/etc/netns/{whom}/resolv.conf")),
            None => bail!(
                "--probe {whom} is no process id, no namespace of `ip netns`, and no pod as NAMESPACE/NAME"
            ),
        };
        let resolv_conf = fs::read_to_string(&files)
            .or_else(|_| fs::read_to_string("/etc/resolv.conf"))
            .with_context(|| format!("read {files}"))?;
        let server =
            nameserver(&resolv_conf).with_context(|| format!("{files} names no server"))?;
        Ok(Self {
            from: pid.map_or_else(|| whom.to_owned(), |pid| format!("{whom}, process {pid}")),
            netns,
            server: SocketAddr::new(server, 53),
            name: format!("kubernetes.default.svc.{}", domain(&resolv_conf)),
            vip: pid.and_then(api_vip),
        })
    }

    /// Enters the namespace, for this thread alone, and sends.
    fn send(self) -> Result<Came> {
        let netns = File::open(&self.netns).context("open the namespace")?;
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
            .context("enter the namespace")?;
        let asked = ask(self.server, &self.name);
        let answered = asked.as_ref().ok().copied().flatten();
        let vip = self
            .vip
            .or_else(|| answered.map(|ip| SocketAddr::new(ip.into(), 443)));
        let vip = match vip {
            Some(vip) => match TcpStream::connect_timeout(&vip, PATIENCE / 2) {
                Ok(_) => Ok(vip),
                Err(error) => Err(format!("{vip}: {error}")),
            },
            None => Err("no address is known to connect to".to_owned()),
        };
        let dns = match asked {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(format!("{} has no address by {}", self.name, self.server)),
            Err(error) => Err(format!("{}: {error}", self.server)),
        };
        Ok(Came { dns, vip })
    }
}

/// The API server's VIP in a process's environment, where the kubelet writes it.
fn api_vip(pid: u32) -> Option<SocketAddr> {
    let mut all = Vec::new();
    let file = File::open(format!("/proc/{pid}/environ")).ok()?;
    file.take(1 << 20).read_to_end(&mut all).ok()?;
    let value = |key: &str| {
        let mut pairs = all.split(|byte| *byte == 0).filter_map(|pair| {
            let pair = std::str::from_utf8(pair).ok()?;
            pair.strip_prefix(key)?.strip_prefix('=')
        });
        pairs.next()
    };
    let host: IpAddr = value("KUBERNETES_SERVICE_HOST")?.parse().ok()?;
    Some(SocketAddr::new(
        host,
        value("KUBERNETES_SERVICE_PORT")?.parse().ok()?,
    ))
}

/// The first server that a resolv.conf names.
fn nameserver(resolv_conf: &str) -> Option<IpAddr> {
    let mut lines = resolv_conf.lines();
    lines.find_map(|line| {
        line.strip_prefix("nameserver")?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    })
}

/// The cluster's domain, told from the search path; else the usual one.
fn domain(resolv_conf: &str) -> &str {
    let search = resolv_conf
        .lines()
        .find_map(|line| line.strip_prefix("search "));
    let mut ends = search.unwrap_or_default().split_whitespace();
    ends.find_map(|end| end.strip_prefix("svc."))
        .unwrap_or("cluster.local")
}

/// A query for the A record of `name`, recursion desired (RFC 1035, section 4.1).
fn query(name: &str) -> Vec<u8> {
    let mut message = vec![0x7a, 0x7a, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| label.len() < 64) {
        message.push(u8::try_from(label.len()).unwrap_or(0));
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// The address that `server` answers with; `None` when it answers without one.
fn ask(server: SocketAddr, name: &str) -> std::io::Result<Option<Ipv4Addr>> {
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE / 2))?;
    socket.connect(server)?;
    socket.send(&query(name))?;
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer)?;
    // Without EDNS in the query the last four bytes are the last record's, of type A.
    let records = u16::from_be_bytes([answer[6], answer[7]]);
    let last = answer
        .get(..length)
        .and_then(|answer| answer.last_chunk::<4>());
    Ok(last.filter(|_| records > 0).map(|ip| Ipv4Addr::from(*ip)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_comes_from_the_pods_own_file() {
        let pod = "search shop.svc.k8s.test svc.k8s.test k8s.test\nnameserver 10.96.0.10\noptions ndots:5\n";
        assert_eq!(nameserver(pod), "10.96.0.10".parse().ok());
        assert_eq!(domain(pod), "k8s.test");
        assert_eq!(domain("nameserver 192.0.2.1\n"), "cluster.local");
        assert_eq!(nameserver("# nothing\n"), None);
    }

    #[test]
    fn a_query_has_its_name_in_labels() {
        let message = query("a.bc");
        assert_eq!(&message[12..], [1, b'a', 2, b'b', b'c', 0, 0, 1, 0, 1]);
    }
}
