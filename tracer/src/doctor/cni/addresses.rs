//! Whether there are addresses left for new pods: host-local's files against its ranges, Calico's
//! objects in the API, Weave's own word.

use std::net::IpAddr;

use super::{
    Answer, Check, Problem, Seen, config::Configs, device::subnet_env, plugin, plugin::Plugin,
};
use crate::model::{Severity, prefix};

pub(super) const ADDRESSES: Check = Check {
    name: "cni_addresses",
    subject: "cni",
    why: "when a node has no address left, new pods stay in ContainerCreating",
    run,
};

/// Share of a range in use, in percent, from which on it is a warning.
const FILLING: u64 = 90;

/// What it means that so many of `room` addresses are used; `None` while there are enough left.
fn filling(used: u64, room: u64) -> Option<Severity> {
    if used >= room {
        Some(Severity::Broken)
    } else {
        (used.saturating_mul(100) / room >= FILLING).then_some(Severity::Warning)
    }
}

fn run(seen: &Seen) -> Answer {
    match plugin::plugin(seen) {
        Some((Plugin::Weave, _)) => weave(seen),
        Some((Plugin::Calico, _)) if is_calico_ipam(seen) => calico(seen),
        Some((Plugin::Cilium, _)) => {
            Answer::Unknown("Cilium keeps them in CiliumNode objects".to_owned())
        }
        Some(_) => host_local(seen),
        None => Answer::Unknown("which plugin would give them is not known".to_owned()),
    }
}

/// Ranges of host-local: of the configuration itself, or of what Flannel makes of its own.
fn ranges(seen: &Seen) -> Vec<(IpAddr, u8)> {
    let configs = Configs::of(&seen.root);
    let Some(taken) = configs.taken() else {
        return Vec::new();
    };
    let ipams = taken.plugins.iter().map(|plugin| &plugin["ipam"]);
    let mut found: Vec<_> = ipams
        .flat_map(|ipam| {
            let sets = ipam["ranges"].as_array().into_iter().flatten();
            let ranges = sets.flat_map(|set| set.as_array().into_iter().flatten());
            ranges.chain(std::iter::once(ipam))
        })
        .filter_map(|range| prefix::parse(range["subnet"].as_str()?))
        .collect();
    if found.is_empty() {
        let keys = ["FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET"].into_iter();
        found.extend(keys.filter_map(|key| prefix::parse(&subnet_env(&seen.root, key)?)));
    }
    found
}

fn host_local(seen: &Seen) -> Answer {
    let configs = Configs::of(&seen.root);
    let Some(network) = configs.taken().map(|taken| taken.name.clone()) else {
        return Answer::Unknown("there is no good configuration to name the range".to_owned());
    };
    let dir = format!("/var/lib/cni/networks/{network}");
    let names = seen.root.list(&dir);
    let given: Vec<IpAddr> = names.iter().filter_map(|name| name.parse().ok()).collect();
    let ranges = ranges(seen);
    if ranges.is_empty() {
        return Answer::Unknown("the configuration names no range".to_owned());
    }
    let (mut said, mut problems) = (Vec::new(), Vec::new());
    for (range, bits) in ranges {
        let width = if range.is_ipv4() { 32 } else { 128 };
        let free_bits = u32::from(width - bits.min(width));
        // No node has four billion pods.
        if free_bits >= 32 {
            let used = given.iter().filter(|address| address.is_ipv6()).count();
            said.push(format!("{used} in {range}/{bits}"));
            continue;
        }
        // The network's, the broadcast and the gateway's address are not given.
        let room = 1_u64
            .checked_shl(free_bits)
            .unwrap_or(u64::MAX)
            .saturating_sub(3)
            .max(1);
        let used = given
            .iter()
            .filter(|address| address.is_ipv4() == range.is_ipv4());
        let used = used.count() as u64;
        let Some(severity) = filling(used, room) else {
            said.push(format!("{used} of {room} in {range}/{bits}"));
            continue;
        };
        let leaked = leaked(seen, &dir, &names);
        problems.push(Problem {
            severity,
            follows: &[],
            object: format!("range {range}/{bits} of this node"),
            sentence: if severity == Severity::Broken {
                "has no address left: new pods fail with `no IP addresses available in range set`".to_owned()
            } else {
                "is nearly used up".to_owned()
            },
            evidence: vec![
                format!("{used} of {room} addresses have a file in {dir}"),
                format!("{leaked} of them belong to a sandbox that the runtime has no result for"),
            ],
            remedy: if leaked > 0 {
                format!("remove the files in {dir} whose first line names a sandbox that `crictl pods -q --no-trunc` does not")
            } else {
                "give nodes a larger range: kube-controller-manager --node-cidr-mask-size, for new Nodes".to_owned()
            },
        });
    }
    Answer::of(problems, || said.join("; "))
}

/// Calico may have host-local give addresses, as the other plugins do.
fn is_calico_ipam(seen: &Seen) -> bool {
    let configs = Configs::of(&seen.root);
    let plugins = configs.taken().map(|taken| taken.plugins.iter());
    let mut types = plugins
        .into_iter()
        .flatten()
        .map(|one| &one["ipam"]["type"]);
    !types.any(|kind| kind == "host-local")
}

/// Pools are the whole cluster's: nodes take blocks of them, and addresses of others' blocks when none is left.
fn calico(seen: &Seen) -> Answer {
    let pools = match seen.objects.as_ref().map(|objects| &objects.address_pools) {
        Ok(Ok(pools)) => pools,
        Ok(Err(why)) | Err(why) => {
            return Answer::Unknown(format!(
                "Calico keeps them as ippools and ipamblocks in the API, which were not read: {why}"
            ));
        }
    };
    let enabled: Vec<_> = pools.iter().filter(|pool| !pool.disabled).collect();
    if enabled.is_empty() {
        return Answer::Fails(vec![Problem {
            severity: Severity::Broken,
            follows: &[],
            object: "Calico's address pools".to_owned(),
            sentence: "give no address: new pods fail with `cannot find a qualified ippool`".to_owned(),
            evidence: vec![format!("{} ippools, all disabled", pools.len())],
            remedy: "calicoctl get ippools -o wide; set spec.disabled: false, or create one within the cluster's pod range".to_owned(),
        }]);
    }
    let (mut said, mut problems) = (Vec::new(), Vec::new());
    for pool in enabled {
        let (first, bits) = pool.range;
        let width: u8 = if first.is_ipv4() { 32 } else { 128 };
        let room = 1_u64.checked_shl(u32::from(width.saturating_sub(bits)));
        let room = room.unwrap_or(u64::MAX);
        let given = pool.given;
        let Some(severity) = filling(given, room) else {
            said.push(format!("{given} of {room} in pool {}", pool.name));
            continue;
        };
        problems.push(Problem {
            severity,
            follows: &[],
            object: format!("Calico's address pool {}, {first}/{bits}", pool.name),
            sentence: if severity == Severity::Broken {
                "has no address left: new pods fail with `Assigned 0 out of 1 requested IPv4 addresses` where it is the only pool"
                    .to_owned()
            } else {
                "is nearly used up".to_owned()
            },
            evidence: vec![format!(
                "{given} of {room} addresses are given, in {} blocks",
                pool.blocks
            )],
            remedy: "calicoctl ipam check --show-problem-ips, then calicoctl ipam release for those that leaked; else add an ippool".to_owned(),
        });
    }
    Answer::of(problems, || said.join("; "))
}

/// Addresses whose sandbox has no result in the cache: their pods are gone.
fn leaked(seen: &Seen, dir: &str, names: &[String]) -> usize {
    let results = seen.root.list("/var/lib/cni/results");
    if results.is_empty() {
        return 0;
    }
    let is_leaked = |name: &&String| {
        let text = seen.root.read(&format!("{dir}/{name}")).unwrap_or_default();
        let sandbox = text.lines().next().unwrap_or_default().trim();
        !sandbox.is_empty() && !results.iter().any(|result| result.contains(sandbox))
    };
    let addresses = names.iter().filter(|name| name.parse::<IpAddr>().is_ok());
    addresses.filter(is_leaked).count()
}

/// weaver tells who owns which part of the range: `4e:…(n2)  524288 IPs (50.0% of total) - unreachable!`.
fn weave(seen: &Seen) -> Answer {
    match seen.http.get("127.0.0.1:6784/status/ipam") {
        Some(Ok(page)) => {
            let lost: Vec<_> = page
                .body
                .lines()
                .filter(|line| line.contains("unreachable!"))
                .collect();
            if lost.is_empty() {
                return Answer::Holds(
                    page.body
                        .lines()
                        .next()
                        .unwrap_or("weaver has its range")
                        .trim()
                        .to_owned(),
                );
            }
            Answer::Fails(vec![Problem {
                severity: Severity::Warning,
                follows: &[],
                object: "Weave's address ranges".to_owned(),
                sentence:
                    "are held by peers that are gone or out of reach: they cannot be given out"
                        .to_owned(),
                evidence: lost.iter().map(|line| line.trim().to_owned()).collect(),
                remedy: "weave rmpeer NAME, once, for each node that is gone for good".to_owned(),
            }])
        }
        Some(Err(why)) => Answer::Unknown(format!("weaver does not answer: {why}")),
        None => Answer::Unknown("weaver was not asked".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fixtures, *};
    use crate::{cluster::objects::AddressPool, doctor::seen::http::Page};

    #[test]
    fn a_range_is_judged_by_its_files() {
        let node = fixtures::flannel();
        let Answer::Holds(said) = run(&node.seen) else {
            panic!("there is room");
        };
        assert_eq!(said, "1 of 253 in 10.244.1.1/24");
        for last in 2..=254 {
            node.write(
                &format!("var/lib/cni/networks/cbr0/10.244.1.{last}"),
                "gone\r\neth0",
            );
        }
        let Answer::Fails(problems) = run(&node.seen) else {
            panic!("it is full");
        };
        assert_eq!(problems[0].severity, Severity::Broken);
        assert!(
            problems[0].evidence[1].starts_with("253 of them")
                || problems[0].evidence[1].starts_with("252 of them")
        );
    }

    #[test]
    fn calicos_pools_are_judged_by_what_is_given() {
        let mut node = fixtures::calico();
        let pool = |name: &str, disabled, given| AddressPool {
            name: name.to_owned(),
            range: ("10.1.0.0".parse().unwrap(), 24),
            disabled,
            blocks: 4,
            given,
        };
        let judged = |node: &mut fixtures::Node, pools| {
            node.seen.objects.as_mut().unwrap().address_pools = pools;
            run(&node.seen)
        };
        let Answer::Holds(said) = judged(&mut node, Ok(vec![pool("a", false, 10)])) else {
            panic!("there is room");
        };
        assert_eq!(said, "10 of 256 in pool a");
        for (pools, verdict) in [
            (vec![pool("a", false, 10), pool("b", false, 231)], "warning"),
            (vec![pool("a", false, 256)], "broken"),
            (vec![pool("a", true, 10)], "broken"),
            (vec![pool("a", true, 256), pool("b", false, 1)], "good"),
        ] {
            assert_eq!(
                judged(&mut node, Ok(pools.clone())).verdict(),
                verdict,
                "{pools:?}"
            );
        }
        let Answer::Unknown(why) = judged(&mut node, Err("forbidden".to_owned())) else {
            panic!("nobody may look");
        };
        assert!(why.ends_with("not read: forbidden"), "{why}");
    }

    #[test]
    fn weaves_lost_ranges_are_named() {
        let mut node = fixtures::weave();
        let body = "16:aa:96:a3:79:3a(n1)  524288 IPs (50.0% of total) (2 active)\n\
                    4e:11:96:a3:79:3b(n2)  524288 IPs (50.0% of total) - unreachable!\n";
        let page = Page {
            status: 200,
            body: body.to_owned(),
        };
        node.seen
            .http
            .insert("127.0.0.1:6784/status/ipam".to_owned(), Ok(page));
        assert_eq!(run(&node.seen).verdict(), "warning");
    }
}
