//! Asks the API server, all at once, and trims what it says.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    future::Future,
    net::IpAddr,
};

use futures::{FutureExt as _, future, future::join_all};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1::{self, ConfigMap, Event, Node, Pod, ServiceAccount},
    discovery::v1::EndpointSlice,
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use kube::{
    Api, Client, Config, Resource,
    api::{GetParams, ListParams, LogParams, Request},
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::de::DeserializeOwned;

use super::{
    BoundRole, Got, NodeObject, Objects, PATIENCE, PodObject, Service, Workload, policies, pools,
    trim::{config_map, daemon_set, deployment, endpoints, node, pod, rule, service, targets},
};

const SYSTEM: &str = "kube-system";

/// Namespaces in which CNI plugins' manifests put their pods.
const NAMESPACES: &[&str] = &[SYSTEM, "kube-flannel", "calico-system", "weave", "cilium"];

/// Objects asked for at once.
const PAGE: u32 = 500;

/// Lines of a container's log that are asked for.
const LOG_LINES: i64 = 40;

/// Gets all of them, on a machine that has `own` addresses; a few seconds at most.
///
/// # Errors
/// In words: the API server cannot be asked at all.
pub async fn get(own: &[IpAddr]) -> Got<Objects> {
    let client = client().await?;
    let clock_ahead = within(clock(&client)).await?;
    let (lists, access, address_pools) = future::join3(
        lists(&client).boxed(),
        access(&client).boxed(),
        pools::get(&client).boxed(),
    )
    .await;
    let (nodes, mut pods, workloads, services, slices, config_maps) = lists;
    let why = async {
        if let Ok(pods) = &mut pods {
            tell_why(&client, pods).await;
        }
    };
    let policies = policies::get(&client, policies::of_node(&nodes, own));
    let ((), network_policies) = future::join(why.boxed(), policies.boxed()).await;
    let (service_accounts, roles, pod_count, service_count) = access;
    Ok(Objects {
        clock_ahead,
        nodes,
        pods,
        workloads,
        dns_services: services,
        dns_endpoints: slices
            .as_ref()
            .map(|slices| slices.iter().flat_map(endpoints).collect())
            .map_err(Clone::clone),
        dns_targets: slices.map(|slices| slices.iter().flat_map(targets).collect()),
        config_maps,
        service_accounts,
        roles,
        network_policies,
        address_pools,
        pod_count,
        service_count,
    })
}

/// Kubeconfigs of a node, best first: an administrator's may read more than the kubelet's.
const ON_NODE: &[&str] = &[
    "/etc/kubernetes/admin.conf",
    "/etc/kubernetes/super-admin.conf",
    "/etc/kubernetes/kubelet.conf",
];

async fn client() -> Got<Client> {
    let mut config = Config::infer().await.map_err(|error| error.to_string());
    for path in ON_NODE {
        if config.is_err()
            && let Ok(kubeconfig) = Kubeconfig::read_from(path)
        {
            let options = KubeConfigOptions::default();
            let read = Config::from_custom_kubeconfig(kubeconfig, &options).await;
            config = read.map_err(|error| format!("{path}: {error}"));
        }
    }
    let mut config = config?;
    config.connect_timeout = Some(PATIENCE);
    config.read_timeout = Some(PATIENCE);
    Client::try_from(config).map_err(|error| error.to_string())
}

/// `future`'s answer, or in words why there is none.
async fn within<T>(future: impl Future<Output = Result<T, kube::Error>>) -> Got<T> {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => Err(status.message.clone()),
        Ok(Err(error)) => Err(root(&error)),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// The innermost cause: the rest says only that a request failed.
fn root(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The API server's time is in the heading of each of its answers, to the second.
async fn clock(client: &Client) -> Result<Option<i64>, kube::Error> {
    let request = Request::new("").get("version", &GetParams::default());
    let request = request.map_err(kube::Error::BuildRequest)?;
    let response = client.send(request.map(Body::from)).await?;
    let date = response.headers().get("date");
    let date = date.and_then(|date| date.to_str().ok());
    let theirs = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
    let now = jiff::Timestamp::now();
    Ok(theirs.map(|theirs| now.as_second() - theirs.timestamp().as_second()))
}

/// All of them, page by page.
///
/// # Errors
/// In words: they may not be read, or not in time.
pub(super) async fn list<K>(api: Api<K>, params: ListParams) -> Got<Vec<K>>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    let mut params = params.limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = within(async { api.list(&params).await }).await?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(all),
        }
    }
}

/// What is in any of [`NAMESPACES`].
async fn list_system<K>(client: &Client) -> Got<Vec<K>>
where
    K: Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    let lists = NAMESPACES.iter().map(|namespace| {
        let api: Api<K> = Api::namespaced(client.clone(), namespace);
        list(api, ListParams::default())
    });
    let lists: Got<Vec<Vec<K>>> = join_all(lists).await.into_iter().collect();
    Ok(lists?.into_iter().flatten().collect())
}

type Lists = (
    Got<Vec<NodeObject>>,
    Got<Vec<PodObject>>,
    Got<Vec<Workload>>,
    Got<Vec<Service>>,
    Got<Vec<EndpointSlice>>,
    Got<BTreeMap<String, BTreeMap<String, String>>>,
);

async fn lists(client: &Client) -> Lists {
    let all = ListParams::default;
    let nodes = list(Api::<Node>::all(client.clone()), all());
    let pods = list_system::<Pod>(client);
    let deployments = list_system::<Deployment>(client);
    let daemon_sets = list_system::<DaemonSet>(client);
    let services = list(
        Api::<v1::Service>::namespaced(client.clone(), SYSTEM),
        all(),
    );
    let slices = list(
        Api::<EndpointSlice>::namespaced(client.clone(), SYSTEM),
        all().labels("kubernetes.io/service-name in (kube-dns, coredns)"),
    );
    let maps = list(Api::<ConfigMap>::namespaced(client.clone(), SYSTEM), all());
    let (nodes, pods, deployments, daemon_sets) =
        future::join4(nodes, pods, deployments, daemon_sets).await;
    let (services, slices, maps) = future::join3(services, slices, maps).await;
    let workloads = deployments.and_then(|deployments| {
        let daemon_sets = daemon_sets?;
        let all = deployments.into_iter().map(deployment);
        Ok(all.chain(daemon_sets.into_iter().map(daemon_set)).collect())
    });
    (
        nodes.map(|nodes| nodes.iter().map(node).collect()),
        pods.map(|pods| pods.iter().map(pod).collect()),
        workloads,
        services.map(|services| services.iter().filter_map(service).collect()),
        slices,
        maps.map(|maps| maps.into_iter().filter_map(config_map).collect()),
    )
}

type Access = (Got<Vec<String>>, Got<Vec<BoundRole>>, Got<u64>, Got<u64>);

async fn access(client: &Client) -> Access {
    let all = ListParams::default;
    let accounts = list(
        Api::<ServiceAccount>::namespaced(client.clone(), SYSTEM),
        all(),
    );
    let pods = count(Api::<Pod>::all(client.clone()));
    let services = count(Api::<v1::Service>::all(client.clone()));
    let (accounts, roles, pods, services) =
        future::join4(accounts, roles(client).boxed(), pods, services).await;
    (
        accounts.map(|accounts| {
            let names = accounts
                .into_iter()
                .filter_map(|account| account.metadata.name);
            names.collect()
        }),
        roles,
        pods,
        services,
    )
}

/// One object, and how many more there are.
async fn count<K>(api: Api<K>) -> Got<u64>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    let params = ListParams::default().limit(1);
    let listed = within(async { api.list(&params).await }).await?;
    let more = listed.metadata.remaining_item_count.unwrap_or(0);
    Ok(listed.items.len() as u64 + u64::try_from(more).unwrap_or(0))
}

async fn roles(client: &Client) -> Got<Vec<BoundRole>> {
    let all = ListParams::default;
    let bindings = list(Api::<ClusterRoleBinding>::all(client.clone()), all()).await?;
    let roles: Api<ClusterRole> = Api::all(client.clone());
    let mut bound = Vec::new();
    for binding in bindings {
        let subjects = binding.subjects.iter().flatten();
        let subjects: Vec<_> = subjects
            .filter(|subject| subject.kind == "ServiceAccount")
            .filter_map(|subject| {
                let namespace = subject.namespace.as_deref()?;
                let ours = NAMESPACES.contains(&namespace);
                ours.then(|| format!("{namespace}/{}", subject.name))
            })
            .collect();
        if subjects.is_empty() {
            continue;
        }
        bound.push(BoundRole {
            role: binding.role_ref.name,
            binding: binding.metadata.name.unwrap_or_default(),
            subjects,
            rules: None,
        });
    }
    let names: BTreeSet<_> = bound.iter().map(|bound| bound.role.clone()).collect();
    let rules = names.into_iter().map(|name| {
        let roles = roles.clone();
        async move {
            let role = within(async { roles.get_opt(&name).await }).await?;
            Ok::<_, String>((name, role.map(|role| role.rules.unwrap_or_default())))
        }
    });
    let rules: Got<BTreeMap<_, _>> = join_all(rules).await.into_iter().collect();
    let rules = rules?;
    for bound in &mut bound {
        let found = rules.get(&bound.role).cloned().flatten();
        bound.rules = found.map(|rules| rules.into_iter().map(rule).collect());
    }
    Ok(bound)
}

/// Logs and events of pods that are not well.
async fn tell_why(client: &Client, pods: &mut [PodObject]) {
    let sick = pods.iter_mut().filter(|pod| !pod.ready).take(8);
    join_all(sick.map(|pod| async {
        let events: Api<Event> = Api::namespaced(client.clone(), &pod.namespace);
        let of = ListParams::default().fields(&format!("involvedObject.name={}", pod.name));
        if let Ok(events) = list(events, of).await {
            let warns = |event: &Event| event.type_.as_deref() == Some("Warning");
            pod.warnings = events
                .into_iter()
                .filter(warns)
                .map(|event| {
                    let reason = event.reason.unwrap_or_default();
                    format!("{reason}: {}", event.message.unwrap_or_default())
                })
                .collect();
        }
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
        for container in &mut pod.containers {
            let params = LogParams {
                container: Some(container.name.clone()),
                previous: container.waiting.is_some() && container.restarts > 0,
                tail_lines: Some(LOG_LINES),
                ..LogParams::default()
            };
            if let Ok(log) = within(api.logs(&pod.name, &params)).await {
                container.log = log.lines().map(str::to_owned).collect();
            }
        }
    }))
    .await;
}
