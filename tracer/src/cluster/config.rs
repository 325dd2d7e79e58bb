//! How the API server is reached: from which file, as whom, and on which node we are.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use data_encoding::BASE64;
use kube::config::{Config, KubeConfigOptions, Kubeconfig, KubeconfigError};

use super::{Error, watch::RENEW};

/// Longest wait for a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(3);

/// Longest wait for the first byte of an answer, or for the next: longer than a watch lasts.
const READ: Duration = Duration::from_secs(RENEW as u64 + 10);

/// Where a node's own configuration lies: kubeadm's, others', k3s's.
const KUBELET: [&str; 3] = [
    "/etc/kubernetes/kubelet.conf",
    "/var/lib/kubelet/kubeconfig",
    "/var/lib/rancher/k3s/agent/kubelet.kubeconfig",
];

/// What user names of nodes begin with.
const NODE_USER: &str = "system:node:";

/// A configuration that was found.
#[derive(Debug)]
pub(super) struct Found {
    /// A file, or the environment of a pod.
    pub(super) from: From,
    /// Says where it was found.
    pub(super) place: String,
}

#[derive(Debug)]
pub(super) enum From {
    File(Box<Kubeconfig>),
    Pod,
}

/// Looks in this order; `None` when there is none.
/// 1. `explicit`
/// 2. KUBECONFIG
/// 3. the environment of a pod
/// 4. ~/.kube/config
/// 5. the kubelet's own
pub(super) fn find(explicit: Option<&Path>) -> Result<Option<Found>, Error> {
    if let Some(path) = explicit {
        return file(path).map(Some);
    }
    let read = |source| Error::Config {
        place: "KUBECONFIG".to_owned(),
        source: Box::new(source),
    };
    if let Some(config) = Kubeconfig::from_env().map_err(read)? {
        return Ok(Some(Found {
            from: From::File(Box::new(config)),
            place: "KUBECONFIG".to_owned(),
        }));
    }
    if env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        return Ok(Some(Found {
            from: From::Pod,
            place: "the pod's service account".to_owned(),
        }));
    }
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
    let mut paths = home.into_iter().chain(KUBELET.map(PathBuf::from));
    paths
        .find(|path| path.exists())
        .map(|path| file(&path))
        .transpose()
}

fn file(path: &Path) -> Result<Found, Error> {
    let place = path.display().to_string();
    match Kubeconfig::read_from(path) {
        Ok(config) => Ok(Found {
            from: From::File(Box::new(config)),
            place,
        }),
        Err(source) => Err(Error::Config {
            place,
            source: Box::new(source),
        }),
    }
}

impl Found {
    /// What kube needs to connect.
    pub(super) async fn config(self) -> Result<Config, String> {
        let config = match self.from {
            From::File(file) => {
                let options = KubeConfigOptions::default();
                let config = Config::from_custom_kubeconfig(*file, &options).await;
                config.map_err(|error| words(&error))
            }
            From::Pod => Config::incluster().map_err(|error| words(&error)),
        };
        let mut config = config.map_err(|error| format!("{}: {error}", self.place))?;
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(READ);
        // Else the time that a connection lay idle counts too.
        config.reset_reader_on_write = true;
        Ok(config)
    }

    /// The API server's address, as the configuration has it.
    pub(super) fn server(&self) -> Option<String> {
        match &self.from {
            From::File(config) => {
                let context = context(config)?;
                let mut clusters = config.clusters.iter();
                let cluster = clusters.find(|cluster| cluster.name == context.cluster)?;
                cluster.cluster.as_ref()?.server.clone()
            }
            From::Pod => {
                let [host, port] = ["HOST", "PORT"]
                    .map(|part| env::var(format!("KUBERNETES_SERVICE_{part}")).ok());
                Some(format!("https://{}:{}", host?, port?))
            }
        }
    }

    /// The node whose credentials these are; `None` when they are not a node's.
    pub(super) fn node(&self) -> Option<String> {
        let From::File(config) = &self.from else {
            return None;
        };
        let user = context(config)?.user.as_ref()?;
        if let Some(node) = user.strip_prefix(NODE_USER) {
            return Some(node.to_owned());
        }
        let mut users = config.auth_infos.iter();
        let user = users
            .find(|other| other.name == *user)?
            .auth_info
            .as_ref()?;
        let certificate = match (&user.client_certificate_data, &user.client_certificate) {
            (Some(base64), _) => BASE64.decode(base64.as_bytes()).ok()?,
            (None, Some(path)) => fs::read(path).ok()?,
            (None, None) => return None,
        };
        node_of_certificate(&String::from_utf8_lossy(&certificate))
    }
}

fn context(config: &Kubeconfig) -> Option<&kube::config::Context> {
    let current = config.current_context.as_ref()?;
    let mut contexts = config.contexts.iter();
    let context = contexts.find(|context| context.name == *current)?;
    context.context.as_ref()
}

/// The node in the subject of a kubelet's client certificate, `CN=system:node:NAME`: the one string
/// in it that begins so, found without parsing the rest. In DER a string's length stands before it.
fn node_of_certificate(pem: &str) -> Option<String> {
    let (_, rest) = pem.split_once("-----BEGIN CERTIFICATE-----")?;
    let (base64, _) = rest.split_once("-----END CERTIFICATE-----")?;
    let base64: String = base64.split_whitespace().collect();
    let der = BASE64.decode(base64.as_bytes()).ok()?;
    let at = der
        .windows(NODE_USER.len())
        .position(|window| window == NODE_USER.as_bytes())?;
    let length = usize::from(*der.get(at.checked_sub(1)?)?);
    let name = der.get(at + NODE_USER.len()..at + length)?;
    String::from_utf8(name.to_vec()).ok()
}

/// The innermost cause.
pub(super) fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// The name of this node, as far as it can be told without asking anybody.
/// 1. what the DaemonSet says in the environment
/// 2. whose credentials these are
/// 3. the host's name, which the kubelet takes where it is not told another
pub(super) fn node(found: &Found) -> Option<String> {
    let set = env::var("NODE_NAME").ok().filter(|name| !name.is_empty());
    let host = || {
        let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
        Some(name.trim().to_lowercase())
    };
    set.or_else(|| found.node()).or_else(host)
}

/// What `KubeconfigError` says, for those who keep it.
pub(super) type Wrong = KubeconfigError;
