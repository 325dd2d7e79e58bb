//! What the API server says: Pods, Services, EndpointSlices, Nodes, and whom pods belong to; listed
//! and watched, never changed.
//!
//! A thread of its own does it, so that neither a large list nor a dead API server takes time from
//! the trace. It hands over changes in the model's words; no object is kept here.

pub mod objects;

mod config;
mod door;
mod file;
mod intern;
mod nodes;
mod owners;
mod pods;
mod services;
mod watch;

use std::{
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Instant, SystemTime},
};

use futures::try_join;
use k8s_openapi::{
    api::{apps::v1::ReplicaSet, batch::v1::Job},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{Api, Client, core::PartialObjectMeta};
use thiserror::Error;
use tokio::{
    sync::mpsc::{self, Receiver, Sender},
    time::sleep,
};

pub use self::file::{FileError, read as read_files};
use self::{
    config::Found,
    door::{Door, Shared},
    watch::{Told, watch},
};
use crate::model::{
    WallNs,
    change::{Change, ClusterChange, Kind},
};

/// Changes on their way; what is beyond waits in the API server's connection.
const QUEUE: usize = 4096;

/// Why no API server can be asked.
#[derive(Debug, Error)]
pub enum Error {
    /// A configuration was found, or named, and cannot be read.
    #[error("{place}")]
    Config {
        /// Where it was found.
        place: String,
        /// What is wrong with it.
        source: Box<config::Wrong>,
    },
    /// The thread could not be started.
    #[error("start a thread for the API server")]
    Thread(#[source] std::io::Error),
}

/// How the API server is to be asked.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A kubeconfig; `None` to look in the usual places.
    pub kubeconfig: Option<PathBuf>,
    /// Only this node's pods, where its name is known: other nodes' pods are named by their
    /// EndpointSlices.
    pub own_pods: bool,
}

/// The API server, being asked in the background.
#[derive(Debug)]
pub struct Cluster {
    /// What it says. The asking ends when this is dropped.
    pub changes: Receiver<ClusterChange>,
    /// Its address; `None` where the configuration has none.
    pub server: Option<Arc<str>>,
    /// Where the configuration was found.
    pub place: Arc<str>,
}

/// Begins to ask, and returns at once; `None` when no configuration is found.
///
/// # Errors
/// A configuration is there and cannot be read.
pub fn connect(options: &Options) -> Result<Option<Cluster>, Error> {
    let Some(found) = config::find(options.kubeconfig.as_deref())? else {
        return Ok(None);
    };
    let (sender, changes) = mpsc::channel(QUEUE);
    let (server, place) = (found.server(), Arc::from(found.place.as_str()));
    let options = options.clone();
    thread::Builder::new()
        .name("cluster".to_owned())
        .spawn(move || run(found, &options, &sender))
        .map_err(Error::Thread)?;
    Ok(Some(Cluster {
        changes,
        server: server.map(Arc::from),
        place,
    }))
}

fn run(found: Found, options: &Options, changes: &Sender<ClusterChange>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(ask(found, options, changes)),
        Err(error) => {
            let why = Arc::from(error.to_string());
            // Nobody may listen any more.
            let _ = all_lost(&why).try_for_each(|lost| changes.blocking_send(lost));
        }
    }
}

/// Asks until nobody listens. Where credentials are refused, as those that have expired, they are read again:
/// somebody may have replaced them.
async fn ask(found: Found, options: &Options, changes: &Sender<ClusterChange>) {
    let mut distance = watch::Distance::default();
    let mut found = Ok(found);
    loop {
        let began = Instant::now();
        let why = match found {
            Ok(found) => match Box::pin(follow(found, options.own_pods, changes)).await {
                Ok(()) => return,
                Err(why) => why,
            },
            Err(why) => why,
        };
        let why = Arc::from(why.as_str());
        for lost in all_lost(&why) {
            if changes.send(lost).await.is_err() {
                return;
            }
        }
        if began.elapsed() > watch::LATEST {
            distance.close();
        }
        tokio::select! {
            () = sleep(distance.next()) => {}
            () = changes.closed() => return,
        }
        found = match config::find(options.kubeconfig.as_deref()) {
            Ok(found) => found.ok_or_else(|| "there is no kubeconfig any more".to_owned()),
            Err(error) => Err(format!("{error}: {}", config::words(&error))),
        };
    }
}

fn all_lost(why: &Arc<str>) -> impl Iterator<Item = ClusterChange> {
    let lost = |kind| {
        let why = Arc::clone(why);
        Change::Lost { kind, why }
    };
    Kind::ALL.into_iter().map(move |kind| ClusterChange {
        at: now(),
        what: lost(kind),
    })
}

/// Lists and watches everything until nobody listens.
///
/// # Errors
/// The configuration cannot be used, or its credentials are refused.
async fn follow(
    found: Found,
    own_pods: bool,
    changes: &Sender<ClusterChange>,
) -> Result<(), String> {
    let node = config::node(&found);
    let config = found.config().await?;
    let client = Client::try_from(config).map_err(|error| watch::root(&error))?;
    let door = Shared::new(Door::default());
    let told = |kind: Kind| Told {
        what: kind.name(),
        kind: Some(kind),
        changes,
    };
    let owner = |what| Told {
        what,
        kind: None,
        changes,
    };
    let own = |field: &str| {
        let node = node.as_ref()?;
        Some(watch::config().fields(&format!("{field}={node}")))
    };
    let pods = Api::all_with(client.clone(), &pods::resource());
    let nodes = Api::all_with(client.clone(), &nodes::resource());
    let sets: Api<PartialObjectMeta<ReplicaSet>> = Api::all(client.clone());
    let jobs: Api<PartialObjectMeta<Job>> = Api::all(client.clone());
    try_join!(
        watch(
            sets,
            owner("replicasets"),
            watch::Choice::all(),
            Box::new(|event, _| door.borrow_mut().owner("ReplicaSet", event)),
        ),
        watch(
            jobs,
            owner("jobs"),
            watch::Choice::all(),
            Box::new(|event, _| door.borrow_mut().owner("Job", event)),
        ),
        watch(
            pods,
            told(Kind::Pods),
            watch::Choice::of(own("spec.nodeName"), own_pods),
            Box::new(|event, own| door.borrow_mut().pod(event, own)),
        ),
        watch(
            Api::all(client.clone()),
            told(Kind::Services),
            watch::Choice::all(),
            Box::new(|event, own| door.borrow_mut().service(event, own)),
        ),
        watch(
            Api::all(client.clone()),
            told(Kind::Slices),
            watch::Choice::all(),
            Box::new(|event, own| door.borrow_mut().slice(event, own)),
        ),
        watch(
            nodes,
            told(Kind::Nodes),
            watch::Choice::of(own("metadata.name"), false),
            Box::new(|event, own| door.borrow_mut().node(event, own)),
        ),
    )
    .map(drop)
}

fn now() -> WallNs {
    SystemTime::now().into()
}

fn wall(time: Option<&Time>) -> Option<WallNs> {
    let nanos = time?.0.as_nanosecond();
    Some(WallNs(i64::try_from(nanos).unwrap_or(i64::MAX)))
}
