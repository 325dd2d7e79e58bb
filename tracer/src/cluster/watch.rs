//! One kind of object, listed and then watched for ever.
//!
//! kube's watcher lists in pages, watches with bookmarks, and lists again when the API server no
//! longer has the version last seen (410 Gone). What is added here: nothing waits without an end,
//! failures are told once as words, and attempts keep a growing distance.

use std::{
    fmt::Debug,
    hash::{BuildHasher as _, RandomState},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use kube::{
    Api, Resource,
    api::ListParams,
    runtime::watcher::{self, Config, watcher},
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::mpsc::Sender,
    time::{sleep, timeout},
};
use tracing::debug;

use super::{door::Pass, now};
use crate::model::change::{Change, ClusterChange, Kind};

/// Longest wait for the next page of a list.
const PAGE: Duration = Duration::from_secs(15);

/// Longest wait for one object, when it is tried whether the API server answers again.
const TRIAL: Duration = Duration::from_secs(5);

/// Between two attempts, at first and at most.
const SOONEST: Duration = Duration::from_millis(500);
pub(super) const LATEST: Duration = Duration::from_secs(15);

/// Between two attempts at what is forbidden: that seldom changes.
const WHILE_FORBIDDEN: Duration = Duration::from_secs(60);

/// How long credentials are refused until they are no longer tried: kube keeps a token for a minute.
const REFUSED: Duration = Duration::from_secs(75);

// RFC 9110, 15.5.
const UNAUTHORIZED: u16 = 401;
const FORBIDDEN: u16 = 403;
const GONE: u16 = 410;

/// After this many seconds a watch begins anew. A connection that died in silence is noticed no
/// later.
pub(super) const RENEW: u32 = 120;

/// Objects a page.
const PAGE_SIZE: u32 = 500;

/// Where changes go.
pub(super) struct Told<'a> {
    /// What is watched, as kubectl calls it.
    pub(super) what: &'a str,
    /// `None` for what is told of through other kinds.
    pub(super) kind: Option<Kind>,
    pub(super) changes: &'a Sender<ClusterChange>,
}

/// Which objects to watch.
pub(super) struct Choice {
    first: Config,
    /// Tried when the first is forbidden.
    narrower: Option<Config>,
}

impl Choice {
    pub(super) fn all() -> Self {
        Self {
            first: config(),
            narrower: None,
        }
    }

    /// All, or `own` where that is forbidden; only `own` when that is `enough`.
    pub(super) fn of(own: Option<Config>, enough: bool) -> Self {
        match own {
            Some(own) if enough => Self {
                first: own,
                narrower: None,
            },
            narrower => Self {
                first: config(),
                narrower,
            },
        }
    }
}

/// Why a watch ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nobody listens any more.
    Unheard,
    /// Listing is forbidden to us.
    Forbidden,
    /// Our credentials are refused, and kube, which reads a token's file each minute, found no better ones; the
    /// API server's words.
    Refused(String),
}

pub(super) fn config() -> Config {
    Config::default().timeout(RENEW).page_size(PAGE_SIZE)
}

impl Told<'_> {
    async fn send(&self, what: Change) -> Result<(), Ended> {
        let change = ClusterChange { at: now(), what };
        self.changes.send(change).await.map_err(|_| Ended::Unheard)
    }

    async fn lost(&self, why: &str) -> Result<(), Ended> {
        debug!(what = self.what, why, "not heard");
        match self.kind {
            Some(kind) => {
                let why = Arc::from(why);
                self.send(Change::Lost { kind, why }).await
            }
            None => Ok(()),
        }
    }

    async fn heard(&self) -> Result<(), Ended> {
        match self.kind {
            Some(kind) => self.send(Change::Heard(kind)).await,
            None => Ok(()),
        }
    }
}

/// Lists and watches until nobody listens.
///
/// # Errors
/// The credentials are refused.
pub(super) async fn watch<K>(
    api: Api<K>,
    told: Told<'_>,
    choice: Choice,
    mut pass: Pass<'_, K>,
) -> Result<(), String>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let Choice {
        first: mut config,
        mut narrower,
    } = choice;
    loop {
        let own = config.field_selector.is_some();
        let mut pass = |event| pass(event, own);
        match follow(&api, &config, &told, &mut pass).await {
            Ended::Unheard => return Ok(()),
            Ended::Refused(why) => return Err(why),
            Ended::Forbidden => match narrower.take() {
                Some(narrower) => config = narrower,
                None => sleep(WHILE_FORBIDDEN).await,
            },
        }
    }
}

async fn follow<K>(
    api: &Api<K>,
    config: &Config,
    told: &Told<'_>,
    pass: &mut impl FnMut(watcher::Event<K>) -> Vec<Change>,
) -> Ended
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut distance = Distance::default();
    loop {
        match once(api, config, told, pass, &mut distance).await {
            Ok(()) => {}
            Err(ended) => return ended,
        }
    }
}

/// One list and the watch after it, as long as it lasts.
async fn once<K>(
    api: &Api<K>,
    config: &Config,
    told: &Told<'_>,
    pass: &mut impl FnMut(watcher::Event<K>) -> Vec<Change>,
    distance: &mut Distance,
) -> Result<(), Ended>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = pin!(watcher(api.clone(), config.clone()));
    let mut listing = true;
    loop {
        let next = if listing {
            let Ok(next) = timeout(PAGE, events.next()).await else {
                let why = format!("no answer within {} s", PAGE.as_secs());
                told.lost(&why).await?;
                sleep(distance.next()).await;
                return Ok(());
            };
            next
        } else {
            tokio::select! {
                next = events.next() => next,
                () = told.changes.closed() => return Err(Ended::Unheard),
            }
        };
        match next {
            None => return Ok(()),
            Some(Ok(event)) => {
                match event {
                    watcher::Event::Init => listing = true,
                    watcher::Event::InitDone => listing = false,
                    _ => {}
                }
                distance.close();
                for change in pass(event) {
                    told.send(change).await?;
                }
            }
            // The version last seen is too old to go on from: it lists again.
            Some(Err(watcher::Error::WatchError(status))) if status.code == GONE => {}
            Some(Err(error)) => {
                told.lost(&words(&error)).await?;
                if listing && is_forbidden(&error) {
                    return Err(Ended::Forbidden);
                }
                answer(api, config, told, distance).await?;
                if !listing {
                    told.heard().await?;
                }
            }
        }
    }
}

/// Waits until the API server answers for these objects.
async fn answer<K>(
    api: &Api<K>,
    config: &Config,
    told: &Told<'_>,
    distance: &mut Distance,
) -> Result<(), Ended>
where
    K: Clone + DeserializeOwned + Debug,
{
    let one = ListParams {
        field_selector: config.field_selector.clone(),
        limit: Some(1),
        ..ListParams::default()
    };
    let began = Instant::now();
    loop {
        tokio::select! {
            () = sleep(distance.next()) => {}
            () = told.changes.closed() => return Err(Ended::Unheard),
        }
        let why = match timeout(TRIAL, api.list(&one)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => {
                let why = root(&error);
                if is(&error, UNAUTHORIZED) && began.elapsed() > REFUSED {
                    return Err(Ended::Refused(why));
                }
                why
            }
            Err(_) => format!("no answer within {} s", TRIAL.as_secs()),
        };
        told.lost(&why).await?;
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) =
        error
    else {
        return false;
    };
    is(error, FORBIDDEN)
}

fn is(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

fn words(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => root(error),
        other => other.to_string(),
    }
}

/// The API server's own words, or the innermost cause.
pub(super) fn root(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        let said = if status.message.is_empty() {
            &status.reason
        } else {
            &status.message
        };
        return format!("{said} (HTTP {})", status.code);
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Between attempts: longer each time, and not the same on all nodes.
#[derive(Debug, Default)]
pub(super) struct Distance {
    attempts: u32,
}

impl Distance {
    pub(super) fn next(&mut self) -> Duration {
        let most = SOONEST
            .saturating_mul(1 << self.attempts.min(8))
            .min(LATEST);
        self.attempts += 1;
        // Between half and all of it; the hasher's keys are random.
        let random = RandomState::new().hash_one(self.attempts);
        let share = u32::try_from(random % 512).unwrap_or(0);
        most / 2 + most / 1024 * share
    }

    /// The next is short again.
    pub(super) fn close(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_keep_a_growing_distance_within_bounds() {
        let mut distance = Distance::default();
        let waits: Vec<_> = (0..40).map(|_| distance.next()).collect();
        assert!(waits[0] >= SOONEST / 2 && waits[0] <= SOONEST, "{waits:?}");
        let rest = &waits[6..];
        let within = |wait: &Duration| (LATEST / 2..=LATEST).contains(wait);
        assert!(rest.iter().all(within), "{waits:?}");
        distance.close();
        assert!(distance.next() <= SOONEST);
    }
}
