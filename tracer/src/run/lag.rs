//! How far kube-proxy is behind: what the API server said, and what was written into the kernel, brought together.
//! Of nf_tables the kernel tells: a thread of its own listens. Of IPVS and of iptables' own tables it does not: while an
//! endpoint is waited for, another thread looks again and again. Both end when nobody wants their news.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, mpsc as std_mpsc},
    thread,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::mpsc;

use super::tell;
use crate::{
    model::{
        Change, ClusterChange, Index, WallNs,
        change::{Key, Kind, Object},
        cluster::{ObjectName, PortProtocol},
        lag::{Lag, LagTotals, UNWRITTEN, ready_of},
    },
    rules::{Monitor, Polled, Written},
};

/// How long the thread listens before it asks whether anybody still wants its news.
const PATIENCE: Duration = Duration::from_secs(1);

/// Generations on their way; each is kube-proxy's work of a second.
const QUEUE: usize = 256;

/// Between two looks: at least this, and so many times what the last one took, so that looking costs a twentieth of
/// one processor at most.
const EACH: Duration = Duration::from_millis(20);
const PAUSE: u32 = 20;

/// What was written, and when that was seen; by looking each so often, where nobody tells.
type News = (WallNs, Vec<Written>, Option<Duration>);

/// The lag, kept up to date.
#[derive(Debug)]
pub(super) struct Lags {
    written: mpsc::Receiver<News>,
    /// To whoever looks again and again, where somebody does.
    awaited: Option<std_mpsc::Sender<Awaited>>,
    lag: Lag,
}

/// Endpoints of one Service that rules do not lead to yet.
#[derive(Debug)]
struct Awaited {
    since: Instant,
    service: Arc<str>,
    /// At which addresses the Service is asked.
    fronts: Vec<(PortProtocol, SocketAddr)>,
    endpoints: BTreeSet<SocketAddr>,
}

impl Lags {
    /// Begins to listen and to look; `None` where kube-proxy writes what can neither be heard nor seen.
    pub(super) fn start() -> Option<Self> {
        let (told, written) = mpsc::channel(QUEUE);
        let heard = or_told(Monitor::open()).flatten().and_then(|monitor| {
            let told = told.clone();
            spawn("monitor", move || listen(monitor, &told))
        });
        let awaited = or_told(Polled::open()).flatten().and_then(|polled| {
            let (awaited, new) = std_mpsc::channel();
            spawn("poll", move || look(polled, &new, &told)).map(|()| awaited)
        });
        (heard.is_some() || awaited.is_some()).then(|| Self {
            written,
            awaited,
            lag: Lag::default(),
        })
    }

    /// Applies a change to the index, and notes which endpoints became ready by it.
    pub(super) fn apply(&mut self, change: ClusterChange, index: &mut Index) {
        let at = change.at;
        // What was there at the beginning did not change.
        let known = index.has_listed(Kind::Slices) && index.has_listed(Kind::Services);
        let Some(service) = service_of(&change.what).filter(|_| known) else {
            index.apply(change);
            return;
        };
        let before = ready(index, &service);
        index.apply(change);
        let after = ready(index, &service);
        if before != after {
            self.take();
            self.lag.heard(at, &service, &before, &after);
            self.wait_for(&service, after.difference(&before).copied(), index);
        }
    }

    /// Has it looked for, where nobody tells.
    fn wait_for(
        &self,
        service: &ObjectName,
        endpoints: impl Iterator<Item = SocketAddr>,
        index: &Index,
    ) {
        let (Some(awaited), Some(object)) = (&self.awaited, index.service(service)) else {
            return;
        };
        let addresses = object.cluster_ips.iter();
        let fronts = addresses.flat_map(|ip| {
            let ports = object.ports.iter();
            ports.map(|port| (port.protocol, SocketAddr::new(*ip, port.port)))
        });
        let new = Awaited {
            since: Instant::now(),
            service: service.to_string().into(),
            fronts: fronts.collect(),
            endpoints: endpoints.collect(),
        };
        if !new.endpoints.is_empty() {
            // Who looks has said why it stopped.
            drop(awaited.send(new));
        }
    }

    /// A packet was sent to an endpoint.
    pub(super) fn packet(&mut self, at: WallNs, endpoint: SocketAddr) {
        self.take();
        self.lag.packet(at, endpoint);
    }

    /// Time has come to `now`.
    pub(super) fn tick(&mut self, now: WallNs) {
        self.take();
        self.lag.tick(now);
    }

    /// Takes what was written meanwhile.
    fn take(&mut self) {
        while let Ok((at, written, polled)) = self.written.try_recv() {
            if let Some(each) = polled {
                self.lag.polled(each);
            }
            for one in written {
                self.lag.written(at, one.service.as_deref(), one.endpoint);
            }
        }
    }

    /// What came of all changes.
    pub(super) fn finish(mut self) -> LagTotals {
        self.take();
        self.lag.finish()
    }
}

/// What there is; why it cannot be had is told.
fn or_told<T>(opened: Result<T, impl std::error::Error + Send + Sync + 'static>) -> Option<T> {
    let told = opened.map_err(|error| {
        let error = anyhow::Error::new(error);
        tell(&format!(
            "how far kube-proxy is behind is not told in full: {error:#}"
        ));
    });
    told.ok()
}

fn spawn(name: &str, job: impl FnOnce() + Send + 'static) -> Option<()> {
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(job).ok().map(drop)
}

fn listen(mut monitor: Monitor, told: &mpsc::Sender<News>) {
    while !told.is_closed() {
        let Ok(new) = monitor.next(PATIENCE) else {
            return;
        };
        // What there is no room for goes unseen.
        if !new.is_empty() {
            drop(told.try_send((SystemTime::now().into(), new, None)));
        }
    }
}

/// Looks for what is waited for until it is there, or is not to be expected any more.
fn look(mut polled: Polled, new: &std_mpsc::Receiver<Awaited>, told: &mpsc::Sender<News>) {
    let mut awaited: Vec<Awaited> = Vec::new();
    loop {
        if awaited.is_empty() {
            match new.recv() {
                Ok(one) => awaited.push(one),
                Err(_) => return,
            }
        }
        awaited.extend(new.try_iter());
        let began = Instant::now();
        let fronts: Vec<_> = awaited.iter().flat_map(|one| one.fronts.clone()).collect();
        let Some(found) = or_told(polled.endpoints(&fronts)) else {
            return;
        };
        let each = EACH.max(began.elapsed() * PAUSE);
        let mut written = Vec::new();
        for one in &mut awaited {
            let there = one.endpoints.intersection(&found);
            written.extend(there.map(|endpoint| Written {
                service: Some(Arc::clone(&one.service)),
                endpoint: *endpoint,
            }));
            one.endpoints.retain(|endpoint| !found.contains(endpoint));
        }
        awaited.retain(|one| !one.endpoints.is_empty() && one.since.elapsed() < UNWRITTEN);
        if !written.is_empty() {
            drop(told.try_send((SystemTime::now().into(), written, Some(each))));
        }
        thread::sleep(each);
    }
}

fn ready(index: &Index, service: &ObjectName) -> BTreeSet<SocketAddr> {
    ready_of(
        index.service(service).map(|one| &**one),
        &index.slices_of(service),
    )
}

/// The Service that a changed object makes.
pub(super) fn service_of(change: &Change) -> Option<ObjectName> {
    let of_slice = |namespace: &Arc<str>, service: &Arc<str>| ObjectName {
        namespace: Arc::clone(namespace),
        name: Arc::clone(service),
    };
    match change {
        Change::Set(Object::Service(service)) => Some(service.name.clone()),
        Change::Set(Object::Slice(slice)) => Some(of_slice(&slice.name.namespace, &slice.service)),
        Change::Gone(Key::Service(name)) => Some(name.clone()),
        Change::Gone(Key::Slice { name, service }) => Some(of_slice(&name.namespace, service)),
        _ => None,
    }
}
