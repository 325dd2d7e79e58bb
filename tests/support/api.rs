//! An API server that has a few objects, lets them be listed, and then has nothing to tell; and tells its time.

use std::io::{BufRead, BufReader, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;
use std::{fs, thread};

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

/// A clock that goes on whatever is done to the machine's.
#[derive(Clone, Copy)]
struct Clock(Timestamp, Instant);

impl Clock {
    /// As HTTP has it (RFC 9110, section 5.6.7).
    fn date(self) -> String {
        let Self(began, since) = self;
        let now = began + since.elapsed();
        DateTimePrinter::new()
            .timestamp_to_rfc9110_string(&now)
            .expect("it is no year beyond 9999")
    }
}

/// It answers until the test ends.
pub(crate) struct Api {
    /// How to reach it.
    pub(crate) kubeconfig: NamedTempFile,
}

impl Api {
    /// Has `objects`, each as (resource, object): pods and services.
    pub(crate) fn with(objects: &[(&'static str, Value)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let objects = objects.to_vec();
        let clock = Clock(Timestamp::now(), Instant::now());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let objects = objects.clone();
                // Whoever asked may go at any time.
                thread::spawn(move || drop(answer(&stream, &objects, clock)));
            }
        });
        let kubeconfig = NamedTempFile::new().expect("there is room for temporary files");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "users": [{"name": "test", "user": {}}],
            "clusters": [{"name": "test", "cluster": {"server": format!("http://{address}")}}],
        });
        fs::write(&kubeconfig, config.to_string()).expect("there is room for temporary files");
        Self { kubeconfig }
    }
}

/// Answers each request of one connection.
fn answer(mut stream: &TcpStream, objects: &[(&'static str, Value)], clock: Clock) -> Result<()> {
    let mut lines = BufReader::new(stream).lines();
    while let Some(request) = lines.next().transpose()? {
        while lines
            .next()
            .transpose()?
            .is_some_and(|line| !line.is_empty())
        {}
        let target = request.split(' ').nth(1).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let date = clock.date();
        let head = format!("HTTP/1.1 200 OK\r\ndate: {date}\r\ncontent-type: application/json\r\n");
        if query.contains("watch=") {
            write!(stream, "{head}transfer-encoding: chunked\r\n\r\n")?;
            continue;
        }
        let resource = path.rsplit('/').next().unwrap_or_default();
        let items = objects.iter().filter(|(of, _)| *of == resource);
        let items: Vec<_> = items.map(|(_, object)| object).collect();
        let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items});
        let list = list.to_string();
        let length = list.len();
        write!(stream, "{head}content-length: {length}\r\n\r\n{list}")?;
    }
    Ok(())
}
