//! nftables mode: one text for `nft -f`.

use std::fmt::Write as _;

use super::{CLUSTER_CIDR, Spec};

/// pkg/proxy/nftables/proxier.go
pub(super) fn rules(specs: &[Spec]) -> String {
    let mut text = String::from(
        "table ip kube-proxy {\n\
         set cluster-ips { type ipv4_addr; }\n\
         set nodeport-ips { type ipv4_addr; elements = { 192.0.2.1 }; }\n\
         set hairpin-connections { type ipv4_addr . ipv4_addr . inet_proto . inet_service; }\n\
         map no-endpoint-nodeports { type inet_proto . inet_service : verdict; }\n\
         map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }\n\
         map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }\n\
         map service-nodeports { type inet_proto . inet_service : verdict; }\n\
         chain reject-chain { reject; }\n\
         chain services {\n\
         ip daddr @cluster-ips ip saddr != 10.244.0.0/16 mark set mark or 0x4000 comment \"masquerade clusterIP traffic from outside cluster\"\n\
         ip daddr . meta l4proto . th dport vmap @service-ips\n\
         ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports\n }\n\
         chain masquerading {\n\
         mark and 0x4000 != 0 mark set mark xor 0x4000 masquerade fully-random\n\
         ct status dnat ip saddr . ip daddr . meta l4proto . th dport @hairpin-connections masquerade fully-random\n }\n\
         chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }\n\
         chain nodeport-endpoints-check { ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }\n\
         chain cluster-ips-check {\n\
         ip daddr @cluster-ips reject comment \"Reject traffic to invalid ports of ClusterIPs\"\n\
         ip daddr { 10.96.0.0/16 } drop comment \"Drop traffic to unallocated ClusterIPs\"\n }\n\
         chain filter-forward { type filter hook forward priority 0; ct state new jump service-endpoints-check; ct state new jump cluster-ips-check; }\n\
         chain filter-input { type filter hook input priority 0; ct state new jump nodeport-endpoints-check; ct state new jump service-endpoints-check; }\n\
         chain filter-output { type filter hook output priority 0; ct state new jump service-endpoints-check; ct state new jump cluster-ips-check; }\n\
         chain nat-output { type nat hook output priority -100; jump services; }\n\
         chain nat-postrouting { type nat hook postrouting priority 100; jump masquerading; }\n\
         chain nat-prerouting { type nat hook prerouting priority -100; jump services; }\n}\n",
    );
    for spec in specs {
        nftables_of(spec, &mut text);
    }
    text
}

#[expect(clippy::too_many_lines, reason = "a line for each rule")]
fn nftables_of(spec: &Spec, text: &mut String) {
    let protocol = spec.protocol;
    let path = format!("ABCDEFGH-shop/{}/{protocol}/http", spec.name);
    let mut add = |words: String| writeln!(text, "add {words}").expect("a String takes every line");
    add(format!(
        "element ip kube-proxy cluster-ips {{ {} }}",
        spec.vip
    ));
    let title = spec.title();
    if spec.endpoints.is_empty() {
        add(format!(
            "element ip kube-proxy no-endpoint-services {{ {} . {protocol} . 80 comment \"{title}\" : goto reject-chain }}",
            spec.vip
        ));
        return;
    }
    let service = format!("service-{path}");
    add(format!("chain ip kube-proxy {service}"));
    let chain_of = |target: &String| format!("endpoint-{path}__{}", target.replace(':', "/"));
    let targets = spec.targets();
    for target in &targets {
        let (address, port) = target.split_once(':').expect("it has a port");
        let chain = chain_of(target);
        add(format!("chain ip kube-proxy {chain}"));
        if spec.affinity {
            add(format!(
                "set ip kube-proxy affinity-{chain} {{ type ipv4_addr; flags dynamic,timeout; timeout 10800s; }}"
            ));
            add(format!(
                "rule ip kube-proxy {chain} update @affinity-{chain} {{ ip saddr }}"
            ));
            add(format!(
                "rule ip kube-proxy {service} ip saddr @affinity-{chain} goto {chain}"
            ));
        }
        add(format!(
            "rule ip kube-proxy {chain} meta l4proto {protocol} dnat to {target}"
        ));
        add(format!(
            "element ip kube-proxy hairpin-connections {{ {address} . {address} . {protocol} . {port} }}"
        ));
    }
    let choices = (0..)
        .zip(&targets)
        .map(|(index, target): (usize, _)| format!("{index} : goto {}", chain_of(target)));
    let choices: Vec<_> = choices.collect();
    let [count, choices] = [targets.len().to_string(), choices.join(", ")];
    add(format!(
        "rule ip kube-proxy {service} numgen random mod {count} vmap {{ {choices} }}"
    ));
    add(format!(
        "element ip kube-proxy service-ips {{ {} . {protocol} . 80 : goto {service} }}",
        spec.vip
    ));
    if spec.external.is_none() && spec.node_port.is_none() {
        return;
    }
    let external = format!("external-{path}");
    add(format!("chain ip kube-proxy {external}"));
    let local = spec.local_targets();
    if spec.local {
        add(format!(
            "rule ip kube-proxy {external} ip saddr {CLUSTER_CIDR} goto {service} comment \"short-circuit pod traffic\""
        ));
        add(format!(
            "rule ip kube-proxy {external} fib saddr type local mark set mark or 0x4000 comment \"masquerade local traffic\""
        ));
        add(format!(
            "rule ip kube-proxy {external} fib saddr type local goto {service} comment \"short-circuit local traffic\""
        ));
        if !local.is_empty() {
            let choices = (0..).zip(&local).map(|(index, target): (usize, _)| {
                format!("{index} : {}", target.replace(':', " . "))
            });
            let choices: Vec<_> = choices.collect();
            add(format!(
                "rule ip kube-proxy {external} meta l4proto {protocol} dnat ip addr . port to numgen random mod {} map {{ {} }}",
                local.len(),
                choices.join(", ")
            ));
        }
    } else {
        add(format!(
            "rule ip kube-proxy {external} mark set mark or 0x4000 comment \"masquerade\""
        ));
        add(format!("rule ip kube-proxy {external} goto {service}"));
    }
    let dropped = spec.local && local.is_empty();
    if let Some(address) = spec.external {
        add(format!(
            "element ip kube-proxy service-ips {{ {address} . {protocol} . 80 : goto {external} }}"
        ));
        if dropped {
            add(format!(
                "element ip kube-proxy no-endpoint-services {{ {address} . {protocol} . 80 comment \"{title}\" : drop }}"
            ));
        }
    }
    if let Some(port) = spec.node_port {
        add(format!(
            "element ip kube-proxy service-nodeports {{ {protocol} . {port} : goto {external} }}"
        ));
        if dropped {
            add(format!(
                "element ip kube-proxy no-endpoint-nodeports {{ {protocol} . {port} comment \"{title}\" : drop }}"
            ));
        }
    }
}
