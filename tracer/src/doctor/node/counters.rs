//! What the node loses now: the conntrack table's fill, and counters that grow while doctor looks.

use super::{Answer, Check, Problem, Seen};
use crate::{doctor::listed, model::Severity};

pub(super) const CONNTRACK_TABLE: Check = Check {
    name: "conntrack_table",
    subject: "node",
    why: "once the table is full every new flow is dropped in silence, while old ones go on",
    run: table,
};

pub(super) const CONNTRACK_DROPS: Check = Check {
    name: "conntrack_drops",
    subject: "node",
    why: "a flow whose entry cannot be made or inserted loses its first packet: a DNS query is sent again after 5 s",
    run: drops,
};

pub(super) const RP_FILTER: Check = Check {
    name: "rp_filter",
    subject: "node",
    why: "the kernel drops packets that come in by another device than their answers would leave by",
    run: rp_filter,
};

pub(super) const UDP: Check = Check {
    name: "udp_errors",
    subject: "node",
    why: "DNS and tunnels are UDP: a wrong checksum or a full buffer is a lost query, or a lost packet of a pod",
    run: udp,
};

const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// Shares of the table, in percent, from which on it is a warning, and broken.
const FILLING: i64 = 75;
const FULL: i64 = 95;

fn table(seen: &Seen) -> Answer {
    let (Some(count), Some(max)) = (seen.root.number(COUNT), seen.root.number(MAX)) else {
        return Answer::Unknown(format!(
            "{COUNT} cannot be read: conntrack is not loaded, or this is no node's network"
        ));
    };
    // 0 means without limit (Documentation/networking/nf_conntrack-sysctl.rst).
    if max == 0 {
        return Answer::Holds(format!("{count} entries, no limit"));
    }
    let percent = count * 100 / max;
    if percent < FILLING {
        return Answer::Holds(format!("{count} of {max} entries, {percent} %"));
    }
    let (severity, sentence) = if percent >= FULL {
        (Severity::Broken, "is full: new flows are dropped")
    } else {
        (Severity::Warning, "fills up")
    };
    Answer::Fails(vec![Problem {
        severity,
        follows: &[],
        object: "conntrack table".to_owned(),
        sentence: sentence.to_owned(),
        evidence: vec![format!("{count} of {max} entries, {percent} %")],
        remedy: format!(
            "sysctl -w net.netfilter.nf_conntrack_max={}, and conntrack.min in kube-proxy's \
             configuration, which sets it at start; `conntrack -L | cut -d' ' -f1 | sort | uniq -c` \
             tells what fills it",
            max * 2
        ),
    }])
}

fn growth(name: &str, before: u64, after: u64) -> String {
    format!("{name} grew from {before} to {after} within the second doctor looked")
}

fn drops(seen: &Seen) -> Answer {
    let (before, after) = (&seen.before, &seen.after);
    if !seen.root.exists("/proc/net/stat/nf_conntrack") {
        return Answer::Unknown("/proc/net/stat/nf_conntrack is missing".to_owned());
    }
    let mut problems = Vec::new();
    if after.conntrack_early_drop > before.conntrack_early_drop {
        problems.push(Problem {
            severity: Severity::Broken,
            follows: &[],
            object: "conntrack table".to_owned(),
            sentence: "has no room: entries of living flows are thrown out".to_owned(),
            evidence: vec![growth(
                "early_drop",
                before.conntrack_early_drop,
                after.conntrack_early_drop,
            )],
            remedy: "raise net.netfilter.nf_conntrack_max, and conntrack.min in kube-proxy's \
                     configuration"
                .to_owned(),
        });
    }
    if after.conntrack_insert_failed > before.conntrack_insert_failed {
        problems.push(Problem {
            severity: Severity::Warning,
            follows: &[],
            object: "conntrack entries".to_owned(),
            sentence: "clash: two packets of one socket race, or masquerading runs out of ports"
                .to_owned(),
            evidence: vec![growth(
                "insert_failed",
                before.conntrack_insert_failed,
                after.conntrack_insert_failed,
            )],
            remedy: "`tracer explain conntrack_race`: NodeLocal DNSCache, or options \
                     single-request-reopen or use-vc in the pods' resolv.conf"
                .to_owned(),
        });
    }
    if problems.is_empty() && after.conntrack_drop > before.conntrack_drop {
        problems.push(Problem {
            severity: Severity::Warning,
            follows: &[],
            object: "conntrack".to_owned(),
            sentence: "drops packets whose entry cannot be made".to_owned(),
            evidence: vec![growth("drop", before.conntrack_drop, after.conntrack_drop)],
            remedy: "`tracer drops --every 5s` tells whose packets they are".to_owned(),
        });
    }
    Answer::of(problems, || {
        format!(
            "none now; since the start {} dropped, {} thrown out early, {} failed to insert",
            after.conntrack_drop, after.conntrack_early_drop, after.conntrack_insert_failed
        )
    })
}

fn rp_filter(seen: &Seen) -> Answer {
    let (before, after) = (seen.before.rp_filter, seen.after.rp_filter);
    let strict: Vec<_> = seen
        .root
        .list("/proc/sys/net/ipv4/conf")
        .into_iter()
        .filter(|device| {
            let path = format!("/proc/sys/net/ipv4/conf/{device}/rp_filter");
            seen.root.number(&path) == Some(1)
        })
        .collect();
    let of = if strict.is_empty() {
        "strict nowhere".to_owned()
    } else {
        format!("strict on {}", listed(strict.iter().cloned(), 6))
    };
    if after > before {
        return Answer::Fails(vec![Problem {
            severity: Severity::Broken,
            follows: &[],
            object: "sysctl net.ipv4.conf.*.rp_filter".to_owned(),
            sentence: "packets are dropped because they come in by the wrong device".to_owned(),
            evidence: vec![growth("IPReversePathFilter", before, after), of],
            remedy: "find the device by sysctl -w net.ipv4.conf.all.log_martians=1 and dmesg; \
                     then mend the route back, or sysctl -w net.ipv4.conf.DEVICE.rp_filter=2 and \
                     net.ipv4.conf.all.rp_filter=2"
                .to_owned(),
        }]);
    }
    Answer::Holds(format!(
        "{of}; nothing dropped now, {after} since the start"
    ))
}

fn udp(seen: &Seen) -> Answer {
    let (before, after) = (&seen.before, &seen.after);
    let mut problems = Vec::new();
    if after.udp_checksum > before.udp_checksum {
        problems.push(Problem {
            severity: Severity::Broken,
            follows: &[],
            object: "UDP checksums".to_owned(),
            sentence: "datagrams come with a wrong checksum and are dropped".to_owned(),
            evidence: vec![growth(
                "InCsumErrors",
                before.udp_checksum,
                after.udp_checksum,
            )],
            remedy: "ethtool -K flannel.1 tx-checksum-ip-generic off (or vxlan.calico) on the \
                     sending node: the tunnel's checksum offload is at fault"
                .to_owned(),
        });
    }
    if after.udp_rcvbuf > before.udp_rcvbuf {
        problems.push(Problem {
            severity: Severity::Warning,
            follows: &[],
            object: "UDP receive buffers".to_owned(),
            sentence: "datagrams are dropped because their reader is too slow".to_owned(),
            evidence: vec![growth("RcvbufErrors", before.udp_rcvbuf, after.udp_rcvbuf)],
            remedy: "`tracer trace --dns --path` tells whose socket it is; give that server more \
                     processor time or more replicas"
                .to_owned(),
        });
    }
    Answer::of(problems, || {
        format!(
            "none now; since the start {} wrong checksums, {} full buffers",
            after.udp_checksum, after.udp_rcvbuf
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        doctor::{Root, seen::Counters},
        node::scratch::Scratch,
    };

    #[test]
    fn a_table_is_judged_by_its_fill() {
        let check = |count: &str, max: &str, expected: &str| {
            let root = Scratch::new(&[(&COUNT[1..], count), (&MAX[1..], max)]);
            assert_eq!(table(&Seen::of(Root::new(root.path()))).verdict(), expected);
        };
        check("10\n", "100\n", "good");
        check("80\n", "100\n", "warning");
        check("100\n", "100\n", "broken");
        check("100\n", "0\n", "good");
    }

    #[test]
    fn old_losses_are_no_problem_and_new_ones_are() {
        let root = Scratch::new(&[("proc/net/stat/nf_conntrack", "")]);
        let mut seen = Seen::of(Root::new(root.path()));
        let old = Counters {
            conntrack_insert_failed: 5,
            rp_filter: 7,
            udp_rcvbuf: 3,
            ..Counters::default()
        };
        (seen.before, seen.after) = (old, old);
        for run in [drops, rp_filter, udp] {
            assert_eq!(run(&seen).verdict(), "good");
        }
        seen.after.conntrack_insert_failed += 1;
        seen.after.rp_filter += 1;
        seen.after.udp_rcvbuf += 1;
        assert_eq!(drops(&seen).verdict(), "warning");
        assert_eq!(rp_filter(&seen).verdict(), "broken");
        assert_eq!(udp(&seen).verdict(), "warning");
    }
}
