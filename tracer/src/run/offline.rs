//! Names where no API server is heard: what it said before, as kept on disk, and what kube-proxy's rules in
//! the kernel name. Threads of their own read and write; the trace waits for neither.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        mpsc::{self as std_mpsc, Receiver, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use tokio::sync::mpsc;

use super::tell;
use crate::{
    cli::NameArgs,
    model::{
        Change, ClusterChange, Index, KtimeNs, ServicePortName, Snapshot, WallNs,
        change::{Kind, RuleClaim, RuleNames},
        cluster::ObjectName,
        index::Standing,
    },
    record,
    rules::{Front, Host, RuleService, Ruleset},
};

/// Changes on their way; a large file waits to be taken.
const QUEUE: usize = 4096;

/// How often names are kept.
const KEEP_EVERY: Duration = Duration::from_secs(300);

/// How often rules are read while no API server is heard.
const READ_EVERY: Duration = Duration::from_secs(15);

/// An API server that has said nothing for so long is not waited for any longer.
const SILENT: Duration = Duration::from_millis(500);

/// What was kept is known before what rules name, unless it takes longer than this to read.
const KEPT_FIRST: Duration = Duration::from_secs(1);

/// The threads, and what they tell.
#[derive(Debug)]
pub(super) struct Offline {
    pub(super) changes: mpsc::Receiver<ClusterChange>,
    /// Asks for rules to be read. The thread ends when this is dropped.
    rules: Sender<()>,
    asked: Option<KtimeNs>,
    /// Has names kept; `None` where they are not to be.
    keep: Option<Sender<Snapshot>>,
    kept: Option<KtimeNs>,
    keeper: JoinHandle<()>,
    began: Option<KtimeNs>,
}

impl Offline {
    /// Begins to read what was kept.
    ///
    /// # Errors
    /// There is no room for a thread.
    pub(super) fn start(args: &NameArgs) -> Result<Self> {
        let (told, changes) = mpsc::channel(QUEUE);
        let (keep, snapshots) = std_mpsc::channel();
        let (rules, asked) = std_mpsc::channel();
        let (done, kept) = std_mpsc::channel();
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        let (file, to_rules) = (args.names_file.clone(), told.clone());
        let keeper = named("names").spawn(move || {
            read_kept(&file, &told);
            drop((told, done));
            write_all(&file, &snapshots);
        });
        named("rules")
            .spawn(move || read_rules(&asked, &kept, &to_rules))
            .context("start a thread for rules")?;
        Ok(Self {
            changes,
            rules,
            asked: None,
            keep: args.keep_names.then_some(keep),
            kept: None,
            keeper: keeper.context("start a thread for names")?,
            began: None,
        })
    }

    /// Time has come to `ktime`: has rules read, or names kept, when that is due.
    pub(super) fn tick(&mut self, ktime: KtimeNs, now: WallNs, has_api: bool, index: &Index) {
        let began = *self.began.get_or_insert(ktime);
        let due = |last: Option<KtimeNs>, every| last.is_none_or(|last| ktime - last >= every);
        let unheard = match index.standing(Kind::Services) {
            Standing::Watched { .. } => false,
            Standing::Awaited => !has_api || ktime - began >= SILENT,
            Standing::Lost { .. } => true,
        };
        if unheard && due(self.asked, READ_EVERY) {
            self.asked = Some(ktime);
            // It has ended only if nobody listens.
            let _ = self.rules.send(());
        }
        if is_worth_keeping(index) && due(self.kept, KEEP_EVERY) {
            self.kept = Some(ktime);
            self.keep_now(now, index);
        }
    }

    fn keep_now(&self, now: WallNs, index: &Index) {
        if let Some(keep) = &self.keep {
            drop(keep.send(index.snapshot(now)));
        }
    }

    /// Keeps names for the last time, and waits until they are.
    pub(super) fn finish(self, now: WallNs, index: &Index) {
        if is_worth_keeping(index) {
            self.keep_now(now, index);
        }
        let keeps = self.keep.is_some();
        drop((self.keep, self.changes));
        if keeps && self.keeper.join().is_err() {
            tell("names were not kept: their thread has failed");
        }
    }
}

/// Services and pods are known, of this node at least.
fn is_worth_keeping(index: &Index) -> bool {
    let is_known = |kind| matches!(index.standing(kind), Standing::Watched { .. });
    is_known(Kind::Services) && is_known(Kind::Pods)
}

fn read_kept(file: &Path, told: &mpsc::Sender<ClusterChange>) {
    let read = record::read_kept(file, |at, object| {
        let what = Change::Kept(object);
        drop(told.blocking_send(ClusterChange { at, what }));
    });
    if let Err(error) = read {
        let error = anyhow::Error::new(error);
        let path = file.display();
        tell(&format!("names kept in {path} cannot be used: {error:#}"));
    }
}

fn write_all(file: &Path, snapshots: &Receiver<Snapshot>) {
    let mut told = false;
    for snapshot in snapshots {
        let made = file.parent().map_or(Ok(()), fs::create_dir_all);
        let written = made.and_then(|()| record::write_kept(file, &snapshot));
        match written {
            Ok(()) => told = false,
            // Once: it may well go on failing.
            Err(error) if !told => {
                told = true;
                tell(&format!(
                    "names cannot be kept in {}: {error}",
                    file.display()
                ));
            }
            Err(_) => {}
        }
    }
}

fn read_rules(asked: &Receiver<()>, kept: &Receiver<()>, told: &mpsc::Sender<ClusterChange>) {
    let mut complained = false;
    for () in asked {
        let names = match names_of_rules() {
            Ok(names) => names,
            Err(error) => {
                if !complained {
                    tell(&format!("no names from kube-proxy's rules: {error:#}"));
                }
                complained = true;
                RuleNames::default()
            }
        };
        // It ends by being dropped, or takes too long.
        let _ = kept.recv_timeout(KEPT_FIRST);
        let what = Change::Rules(Arc::new(names));
        if told
            .blocking_send(ClusterChange {
                at: SystemTime::now().into(),
                what,
            })
            .is_err()
        {
            return;
        }
    }
}

fn names_of_rules() -> Result<RuleNames> {
    let ruleset = Ruleset::read().context("read nf_tables")?;
    let host = Host::read().context("read this node's addresses")?;
    Ok(RuleNames {
        claims: ruleset.services().iter().filter_map(claim).collect(),
        own: host.addresses().collect(),
    })
}

fn claim(service: &RuleService) -> Option<RuleClaim> {
    let words = service.name.as_deref()?;
    let (object, port) = match words.split_once(':') {
        Some((object, port)) => (object, Some(port)),
        None => (words, None),
    };
    let (namespace, name) = object.split_once('/')?;
    let name = ServicePortName {
        service: ObjectName {
            namespace: namespace.into(),
            name: name.into(),
        },
        // A port without a name goes by its number.
        port: port.map_or_else(|| service.port.to_string().into(), Arc::from),
        via: service.via,
    };
    Some(RuleClaim {
        address: match service.front {
            Front::Address(address) => Some(address),
            Front::NodePort => None,
        },
        protocol: service.protocol,
        port: service.port,
        name: Arc::new(name),
    })
}
