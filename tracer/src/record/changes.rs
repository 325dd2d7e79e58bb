//! What the API server said that changed, as words and JSON.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::objects::{self, json, read};
use crate::model::{
    Change, ClusterChange, Index, WallNs,
    change::{Key, Kind},
    cluster::ObjectName,
    index::Standing,
};

#[derive(Serialize, Deserialize)]
struct Listing {
    own: bool,
}

#[derive(Serialize, Deserialize)]
struct Lost {
    why: Arc<str>,
}

#[derive(Serialize, Deserialize)]
struct Uid {
    uid: Arc<str>,
}

#[derive(Serialize, Deserialize)]
struct SliceName {
    namespace: Arc<str>,
    name: Arc<str>,
    service: Arc<str>,
}

/// What happened, to which kind of object, and to which one, or how it is now, as JSON.
pub(super) fn words(change: &Change) -> (&'static str, Kind, Option<String>) {
    match change {
        Change::Listing { kind, own } => ("listing", *kind, json(&Listing { own: *own })),
        Change::Listed(kind) => ("listed", *kind, None),
        Change::Heard(kind) => ("heard", *kind, None),
        Change::Lost { kind, why } => {
            let why = Arc::clone(why);
            ("lost", *kind, json(&Lost { why }))
        }
        Change::Set(object) => ("set", object.kind(), objects::words(object)),
        Change::Kept(object) => ("kept", object.kind(), objects::words(object)),
        Change::Rules(names) => ("rules", Kind::Services, objects::rules_words(names)),
        Change::Gone(key) => {
            let (kind, key) = match key {
                Key::Pod(uid) => (Kind::Pods, json(&Uid { uid: uid.clone() })),
                Key::Service(name) => (Kind::Services, objects::name_words(name)),
                Key::Slice { name, service } => {
                    let ObjectName { namespace, name } = name.clone();
                    let service = Arc::clone(service);
                    let key = SliceName {
                        namespace,
                        name,
                        service,
                    };
                    (Kind::Slices, json(&key))
                }
                Key::Node(name) => {
                    let namespace = "".into();
                    let name = Arc::clone(name);
                    let name = ObjectName { namespace, name };
                    (Kind::Nodes, objects::name_words(&name))
                }
            };
            ("gone", kind, key)
        }
    }
}

/// The way back; `None` for what makes no sense.
pub(super) fn change(what: &str, kind: &str, words: Option<&str>) -> Option<Change> {
    let kind = Kind::ALL.into_iter().find(|of| of.name() == kind)?;
    Some(match (what, kind) {
        ("listing", _) => {
            let Listing { own } = read(words)?;
            Change::Listing { kind, own }
        }
        ("listed", _) => Change::Listed(kind),
        ("heard", _) => Change::Heard(kind),
        ("lost", _) => {
            let Lost { why } = read(words)?;
            Change::Lost { kind, why }
        }
        ("set", kind) => Change::Set(objects::object(kind, words)?),
        ("kept", kind) => Change::Kept(objects::object(kind, words)?),
        ("rules", _) => Change::Rules(objects::rules(words)?),
        ("gone", Kind::Pods) => {
            let Uid { uid } = read(words)?;
            Change::Gone(Key::Pod(uid))
        }
        ("gone", Kind::Services) => Change::Gone(Key::Service(objects::name(words)?)),
        ("gone", Kind::Slices) => {
            let SliceName {
                namespace,
                name,
                service,
            } = read(words)?;
            let name = ObjectName { namespace, name };
            Change::Gone(Key::Slice { name, service })
        }
        ("gone", Kind::Nodes) => Change::Gone(Key::Node(objects::name(words)?.name)),
        _ => return None,
    })
}

/// What brings an empty index to where `index` is at `now`.
pub(super) fn all(index: &Index, now: WallNs) -> Vec<ClusterChange> {
    let mut changes = Vec::new();
    // What was kept comes first: a list that is through ends it.
    if let Some(kept) = index.kept() {
        let at = kept.taken;
        let of = |object| ClusterChange {
            at,
            what: Change::Kept(object),
        };
        changes.extend(kept.objects().map(of));
    }
    let snapshot = index.snapshot(now);
    for kind in Kind::ALL {
        let standing = index.standing(kind);
        let own = matches!(standing, Standing::Watched { own: true });
        let mut push = |what| changes.push(ClusterChange { at: now, what });
        if standing != Standing::Awaited {
            push(Change::Listing { kind, own });
        }
        let of_kind = snapshot.objects().filter(|object| object.kind() == kind);
        of_kind.for_each(|object| push(Change::Set(object)));
        match standing {
            Standing::Awaited => {}
            Standing::Watched { .. } => push(Change::Listed(kind)),
            Standing::Lost { since, why, listed } => {
                if listed {
                    push(Change::Listed(kind));
                }
                let what = Change::Lost { kind, why };
                changes.push(ClusterChange { at: since, what });
            }
        }
    }
    if let Some((at, names)) = index.ruled() {
        let what = Change::Rules(Arc::clone(names));
        changes.push(ClusterChange { at, what });
    }
    changes
}
