//! iptables mode: one text for iptables-restore.

use std::fmt::Write as _;

use super::{CLUSTER_CIDR, Spec};

/// pkg/proxy/iptables/proxier.go: chains, then rules, of both tables.
pub(super) fn rules(specs: &[Spec]) -> String {
    let mut filter = String::from(
        "*filter\n:KUBE-SERVICES - [0:0]\n:KUBE-EXTERNAL-SERVICES - [0:0]\n:KUBE-FORWARD - [0:0]\n\
         :KUBE-PROXY-FIREWALL - [0:0]\n:KUBE-NODEPORTS - [0:0]\n:KUBE-PROXY-CANARY - [0:0]\n\
         -A INPUT -m comment --comment \"kubernetes health check service ports\" -j KUBE-NODEPORTS\n\
         -A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES\n\
         -A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL\n\
         -A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n\
         -A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES\n\
         -A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
         -A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x00004000/0x00004000 -j ACCEPT\n\
         -A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n",
    );
    let mut nat = String::from(
        "COMMIT\n*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n\
         :KUBE-PROXY-CANARY - [0:0]\n\
         -A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x00004000/0x00004000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --xor-mark 0x00004000\n\
         -A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully\n\
         -A KUBE-MARK-MASQ -j MARK --or-mark 0x00004000\n",
    );
    for spec in specs {
        iptables_of(spec, &mut filter, &mut nat);
    }
    nat.push_str("-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\nCOMMIT\n");
    filter + &nat
}

#[expect(clippy::too_many_lines, reason = "a line for each rule")]
fn iptables_of(spec: &Spec, filter: &mut String, nat: &mut String) {
    let (title, protocol) = (spec.title(), spec.protocol);
    let suffix = spec.name.to_uppercase();
    let to = |address: &str| format!("-m {protocol} -p {protocol} -d {address} --dport 80");
    let line = |text: &mut String, words: String| {
        writeln!(text, "{words}").expect("a String takes every line");
    };
    if spec.endpoints.is_empty() {
        line(
            filter,
            format!(
                "-A KUBE-SERVICES -m comment --comment \"{title} has no endpoints\" {} -j REJECT",
                to(spec.vip)
            ),
        );
        return;
    }
    line(nat, format!(":KUBE-SVC-{suffix} - [0:0]"));
    line(
        nat,
        format!(
            "-A KUBE-SERVICES -m comment --comment \"{title} cluster IP\" {} -j KUBE-SVC-{suffix}",
            to(spec.vip)
        ),
    );
    line(
        nat,
        format!(
            "-A KUBE-SVC-{suffix} -m comment --comment \"{title} cluster IP\" {} ! -s {CLUSTER_CIDR} -j KUBE-MARK-MASQ",
            to(spec.vip)
        ),
    );
    iptables_endpoints(spec, "SVC", &spec.targets(), nat);
    if spec.external.is_none() && spec.node_port.is_none() {
        return;
    }
    line(nat, format!(":KUBE-EXT-{suffix} - [0:0]"));
    if let Some(external) = spec.external {
        line(
            nat,
            format!(
                "-A KUBE-SERVICES -m comment --comment \"{title} external IP\" {} -j KUBE-EXT-{suffix}",
                to(external)
            ),
        );
    }
    if let Some(port) = spec.node_port {
        line(
            nat,
            format!(
                "-A KUBE-NODEPORTS -m comment --comment {title} -m {protocol} -p {protocol} --dport {port} -j KUBE-EXT-{suffix}"
            ),
        );
    }
    if !spec.local {
        line(
            nat,
            format!(
                "-A KUBE-EXT-{suffix} -m comment --comment \"masquerade traffic for {title} external destinations\" -j KUBE-MARK-MASQ"
            ),
        );
        line(nat, format!("-A KUBE-EXT-{suffix} -j KUBE-SVC-{suffix}"));
        return;
    }
    line(
        nat,
        format!(
            "-A KUBE-EXT-{suffix} -m comment --comment \"pod traffic for {title} external destinations\" -s {CLUSTER_CIDR} -j KUBE-SVC-{suffix}"
        ),
    );
    line(
        nat,
        format!(
            "-A KUBE-EXT-{suffix} -m comment --comment \"masquerade LOCAL traffic for {title} external destinations\" -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ"
        ),
    );
    line(
        nat,
        format!(
            "-A KUBE-EXT-{suffix} -m comment --comment \"route LOCAL traffic for {title} external destinations\" -m addrtype --src-type LOCAL -j KUBE-SVC-{suffix}"
        ),
    );
    let local = spec.local_targets();
    if !local.is_empty() {
        line(nat, format!(":KUBE-SVL-{suffix} - [0:0]"));
        line(nat, format!("-A KUBE-EXT-{suffix} -j KUBE-SVL-{suffix}"));
        iptables_choice(spec, "SVL", &local, nat);
        return;
    }
    let comment = format!("-m comment --comment \"{title} has no local endpoints\"");
    if let Some(external) = spec.external {
        line(
            filter,
            format!(
                "-A KUBE-EXTERNAL-SERVICES {comment} {} -j DROP",
                to(external)
            ),
        );
    }
    if let Some(port) = spec.node_port {
        line(
            filter,
            format!(
                "-A KUBE-EXTERNAL-SERVICES {comment} -m addrtype --dst-type LOCAL -m {protocol} -p {protocol} --dport {port} -j DROP"
            ),
        );
    }
}

fn iptables_endpoints(spec: &Spec, kind: &str, targets: &[String], nat: &mut String) {
    let (title, protocol) = (spec.title(), spec.protocol);
    for target in targets {
        let chain = endpoint_chain(spec, target);
        let address = target.split(':').next().expect("it has an address");
        let set = if spec.affinity {
            format!("-m recent --name {chain} --set ")
        } else {
            String::new()
        };
        let lines = format!(
            ":{chain} - [0:0]\n-A {chain} -m comment --comment {title} -s {address} -j KUBE-MARK-MASQ\n\
             -A {chain} -m comment --comment {title} {set}-m {protocol} -p {protocol} -j DNAT --to-destination {target}\n"
        );
        nat.push_str(&lines);
    }
    iptables_choice(spec, kind, targets, nat);
}

fn iptables_choice(spec: &Spec, kind: &str, targets: &[String], nat: &mut String) {
    let suffix = spec.name.to_uppercase();
    let title = spec.title();
    for target in targets.iter().filter(|_| spec.affinity) {
        let chain = endpoint_chain(spec, target);
        let line = format!(
            "-A KUBE-{kind}-{suffix} -m comment --comment \"{title} -> {target}\" -m recent --name {chain} --rcheck --seconds 10800 --reap -j {chain}\n"
        );
        nat.push_str(&line);
    }
    for (index, target) in targets.iter().enumerate() {
        let left = targets.len() - index;
        let chance = if left > 1 {
            format!(
                "-m statistic --mode random --probability {:.10} ",
                1.0 / f64::from(u8::try_from(left).expect("they are few"))
            )
        } else {
            String::new()
        };
        let chain = endpoint_chain(spec, target);
        let line = format!(
            "-A KUBE-{kind}-{suffix} -m comment --comment \"{title} -> {target}\" {chance}-j {chain}\n"
        );
        nat.push_str(&line);
    }
}

fn endpoint_chain(spec: &Spec, target: &str) -> String {
    let number = target.replace(['.', ':'], "-");
    let suffix = spec.name.to_uppercase();
    format!(
        "KUBE-SEP-{}{}",
        &suffix[..suffix.len().min(8)],
        number.replace("10-244-", "").replace("-8080", "")
    )
}
