//! The Service kube-dns: ports, selector, endpoints, its address against the kubelet's; and what
//! CoreDNS's own metrics say.

use std::net::IpAddr;

use super::{Answer, Check, LABEL, Problem, Seen, node};
use crate::{
    cluster::objects::Service,
    doctor::{causes, seen::http::Page},
    model::Severity,
};

pub(super) const SERVICE: Check = Check {
    name: "kube_dns_service",
    subject: "coredns",
    why: "pods ask the Service's address; without endpoints they are turned away at once, and without TCP long answers fail",
    run: service,
};

pub(super) const CLUSTER_DNS: Check = Check {
    name: "cluster_dns_address",
    subject: "coredns",
    why: "the kubelet writes this address into every pod's resolv.conf; if no Service has it, every query is lost",
    run: cluster_dns,
};

pub(super) const METRICS: Check = Check {
    name: "coredns_metrics",
    subject: "coredns",
    why: "CoreDNS counts its own failures: SERVFAILs tell of upstream servers or of the API server out of reach",
    run: metrics,
};

/// Queries a second that one pod of CoreDNS was measured to answer: names of the cluster, and others
/// (<https://github.com/coredns/deployment/blob/master/kubernetes/Scaling_CoreDNS.md>).
const INSIDE: f64 = 33_669.0;
const OUTSIDE: f64 = 6_733.0;

/// Share of SERVFAIL, in percent, and least number of answers, from which on it is a warning.
const SERVFAIL: f64 = 5.0;
const ENOUGH: f64 = 200.0;

fn services(seen: &Seen) -> Result<&[Service], String> {
    let objects = seen.objects.as_ref().map_err(Clone::clone)?;
    objects.dns_services.as_deref().map_err(Clone::clone)
}

fn problem(object: &str, sentence: String, evidence: Vec<String>, remedy: String) -> Problem {
    Problem {
        severity: Severity::Broken,
        follows: &[],
        object: object.to_owned(),
        sentence,
        evidence,
        remedy,
    }
}

fn service(seen: &Seen) -> Answer {
    let services = match services(seen) {
        Ok(services) => services,
        Err(why) => return Answer::Unknown(why),
    };
    let Some(service) = services.first() else {
        return Answer::Fails(vec![problem(
            "Service kube-system/kube-dns",
            "does not exist: pods ask an address that nobody has".to_owned(),
            Vec::new(),
            "kubeadm init phase addon coredns, or apply CoreDNS's manifest".to_owned(),
        )]);
    };
    let object = format!("Service kube-system/{}", service.name);
    let mut problems = Vec::new();
    for protocol in ["UDP", "TCP"] {
        let has = service
            .ports
            .iter()
            .any(|(_, port, of)| *port == 53 && of == protocol);
        if !has {
            problems.push(problem(
                &object,
                format!("has no port 53 over {protocol}"),
                vec![ports(service)],
                format!(
                    "kubectl -n kube-system edit service {}: a port 53, protocol {protocol}",
                    service.name
                ),
            ));
        }
    }
    problems.extend(endpoints(seen, service, &object));
    Answer::of(problems, || {
        let endpoints = seen.objects.as_ref().map(|objects| &objects.dns_endpoints);
        let endpoints = match endpoints {
            Ok(Ok(endpoints)) => format!("{} endpoints", endpoints.len()),
            _ => "its endpoints may not be read".to_owned(),
        };
        format!("{} has {}; {endpoints}", addresses(service), ports(service))
    })
}

fn ports(service: &Service) -> String {
    let ports: Vec<_> = service
        .ports
        .iter()
        .map(|(_, port, protocol)| format!("{port}/{protocol}"))
        .collect();
    ports.join(", ")
}

fn addresses(service: &Service) -> String {
    let addresses: Vec<_> = service
        .cluster_ips
        .iter()
        .map(ToString::to_string)
        .collect();
    addresses.join(", ")
}

/// No endpoint, or none ready: because the selector chooses no pod, or the pods are not ready.
fn endpoints(seen: &Seen, service: &Service, object: &str) -> Option<Problem> {
    let objects = seen.objects.as_ref().ok()?;
    let endpoints = objects.dns_endpoints.as_ref().ok()?;
    if endpoints.iter().any(|(_, ready)| *ready) {
        return None;
    }
    let pods = objects.pods.as_ref().ok();
    let selects = |labels: &std::collections::BTreeMap<String, String>| {
        service
            .selector
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
    };
    let chosen = pods.map_or(0, |pods| {
        let own = pods.iter().filter(|pod| pod.namespace == "kube-system");
        own.filter(|pod| selects(&pod.labels)).count()
    });
    let selector: Vec<_> = service
        .selector
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let selector = selector.join(",");
    let (sentence, remedy) = if chosen == 0 {
        (
            format!("has no endpoint, for its selector {selector} chooses no pod"),
            format!(
                "kubectl -n kube-system patch service {} -p '{{\"spec\":{{\"selector\":{{\"{}\":\"{}\"}}}}}}'",
                service.name, LABEL.0, LABEL.1
            ),
        )
    } else {
        (
            format!("has no endpoint that is ready: none of its {chosen} pods is"),
            "tracer doctor --only coredns_pods tells why".to_owned(),
        )
    };
    let evidence = vec![format!(
        "{} endpoints in its EndpointSlices, none ready",
        endpoints.len()
    )];
    Some(Problem {
        follows: causes::NO_SERVER,
        ..problem(
            object,
            format!("{sentence}; every query is turned away"),
            evidence,
            remedy,
        )
    })
}

fn cluster_dns(seen: &Seen) -> Answer {
    let kubelet = node::kubelet(&seen.root);
    let told: Vec<IpAddr> = kubelet["clusterDNS"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|address| address.as_str()?.parse().ok())
        .collect();
    if told.is_empty() {
        return Answer::Unknown(format!("{} names no clusterDNS", node::KUBELET_CONFIG));
    }
    let list = |addresses: &[IpAddr]| {
        let words: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        words.join(", ")
    };
    let services = match services(seen) {
        Ok(services) => services,
        Err(why) => return Answer::Unknown(format!("the kubelet says {}; {why}", list(&told))),
    };
    let held: Vec<IpAddr> = services
        .iter()
        .flat_map(|service| service.cluster_ips.clone())
        .collect();
    // NodeLocal DNSCache listens at a link-local address on the node itself.
    let local = |address: &IpAddr| matches!(address, IpAddr::V4(v4) if v4.is_link_local());
    let wrong: Vec<_> = told
        .iter()
        .filter(|address| !held.contains(address) && !local(address))
        .copied()
        .collect();
    if wrong.is_empty() {
        let problems: Vec<_> = told
            .iter()
            .filter(|address| local(address))
            .filter_map(|address| local_cache(seen, *address, &list(&held)))
            .collect();
        return Answer::of(problems, || {
            let by = if told.iter().any(local) {
                "which a cache on this node has"
            } else {
                "as the Service has it"
            };
            format!("{}, {by}", list(&told))
        });
    }
    Answer::Fails(vec![problem(
        node::KUBELET_CONFIG,
        format!(
            "tells pods to ask {}, which no DNS Service has",
            list(&wrong)
        ),
        vec![format!(
            "clusterDNS: {}; the Service has {}",
            list(&told),
            list(&held)
        )],
        format!(
            "set clusterDNS: [{}] there and systemctl restart kubelet; pods started meanwhile must be started anew",
            list(&held)
        ),
    )])
}

/// What is wrong with NodeLocal DNSCache at `address` of this node; `None` where it listens, or that is not known.
///
/// 1. A device has the address: the cache makes `nodelocaldns`, and adds it there.
/// 2. A socket is at its port 53 over UDP, or at that of all addresses.
fn local_cache(seen: &Seen, address: IpAddr, service: &str) -> Option<Problem> {
    let network = seen.network.as_ref().ok()?;
    let (sentence, shown) = match network.holder(address) {
        None => (
            format!(
                "tells pods to ask {address}, NodeLocal DNSCache's, which no device of this node has"
            ),
            "no device nodelocaldns, nor any other, has it".to_owned(),
        ),
        Some(link) => {
            let sockets = seen.root.read("/proc/net/udp").ok()?;
            if listens(&sockets, address) {
                return None;
            }
            (
                format!(
                    "tells pods to ask {address}, NodeLocal DNSCache's, and nobody listens there"
                ),
                format!(
                    "device {} has it; no socket of UDP is at its port 53",
                    link.name
                ),
            )
        }
    };
    Some(problem(
        node::KUBELET_CONFIG,
        format!("{sentence}: no name resolves in pods of this node"),
        vec![format!("clusterDNS: {address}"), shown],
        format!(
            "kubectl -n kube-system get pods -l k8s-app=node-local-dns -o wide, and why none runs on this node; without the cache set clusterDNS: [{service}] there, systemctl restart kubelet, and start pods anew"
        ),
    ))
}

/// Whether a socket of UDP is at port 53 of `address`, or of all, by /proc/net/udp: the second word of each line is
/// the address in hexadecimal digits, of the processor's byte order, and the port.
fn listens(sockets: &str, address: IpAddr) -> bool {
    let IpAddr::V4(address) = address else {
        return true;
    };
    let own = format!("{:08X}:0035", u32::from_ne_bytes(address.octets()));
    sockets.lines().any(|line| {
        let at = line.split_whitespace().nth(1);
        at == Some(own.as_str()) || at == Some("00000000:0035")
    })
}

/// Sums `name`'s samples whose labels contain `label` (Prometheus's text format).
fn sum(text: &str, name: &str, label: &str) -> f64 {
    let lines = text
        .lines()
        .filter(|line| line.starts_with(name) && line.contains(label));
    let numbers = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    // The sum of nothing is -0 otherwise.
    numbers.fold(0.0, |sum, number| sum + number)
}

/// Queries a second at each of CoreDNS's pods that was asked twice.
fn rates(seen: &Seen) -> Vec<f64> {
    let (later, apart) = &seen.later;
    let count = |page: &Result<Page, String>| {
        let page = page.as_ref().ok()?;
        Some(sum(&page.body, "coredns_dns_requests_total", ""))
    };
    let rates = later.iter().filter_map(|(port, page)| {
        let before = count(seen.http.get(port)?)?;
        let grown = (count(page)? - before).max(0.0);
        (!apart.is_zero()).then(|| grown / apart.as_secs_f64())
    });
    rates.collect()
}

fn metrics(seen: &Seen) -> Answer {
    let pages = seen
        .http
        .iter()
        .filter(|(port, _)| port.ends_with(":9153/metrics"));
    let pages: Vec<_> = pages.collect();
    if pages.is_empty() {
        return Answer::Unknown("no pod of CoreDNS is known to ask".to_owned());
    }
    let texts: Vec<_> = pages
        .iter()
        .filter_map(|(_, page)| page.as_ref().ok())
        .map(|page| page.body.as_str())
        .collect();
    if texts.is_empty() {
        let why = pages.iter().find_map(|(_, page)| page.as_ref().err());
        return Answer::Unknown(why.cloned().unwrap_or_default());
    }
    let total =
        |name: &str, label: &str| texts.iter().map(|text| sum(text, name, label)).sum::<f64>();
    let answers = total("coredns_dns_responses_total", "");
    let servfail = total("coredns_dns_responses_total", "rcode=\"SERVFAIL\"");
    let (hits, misses) = (
        total("coredns_cache_hits_total", ""),
        total("coredns_cache_misses_total", ""),
    );
    let share = |part: f64, of: f64| if of > 0.0 { part * 100.0 / of } else { 0.0 };
    let percent = share(servfail, answers);
    let rates = rates(seen);
    let most = rates.iter().copied().fold(0.0, f64::max);
    let rate = match rates.len() {
        0 => String::new(),
        _ => format!(", {most:.0} queries a second at most at one"),
    };
    let said = format!(
        "{} of {} pods asked: {answers} answers, {percent:.1} % SERVFAIL, cache hits {:.0} %{rate}",
        texts.len(),
        pages.len(),
        share(hits, hits + misses)
    );
    if most >= OUTSIDE {
        return Answer::Fails(vec![Problem {
            severity: Severity::Warning,
            follows: &[],
            object: "CoreDNS's pods".to_owned(),
            sentence: format!(
                "are asked {most:.0} times a second at most each: one was measured to answer {OUTSIDE:.0} for names outside the cluster, {INSIDE:.0} within"
            ),
            evidence: vec![said],
            remedy:
                "kubectl -n kube-system scale deployment coredns --replicas=…; NodeLocal DNSCache"
                    .to_owned(),
        }]);
    }
    if answers >= ENOUGH && percent >= SERVFAIL {
        return Answer::Fails(vec![Problem {
            severity: Severity::Warning,
            follows: &[],
            object: "CoreDNS's answers".to_owned(),
            sentence: format!("fail often: {percent:.1} % are SERVFAIL"),
            evidence: vec![said],
            remedy: "`tracer trace --dns` on its node tells which upstream server does not answer"
                .to_owned(),
        }]);
    }
    Answer::Holds(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cluster::objects::PodObject, doctor::cni::fixtures};

    fn with_service(change: fn(&mut Service)) -> fixtures::Node {
        let mut node = fixtures::flannel();
        let mut service = Service {
            name: "kube-dns".to_owned(),
            cluster_ips: vec!["10.96.0.10".parse().unwrap()],
            selector: [("k8s-app".to_owned(), "kube-dns".to_owned())].into(),
            ports: vec![
                ("dns".to_owned(), 53, "UDP".to_owned()),
                ("dns-tcp".to_owned(), 53, "TCP".to_owned()),
            ],
        };
        change(&mut service);
        let pod = PodObject {
            namespace: "kube-system".to_owned(),
            labels: [("k8s-app".to_owned(), "kube-dns".to_owned())].into(),
            ..PodObject::default()
        };
        let objects = node.seen.objects.as_mut().unwrap();
        objects.dns_services = Ok(vec![service]);
        objects.dns_endpoints = Ok(vec![("10.244.1.2".parse().unwrap(), true)]);
        objects.pods = Ok(vec![pod]);
        node.write("var/lib/kubelet/config.yaml", "clusterDNS:\n- 10.96.0.10\n");
        node
    }

    fn sentence(answer: Answer) -> String {
        match answer {
            Answer::Fails(problems) => problems[0].sentence.clone(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_whole_service_holds() {
        let node = with_service(|_| {});
        assert_eq!(service(&node.seen).verdict(), "good");
        assert_eq!(cluster_dns(&node.seen).verdict(), "good");
    }

    #[test]
    fn a_selector_that_chooses_nothing_is_told_from_pods_that_are_not_ready() {
        let mut node = with_service(|service| {
            service
                .selector
                .insert("k8s-app".to_owned(), "coredns".to_owned());
        });
        node.seen.objects.as_mut().unwrap().dns_endpoints = Ok(Vec::new());
        assert!(sentence(service(&node.seen)).contains("chooses no pod"));
        let mut node = with_service(|_| {});
        node.seen.objects.as_mut().unwrap().dns_endpoints =
            Ok(vec![("10.244.1.2".parse().unwrap(), false)]);
        assert!(sentence(service(&node.seen)).contains("none of its 1 pods is"));
    }

    #[test]
    fn a_protocol_that_is_missing_is_named() {
        let node = with_service(|service| {
            service.ports.pop();
        });
        assert_eq!(sentence(service(&node.seen)), "has no port 53 over TCP");
    }

    #[test]
    fn a_kubelet_that_tells_another_address_is_named() {
        let node =
            with_service(|service| service.cluster_ips = vec!["10.96.0.11".parse().unwrap()]);
        assert!(sentence(cluster_dns(&node.seen)).contains("10.96.0.10, which no DNS Service has"));
    }

    #[test]
    fn a_cache_on_the_node_must_be_there_and_listen() {
        let local = "169.254.20.10";
        let mut node = with_service(|_| {});
        node.write(
            "var/lib/kubelet/config.yaml",
            "clusterDNS:\n- 169.254.20.10\n",
        );
        assert!(sentence(cluster_dns(&node.seen)).contains("which no device of this node has"));
        let address = (2, local.parse().unwrap(), 32);
        node.network().addresses.push(address);
        node.write("proc/net/udp", "  sl  local_address\n");
        assert!(sentence(cluster_dns(&node.seen)).contains("nobody listens there"));
        let sockets = format!(
            "  12: {:08X}:0035 00000000:0000 07\n",
            u32::from_ne_bytes([169, 254, 20, 10])
        );
        node.write("proc/net/udp", &sockets);
        assert_eq!(cluster_dns(&node.seen).verdict(), "good");
    }

    #[test]
    fn failures_and_queries_of_coredns_are_read_from_its_metrics() {
        let check = |before: &str, after: &str, expected: &str| {
            let mut node = with_service(|_| {});
            let port = "10.244.1.2:9153/metrics".to_owned();
            let page = |body: &str| {
                Ok(Page {
                    status: 200,
                    body: body.to_owned(),
                })
            };
            node.seen.http.insert(port.clone(), page(before));
            let later = [(port, page(after))].into();
            node.seen.later = (later, std::time::Duration::from_secs(2));
            let said = format!("{:?}", metrics(&node.seen));
            assert!(said.contains(expected), "{said}");
        };
        let asked = |count: u32| format!("coredns_dns_requests_total{{type=\"A\"}} {count}\n");
        check(&asked(10), &asked(30), "10 queries a second at most at one");
        check(&asked(0), &asked(20_000), "are asked 10000 times a second");
        let fails = "coredns_dns_responses_total{rcode=\"NOERROR\"} 900\n\
                     coredns_dns_responses_total{rcode=\"SERVFAIL\"} 100\n\
                     coredns_cache_hits_total{type=\"success\"} 30\n\
                     coredns_cache_misses_total{} 10\n";
        check(fails, fails, "fail often: 10.0 % are SERVFAIL");
        check(fails, fails, "cache hits 75 %");
    }

    #[test]
    fn metrics_are_summed_by_label() {
        let text = "# HELP x y\ncoredns_dns_responses_total{rcode=\"NOERROR\",server=\"dns://:53\"} 90\n\
                    coredns_dns_responses_total{rcode=\"SERVFAIL\",server=\"dns://:53\"} 1e+01\n";
        assert!((sum(text, "coredns_dns_responses_total", "") - 100.0).abs() < 1e-9);
        assert!(
            (sum(text, "coredns_dns_responses_total", "rcode=\"SERVFAIL\"") - 10.0).abs() < 1e-9
        );
    }
}
