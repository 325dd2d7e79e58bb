//! What keeps a command from being run on a node, and what to do instead.

use std::{
    env,
    error::Error as StdError,
    io::{self, Write as _},
    time::Duration,
};

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::cli::PluginArgs;

/// Why it could not be run.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// No usable kubeconfig.
    #[error("the kubeconfig cannot be used: {0}")]
    Config(String),
    /// It cannot be reached.
    #[error("the API server does not answer: {0}")]
    Unreached(String),
    /// It does not answer.
    #[error("the API server has not answered within {} s", .0.as_secs())]
    Silent(Duration),
    /// It says no.
    #[error("the API server refuses: {message}")]
    Refused {
        /// HTTP's code.
        code: u16,
        /// In its own words.
        message: String,
    },
    /// There is no such node.
    #[error("there is no node {0}: see kubectl get nodes")]
    NoNode(String),
    /// The node has not got the image, and cannot get it.
    #[error("the node cannot get the image: {0}")]
    Image(String),
    /// The container does not start.
    #[error("the pod does not start: {0}")]
    Start(String),
    /// The pod does not run after so long.
    #[error("the pod does not run after {} s", .0.as_secs())]
    Slow(Duration),
}

/// How a pod stands.
pub(super) enum State {
    /// It runs.
    Runs,
    /// It has run already.
    Ended,
    /// It may yet run.
    Waits,
    /// It will not.
    Fails(Trouble),
}

impl Trouble {
    pub(super) fn of(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused {
                code: status.code,
                message: status.message.clone(),
            },
            error => Self::Unreached(root(&error)),
        }
    }

    pub(super) fn config(error: &(dyn StdError + 'static)) -> Self {
        Self::Config(root(error))
    }

    /// The way by SSH, where that may work though this does not. The same program is the tracer.
    pub(super) fn instead(&self, args: &PluginArgs) -> Option<String> {
        match self {
            Self::NoNode(_) => None,
            Self::Refused { code, .. } if *code < 500 => None,
            _ => {
                let own = env::current_exe().ok();
                let own = own.map_or_else(|| "tracer".into(), |path| path.display().to_string());
                let (own, node) = (quoted(&own), quoted(&args.node));
                let command: Vec<_> = args.command.iter().map(|word| quoted(word)).collect();
                Some(format!(
                    "scp {own} {node}:/tmp/tracer && ssh -t {node} sudo /tmp/tracer {}",
                    command.join(" ")
                ))
            }
        }
    }
}

/// The innermost cause, which says what happened.
fn root(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// A word as a shell takes it for one.
fn quoted(word: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || "-_./=:,@%+".contains(char);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// How `pod`, of one container, stands.
pub(super) fn state(pod: &Pod) -> State {
    let Some(status) = &pod.status else {
        return State::Waits;
    };
    if status.phase.as_deref() == Some("Failed")
        && let Some(why) = &status.message
    {
        return State::Fails(Trouble::Start(why.clone()));
    }
    let container = status.container_statuses.iter().flatten().next();
    container.map_or(State::Waits, of_container)
}

/// Reasons by <https://github.com/kubernetes/kubernetes/blob/v1.37.0/pkg/kubelet/images/types.go> and
/// kuberuntime/kuberuntime_container.go.
fn of_container(container: &ContainerStatus) -> State {
    let Some(state) = &container.state else {
        return State::Waits;
    };
    if state.running.is_some() {
        return State::Runs;
    }
    if state.terminated.is_some() {
        return State::Ended;
    }
    let Some(waiting) = &state.waiting else {
        return State::Waits;
    };
    let message = || match &waiting.message {
        Some(message) => format!("{}: {message}", container.image),
        None => container.image.clone(),
    };
    match waiting.reason.as_deref() {
        Some("ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName") => {
            State::Fails(Trouble::Image(message()))
        }
        Some("CreateContainerConfigError" | "CreateContainerError" | "RunContainerError") => {
            State::Fails(Trouble::Start(message()))
        }
        _ => State::Waits,
    }
}

/// One line to the person at the terminal; stdout is the command's.
pub(super) fn tell(line: &str) {
    // Whoever closed it does not want it.
    let _ = writeln!(io::stderr(), "kubectl-tracer: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell_where_they_must_be() {
        assert_eq!(quoted("--for=30s"), "--for=30s");
        assert_eq!(quoted("app in (a,b)"), "'app in (a,b)'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    fn check(waiting: &str, expected: &str) {
        let pod = format!(
            r#"{{"status":{{"phase":"Pending","containerStatuses":[{{"name":"tracer","image":"i:1","imageID":"",
            "ready":false,"restartCount":0,"state":{{"waiting":{waiting}}}}}]}}}}"#
        );
        let pod: Pod = serde_json::from_str(&pod).unwrap();
        let said = match state(&pod) {
            State::Runs | State::Ended => "runs".to_owned(),
            State::Waits => "waits".to_owned(),
            State::Fails(why) => why.to_string(),
        };
        assert_eq!(said, expected);
    }

    #[test]
    fn an_image_that_cannot_be_had_is_no_reason_to_wait() {
        check(r#"{"reason":"ContainerCreating"}"#, "waits");
        check(
            r#"{"reason":"ErrImageNeverPull","message":"not present with pull policy of Never"}"#,
            "the node cannot get the image: i:1: not present with pull policy of Never",
        );
        check(
            r#"{"reason":"CreateContainerError","message":"no such device"}"#,
            "the pod does not start: i:1: no such device",
        );
    }
}
