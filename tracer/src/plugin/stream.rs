//! A command that runs elsewhere, as if it ran here: what it prints is printed, Ctrl-C reaches it, its exit
//! code is told.

use std::{
    io::{self, Write},
    time::Duration,
};

use anyhow::{Context as _, Result};
use futures::future::join;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::AttachedProcess;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    signal::unix::{Signal, SignalKind, signal},
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::run::{BEAT, HERE, INTERRUPT};

/// Longest wait for the status after the output has ended.
const STATUS: Duration = Duration::from_secs(5);

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With success, as far as is told.
    Well,
    /// With this exit code.
    With(u8),
    /// The connection broke, and it ends by itself.
    Broken,
    /// Whoever read our output, or pressed Ctrl-C twice, has had enough.
    LetGo,
}

/// Signals that are passed on.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// From here on they do not end this program.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn new() -> Result<Self> {
        let on = |kind| signal(kind).context("listen for signals");
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hang_up: on(SignalKind::hangup())?,
        })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

/// Streams until the command ends, or nobody wants it any more.
pub(super) async fn follow(mut process: AttachedProcess, signals: &mut Signals) -> Ended {
    let status = process.take_status();
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (process.stdin(), process.stdout(), process.stderr())
    else {
        return Ended::Broken;
    };
    let printed = async {
        let (out, err) = join(copy(stdout, io::stdout), copy(stderr, io::stderr)).await;
        out.and(err)
    };
    tokio::select! {
        printed = printed => if printed.is_err() {
            return Ended::LetGo;
        },
        ended = attend(stdin, signals) => return ended,
    }
    let status = async {
        match status {
            Some(status) => status.await,
            None => None,
        }
    };
    match timeout(STATUS, status).await {
        Ok(Some(status)) => ended(&status),
        Ok(None) | Err(_) => Ended::Broken,
    }
}

/// Says again and again that somebody is here, and passes signals on.
async fn attend(mut stdin: impl AsyncWrite + Unpin, signals: &mut Signals) -> Ended {
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut interrupted = false;
    loop {
        let sign = tokio::select! {
            _ = beat.tick() => HERE,
            () = signals.next() => {
                if interrupted {
                    return Ended::LetGo;
                }
                interrupted = true;
                INTERRUPT
            }
        };
        let written = async {
            stdin.write_all(&[sign]).await?;
            stdin.flush().await
        };
        if !matches!(timeout(BEAT, written).await, Ok(Ok(()))) {
            // What was printed before may still be on its way: the other side of the select ends it.
            signals.next().await;
            return Ended::LetGo;
        }
    }
}

/// Prints what comes, as it comes. A reader who takes his time keeps nobody from attending.
async fn copy<W: Write + Send + 'static>(
    mut from: impl AsyncRead + Unpin,
    to: fn() -> W,
) -> io::Result<()> {
    loop {
        let mut bytes = vec![0; 16 << 10];
        let count = from.read(&mut bytes).await?;
        if count == 0 {
            return Ok(());
        }
        let print = move || {
            let mut to = to();
            to.write_all(&bytes[..count]).and_then(|()| to.flush())
        };
        spawn_blocking(print).await.map_err(io::Error::other)??;
    }
}

/// What the API server says of the end: a command's exit code is among the causes of a failure.
fn ended(status: &Status) -> Ended {
    if status.status.as_deref() == Some("Success") {
        return Ended::Well;
    }
    let causes = status.details.as_ref().and_then(|of| of.causes.as_ref());
    let mut causes = causes.into_iter().flatten();
    let code = causes
        .find(|cause| cause.reason.as_deref() == Some("ExitCode"))
        .and_then(|cause| cause.message.as_ref()?.parse().ok());
    code.map_or(Ended::Broken, Ended::With)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: Ended) {
        let status: Status = serde_json::from_str(json).unwrap();
        assert_eq!(ended(&status), expected, "{json}");
    }

    #[test]
    fn the_exit_code_is_among_the_causes() {
        check(r#"{"status":"Success"}"#, Ended::Well);
        check(
            r#"{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#,
            Ended::With(3),
        );
        check(
            r#"{"status":"Failure","reason":"InternalError"}"#,
            Ended::Broken,
        );
    }
}
