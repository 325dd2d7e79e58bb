//! A recording of what the API server said, to be given away: every object is in it, and none of their names
//! and addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tracer::cluster::read_files;
use tracer::model::change::{Change, Key, Kind, Object};
use tracer::model::cluster::ObjectName;
use tracer::model::{ClusterChange, KtimeNs, Snapshot, WallNs};
use tracer::record::{Keep, Recorded, Recorder, Recording};

use crate::{scratch, stories, tracer};

const AT: WallNs = WallNs(1_790_000_000_000_000_000);

/// Services, EndpointSlices and Nodes of every kind.
fn snapshot() -> Snapshot {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/kube-proxy");
    read_files(&[dir.join("objects.json")]).expect("it is as kubectl writes it")
}

fn changes() -> Vec<Change> {
    let snapshot = snapshot();
    let kept = snapshot.objects().map(Change::Kept);
    let mut changes: Vec<_> = kept.chain(snapshot.objects().map(Change::Set)).collect();
    let gone = |service: &ObjectName| Change::Gone(Key::Service(service.clone()));
    changes.extend(snapshot.services.iter().map(|service| gone(&service.name)));
    changes.push(Change::Lost {
        kind: Kind::Pods,
        why: "https://192.0.2.1:6443 does not answer n1".into(),
    });
    changes
}

/// A recording of the changes, by the session of a story.
fn recording(scratch: &TempDir) -> PathBuf {
    let story = Recording::open(&[stories().join("failures_by_cause")]);
    let session = story.expect("it can be read").sessions.remove(0).session;
    let dir = scratch.path().join("own");
    let recorder = Recorder::start(&dir, session, Keep::default());
    let mut recorder = recorder.expect("it is a directory of the test's own");
    let tick = |ktime| Recorded::Tick {
        ktime: KtimeNs(ktime),
        wall: AT,
    };
    recorder.again(tick(1));
    for what in changes() {
        recorder.again(Recorded::Change(ClusterChange { at: AT, what }));
    }
    recorder.again(tick(2));
    assert_eq!(recorder.finish().total(), 0);
    dir
}

fn read(dir: &Path) -> Vec<Change> {
    let recording = Recording::open(&[dir.to_owned()]).expect("it can be read");
    let events = recording.sessions.into_iter().flatten();
    let changes = events.filter_map(|event| match event {
        Recorded::Change(change) => Some(change.what),
        _ => None,
    });
    changes.collect()
}

/// Names and addresses of `changes`: words in quotes, and whatever is an address.
fn words(changes: &[Change]) -> BTreeSet<String> {
    let text = format!("{changes:?}");
    let quoted = text.split('"').skip(1).step_by(2).map(str::to_owned);
    let parts = text.split(|c: char| !c.is_ascii_hexdigit() && c != '.' && c != ':');
    let addresses = parts.filter(|part| part.parse::<IpAddr>().is_ok());
    quoted.chain(addresses.map(str::to_owned)).collect()
}

fn services(changes: &[Change]) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut named, mut meant) = (BTreeSet::new(), BTreeSet::new());
    for change in changes {
        match change {
            Change::Set(Object::Service(service)) => {
                named.insert(service.name.to_string());
            }
            Change::Set(Object::Slice(slice)) => {
                meant.insert(format!("{}/{}", slice.name.namespace, slice.service));
            }
            _ => {}
        }
    }
    (named, meant)
}

#[test]
fn of_what_the_api_server_said_every_object_is_left_and_no_name_or_address() {
    let scratch = scratch();
    let own = recording(&scratch);
    let copy = scratch.path().join("copy");
    let output = tracer(
        "export",
        &own,
        &format!(
            "--recording {} --redact names,addresses --redact-key test",
            copy.display()
        ),
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let (before, after) = (read(&own), read(&copy));
    assert_eq!(before.len(), changes().len());
    assert_eq!(before.len(), after.len());
    // Ports keep their names, so does what every cluster has; everybody's machine has these addresses.
    let snapshot = snapshot();
    let ports = snapshot.services.iter().flat_map(|service| &service.ports);
    let ports: BTreeSet<_> = ports.map(|port| port.name.to_string()).collect();
    let is_public = |word: &String| {
        let ip = word.parse::<IpAddr>();
        let nobodys = ip.is_ok_and(|ip| ip.is_unspecified() || ip.is_loopback());
        let everybodys = ["", "default", "kubernetes"].contains(&word.as_str());
        nobodys || everybodys || ports.contains(word)
    };
    let secrets: Vec<_> = words(&before).into_iter().collect();
    assert!(secrets.len() > 100, "{secrets:?}");
    let told = words(&after);
    let left = secrets.iter().filter(|word| told.contains(*word));
    let left: Vec<_> = left.filter(|word| !is_public(word)).collect();
    assert!(left.is_empty(), "{left:?}");
    // What belonged together belongs together still.
    let (named, meant) = services(&before);
    let (named_other, meant_other) = services(&after);
    assert_eq!(
        (named.len(), meant.len()),
        (named_other.len(), meant_other.len())
    );
    let kept = |named: &BTreeSet<_>, meant: &BTreeSet<String>| named.intersection(meant).count();
    assert_eq!(kept(&named, &meant), kept(&named_other, &meant_other));
}
