//! A server's CPU limit: a cgroup of the test's own holds it back, as the kubelet's does a container.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{assert_named, socket_of};
use crate::support::client::{A, inside, query, udp};
use crate::support::routed::{Routed, SERVER};
use crate::support::trace::Tracer;
use crate::support::{cannot, program};

pub(super) const ROWS: &[(&str, &str)] = &[(
    "a server's CPU limit is far below what it needs",
    "server_throttled",
)];

/// As many at once as the server answers in three seconds, where each takes 20 ms of its processor time.
const QUERIES: u16 = 8;

/// A cgroup with a CPU limit, removed on drop; what runs in it has ended by then.
struct Limited(PathBuf);

impl Limited {
    /// With 5 ms of each 100 ms; `None` where no cgroup can have a CPU limit here.
    fn new() -> Option<Self> {
        let name = format!("tracer-test-{}", std::process::id());
        let old = Path::new("/sys/fs/cgroup/cpu");
        let files: &[(&str, &str)] = if old.exists() {
            &[
                ("cpu.cfs_period_us", "100000"),
                ("cpu.cfs_quota_us", "5000"),
            ]
        } else {
            &[("cpu.max", "5000 100000")]
        };
        let above = if old.exists() {
            old
        } else {
            Path::new("/sys/fs/cgroup")
        };
        fs::create_dir(above.join(&name)).ok()?;
        let limited = Self(above.join(name));
        for (file, text) in files {
            fs::write(limited.0.join(file), text).ok()?;
        }
        Some(limited)
    }

    fn take(&self, pid: u32) {
        let taken = fs::write(self.0.join("cgroup.procs"), pid.to_string());
        taken.expect("it is ours");
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        drop(fs::remove_dir(&self.0));
    }
}

/// A DNS server whose process is called coredns; ended on drop.
struct CoreDns(Child);

impl CoreDns {
    fn start(netns: &str, dir: &Path) -> Self {
        let path = dir.join("coredns");
        symlink(program(), &path).expect("the directory is new");
        let mut child = Command::new("ip")
            .args(["netns", "exec", netns])
            .arg(&path)
            .args(["lab-serve", "--with-parent", "dns", "--listen"])
            .arg(format!("{SERVER}:53"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("ip is installed");
        let stdout = child.stdout.as_mut().expect("stdout is a pipe");
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        assert!(read.is_ok() && line == "ready\n", "it said {line:?}");
        Self(child)
    }
}

impl Drop for CoreDns {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_server_that_is_throttled_is_told_with_its_limit_by_trace_and_doctor() {
    let routed = Routed::new("throttled");
    let Some(limited) = Limited::new() else {
        cannot("no cgroup can be given a CPU limit here");
        return;
    };
    let dir = tempfile::tempdir().expect("there is room");
    let server = CoreDns::start(&routed.server, dir.path());
    // They stay open, for answers are late.
    let send = |queries: u16| {
        let to = socket_of(SERVER, 53);
        inside(&routed.client, "client", move || {
            let ask = |id| {
                let socket = udp(to);
                assert!(socket.send(&query(id, "busy.lab.test", A)).is_ok());
                socket
            };
            (0..queries).map(ask).collect::<Vec<_>>()
        })
    };
    let ask = || {
        let words = format!(
            "--dns --path --unanswered-after 5s --netns {}",
            routed.client
        );
        let mut tracer = Tracer::start(&words);
        let sockets = send(QUERIES);
        tracer.wait_for(usize::from(QUERIES));
        drop(sockets);
        tracer.stop()
    };
    assert_eq!(ask().found(), [""; 0]);
    limited.take(server.0.id());
    let traced = ask();
    // Doctor looks for a second, all of which there must be work.
    let sockets = send(5 * QUERIES);
    let doctor = Command::new(program())
        .args(["doctor", "--output", "json", "--only", "coredns_cpu"])
        .output()
        .expect("the program was built");
    drop(sockets);
    assert_named(
        "a server's CPU limit is far below what it needs",
        &traced,
        &format!("server_throttled: server {SERVER}:53"),
    );
    let evidence = traced.findings[0]["evidence"].to_string();
    let expected = format!(
        "coredns[{}] is held back by its CPU limit of 50m",
        server.0.id()
    );
    assert!(evidence.contains(&expected), "{evidence}");
    let said = String::from_utf8_lossy(&doctor.stdout);
    let expected = format!("process coredns[{}]", server.0.id());
    assert!(said.contains(&expected), "{said}");
}
