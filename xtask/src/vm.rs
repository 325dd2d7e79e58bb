//! Debian's kernels under QEMU, without KVM: a guest boots, runs one script and powers off.
//!
//! The console carries both what the kernel says and what the script prints; a marker line on it
//! carries the script's exit status. Knows nothing of what the script tests.

mod answer;
mod initramfs;
mod kernel;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

pub(crate) use self::{
    answer::Answerer,
    kernel::{ALL, Kernel, Version},
};
use crate::sh;

/// Line with which the guest's init ends its output.
const STATUS: &str = "xtask-guest-status ";

/// One run of a guest.
pub(crate) struct Guest<'a> {
    pub(crate) kernel: &'a Kernel,
    /// The kernel's parameters, beside those that any guest needs.
    pub(crate) parameters: &'a str,
    /// Files as (path here, absolute path in the guest); a program brings its libraries.
    pub(crate) files: &'a [(&'a Path, &'a Path)],
    /// What bash runs as root once file systems and `lo` are up.
    pub(crate) script: &'a str,
    /// MiB; the whole file system lies in it.
    pub(crate) memory: u32,
    /// A virtio-net `eth0` on QEMU's user network, where 10.0.2.2 is this machine's 127.0.0.1.
    pub(crate) net: bool,
    /// From power-on to power-off; the guest is killed then.
    pub(crate) limit: Duration,
}

/// How a guest ended that ran its script to the end.
pub(crate) struct Outcome {
    /// The script's exit status.
    pub(crate) status: i32,
    /// Every line of the console, in order.
    pub(crate) console: Vec<String>,
    /// From starting QEMU to its end.
    pub(crate) took: Duration,
}

/// Boots the guest and runs its script, each console line going to `line` as it comes.
///
/// # Errors
/// A file is missing here, QEMU cannot run, the guest died without a status (its kernel panicked,
/// say), or it took longer than its limit.
pub(crate) fn run(guest: &Guest<'_>, line: impl FnMut(&str)) -> Result<Outcome> {
    let dir = sh::target().join("vm");
    fs::create_dir_all(&dir)?;
    // Two runs side by side must not share a file, nor two guests of one.
    let (run, release) = (std::process::id(), &guest.kernel.release);
    let initramfs = dir.join(format!("initramfs-{run}-{release}.cpio"));
    initramfs::build(guest, guest.kernel, &initramfs).context("build the guest's initramfs")?;
    let outcome = boot(guest, &initramfs, line);
    fs::remove_file(&initramfs)?;
    outcome
}

/// A QEMU of ours, killed by its pid when it goes out of scope.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        // Both fail only when it has ended already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn boot(guest: &Guest<'_>, initramfs: &Path, line: impl FnMut(&str)) -> Result<Outcome> {
    let start = Instant::now();
    let mut qemu = Qemu(
        qemu(guest, initramfs)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start qemu-system-x86_64")?,
    );
    let console = read(qemu.0.stdout.take().context("stdout is piped")?);
    let console = follow(&console, start + guest.limit, line)?;
    let took = start.elapsed();
    let Some(status) = console
        .iter()
        .rev()
        .find_map(|line| line.strip_prefix(STATUS))
    else {
        bail!(
            "the guest ended after {:.0} s without a status: {}",
            took.as_secs_f32(),
            end(&console)
        );
    };
    let status = status.parse().context("the guest's status is no number")?;
    Ok(Outcome {
        status,
        console,
        took,
    })
}

fn qemu(guest: &Guest<'_>, initramfs: &Path) -> Command {
    let net = if guest.net { " guest_net=1" } else { "" };
    let mut command = sh::tied("qemu-system-x86_64", "KILL");
    command
        .args(["-nodefaults", "-no-user-config"])
        // No KVM inside the machines this runs on; la57 would make each page walk longer.
        .args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max,la57=off",
            "-smp",
            "2",
            "-m",
        ])
        .arg(guest.memory.to_string())
        .args([
            "-display",
            "none",
            "-monitor",
            "none",
            "-serial",
            "stdio",
            "-no-reboot",
        ])
        .arg("-kernel")
        .arg(&guest.kernel.vmlinuz)
        .arg("-initrd")
        .arg(initramfs)
        .arg("-append")
        // A panic ends the guest at once; mitigations only cost time here.
        .arg(format!(
            "console=ttyS0 loglevel=4 panic=-1 mitigations=off{net} {}",
            guest.parameters
        ));
    if guest.net {
        command.args([
            "-netdev",
            "user,id=net,ipv6=off",
            "-device",
            "virtio-net-pci,netdev=net",
        ]);
    }
    command
}

/// Reads the console from a thread, so that silence can be timed.
fn read(stdout: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut lines = BufReader::new(stdout);
        let mut raw = Vec::new();
        // By bytes, not `lines()`: a console may print what is no UTF-8.
        while lines.read_until(b'\n', &mut raw).is_ok_and(|read| read > 0) {
            let line = String::from_utf8_lossy(&raw).trim_end().to_owned();
            raw.clear();
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

fn follow(
    console: &Receiver<String>,
    deadline: Instant,
    mut line: impl FnMut(&str),
) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        match console.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(said) => {
                line(&said);
                lines.push(said);
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(lines),
            Err(RecvTimeoutError::Timeout) => {
                bail!("the guest took too long and was killed: {}", end(&lines))
            }
        }
    }
}

/// What tells best why a guest ended: its panic, or else its last line.
fn end(console: &[String]) -> &str {
    let panic = console.iter().find(|line| line.contains("Kernel panic"));
    panic
        .or(console.last())
        .map_or("it said nothing", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_guest_is_given_up_at_its_deadline() {
        let (sender, console) = mpsc::channel();
        sender.send("booting".to_owned()).unwrap();
        let error =
            follow(&console, Instant::now() + Duration::from_millis(20), |_| ()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the guest took too long and was killed: booting"
        );
    }

    #[test]
    fn a_panic_tells_more_than_the_last_line() {
        let console = [
            "Kernel panic - not syncing: sysrq",
            "Kernel Offset: 0xcc00000",
        ];
        assert_eq!(end(&console.map(str::to_owned)), console[0]);
        assert_eq!(end(&["a".to_owned(), "b".to_owned()]), "b");
    }

    #[test]
    fn a_console_is_read_to_its_end_even_where_it_is_no_text() {
        let lines: Vec<_> = read(&b"one\r\n\xfftwo"[..]).iter().collect();
        assert_eq!(lines, ["one", "\u{fffd}two"]);
    }
}
