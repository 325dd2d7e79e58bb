//! Who the addresses of a row are: what the API server says, joined with what this node knows.
//!
//! A pod on this node is told by its container or by its CNI plugin's result, which know their
//! moment better than the API server does; the API server then says what the pod is.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::sync::mpsc::Receiver;

use super::{hearing::Hearing, here::Here, lag::Lags, offline::Offline, sites::Sites, tell};
use crate::{
    cli::NameArgs,
    cluster::{self, Cluster},
    model::{
        ClusterChange, Ifindex, Index, KtimeNs, Named, NetnsInode, PodName, Protocol, Row,
        ServiceName, Site, Source, Trace, WallNs,
        change::Kind,
        cluster::ObjectName,
        conntrack::ConntrackTotals,
        drops::EndName,
        index::Standing,
        lag::LagTotals,
        trace::{Api, ServiceSpread},
        uniform::uniform,
        verdict::Verdict,
    },
    record::{self, Recorder, SessionApi},
    verify::{Past, Translation, alike, verdict},
};

/// Changes taken in one go.
const BATCH: usize = 1024;

/// How long rows are held back at most until the API server has been heard.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Where NodeLocalDNS listens, see
/// <https://kubernetes.io/docs/tasks/administer-cluster/nodelocaldns/>.
const LOCAL_DNS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10)), 53);

/// What a node knows by itself: this one, or one that was recorded.
pub(super) trait Local {
    /// Time has come to `wall`.
    fn tick(&mut self, wall: WallNs);
    /// What it can say of those a row names by address.
    fn name(&mut self, row: &Row) -> Named;
    /// The names of a device.
    fn site(&mut self, netns: NetnsInode, ifindex: Ifindex) -> Site;
    /// Its conntrack tables, by their namespaces' names.
    fn conntrack_totals(&mut self) -> Vec<ConntrackTotals>;
}

impl Local for record::Names {
    fn tick(&mut self, wall: WallNs) {
        Self::tick(self, wall);
    }
    fn name(&mut self, row: &Row) -> Named {
        Self::name(self, row)
    }
    fn site(&mut self, netns: NetnsInode, ifindex: Ifindex) -> Site {
        Self::site(self, netns, ifindex)
    }
    fn conntrack_totals(&mut self) -> Vec<ConntrackTotals> {
        Self::conntrack_totals(self)
    }
}

/// Names, and who knows them. Time is that of ticks, so that a replay names alike.
pub(super) struct Names<L> {
    pub(super) local: L,
    sites: Sites,
    index: Index,
    cluster: Option<Cluster>,
    hearing: Hearing,
    offline: Option<Offline>,
    /// How far kube-proxy is behind, where that is looked at.
    lags: Option<Lags>,
    /// Rules are read where no API server is heard.
    pub(super) reads_rules: bool,
    /// The API server that is asked, or was.
    pub(super) asked: Option<SessionApi>,
    /// The API server has said what it has, or was given the time to.
    settled: bool,
    began: Option<KtimeNs>,
    ktime: KtimeNs,
    now: WallNs,
    /// Why no API server is asked, to be told.
    notice: Option<String>,
}

impl Names<Here> {
    /// Begins to ask the API server, and waits for nothing.
    pub(super) fn start(args: &NameArgs) -> Result<Self> {
        let (cluster, notice) = if args.no_api {
            (None, None)
        } else {
            connect(args)?
        };
        let asked = cluster.as_ref().map(|cluster| SessionApi {
            server: cluster.server.as_deref().map(str::to_owned),
        });
        let offline = (!args.alone).then(|| Offline::start(args)).transpose()?;
        let mut names = Self::new(Here::default(), asked, offline.is_some());
        names.cluster = cluster;
        names.offline = offline;
        names.notice = notice;
        Ok(names)
    }

    /// Begins to look how far kube-proxy is behind, where the API server is asked.
    pub(super) fn follow_rules(&mut self) {
        self.lags = self.cluster.as_ref().and_then(|_| Lags::start());
    }

    /// Tells why no API server is asked, where that was not wished for.
    pub(super) fn tell_notice(&mut self) {
        if let Some(notice) = self.notice.take() {
            tell(&notice);
        }
    }

    /// Who had `address` at `at`.
    pub(super) fn end(&mut self, address: IpAddr, at: WallNs) -> EndName {
        let known = self.local.pod_at(address, at);
        let pod = self.pod(known, address, at, self.now);
        EndName {
            node: self.node_of(pod.as_ref(), address),
            pod,
        }
    }

    /// What `asked` was called at `at`.
    pub(super) fn service(
        &self,
        asked: SocketAddr,
        protocol: Protocol,
        at: WallNs,
    ) -> Option<ServiceName> {
        self.index.service_at(asked, protocol, at, self.now)
    }

    /// Waits for news of names, from the API server or from elsewhere, takes them, and has them recorded.
    pub(super) async fn hear(&mut self, mut recorder: Option<&mut Recorder>) {
        let cluster = self.cluster.as_mut().map(|cluster| &mut cluster.changes);
        let offline = self.offline.as_mut().map(|offline| &mut offline.changes);
        let (mut said, mut read) = (Vec::new(), Vec::new());
        tokio::select! {
            () = next(cluster, &mut said) => {}
            () = next(offline, &mut read) => {}
        }
        for change in said.drain(..).chain(read) {
            if let Some(recorder) = &mut recorder {
                recorder.change(&change);
            }
            match &mut self.lags {
                Some(lags) => lags.apply(change, &mut self.index),
                None => self.index.apply(change),
            }
        }
    }
}

impl<L: Local> Names<L> {
    /// `asked` is the API server whose changes will come; where it is not heard, those of rules will if
    /// they are read.
    pub(super) fn new(local: L, asked: Option<SessionApi>, reads_rules: bool) -> Self {
        Self {
            local,
            sites: Sites::default(),
            index: Index::default(),
            cluster: None,
            hearing: Hearing::default(),
            offline: None,
            lags: None,
            reads_rules,
            settled: asked.is_none() && !reads_rules,
            asked,
            began: None,
            ktime: KtimeNs(0),
            now: WallNs(0),
            notice: None,
        }
    }

    /// Takes what the API server said.
    pub(super) fn apply(&mut self, change: ClusterChange) {
        self.index.apply(change);
    }

    /// Time passes.
    pub(super) fn tick(&mut self, ktime: KtimeNs, wall: WallNs) {
        self.began.get_or_insert(ktime);
        self.ktime = ktime;
        self.now = wall;
        self.local.tick(wall);
        self.sites.forget();
        if let Some(cluster) = &self.cluster {
            let server = cluster.server.as_deref().unwrap_or(&cluster.place);
            let news = self.hearing.news(server, &self.index, wall);
            if let Some(news) = news {
                tell(&news);
            }
        }
        if let Some(lags) = &mut self.lags {
            lags.tick(wall);
        }
        if let Some(offline) = &mut self.offline {
            offline.tick(ktime, wall, self.asked.is_some(), &self.index);
        }
    }

    /// Keeps names on disk, where that was asked for.
    pub(super) fn finish(&mut self) {
        if let Some(offline) = self.offline.take() {
            offline.finish(self.now, &self.index);
        }
    }

    /// A row tells of a packet to an endpoint.
    pub(super) fn packet(&mut self, row: &Row) {
        if let (Some(lags), Some(backend)) = (&mut self.lags, row.backend()) {
            lags.packet(row.wall(), backend);
        }
    }

    /// How far kube-proxy was behind; `None` where nobody looked.
    pub(super) fn lag(&mut self) -> Option<LagTotals> {
        self.lags.take().map(Lags::finish)
    }

    /// Whether rows can be named as well as they ever will; becomes so once, and soon.
    pub(super) fn are_settled(&mut self) -> bool {
        if !self.settled {
            let awaited = |kind: Kind| self.index.standing(kind) == Standing::Awaited;
            let awaited = self.asked.is_some() && Kind::ALL.into_iter().any(awaited);
            let heard = self.index.has_listed(Kind::Services);
            let rules = self.reads_rules && !heard && self.index.ruled().is_none();
            let waited = self.ktime - self.began.unwrap_or(self.ktime);
            self.settled = waited >= PATIENCE || !(awaited || rules);
        }
        self.settled
    }

    /// All names that a row needs.
    pub(super) fn of(&mut self, row: &Row) -> Named {
        let mut named = self.local.name(row);
        self.join(row, &mut named);
        named.sites = self.sites(row);
        named
    }

    /// The names of all places that a row tells of; `None` where it tells of none.
    pub(super) fn sites(&mut self, row: &Row) -> Option<Arc<[Site]>> {
        let Self { sites, local, .. } = self;
        sites.of(row, |(netns, ifindex)| local.site(netns, ifindex))
    }

    /// Adds whom and what a row names by address to `named`, which is what the node itself knows of it.
    pub(super) fn join(&self, row: &Row, named: &mut Named) {
        let (at, now) = (row.wall(), self.now);
        let index = &self.index;
        let client = row.client().address.ip();
        let by_cgroup = named.pod_uid.as_ref().and_then(|uid| index.pod(uid, now));
        let known = match (by_cgroup, named.pod.take()) {
            (Some(api), _) if api.source == Source::Api => Some(api),
            (Some(kept), Some(node)) => Some(PodName {
                object: kept.object,
                ..node
            }),
            (kept, node) => node.or(kept),
        };
        named.pod = self.pod(known, client, at, now);
        named.client_node = self.node_of(named.pod.as_ref(), client);

        let asked = row.asked();
        named.asked.service = index.service_at(asked, row.protocol(), at, now);
        named.asked.pod = self.pod(named.asked.pod.take(), asked.ip(), at, now);
        named.asked.node = self.node_of(named.asked.pod.as_ref(), asked.ip());
        named.asked.local_dns = asked == LOCAL_DNS;

        if let Some(backend) = row.backend() {
            let service = named.asked.service.as_ref().map(|name| &name.port.service);
            named.backend = self
                .pod(named.backend.take(), backend.ip(), at, now)
                .or_else(|| index.endpoint(service?, backend, now));
            named.backend_node = self.node_of(named.backend.as_ref(), backend.ip());
        }
        named.verdict = self.verdict(row, named);
    }

    /// How TCP connections of `trace` were spread over endpoints.
    pub(super) fn spreads(&self, trace: &Trace) -> Vec<ServiceSpread> {
        let of_tcp = trace.connections.iter();
        let of_tcp = of_tcp.filter(|((protocol, _), _)| *protocol == Protocol::Tcp);
        let spreads = of_tcp.filter_map(|((protocol, asked), totals)| {
            let port = trace.services.get(&(*protocol, *asked))?;
            let endpoints = alike(&self.past(&port.service)?, port)?;
            let same = endpoints
                .iter()
                .filter(|at| at.is_ipv4() == asked.is_ipv4());
            let counts = same.map(|at| totals.backends.get(at).copied().unwrap_or(0));
            Some(ServiceSpread {
                asked: *asked,
                port: Arc::clone(port),
                test: uniform(&counts.collect::<Vec<_>>())?,
            })
        });
        spreads.collect()
    }

    /// Of what the API server said in this trace: what was kept before judges nobody.
    fn past(&self, name: &ObjectName) -> Option<Past> {
        let heard = |kind| self.index.has_listed(kind);
        if !heard(Kind::Services) || !heard(Kind::Slices) {
            return None;
        }
        Some(Past {
            service: Arc::clone(self.index.service(name)?),
            slices: self.index.slices_of(name),
            former: self.index.former_slices(name),
        })
    }

    /// Whether the backend was to get this client's traffic.
    fn verdict(&self, row: &Row, named: &Named) -> Option<Verdict> {
        let service = named.asked.service.as_ref()?;
        let past = self.past(&service.port.service)?;
        // What a pod sends, its own node's rules translate.
        let node = named.client_node.as_deref();
        let translation = Translation {
            at: row.wall(),
            port: &service.port,
            backend: row.backend()?,
            inside: node.is_some(),
            node,
            zone: node
                .and_then(|node| self.index.zone_of(node))
                .map(|zone| &**zone),
        };
        verdict(&past, &translation)
    }

    /// The pod that had `address` at `at`; `known` is whom this node takes it for.
    fn pod(
        &self,
        known: Option<PodName>,
        address: IpAddr,
        at: WallNs,
        now: WallNs,
    ) -> Option<PodName> {
        let Some(known) = known else {
            return self.index.pod_at(address, at, now);
        };
        let uid = known.pod.uid.as_ref().filter(|_| known.object.is_none());
        match uid.and_then(|uid| self.index.pod(uid, now)) {
            Some(api) if api.source == Source::Api => Some(api),
            Some(kept) => Some(PodName {
                object: kept.object,
                ..known
            }),
            None => Some(known),
        }
    }

    fn node_of(&self, pod: Option<&PodName>, address: IpAddr) -> Option<Arc<str>> {
        let node = pod.and_then(PodName::node);
        node.or_else(|| self.index.node_at(address)).cloned()
    }

    /// The backends that are ready now, of the Services in `trace`.
    pub(super) fn ready(&self, trace: &Trace) -> BTreeMap<(Protocol, SocketAddr), Vec<SocketAddr>> {
        let services = trace.services.iter();
        let ready =
            services.filter_map(|(key, port)| Some((*key, self.index.ready(port, key.1.ip())?)));
        ready.collect()
    }

    /// Whether `backend` of what was asked at `asked` is an endpoint no more, or about to be none, by what the API
    /// server said last.
    pub(super) fn has_left(&self, trace: &Trace, asked: SocketAddr, backend: SocketAddr) -> bool {
        let mut protocols = [Protocol::Udp, Protocol::Tcp].into_iter();
        let port = protocols.find_map(|protocol| trace.services.get(&(protocol, asked)));
        let Some(port) = port.filter(|_| self.index.has_listed(Kind::Slices)) else {
            return false;
        };
        let slices = self.index.slices_of(&port.service);
        let mut endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
        !endpoints.any(|one| !one.terminating && one.addresses.contains(&backend.ip()))
    }

    /// How the API server was heard, for the summary; `None` where it was not asked.
    pub(super) fn api(&self) -> Option<Api> {
        let asked = self.asked.as_ref()?;
        Some(Api {
            server: asked.server.as_deref().map(Arc::from),
            snapshot: self.index.loaded(),
            now: self.now,
            kinds: Kind::ALL
                .map(|kind| (kind, self.index.standing(kind)))
                .into(),
        })
    }
}

/// Waits for changes; for ever where none can come.
async fn next(changes: Option<&mut Receiver<ClusterChange>>, into: &mut Vec<ClusterChange>) {
    match changes.filter(|changes| !changes.is_closed() || !changes.is_empty()) {
        Some(changes) => {
            changes.recv_many(into, BATCH).await;
        }
        None => std::future::pending().await,
    }
}

/// The API server, or why it is not asked: a configuration that is found, not named, and cannot be
/// used does not end a trace.
fn connect(args: &NameArgs) -> Result<(Option<Cluster>, Option<String>)> {
    let options = cluster::Options {
        kubeconfig: args.kubeconfig.clone(),
        own_pods: args.own_pods,
    };
    match cluster::connect(&options) {
        Ok(Some(cluster)) => Ok((Some(cluster), None)),
        Ok(None) => {
            let notice = "no kubeconfig is found: names come from this node alone";
            Ok((None, Some(notice.to_owned())))
        }
        Err(error) if args.kubeconfig.is_some() => Err(error).context("read the kubeconfig"),
        Err(error) => {
            let error = anyhow::Error::new(error);
            let notice = format!(
                "names come from this node alone: the kubeconfig cannot be used: {error:#}"
            );
            Ok((None, Some(notice)))
        }
    }
}
