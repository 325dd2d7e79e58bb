//! `tracer trace -o json` as a child: started, waited for, interrupted, read.
//!
//! Every wait has an end; the child is killed on drop, by its pid.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::iter;
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::program;

/// Longest a test waits for what must come; a guest is emulated.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long a query may go unanswered, unless a test says otherwise: the default would make tests slow.
const UNANSWERED_AFTER: Duration = Duration::from_secs(1);

/// A tracer under way.
pub(crate) struct Tracer {
    child: Child,
    out: Receiver<String>,
    log: Receiver<String>,
    lines: Vec<String>,
}

/// What a tracer printed.
pub(crate) struct Traced {
    /// Rows as JSON lines, in order.
    lines: Vec<String>,
    /// What was found wrong.
    pub(crate) findings: Vec<Value>,
    /// The last line.
    pub(crate) summary: Value,
    /// Exit code.
    pub(crate) code: Option<i32>,
}

impl Tracer {
    /// Starts `tracer trace WORDS` and returns once it traces.
    pub(crate) fn start(words: &str) -> Self {
        Self::start_by(Command::new(program()), words)
    }

    /// The same, where `command` becomes the tracer with the arguments that follow.
    pub(crate) fn start_by(command: Command, words: &str) -> Self {
        let words = format!("trace --output json {} {words}", limit(words));
        Self::spawn(command, &words, "tracing")
    }

    /// Starts `tracer drops WORDS` and returns once it counts.
    pub(crate) fn counting_drops(words: &str) -> Self {
        let words = format!("drops --output json {words}");
        Self::spawn(Command::new(program()), &words, "counting drops")
    }

    /// Starts `command` with WORDS and returns once it has said `ready`.
    fn spawn(mut command: Command, words: &str, ready: &str) -> Self {
        let mut child = command
            .args(words.split_whitespace())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program was built");
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let out = lines_of(stdout.expect("stdout is a pipe"));
        let log = lines_of(stderr.expect("stderr is a pipe"));
        let mut tracer = Self {
            child,
            out,
            log,
            lines: Vec::new(),
        };
        tracer.wait_for_log(ready, PATIENCE);
        tracer
    }

    /// Waits until it says a line on standard error that ends with `words`; the line.
    pub(crate) fn wait_for_log(&mut self, words: &str, patience: Duration) -> String {
        let mut said = String::new();
        let deadline = Instant::now() + patience;
        loop {
            let line = self
                .log
                .recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|_| panic!("it does not say {words:?}: {said}"));
            if line.ends_with(words) {
                return line;
            }
            said += &line;
            said.push('\n');
        }
    }

    /// Its peak resident memory so far, in KiB: `VmHWM` in /proc/PID/status, proc_pid_status(5).
    pub(crate) fn peak_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let words = line.expect("the kernel tells it").split_whitespace().next();
        words
            .expect("it has a number")
            .parse()
            .expect("it has a number")
    }

    /// Waits until it has printed `rows` rows since its start; all that it has by then.
    pub(crate) fn wait_for(&mut self, rows: usize) -> &[String] {
        let deadline = Instant::now() + PATIENCE;
        while self.lines.len() < rows {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.out.recv_timeout(left) {
                Ok(line) => self.lines.push(line),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("{rows} rows were to come, not {:#?}", self.lines)
                }
            }
        }
        &self.lines
    }

    /// Stops it, as a node that is busy does, while `work` is done.
    pub(crate) fn held_up(&self, work: impl FnOnce()) {
        self.signal(Signal::STOP);
        work();
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Gives everything unanswered the time to become a row, then interrupts it as Ctrl-C does.
    pub(crate) fn stop(self) -> Traced {
        // Time-outs are looked for every 250 ms.
        sleep(UNANSWERED_AFTER + Duration::from_millis(400));
        self.stop_now(Signal::INT)
    }

    /// Ends it as nothing can prepare for.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    /// Sends `signal` and collects the rest.
    pub(crate) fn stop_now(mut self, signal: Signal) -> Traced {
        self.signal(signal);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.out.recv_timeout(left) {
                Ok(line) => self.lines.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it did not end"),
            }
        }
        let code = self.child.wait().expect("it is our child").code();
        let mut lines = std::mem::take(&mut self.lines);
        let last = lines.pop().expect("a summary ends it");
        let summary: Value = serde_json::from_str(&last).expect("lines are JSON");
        assert_eq!(summary["type"], "summary", "{last}");
        let ends = |line: &String| line.starts_with("{\"type\":\"finding");
        let (findings, lines): (Vec<_>, Vec<_>) = lines.into_iter().partition(ends);
        let parse = |line: &String| serde_json::from_str(line).expect("lines are JSON");
        let mut findings: Vec<Value> = findings.iter().map(parse).collect();
        // `drops` finds nothing and says so.
        if let Some(sought) = findings.pop() {
            assert_eq!(sought["found"], findings.len(), "{sought}");
        }
        Traced {
            lines,
            findings,
            summary,
            code,
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Traced {
    /// How many rows hold `text`, without parsing them.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.lines.iter().filter(|line| line.contains(text)).count()
    }

    /// Rows as they were printed.
    pub(crate) fn lines(&self) -> &[String] {
        &self.lines
    }

    /// All rows.
    pub(crate) fn rows(&self) -> Vec<Value> {
        let parse = |line: &String| serde_json::from_str(line).expect("lines are JSON");
        self.lines.iter().map(parse).collect()
    }

    /// All rows in short, see [`brief`].
    pub(crate) fn briefs(&self) -> Vec<String> {
        self.rows().iter().map(brief).collect()
    }

    /// Names and objects of what was found wrong, in order.
    pub(crate) fn found(&self) -> Vec<String> {
        let told = |finding: &Value| {
            let word = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
            format!("{}: {}", word("name"), word("object"))
        };
        self.findings.iter().map(told).collect()
    }

    /// Nothing was lost and the exit code says so.
    pub(crate) fn assert_whole(&self) {
        assert_eq!(self.summary["lost"]["total"], 0, "{}", self.summary);
        assert_eq!(self.code, Some(0), "{}", self.summary);
    }
}

/// What happened, without what differs from run to run: protocol, address asked, question, outcome,
/// rcode and number of answers, cause, and marks.
pub(crate) fn brief(row: &Value) -> String {
    let text = |key: &str| row[key].as_str().map(str::to_owned);
    let asked = address(&row["asked"]).map(|asked| asked.to_string());
    let answers = row["answers"].as_u64().map(|count| count.to_string());
    let mark = |key: &str, word: &str| {
        let set = row[key].as_bool() == Some(true) || row[key].is_u64();
        set.then(|| word.to_owned())
    };
    let words = [
        text("protocol"),
        asked,
        text("name"),
        text("qtype"),
        text("outcome"),
        text("rcode"),
        answers,
        mark("truncated", "truncated"),
        mark("retry_of", "retry"),
        mark("amends", "amends"),
        text("cause").map(|cause| format!("({cause})")),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// A row in short without the code that freed a packet, which kernels name differently.
pub(crate) fn without_code(brief: &str) -> String {
    let Some((before, code)) = brief.split_once(", by ") else {
        return brief.to_owned();
    };
    let end = code.find([',', ')']).unwrap_or(code.len());
    format!("{before}{}", &code[end..])
}

/// What `tracer trace WORDS` prints as text, where `work` is done once it traces; WORDS say for how long.
pub(crate) fn text_of(words: &str, work: impl FnOnce()) -> String {
    let mut child = Command::new(program())
        .arg("trace")
        .args(words.split_whitespace())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program was built");
    let log = lines_of(child.stderr.take().expect("stderr is a pipe"));
    let deadline = Instant::now() + PATIENCE;
    let next = || log.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    let ready = iter::from_fn(|| next().ok()).any(|line| line == "tracing");
    if ready {
        work();
    } else {
        drop(child.kill());
    }
    let output = child.wait_with_output().expect("it is our child");
    assert!(ready, "it does not start");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An address of a row; `None` when the row has none there.
pub(crate) fn address(end: &Value) -> Option<SocketAddr> {
    let ip: IpAddr = end["ip"].as_str()?.parse().ok()?;
    Some(SocketAddr::new(
        ip,
        u16::try_from(end["port"].as_u64()?).ok()?,
    ))
}

/// Client, address asked and backend of a row that has a backend.
pub(crate) fn translation(row: &Value) -> Option<(SocketAddr, SocketAddr, SocketAddr)> {
    let [client, asked, backend] = ["client", "asked", "backend"].map(|key| address(&row[key]));
    Some((client?, asked?, backend?))
}

/// Translations of all rows.
pub(crate) fn translations(rows: &[Value]) -> BTreeSet<(SocketAddr, SocketAddr, SocketAddr)> {
    rows.iter().filter_map(translation).collect()
}

/// The limit for an answer, unless `words` tell one.
fn limit(words: &str) -> &'static str {
    if words.contains("--unanswered-after") {
        ""
    } else {
        "--unanswered-after 1s"
    }
}

/// The lines of a pipe, as they come.
fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver): (Sender<String>, _) = channel();
    spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            // Whoever listened has heard enough; the pipe is read on, or its writer would stall.
            drop(sender.send(line));
        }
    });
    receiver
}
