//! Running other programs: one way to run, one to read their output, one to follow it line by
//! line, one to tell the user. And where the workspace is.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

/// Runs to the end with the terminal's own streams.
///
/// # Errors
/// The program is missing, or it ended with another status than 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command.status().with_context(|| format!("start {shown}"))?;
    ensure!(status.success(), "{shown}: {status}");
    Ok(())
}

/// Runs to the end with `text` as its standard input.
///
/// # Errors
/// As [`run`].
pub(crate) fn feed(command: &mut Command, text: &str) -> Result<()> {
    let shown = show(command);
    let mut child = command
        .stdin(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {shown}"))?;
    let written = child
        .stdin
        .take()
        .context("stdin is piped")?
        .write_all(text.as_bytes());
    let status = child.wait()?;
    ensure!(status.success(), "{shown}: {status}");
    // It may end well without having read all; only then does this say anything.
    written.with_context(|| format!("write to {shown}"))
}

/// Runs to the end and returns what it printed, without the last newline.
///
/// # Errors
/// As [`run`]; what the program said on stderr is in the error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {shown}"))?;
    ensure!(
        output.status.success(),
        "{shown}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned())
}

/// Runs to the end and hands over each line of its stdout as it comes; stderr stays the terminal's.
///
/// # Errors
/// As [`run`].
pub(crate) fn lines(command: &mut Command, mut line: impl FnMut(&str)) -> Result<()> {
    let shown = show(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {shown}"))?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    for read in BufReader::new(stdout).lines() {
        line(&read?);
    }
    let status = child.wait()?;
    ensure!(status.success(), "{shown}: {status}");
    Ok(())
}

/// A program that gets `signal` when this process ends in any way, killed included: nobody else
/// would end it.
pub(crate) fn tied(program: impl AsRef<OsStr>, signal: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", signal]).arg(program);
    command
}

/// Root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace's root")
        .to_owned()
}

/// Where everything built or fetched goes; never under version control.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

fn show(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy()));
    words.join(" ")
}

/// One line to the person at the terminal.
#[expect(clippy::print_stderr, reason = "the one place xtask talks to its user")]
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}
