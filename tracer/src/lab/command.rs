//! Running `ip`, `iptables-restore` and the like to their end; what they said is in the error.
//!
//! Each in a process group of its own: Ctrl-C is for the lab, which then still removes everything.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::Error;

/// Runs `program` and returns what it printed.
///
/// # Errors
/// It could not be started, or ended with another status than 0.
pub(super) fn output<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<String, Error> {
    run(Command::new(program).args(args), "")
}

/// Runs `words` in the network namespace `netns`, with `input` on its standard input.
///
/// # Errors
/// As [`output`].
pub(super) fn feed_in(netns: &str, words: &[&str], input: &str) -> Result<String, Error> {
    let mut command = Command::new("ip");
    run(command.args(["netns", "exec", netns]).args(words), input)
}

/// Runs the lines of `batch` as one `ip -batch`, each a command of `ip` without that word.
///
/// # Errors
/// As [`output`]; `ip` stops at the first line that fails and names its number.
pub(super) fn ip_batch(batch: &str) -> Result<String, Error> {
    run(Command::new("ip").args(["-batch", "-"]), batch)
}

/// Runs `command` with `input` on its standard input and returns what it printed.
///
/// # Errors
/// As [`output`].
pub(super) fn run(command: &mut Command, input: &str) -> Result<String, Error> {
    let shown = show(command);
    let failed = |source| Error::Start {
        command: shown.clone(),
        source,
    };
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ended without reading says why on stderr: that is the better error.
        drop(stdin.write_all(input.as_bytes()));
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(Error::Failed {
        command: shown,
        stderr: stderr.trim().replace('\n', "; "),
    })
}

fn show(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(OsStr::to_string_lossy));
    words.join(" ")
}
