//! The API server's own interface, for what would be too many calls of `kubectl`: by `kubectl proxy`, which
//! knows how to be admitted.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::bed::Cluster;
use crate::support::probe::within;

/// A connection to it; ended on drop.
pub(crate) struct Api {
    proxy: Child,
    stream: BufReader<TcpStream>,
}

impl Api {
    pub(crate) fn connect(cluster: &Cluster) -> Self {
        let mut proxy = cluster
            .kubectl_program()
            .args(["proxy", "--port=0"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the bed has kubectl");
        let mut said = String::new();
        let out = proxy.stdout.take().expect("it is a pipe");
        BufReader::new(out).read_line(&mut said).expect("it tells");
        let address = said.trim().rsplit(' ').next().unwrap_or_default();
        let address: std::net::SocketAddr = address.parse().expect("it tells where it serves");
        let control = PathBuf::from(format!("/run/netns/{}", cluster.netns("control")));
        let stream = within(&control, move || TcpStream::connect(address));
        let stream = stream.expect("it serves");
        let patience = Some(Duration::from_secs(30));
        stream.set_read_timeout(patience).expect("it is no zero");
        stream.set_nodelay(true).expect("it is TCP");
        Self {
            proxy,
            stream: BufReader::new(stream),
        }
    }

    /// Makes an object in the collection at `path`; the object as it was made.
    pub(crate) fn create(&mut self, path: &str, object: &Value) -> Value {
        self.must("POST", path, "application/json", object)
    }

    /// Merges `change` into the object at `path`.
    pub(crate) fn patch(&mut self, path: &str, change: &Value) -> Value {
        self.must("PATCH", path, "application/merge-patch+json", change)
    }

    fn must(&mut self, method: &str, path: &str, kind: &str, body: &Value) -> Value {
        let (status, said) = self.ask(method, path, kind, &body.to_string());
        assert!(status < 300, "{method} {path} {body}: {status} {said}");
        said
    }

    fn ask(&mut self, method: &str, path: &str, kind: &str, body: &str) -> (u16, Value) {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        let sent = self.stream.get_mut().write_all(request.as_bytes());
        sent.expect("the API server listens");
        let first = self.line();
        let status = first.split(' ').nth(1).and_then(|word| word.parse().ok());
        let (mut length, mut chunked) = (0, false);
        loop {
            let line = self.line().to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("content-length", value)) => length = value.parse().expect("it is a number"),
                Some(("transfer-encoding", value)) => chunked = value == "chunked",
                Some(_) => {}
                None => break,
            }
        }
        let mut body = Vec::new();
        if chunked {
            loop {
                let size = usize::from_str_radix(&self.line(), 16).expect("it is a size");
                body.extend(self.bytes(size));
                self.line();
                if size == 0 {
                    break;
                }
            }
        } else {
            body = self.bytes(length);
        }
        let value = serde_json::from_slice(&body).expect("the API server answers in JSON");
        (status.expect("it is HTTP"), value)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("it answers");
        line.trim_end().to_owned()
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).expect("it answers");
        bytes
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        drop(self.proxy.kill());
        drop(self.proxy.wait());
    }
}
