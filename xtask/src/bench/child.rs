//! A program that runs beside the load: ready when it says so, ended by SIGINT, never left behind.

use std::{
    io::{BufRead, BufReader},
    process::{self, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::sh;

/// A running program, killed when it goes out of scope.
pub(super) struct Child {
    name: &'static str,
    process: process::Child,
    stderr: Receiver<String>,
    /// What it has said on stderr so far.
    said: Vec<String>,
}

impl Child {
    /// Starts `command`, called `name` in errors, and reads its stderr from now on.
    ///
    /// # Errors
    /// The program cannot start.
    pub(super) fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let stderr = child.stderr.take().context("stderr is piped")?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            name,
            process: child,
            stderr: receiver,
            said: Vec::new(),
        })
    }

    /// Waits for a line of stderr that contains `words`.
    ///
    /// # Errors
    /// It ended or let `limit` pass before; what it said is in the error.
    pub(super) fn wait_for(&mut self, words: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while let Ok(line) = self
            .stderr
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            let found = line.contains(words);
            self.said.push(line);
            if found {
                return Ok(());
            }
        }
        bail!(
            "{} did not say \"{words}\" but: {}",
            self.name,
            self.said.join(" | ")
        )
    }

    /// Sends SIGINT and waits for the end; returns the status and all stderr said.
    ///
    /// # Errors
    /// It does not end within `limit`.
    pub(super) fn interrupt(mut self, limit: Duration) -> Result<(ExitStatus, Vec<String>)> {
        sh::run(Command::new("kill").args(["-INT", &self.process.id().to_string()]))?;
        let deadline = Instant::now() + limit;
        // The channel closes when the program has closed its stderr, that is, when it ends.
        while let Ok(line) = self
            .stderr
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            self.said.push(line);
        }
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok((status, std::mem::take(&mut self.said)));
            }
            if Instant::now() >= deadline {
                bail!("{} did not end after SIGINT", self.name);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only when it has ended already, which is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Child {
        // Not bash, which now and then takes an interrupt for its child's, and goes on.
        Child::start("a shell", Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn a_child_is_ready_when_it_says_so_and_ends_when_interrupted() {
        let mut child = shell(
            "trap 'echo bye >&2; exit 3' INT; echo is ready >&2; while :; do sleep 0.05; done",
        );
        child.wait_for("ready", LIMIT).unwrap();
        let (status, said) = child.interrupt(LIMIT).unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(said, ["is ready", "bye"]);
    }

    #[test]
    fn a_child_that_ends_early_tells_what_it_said() {
        let error = shell("echo no root >&2")
            .wait_for("ready", LIMIT)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "a shell did not say \"ready\" but: no root"
        );
    }

    #[test]
    fn a_deaf_child_is_given_up() {
        let mut child = shell("trap '' INT; echo ready >&2; exec sleep 60");
        child.wait_for("ready", LIMIT).unwrap();
        assert!(child.interrupt(Duration::from_millis(100)).is_err());
    }
}
