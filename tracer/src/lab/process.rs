//! Our own program as a server or client inside one of the lab's namespaces.
//!
//! A child holds the read end of a pipe as its standard input and ends when that closes, so none
//! outlives the lab, not even one that was killed. Ctrl-C reaches the lab alone: a group of its own.

use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::Error;

/// The line a child prints once its sockets are open.
pub(super) const READY: &str = "ready";

/// A child that runs until this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
}

impl Process {
    /// Starts `program lab-serve ROLE…` in `netns`; returns once it has said [`READY`].
    pub(super) fn start(netns: &str, program: &Path, role: &[&str]) -> Result<Self, Error> {
        let mut command = lab_serve(netns, program, role);
        command
            .arg("--with-parent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Nobody would read a pipe for as long as the child lives.
            .stderr(Stdio::null())
            .process_group(0);
        let shown = role.join(" ");
        let failed = |source| Error::Start {
            command: format!("lab-serve {shown}"),
            source,
        };
        let mut process = Self {
            child: command.spawn().map_err(failed)?,
        };
        let said = process.first_line().map_err(failed)?;
        if said == READY {
            return Ok(process);
        }
        Err(Error::Failed {
            command: format!("lab-serve {shown}"),
            stderr: said,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// [`READY`], or why the child ended; empty when it ended without a word.
    fn first_line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if let Some(stdout) = &mut self.child.stdout {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a child that has ended and been waited for.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs `program lab-serve ROLE…` in `netns` to its end.
///
/// # Errors
/// It could not be started, or failed; what it said is in the error.
pub(super) fn run_in(netns: &str, program: &Path, role: &[&str]) -> Result<(), Error> {
    super::command::run(&mut lab_serve(netns, program, role), "").map(drop)
}

/// `ip netns exec` becomes the program, so the child's pid is the server's.
fn lab_serve(netns: &str, program: &Path, role: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", netns]).arg(program);
    command.arg("lab-serve").args(role);
    command
}
