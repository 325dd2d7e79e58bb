//! `kubectl tracer`: the tracer on a node, from anywhere the API server is reached.
//!
//! The DaemonSet's pod on the node runs the command, else a debugging pod made for it. What is started
//! ends by itself when nobody attends it, so a broken connection leaves nothing behind that runs.

mod pod;
mod stream;
mod trouble;

use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use kube::{
    Api, Client, Config,
    api::{AttachParams, DeleteParams, ListParams, LogParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::time::{sleep, timeout};

use self::{
    stream::{Ended, Signals, follow},
    trouble::{Trouble, tell},
};
use crate::cli::PluginArgs;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Longest wait for a debugging pod to run; to pull the image takes most of it.
const START: Duration = Duration::from_secs(120);

/// Between two looks at a pod.
const LOOK: Duration = Duration::from_millis(300);

/// The DaemonSet's pods, as manifests/base labels them, and the namespace it puts them into.
const LABEL: &str = "app.kubernetes.io/name=tracer";
const NAMESPACE: &str = "tracer";
const CONTAINER: &str = "tracer";

/// Runs the command on the node; its exit code, or 2 where it could not be run: why, and what to do instead,
/// is told.
///
/// # Errors
/// Signals cannot be listened for.
pub async fn node(args: &PluginArgs) -> Result<u8> {
    let mut signals = Signals::new()?;
    match run(args, &mut signals).await {
        Ok(Ended::Well | Ended::LetGo) => Ok(0),
        Ok(Ended::With(code)) => Ok(code),
        Ok(Ended::Broken) => {
            tell("the connection broke; what runs on the node ends by itself within half a minute");
            Ok(2)
        }
        Err(trouble) => {
            let instead = trouble.instead(args);
            tell(&trouble.to_string());
            if let Some(instead) = instead {
                tell(&format!("by SSH instead: {instead}"));
            }
            Ok(2)
        }
    }
}

async fn run(args: &PluginArgs, signals: &mut Signals) -> Result<Ended, Trouble> {
    let config = config(args).await?;
    let namespace = config.default_namespace.clone();
    let client = Client::try_from(config).map_err(|error| Trouble::config(&error))?;
    is_node(&client, args).await?;
    let found = match args.image {
        Some(_) => None,
        None => running(&client, args).await?,
    };
    let Some(found) = found else {
        return debug(&client, args, namespace, signals).await;
    };
    let pods: Api<Pod> = Api::namespaced(client, &found.namespace);
    tell(&format!(
        "in pod {}/{} of the DaemonSet",
        found.namespace, found.name
    ));
    let command = ["/bin/tracer", "--attended"].map(str::to_owned);
    let command = command.into_iter().chain(args.command.iter().cloned());
    let params = params();
    let process = asked(pods.exec(&found.name, command, &params)).await?;
    Ok(follow(process, signals).await)
}

async fn config(args: &PluginArgs) -> Result<Config, Trouble> {
    let options = KubeConfigOptions {
        context: args.context.clone(),
        ..KubeConfigOptions::default()
    };
    let config = match &args.kubeconfig {
        Some(path) => match Kubeconfig::read_from(path) {
            Ok(file) => Config::from_custom_kubeconfig(file, &options).await,
            Err(error) => Err(error),
        },
        None => Config::from_kubeconfig(&options).await,
    };
    let mut config = config.map_err(|error| Trouble::config(&error))?;
    config.connect_timeout = Some(CONNECT);
    // A trace may print nothing for as long as it likes.
    config.read_timeout = None;
    Ok(config)
}

/// The node exists; else nothing would ever start there.
async fn is_node(client: &Client, args: &PluginArgs) -> Result<(), Trouble> {
    let nodes: Api<Node> = Api::all(client.clone());
    match asked(nodes.get_metadata(&args.node)).await {
        // Whoever may not read Nodes may yet run pods on them.
        Ok(_) | Err(Trouble::Refused { code: 403, .. }) => Ok(()),
        Err(Trouble::Refused { code: 404, .. }) => Err(Trouble::NoNode(args.node.clone())),
        Err(trouble) => Err(trouble),
    }
}

/// A pod by its name.
struct Found {
    namespace: String,
    name: String,
}

/// The DaemonSet's pod on the node, if one runs there.
async fn running(client: &Client, args: &PluginArgs) -> Result<Option<Found>, Trouble> {
    let of_node = ListParams::default()
        .labels(LABEL)
        .fields(&format!("spec.nodeName={},status.phase=Running", args.node));
    let list = |namespace: Option<&str>| {
        let pods: Api<Pod> = match namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        let of_node = of_node.clone();
        async move { asked(pods.list(&of_node)).await }
    };
    let listed = match list(args.namespace.as_deref()).await {
        Err(Trouble::Refused { code: 403, .. }) if args.namespace.is_none() => {
            match list(Some(NAMESPACE)).await {
                Err(Trouble::Refused { code: 403, .. }) => return Ok(None),
                listed => listed?,
            }
        }
        listed => listed?,
    };
    let mut pods = listed.items.into_iter();
    Ok(pods.find_map(|pod| {
        let ready = pod.status.as_ref()?.container_statuses.as_ref()?;
        let runs = ready.iter().any(|one| {
            let state = one.state.as_ref();
            one.name == CONTAINER && state.is_some_and(|state| state.running.is_some())
        });
        let is_ending = pod.metadata.deletion_timestamp.is_some();
        (runs && !is_ending).then_some(())?;
        Some(Found {
            namespace: pod.metadata.namespace?,
            name: pod.metadata.name?,
        })
    }))
}

/// Runs the command in a pod of its own, which is removed afterwards.
async fn debug(
    client: &Client,
    args: &PluginArgs,
    default: String,
    signals: &mut Signals,
) -> Result<Ended, Trouble> {
    let namespace = match &args.namespace {
        Some(namespace) => namespace.clone(),
        None => {
            let namespaces: Api<Namespace> = Api::all(client.clone());
            let is_there = asked(namespaces.get_metadata(NAMESPACE)).await.is_ok();
            if is_there {
                NAMESPACE.to_owned()
            } else {
                default
            }
        }
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    remove_ended(&pods, args).await;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &namespace);
    let is_account = asked(accounts.get_metadata(NAMESPACE)).await.is_ok();
    let pod = pod::pod(args, is_account);
    let made = asked(pods.create(&PostParams::default(), &pod)).await?;
    let name = made.metadata.name.unwrap_or_default();
    tell(&format!("in debugging pod {namespace}/{name}"));
    let ended = attach(&pods, &name, signals).await;
    remove(&pods, &name).await;
    ended
}

async fn attach(pods: &Api<Pod>, name: &str, signals: &mut Signals) -> Result<Ended, Trouble> {
    let runs = tokio::select! {
        runs = started(pods, name) => runs?,
        () = signals.next() => return Ok(Ended::LetGo),
    };
    let params = params();
    let attached = if runs {
        match asked(pods.attach(name, &params)).await {
            Ok(process) => Some(process),
            Err(Trouble::Refused { .. }) => None,
            Err(trouble) => return Err(trouble),
        }
    } else {
        None
    };
    if let Some(process) = attached {
        let ended = follow(process, signals).await;
        if ended != Ended::Well {
            return Ok(ended);
        }
    } else {
        // It was over before anybody could listen, as one whose options are wrong is.
        let said = asked(pods.logs(name, &LogParams::default())).await?;
        said.lines().for_each(tell);
    }
    // Attaching tells no exit code.
    let code = timeout(ANSWER, exit_code(pods, name)).await;
    Ok(code.ok().flatten().map_or(Ended::Well, Ended::With))
}

fn params() -> AttachParams {
    AttachParams {
        container: Some(CONTAINER.to_owned()),
        stdin: true,
        ..AttachParams::default()
    }
}

/// Waits until the pod runs; whether it still does.
async fn started(pods: &Api<Pod>, name: &str) -> Result<bool, Trouble> {
    let deadline = Instant::now() + START;
    loop {
        let pod = asked(pods.get(name)).await?;
        match trouble::state(&pod) {
            trouble::State::Runs => return Ok(true),
            trouble::State::Ended => return Ok(false),
            trouble::State::Waits if Instant::now() < deadline => sleep(LOOK).await,
            trouble::State::Waits => return Err(Trouble::Slow(START)),
            trouble::State::Fails(why) => return Err(why),
        }
    }
}

async fn exit_code(pods: &Api<Pod>, name: &str) -> Option<u8> {
    loop {
        let pod = asked(pods.get(name)).await.ok()?;
        let of = pod.status?.container_statuses?;
        let state = of.into_iter().next()?.state?;
        if let Some(ended) = state.terminated {
            return u8::try_from(ended.exit_code).ok();
        }
        sleep(LOOK).await;
    }
}

/// Removes what earlier runs left whose connection broke.
async fn remove_ended(pods: &Api<Pod>, args: &PluginArgs) {
    let (key, value) = pod::LABEL;
    let of_node = ListParams::default()
        .labels(&format!("{key}={value}"))
        .fields(&format!("spec.nodeName={}", args.node));
    let Ok(left) = asked(pods.list(&of_node)).await else {
        return;
    };
    for pod in left.items {
        let phase = pod.status.and_then(|status| status.phase);
        let over = matches!(phase.as_deref(), Some("Succeeded" | "Failed"));
        if let Some(name) = pod.metadata.name.filter(|_| over) {
            remove(pods, &name).await;
        }
    }
}

async fn remove(pods: &Api<Pod>, name: &str) {
    let removed = asked(pods.delete(name, &DeleteParams::default())).await;
    if let Err(error) = removed {
        tell(&format!("pod {name} is left, and will end: {error}"));
    }
}

/// The answer, if it comes in time.
async fn asked<T>(answer: impl Future<Output = kube::Result<T>>) -> Result<T, Trouble> {
    match timeout(ANSWER, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Trouble::of(error)),
        Err(_) => Err(Trouble::Silent(ANSWER)),
    }
}
