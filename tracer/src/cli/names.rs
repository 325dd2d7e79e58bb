//! Options that concern names: where they come from, and which rows are wanted by them.

use std::{path::PathBuf, str::FromStr};

use clap::Args;

use crate::model::{ServicePortName, cluster::Workload, selector::Selector};

/// Where names are kept.
pub(super) const NAMES_FILE: &str = "/var/lib/tracer/names";

/// Where names come from.
#[derive(Clone, Debug, Default, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line, or the lab's"
)]
pub struct NameArgs {
    /// How to reach the API server; else KUBECONFIG, a pod's service account, ~/.kube/config, and the
    /// kubelet's own configuration are looked for, in this order
    #[arg(long, value_name = "FILE", help_heading = "Names")]
    pub kubeconfig: Option<PathBuf>,
    /// Ask no API server: names come from this node alone
    #[arg(long, conflicts_with = "kubeconfig", help_heading = "Names")]
    pub no_api: bool,
    /// Ask for this node's pods only, which takes less memory; other nodes' pods are named where
    /// they serve a Service
    #[arg(long, conflicts_with = "no_api", help_heading = "Names")]
    pub own_pods: bool,
    /// Names that the API server gave before are read from this file, for as long as it is not heard
    #[arg(
        long,
        value_name = "FILE",
        default_value = NAMES_FILE,
        help_heading = "Names"
    )]
    pub names_file: PathBuf,
    /// Keep all names in that file, every five minutes and at the end
    #[arg(long, conflicts_with = "no_api", help_heading = "Names")]
    pub keep_names: bool,
    /// Names come from what is traced alone, neither from rules nor from what was kept: the lab's.
    #[arg(skip)]
    pub alone: bool,
}

/// Which rows are wanted, by the names in them.
#[derive(Clone, Debug, Default, Args)]
pub struct RowArgs {
    /// Only rows with a client, backend or Service in this namespace; may be repeated, as may be all
    /// that choose. Of different kinds, each must hold
    #[arg(long, value_name = "NAME", help_heading = "Which rows")]
    pub namespace: Vec<String>,
    /// Only rows with this pod as client or backend: web-7d9 or shop/web-7d9
    #[arg(long, value_name = "POD", help_heading = "Which rows")]
    pub pod: Vec<ObjectFilter>,
    /// Only rows that asked this Service: web, shop/web or shop/web:http
    #[arg(long, value_name = "SERVICE", help_heading = "Which rows")]
    pub service: Vec<ServiceFilter>,
    /// Only rows with a client or backend that has these labels, as kubectl takes them:
    /// app=web,tier!=db
    #[arg(long, value_name = "SELECTOR", help_heading = "Which rows")]
    pub selector: Vec<Selector>,
    /// Only rows with a client or backend on this node
    #[arg(long, value_name = "NAME", help_heading = "Which rows")]
    pub node: Vec<String>,
    /// Only rows with a client or backend of this workload: deploy/cart or shop/deploy/cart
    #[arg(long, value_name = "WORKLOAD", help_heading = "Which rows")]
    pub workload: Vec<WorkloadFilter>,
}

impl RowArgs {
    /// Whether all rows are wanted.
    pub fn is_empty(&self) -> bool {
        let Self {
            namespace,
            pod,
            service,
            selector,
            node,
            workload,
        } = self;
        namespace.is_empty()
            && pod.is_empty()
            && service.is_empty()
            && selector.is_empty()
            && node.is_empty()
            && workload.is_empty()
    }
}

/// An object by its name, in one namespace or in any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectFilter {
    namespace: Option<String>,
    name: String,
}

impl ObjectFilter {
    /// Whether this object is meant.
    pub fn matches(&self, namespace: &str, name: &str) -> bool {
        let here = self.namespace.as_ref().is_none_or(|of| of == namespace);
        here && self.name == name
    }
}

impl FromStr for ObjectFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        let valid = |name: &str| {
            let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
            !name.is_empty() && name.bytes().all(valid)
        };
        if namespace.is_none_or(valid) && valid(name) {
            Ok(Self {
                namespace: namespace.map(str::to_owned),
                name: name.to_owned(),
            })
        } else {
            Err("not a name: write web or shop/web".to_owned())
        }
    }
}

/// A Service, or one port of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceFilter {
    service: ObjectFilter,
    port: Option<String>,
}

impl ServiceFilter {
    /// Whether this port is meant.
    pub fn matches(&self, port: &ServicePortName) -> bool {
        let (namespace, name) = (&port.service.namespace, &port.service.name);
        self.service.matches(namespace, name)
            && self.port.as_ref().is_none_or(|of| **of == *port.port)
    }
}

impl FromStr for ServiceFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (service, port) = match text.split_once(':') {
            Some((service, port)) => (service, Some(port.to_owned())),
            None => (text, None),
        };
        let wrong = |_| "not a Service: write web, shop/web or shop/web:http".to_owned();
        Ok(Self {
            service: service.parse().map_err(wrong)?,
            port,
        })
    }
}

/// A workload, as kubectl calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadFilter {
    kind: &'static str,
    name: ObjectFilter,
}

/// Kinds of workloads, and what kubectl calls them besides.
const KINDS: &[(&str, &[&str])] = &[
    ("Deployment", &["deploy", "deployment", "deployments"]),
    ("StatefulSet", &["sts", "statefulset", "statefulsets"]),
    ("DaemonSet", &["ds", "daemonset", "daemonsets"]),
    ("Job", &["job", "jobs"]),
    ("CronJob", &["cj", "cronjob", "cronjobs"]),
    ("ReplicaSet", &["rs", "replicaset", "replicasets"]),
];

impl WorkloadFilter {
    /// Whether this workload is meant.
    pub fn matches(&self, namespace: &str, workload: &Workload) -> bool {
        *workload.kind == *self.kind && self.name.matches(namespace, &workload.name)
    }
}

impl FromStr for WorkloadFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || "not a workload: write deploy/cart or shop/deploy/cart".to_owned();
        let (rest, name) = text.rsplit_once('/').ok_or_else(wrong)?;
        let (namespace, kind) = match rest.split_once('/') {
            Some((namespace, kind)) => (Some(namespace), kind),
            None => (None, rest),
        };
        let kind = kind.to_ascii_lowercase();
        let mut kinds = KINDS.iter();
        let (kind, _) = kinds
            .find(|(_, words)| words.contains(&kind.as_str()))
            .ok_or_else(wrong)?;
        let name = match namespace {
            Some(namespace) => format!("{namespace}/{name}").parse(),
            None => name.parse(),
        };
        Ok(Self {
            kind,
            name: name.map_err(|_| wrong())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Via, cluster::ObjectName};

    #[test]
    fn a_service_is_chosen_by_name_and_port() {
        let port = ServicePortName {
            service: ObjectName {
                namespace: "shop".into(),
                name: "web".into(),
            },
            port: "http".into(),
            via: Via::ClusterIp,
        };
        let check = |text: &str, expected: bool| {
            let filter: ServiceFilter = text.parse().unwrap();
            assert_eq!(filter.matches(&port), expected, "{text}");
        };
        check("web", true);
        check("shop/web", true);
        check("shop/web:http", true);
        check("web:http", true);
        check("web:https", false);
        check("other/web", false);
        assert!("a/b/c".parse::<ServiceFilter>().is_err());
    }

    #[test]
    fn a_workload_is_chosen_as_kubectl_calls_it() {
        let cart = Workload {
            kind: Arc::from("Deployment"),
            name: Arc::from("cart"),
        };
        let check = |text: &str, expected: bool| {
            let filter: WorkloadFilter = text.parse().unwrap();
            assert_eq!(filter.matches("shop", &cart), expected, "{text}");
        };
        check("deploy/cart", true);
        check("Deployment/cart", true);
        check("shop/deploy/cart", true);
        check("other/deploy/cart", false);
        check("sts/cart", false);
        for wrong in ["cart", "deployed/cart", "deploy/", "a/b/deploy/cart"] {
            assert!(wrong.parse::<WorkloadFilter>().is_err(), "{wrong}");
        }
    }
}
