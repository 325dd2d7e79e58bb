//! Whether somebody is still there: whoever started this from afar writes to standard input again and again,
//! and the program ends when that stops. A process in a container is not told that the connection broke.

use std::{
    io::{self, Read as _},
    process,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Signal, getpid, kill_process};

use super::tell;

/// What whoever attends writes every [`BEAT`].
pub const HERE: u8 = b'.';

/// What it writes for Ctrl-C.
pub const INTERRUPT: u8 = b'i';

/// How often [`HERE`] is to be written.
pub const BEAT: Duration = Duration::from_secs(5);

/// How long nothing may come before nobody is taken to be there.
const SILENCE: Duration = Duration::from_secs(20);

/// How long the first sign is waited for.
const FIRST: Duration = Duration::from_secs(60);

/// How long ending may take then: whoever reads the output may be gone, too.
const GRACE: Duration = Duration::from_secs(10);

/// Waits for the first sign, so that no output comes before its reader; ends the program when signs
/// stop.
///
/// # Errors
/// None came.
pub fn attended() -> Result<()> {
    let (sender, signs) = channel();
    let named = |name: &str| thread::Builder::new().name(name.to_owned());
    named("stdin")
        .spawn(move || read(&sender))
        .context("start a thread for standard input")?;
    match signs.recv_timeout(FIRST) {
        Ok(_) => {}
        Err(_) => bail!("nobody attends: --attended is for `kubectl tracer` alone"),
    }
    named("attended")
        .spawn(move || watch(&signs))
        .context("start a thread to be attended")?;
    Ok(())
}

fn read(signs: &Sender<u8>) {
    let mut bytes = [0; 64];
    let mut input = io::stdin().lock();
    loop {
        match input.read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => {
                for sign in &bytes[..count] {
                    if signs.send(*sign).is_err() {
                        return;
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn watch(signs: &Receiver<u8>) {
    loop {
        match signs.recv_timeout(SILENCE) {
            Ok(INTERRUPT) => interrupt(),
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    tell("nobody attends any more: ending");
    interrupt();
    thread::sleep(GRACE);
    process::exit(2);
}

/// As Ctrl-C does: a trace ends with its summary, a recording whole.
fn interrupt() {
    // A process may always signal itself.
    let _ = kill_process(getpid(), Signal::INT);
}
