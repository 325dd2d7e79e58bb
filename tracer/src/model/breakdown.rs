//! `Breakdown`: what all rows add up to, by everything that reports and charts tell apart. Bounded
//! whatever the traffic: some ten megabytes.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{
    bounded::{Bounded, Weight},
    cause::{self, Drop},
    cluster::Workload,
    ids::WallNs,
    journey::Step,
    pod::{Pod, PodName},
    row::{Named, Protocol, Row},
    search::Search,
    series::Series,
    spent::Spent,
    spread::Spread,
    steps::Steps,
    tally::{Kind, Tally, Way, Who},
    worst::Worst,
};

/// Most addresses of pods that are remembered.
const PODS: usize = 4096;

/// Totals of all rows, by one thing after the other. A row that amends an earlier one is not
/// counted again.
#[derive(Debug, Default)]
pub struct Breakdown {
    /// When the first row and the last one began; `None` without rows.
    pub range: Option<(WallNs, WallNs)>,
    /// By kind.
    pub kinds: BTreeMap<Kind, Tally>,
    /// Over time.
    pub series: Series,
    /// DNS by client.
    pub clients: Bounded<Who, Tally, 1024>,
    /// DNS by what was asked and the backend that it became.
    pub servers: Bounded<Way, Tally, 1024>,
    /// DNS by name, in lower case.
    pub names: Bounded<String, Tally, 4096>,
    /// What the clients' search paths cost.
    pub searches: Bounded<Who, Search, 1024>,
    /// Connections by protocol, what was asked and the backend that it became.
    pub backends: Bounded<(Protocol, Way), Tally, 2048>,
    /// Time in each stage.
    pub stages: BTreeMap<Kind, Steps<Spread>>,
    /// Time in each stage by where it was spent: the client's or the backend's pod, or a namespace
    /// between them.
    pub places: Bounded<(Who, Kind), Steps<Spread>, 512>,
    /// Exchanges without a good end, by the last stage that they passed; `None` where their packet was
    /// seen at one place only.
    pub stopped: BTreeMap<(Kind, Option<Step>), u64>,
    /// Journeys in which a stage could not be seen apart.
    pub unseen: BTreeMap<(Kind, Step), u64>,
    /// Packets that the kernel dropped, by reason and place, and by what was asked.
    pub drops: Bounded<(Drop, SocketAddr), u64, 1024>,
    /// Pods by the address that they had last; of the first 4096.
    pub pods: BTreeMap<IpAddr, Arc<Pod>>,
    /// What pods belong to, of the first 4096 of which that is known.
    pub workloads: BTreeMap<Who, Workload>,
    /// Those to look at one by one.
    pub worst: Worst,
}

impl Weight for Steps<Spread> {
    fn weight(&self) -> u64 {
        self.iter().map(|(_, spread)| spread.count()).sum()
    }
}

impl Breakdown {
    /// Adds a row, but for the time that its journey spent.
    pub(super) fn add(&mut self, row: &Row, named: &Named) {
        if row.amends().is_some() {
            return;
        }
        let cause = cause::of(row);
        let cause = cause.as_deref();
        let (kind, wall) = (Kind::of(row), row.wall());
        let (first, last) = self.range.get_or_insert((wall, wall));
        (*first, *last) = ((*first).min(wall), (*last).max(wall));
        self.kinds.entry(kind).or_default().add(row, cause);
        self.series.add(row, cause);
        self.worst.add(row, named, cause);
        let way = (row.asked(), row.backend());
        let client = Who::client(row, named);
        match row {
            Row::Dns(dns) => {
                self.clients.of(&client).add(row, cause);
                self.servers.of(&way).add(row, cause);
                if let Some(name) = dns.name.as_deref().map(lower) {
                    self.names.of(&*name).add(row, cause);
                    self.searches.of(&client).add(dns, &name);
                }
            }
            Row::Connection(connection) => {
                let key = (connection.protocol, way);
                self.backends.of(&key).add(row, cause);
            }
        }
        if let Some(drop) = cause.and_then(cause::dropped) {
            *self.drops.of(&(drop, row.asked())) += 1;
        }
        if let Some(journey) = row.journey().filter(|_| !row.outcome().is_good()) {
            *self
                .stopped
                .entry((kind, journey.stopped_in()))
                .or_default() += 1;
        }
        self.name_pods(row, named);
    }

    fn name_pods(&mut self, row: &Row, named: &Named) {
        let backend = row.backend().map(|backend| (backend, &named.backend));
        for (address, name) in [Some((row.client().address, &named.pod)), backend]
            .into_iter()
            .flatten()
        {
            let Some(name) = name else { continue };
            self.add_workload(name);
            let room = self.pods.len() < PODS;
            match self.pods.get_mut(&address.ip()) {
                Some(pod) if Arc::ptr_eq(pod, &name.pod) => {}
                Some(pod) => *pod = name.pod.clone(),
                None if room => {
                    self.pods.insert(address.ip(), name.pod.clone());
                }
                None => {}
            }
        }
    }

    fn add_workload(&mut self, name: &PodName) {
        let Some(workload) = name.workload() else {
            return;
        };
        let pod = Who::pod(&name.pod);
        if self.workloads.len() < PODS && !self.workloads.contains_key(&pod) {
            self.workloads.insert(pod, workload.clone());
        }
    }

    /// Adds what journeys spent.
    pub(super) fn add_spent(&mut self, spent: &Spent) {
        let kind = spent.kind;
        let stages = self.stages.entry(kind).or_default();
        for step in &spent.unseen {
            *self.unseen.entry((kind, *step)).or_default() += spent.count() as u64;
        }
        for (step, who, times) in spent.steps() {
            let all = stages.of(step);
            let mut there = who.map(|who| self.places.of(&(who.clone(), kind)).of(step));
            for took in times {
                all.add(took);
                if let Some(there) = &mut there {
                    there.add(took);
                }
            }
        }
    }

    /// The pod that had an address last.
    pub fn pod(&self, address: IpAddr) -> Option<&Pod> {
        self.pods.get(&address).map(|pod| &**pod)
    }
}

/// A name in lower case, as nearly all are (RFC 4343).
fn lower(name: &str) -> Cow<'_, str> {
    // All bytes are looked at, many at once.
    let upper = name
        .bytes()
        .fold(false, |upper, byte| upper | byte.is_ascii_uppercase());
    if upper {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}
