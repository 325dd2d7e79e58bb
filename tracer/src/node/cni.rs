//! Address → pod, from what CNI plugins returned when the pod got the address.
//!
//! Runtimes call plugins through libcni, which keeps every result until the pod is gone:
//! <https://github.com/containernetworking/cni/blob/v1.3.0/libcni/api.go>, `cachedInfo`.

use std::{
    collections::HashSet,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use rustc_hash::FxHashMap;
use serde::Deserialize;

use crate::model::{History, Pod, PodName, Source, WallNs};

/// libcni's `CacheDir`.
const RESULTS: &str = "var/lib/cni/results";

/// How often at most the directory is looked at.
const AGAIN: Duration = Duration::from_secs(1);

/// How long an address's former pod is remembered: longer than any row takes to be finished.
const REMEMBER: Duration = Duration::from_secs(120);

/// Pods by address, with those that had it before.
#[derive(Debug)]
pub(super) struct Addresses {
    dir: PathBuf,
    pods: FxHashMap<IpAddr, History<Arc<Pod>>>,
    /// What each file said that told of a pod.
    read: FxHashMap<PathBuf, Result>,
    looked: Option<Instant>,
    /// How long ago that was at the last tick.
    age: Duration,
    /// When the directory last changed, if it was looked at well after.
    changed: Option<SystemTime>,
}

/// One pod's addresses.
#[derive(Debug, PartialEq)]
struct Result {
    pod: Arc<Pod>,
    addresses: Vec<IpAddr>,
}

impl Addresses {
    /// Of the system whose root directory is `root`.
    pub(super) fn of(root: &Path) -> Self {
        Self {
            dir: root.join(RESULTS),
            pods: FxHashMap::default(),
            read: FxHashMap::default(),
            looked: None,
            age: Duration::ZERO,
            changed: None,
        }
    }

    /// Time passes: looks at the directory again, once in a while.
    pub(super) fn tick(&mut self) {
        let now = Instant::now();
        if self.looked.is_none_or(|looked| now - looked >= AGAIN) {
            self.looked = Some(now);
            self.look();
        }
        self.age = self.looked.map_or(Duration::ZERO, |looked| now - looked);
    }

    /// The pod of this node that had `address` at `at`, as far as was known at the last tick.
    pub(super) fn pod(&self, address: IpAddr, at: WallNs) -> Option<PodName> {
        Some(PodName {
            pod: Arc::clone(self.pods.get(&address)?.at(at)?),
            source: Source::Cni,
            age: self.age,
            object: None,
        })
    }

    /// Reads new files, and ends what gone ones said, when anything came or went.
    fn look(&mut self) {
        let Ok(changed) = fs::metadata(&self.dir).and_then(|dir| dir.modified()) else {
            return;
        };
        if self.changed == Some(changed) {
            return;
        }
        // What comes within the clock's next tick does not change it any more.
        let settled = changed.elapsed().is_ok_and(|age| age >= AGAIN);
        self.changed = settled.then_some(changed);
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let there: HashSet<_> = entries.map(|entry| entry.path()).collect();
        // Nothing came or went since the directory changed.
        let until = WallNs::from(changed);
        let gone: Vec<_> = self
            .read
            .extract_if(|path, _| !there.contains(path))
            .collect();
        for (_, Result { pod, addresses }) in gone {
            for address in addresses {
                if let Some(history) = self.pods.get_mut(&address) {
                    history.end(until, &pod);
                }
            }
        }
        for path in there {
            if !self.read.contains_key(&path)
                && let Some(result) = self.begin(&path)
            {
                self.read.insert(path, result);
            }
        }
        let before = WallNs(until.0.saturating_sub(nanos(REMEMBER)));
        self.pods.retain(|_, history| history.forget(before));
    }

    fn begin(&mut self, path: &Path) -> Option<Result> {
        let modified = fs::metadata(path).and_then(|file| file.modified());
        let since = WallNs::from(modified.ok()?);
        let result = parse(&fs::read(path).ok()?)?;
        for address in &result.addresses {
            let history = self.pods.entry(*address).or_default();
            history.begin(since, Arc::clone(&result.pod));
        }
        Some(result)
    }
}

/// What of a cached result is read.
#[derive(Deserialize)]
struct Cached {
    /// Pairs of key and value.
    #[serde(rename = "cniArgs", default)]
    args: Vec<(String, String)>,
    result: Returned,
}

/// <https://github.com/containernetworking/cni/blob/v1.3.0/SPEC.md#add-success>
#[derive(Deserialize)]
struct Returned {
    #[serde(default)]
    ips: Vec<Ip>,
}

#[derive(Deserialize)]
struct Ip {
    /// With a prefix length.
    address: String,
}

/// `None` when it is no result, or not that of a pod.
fn parse(text: &[u8]) -> Option<Result> {
    let Cached { args, result } = serde_json::from_slice(text).ok()?;
    let arg = |key: &str| {
        let (_, value) = args.iter().find(|(found, _)| found == key)?;
        Some(Arc::from(value.as_str()))
    };
    let pod = Pod {
        namespace: arg("K8S_POD_NAMESPACE")?,
        name: arg("K8S_POD_NAME")?,
        uid: arg("K8S_POD_UID"),
    };
    let address = |ip: &Ip| ip.address.split('/').next()?.parse().ok();
    // The plugin `loopback` is called for every pod, and every pod has 127.0.0.1.
    let own = |address: &IpAddr| !address.is_loopback();
    Some(Result {
        pod: Arc::new(pod),
        addresses: result.ips.iter().filter_map(address).filter(own).collect(),
    })
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::scratch::Scratch;

    const FILE: &str = "var/lib/cni/results/cbr0-5a4d-eth0";

    /// As containerd 2.4 and the plugin `bridge` 1.9 leave it, shortened.
    fn cached(name: &str, address: &str) -> String {
        format!(
            r#"{{"kind":"cniCacheV1","containerId":"5a4d","config":"e30=","ifName":"eth0","networkName":"cbr0",
            "netns":"/var/run/netns/cni-1","cniArgs":[["IgnoreUnknown","1"],["K8S_POD_NAMESPACE","shop"],
            ["K8S_POD_NAME","{name}"],["K8S_POD_UID","2ee4eb5b-8e45-4c5c-9c1a-0d7f9a3b1c2d"]],
            "result":{{"cniVersion":"1.0.0","interfaces":[{{"name":"cni0"}}],"ips":[
            {{"address":"{address}/24","gateway":"10.244.1.1","interface":2}},
            {{"address":"fd00:10:244:1::5/64","interface":2}}],"dns":{{}}}}}}"#
        )
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn later() -> WallNs {
        WallNs::from(SystemTime::now() + Duration::from_secs(3600))
    }

    fn name(addresses: &mut Addresses, address: &str, at: WallNs) -> Option<String> {
        // As if a second had passed.
        addresses.looked = None;
        addresses.tick();
        let named = addresses.pod(ip(address), at)?;
        assert_eq!(named.source, Source::Cni);
        Some(named.pod.name.to_string())
    }

    #[test]
    fn every_address_of_a_result_is_its_pods() {
        let root = Scratch::new(&[(FILE, &cached("cart-7d9", "10.244.1.5"))]);
        let mut addresses = Addresses::of(root.path());
        for address in ["10.244.1.5", "fd00:10:244:1::5"] {
            let found = name(&mut addresses, address, later());
            assert_eq!(found.as_deref(), Some("cart-7d9"), "{address}");
        }
        assert_eq!(name(&mut addresses, "10.244.1.6", later()), None);
    }

    #[test]
    fn an_address_used_again_is_the_pods_that_had_it_then() {
        let root = Scratch::new(&[(FILE, &cached("cart-7d9", "10.244.1.5"))]);
        let mut addresses = Addresses::of(root.path());
        assert!(name(&mut addresses, "10.244.1.5", later()).is_some());
        // Files bear a coarser clock than this one.
        let written = fs::metadata(root.path().join(FILE)).unwrap().modified();
        let first = WallNs::from(written.unwrap());
        root.remove(FILE);
        assert_eq!(name(&mut addresses, "10.244.1.5", later()), None);
        let between = later();
        root.write(
            "var/lib/cni/results/cbr0-77-eth0",
            &cached("cart-8ea", "10.244.1.5"),
        );
        let mut at = |at| name(&mut addresses, "10.244.1.5", at);
        assert_eq!(at(first).as_deref(), Some("cart-7d9"));
        assert_eq!(at(between).as_deref(), Some("cart-8ea"));
    }

    #[test]
    fn the_loopback_address_is_no_pods() {
        let result = parse(cached("cart-7d9", "127.0.0.1").as_bytes()).unwrap();
        assert_eq!(result.addresses, [ip("fd00:10:244:1::5")]);
    }

    #[test]
    fn what_is_no_pods_result_names_nobody() {
        for text in [
            "",
            "{",
            "[]",
            r#"{"result": {"ips": [{"address": "10.244.1.5/24"}]}}"#,
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
