//! CoreDNS's objects: Deployment, ConfigMap, ServiceAccount; and what it may read.

use super::{Answer, Check, NAME, Problem, Seen};
use crate::{
    cluster::objects::{Objects, Workload},
    model::Severity,
};

pub(super) const OBJECTS: Check = Check {
    name: "coredns_objects",
    subject: "coredns",
    why: "CoreDNS needs a Deployment, a Corefile in a ConfigMap and a ServiceAccount; without one of them no name resolves",
    run: objects,
};

pub(super) const RBAC: Check = Check {
    name: "coredns_rbac",
    subject: "coredns",
    why: "CoreDNS lists and watches Services, EndpointSlices, pods and namespaces; what it may not read it answers SERVFAIL for, or it never gets ready",
    run: rbac,
};

/// What the plugin `kubernetes` lists and watches
/// (<https://github.com/coredns/deployment/blob/master/kubernetes/coredns.yaml.sed>).
const NEEDED: &[(&str, &str)] = &[
    ("", "services"),
    ("", "pods"),
    ("", "namespaces"),
    ("discovery.k8s.io", "endpointslices"),
];

/// The Deployment that runs the cluster's DNS.
pub(super) fn deployment(objects: &Objects) -> Result<Option<&Workload>, String> {
    let workloads = objects.workloads.as_ref().map_err(Clone::clone)?;
    let mut workloads = workloads
        .iter()
        .filter(|workload| workload.namespace == "kube-system");
    let is = |workload: &&Workload| {
        let image = workload
            .containers
            .first()
            .map(|container| container.image.as_str());
        workload.name == NAME || image.is_some_and(|image| image.contains("/coredns"))
    };
    Ok(workloads.find(is))
}

fn missing(object: &str, sentence: &str, remedy: &str) -> Problem {
    Problem {
        severity: Severity::Broken,
        follows: &[],
        object: object.to_owned(),
        sentence: sentence.to_owned(),
        evidence: Vec::new(),
        remedy: remedy.to_owned(),
    }
}

fn objects(seen: &Seen) -> Answer {
    let objects = match &seen.objects {
        Ok(objects) => objects,
        Err(why) => return Answer::Unknown(why.clone()),
    };
    let found = match deployment(objects) {
        Ok(found) => found,
        Err(why) => return Answer::Unknown(why),
    };
    let again = "kubeadm init phase addon coredns, or apply CoreDNS's manifest";
    let Some(workload) = found else {
        return Answer::Fails(vec![missing(
            "Deployment kube-system/coredns",
            "does not exist, so nobody answers for the cluster's names",
            again,
        )]);
    };
    let mut problems = Vec::new();
    if workload.wanted == 0 {
        problems.push(missing(
            &format!("{} kube-system/{}", workload.kind, workload.name),
            "is scaled to 0, so nobody answers for the cluster's names",
            &format!(
                "kubectl -n kube-system scale deployment {} --replicas=2",
                workload.name
            ),
        ));
    }
    if let Ok(maps) = &objects.config_maps {
        match maps.get(NAME) {
            None => problems.push(missing(
                "ConfigMap kube-system/coredns",
                "does not exist: CoreDNS's pods stay in ContainerCreating, for they mount it",
                again,
            )),
            Some(map) if !map.contains_key("Corefile") => problems.push(missing(
                "ConfigMap kube-system/coredns",
                "has no key Corefile: CoreDNS finds no configuration, and serves nothing",
                "kubectl -n kube-system edit configmap coredns, and name the key Corefile",
            )),
            Some(_) => {}
        }
    }
    let account = &workload.service_account;
    if let Ok(accounts) = &objects.service_accounts
        && !account.is_empty()
        && !accounts.contains(account)
    {
        problems.push(missing(
            &format!("ServiceAccount kube-system/{account}"),
            "does not exist: no new pod of CoreDNS is created",
            &format!("kubectl -n kube-system create serviceaccount {account}"),
        ));
    }
    if workload.dns_policy != "Default" && !workload.dns_policy.is_empty() {
        problems.push(Problem {
            severity: Severity::Warning,
            follows: &[],
            object: format!("{} kube-system/{}", workload.kind, workload.name),
            sentence: format!("has dnsPolicy {}: CoreDNS's own resolv.conf names CoreDNS, and `forward . /etc/resolv.conf` is a loop", workload.dns_policy),
            evidence: Vec::new(),
            remedy: format!("kubectl -n kube-system patch deployment {} -p '{{\"spec\":{{\"template\":{{\"spec\":{{\"dnsPolicy\":\"Default\"}}}}}}}}'", workload.name),
        });
    }
    Answer::of(problems, || {
        format!(
            "{} {} ({} of {} ready), ConfigMap coredns, ServiceAccount {account}",
            workload.kind, workload.name, workload.ready, workload.wanted
        )
    })
}

fn rbac(seen: &Seen) -> Answer {
    let objects = match &seen.objects {
        Ok(objects) => objects,
        Err(why) => return Answer::Unknown(why.clone()),
    };
    let roles = match &objects.roles {
        Ok(roles) => roles,
        Err(why) => return Answer::Unknown(why.clone()),
    };
    let Ok(Some(workload)) = deployment(objects) else {
        return Answer::Unknown("there is no CoreDNS whose rights could be judged".to_owned());
    };
    let account = match workload.service_account.as_str() {
        "" => "kube-system/default".to_owned(),
        account => format!("kube-system/{account}"),
    };
    let bound: Vec<_> = roles
        .iter()
        .filter(|role| role.subjects.contains(&account))
        .collect();
    let edit = "in it: apiGroups [\"\"] resources [endpoints, services, pods, namespaces] and apiGroups [discovery.k8s.io] resources [endpointslices], verbs [list, watch]";
    if bound.is_empty() {
        return Answer::Fails(vec![missing(
            &format!("ServiceAccount {account}"),
            "is bound to no ClusterRole: CoreDNS may read nothing, and never gets ready",
            &format!(
                "kubectl create clusterrolebinding system:coredns --clusterrole=system:coredns --serviceaccount={}",
                account.replace('/', ":")
            ),
        )]);
    }
    let mut problems = Vec::new();
    for role in &bound {
        if role.rules.is_none() {
            problems.push(missing(
                &format!("ClusterRole {}", role.role),
                &format!(
                    "does not exist, and ClusterRoleBinding {} counts on it",
                    role.binding
                ),
                &format!("create it; {edit}"),
            ));
        }
    }
    let names: Vec<_> = bound.iter().map(|role| role.role.as_str()).collect();
    let rules = || bound.iter().flat_map(|role| role.rules.iter().flatten());
    let mut lacking = Vec::new();
    for (group, resource) in NEEDED {
        for verb in ["list", "watch"] {
            if !rules().any(|rule| rule.allows(group, resource, verb)) {
                lacking.push(format!("{verb} {resource}"));
            }
        }
    }
    if !lacking.is_empty() && problems.is_empty() {
        problems.push(Problem {
            severity: Severity::Broken,
            follows: &[],
            object: format!("ClusterRole {}", names.join(", ")),
            sentence: format!("does not let CoreDNS {}", lacking.join(", ")),
            evidence: vec![format!(
                "bound to ServiceAccount {account} by ClusterRoleBinding {}",
                bound[0].binding
            )],
            remedy: format!("kubectl edit clusterrole {}; {edit}", names[0]),
        });
    }
    Answer::of(problems, || {
        format!(
            "ServiceAccount {account} by ClusterRole {}",
            names.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::objects::{BoundRole, Rule},
        doctor::cni::fixtures,
    };

    fn role(groups: &[&str], resources: &[&str]) -> Rule {
        let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Rule {
            groups: own(groups),
            resources: own(resources),
            verbs: own(&["list", "watch"]),
        }
    }

    fn with_roles(rules: Option<Vec<Rule>>) -> fixtures::Node {
        let mut node = fixtures::flannel();
        let objects = node.seen.objects.as_mut().unwrap();
        objects.workloads = Ok(vec![Workload {
            kind: "Deployment",
            namespace: "kube-system".to_owned(),
            name: "coredns".to_owned(),
            wanted: 2,
            ready: 2,
            service_account: "coredns".to_owned(),
            dns_policy: "Default".to_owned(),
            ..Workload::default()
        }]);
        objects.roles = Ok(vec![BoundRole {
            role: "system:coredns".to_owned(),
            binding: "system:coredns".to_owned(),
            subjects: vec!["kube-system/coredns".to_owned()],
            rules,
        }]);
        node
    }

    #[test]
    fn what_coredns_may_not_read_is_named() {
        let core = role(&[""], &["services", "pods", "namespaces"]);
        let slices = role(&["discovery.k8s.io"], &["endpointslices"]);
        let node = with_roles(Some(vec![core.clone(), slices]));
        assert_eq!(rbac(&node.seen).verdict(), "good");
        let Answer::Fails(problems) = rbac(&with_roles(Some(vec![core])).seen) else {
            panic!("it lacks a rule");
        };
        assert_eq!(problems[0].object, "ClusterRole system:coredns");
        assert_eq!(
            problems[0].sentence,
            "does not let CoreDNS list endpointslices, watch endpointslices"
        );
    }

    #[test]
    fn a_binding_to_a_role_that_is_gone_is_named() {
        let Answer::Fails(problems) = rbac(&with_roles(None).seen) else {
            panic!("it is gone");
        };
        assert!(problems[0].sentence.starts_with("does not exist"));
    }

    #[test]
    fn what_is_missing_is_named_each_by_itself() {
        let node = with_roles(None);
        let Answer::Fails(problems) = objects(&node.seen) else {
            panic!("two are missing");
        };
        let objects: Vec<_> = problems
            .iter()
            .map(|problem| problem.object.as_str())
            .collect();
        assert_eq!(
            objects,
            [
                "ConfigMap kube-system/coredns",
                "ServiceAccount kube-system/coredns"
            ]
        );
    }
}
