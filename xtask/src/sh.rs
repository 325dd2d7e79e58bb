//! Running other programs: one way to run, one to read their output, one to tell the user.

use std::process::{Command, Stdio};

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
