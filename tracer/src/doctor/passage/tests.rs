//! Real rules of a network namespace, told good from bad.

use std::{fs::File, os::fd::AsFd as _, process::Command, thread};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::*;
use crate::doctor::{chosen, cni::fixtures};

/// Removed on drop, also when a test panics.
struct Netns(String);

impl Drop for Netns {
    fn drop(&mut self) {
        drop(
            Command::new("ip")
                .args(["netns", "delete", &self.0])
                .status(),
        );
    }
}

/// Runs `lines`, each a command, in the namespace of this thread.
fn run(lines: &str) {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut words = line.split(' ');
        let program = words.next().unwrap();
        let status = Command::new(program).args(words).status();
        assert!(status.is_ok_and(|status| status.success()), "{line}");
    }
}

/// What a check says of a Flannel node whose rules are those of this thread's namespace; `ready` are the
/// endpoints of kube-dns.
fn verdict(check: &str, ready: &[&str]) -> String {
    let mut node = fixtures::flannel();
    node.seen.rules = Rules::read();
    let objects = node.seen.objects.as_mut().unwrap();
    objects.dns_services = Ok(vec![crate::cluster::objects::Service {
        name: "kube-dns".to_owned(),
        cluster_ips: vec!["10.96.0.10".parse().unwrap()],
        selector: [].into(),
        ports: vec![("dns".to_owned(), 53, "UDP".to_owned())],
    }]);
    let ready = ready.iter().map(|ip| (ip.parse().unwrap(), true));
    objects.dns_endpoints = Ok(ready.collect());
    let check = chosen(&[check.to_owned()]).unwrap()[0];
    let answer = (check.run)(&node.seen);
    format!("{}: {answer:?}", answer.verdict())
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn rules_that_shut_the_way_are_told_from_those_that_do_not() {
    let netns = Netns(format!("t{}-passage", std::process::id()));
    run(&format!("ip netns add {}", netns.0));
    let file = File::open(format!("/run/netns/{}", netns.0)).unwrap();
    let tested = thread::spawn(move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        run("
            ip link set lo up
            ip link add eth0 type ifb
            ip link set eth0 up
            ip address add 192.0.2.11/24 dev eth0
            ip route add default via 192.0.2.1
            ip link add cni0 type ifb
            ip link set cni0 up
            ip address add 10.244.1.1/24 dev cni0
            ip link add flannel.1 type ifb
            ip link set flannel.1 up
            ip route add 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink
            sysctl -qw net.ipv4.ip_forward=1
            ");
        let check = |name: &str, ready: &[&str], expected: &str, word: &str| {
            let said = verdict(name, ready);
            assert!(said.starts_with(expected) && said.contains(word), "{said}");
        };
        check("forward_rules", &[], "good", "n2");
        check("tunnel_port", &[], "good", "8472/udp");
        run("iptables -P FORWARD DROP");
        check("forward_rules", &[], "broken", "FORWARD");
        run("iptables -A FORWARD -s 10.244.0.0/16 -j ACCEPT");
        check("forward_rules", &[], "good", "n2");
        run("iptables -A INPUT -p udp --dport 8472 -s 192.0.2.12 -j DROP");
        check("tunnel_port", &[], "broken", "INPUT");
        run("iptables -I INPUT -p udp --dport 8472 -j ACCEPT");
        check("tunnel_port", &[], "good", "8472/udp");

        let chain = "KUBE-SVC-TCOU7JCQXEZGVUNU";
        let endpoint = "10.244.2.7";
        let dns = |ready: &[&str], expected, word: &str| {
            check("kube_dns_rules", ready, expected, word);
        };
        // A Service that others serve; kube-proxy runs in this fixture or has rules.
        run(&format!(
            "iptables -t nat -N {chain}
            iptables -t nat -N KUBE-SERVICES
            iptables -t nat -A OUTPUT -j KUBE-SERVICES
            iptables -t nat -A KUBE-SERVICES -d 10.96.0.10/32 -p udp --dport 53 -m comment --comment kube-system/kube-dns:dns -j {chain}
            iptables -t nat -A {chain} -p udp -j DNAT --to-destination {endpoint}:53"
        ));
        dns(&[endpoint], "good", "to 1 endpoint");
        dns(&["10.244.2.8"], "broken", "no ready endpoint");
        dns(&[], "good", "no endpoint is ready");
        run("iptables -t nat -F KUBE-SERVICES");
        run(&format!(
            "iptables -t nat -A KUBE-SERVICES -d 10.96.0.99/32 -p udp --dport 53 -m comment --comment kube-system/kube-dns:dns -j {chain}"
        ));
        dns(&[endpoint], "broken", "translated to nothing");
        run("iptables -A OUTPUT -d 10.96.0.10 -j REJECT");
        dns(&[endpoint], "broken", "refused or dropped");
    });
    tested.join().unwrap();
}
