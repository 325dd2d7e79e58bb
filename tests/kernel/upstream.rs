//! What a forwarding server asks of others is told with the query that it serves.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::client::{A, inside, query, receive, udp};
use crate::support::trace::{Traced, Tracer, address};
use crate::support::{End, LyingDns, Topology, dig, veth};
use tracer::lab::Lie;

const SERVER: &str = "192.0.2.2";
const UPSTREAM: &str = "192.0.2.130";

/// A client, a server that forwards, and its upstream, one veth pair between each two.
struct Chain {
    _topology: Topology,
    client: String,
    upstream: String,
    port: u16,
    /// Ends before the namespaces go.
    _server: LyingDns,
}

impl Chain {
    fn new(port: u16, patience_ms: u64) -> Self {
        let mut topology = Topology::new(&format!("up{port}"));
        let [client, server, upstream] =
            ["client", "server", "upstream"].map(|name| topology.netns(name));
        let end = |netns, device, addresses| End {
            netns,
            device,
            addresses,
        };
        veth(
            &end(&client, "eth0", &["192.0.2.1/25"]),
            &end(&server, "eth0", &["192.0.2.2/25"]),
        );
        veth(
            &end(&server, "eth1", &["192.0.2.129/25"]),
            &end(&upstream, "eth0", &["192.0.2.130/25"]),
        );
        let more = [
            "--forward",
            &format!("{UPSTREAM}:{port}"),
            "--patience-ms",
            &patience_ms.to_string(),
        ];
        let server = LyingDns::start_with(&server, &format!("{SERVER}:{port}"), &more);
        Self {
            _topology: topology,
            client,
            upstream,
            port,
            _server: server,
        }
    }

    /// Rows of the client alone, `count` of them, when it has done `work`.
    fn traced(&self, words: &str, count: usize, work: impl FnOnce()) -> Traced {
        let (port, client) = (self.port, &self.client);
        let words = format!("--dns --dns-port {port} --netns {client} {words}");
        let mut tracer = Tracer::start(&words);
        work();
        tracer.wait_for(count);
        let traced = tracer.stop();
        traced.assert_whole();
        traced
    }

    fn dig(&self, words: &str) -> String {
        dig(&self.client, &format!("-p {} @{SERVER} {words}", self.port))
    }

    fn at(&self, ip: &str) -> String {
        format!("{ip}:{}", self.port)
    }
}

/// Microseconds that a journey passed in `answer STAGE`.
fn stage(row: &Value, stage: &str) -> f64 {
    let stages = row["journey"]["stages"].as_array().expect("there are some");
    let of = |passed: &&Value| passed["leg"] == "answer" && passed["stage"] == stage;
    let took = stages.iter().filter(of).map(|s| s["duration_us"].as_f64());
    took.map(|took| took.expect("it is a number")).sum()
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn the_wait_for_upstream_is_told_from_the_servers_own_time() {
    let chain = Chain::new(5440, 2000);
    let late = ["--delay-ms", "300"];
    let at = chain.at(UPSTREAM);
    let _upstream = LyingDns::start(&chain.upstream, &at, Lie::Late, &late);
    let traced = chain.traced("--path", 2, || {
        chain.dig("host1.lab.test");
        // The second time it is in the cache.
        chain.dig("host1.lab.test");
    });
    let rows = traced.rows();
    let [asked, cached] = &rows[..] else {
        panic!("there are two: {rows:#?}");
    };
    let upstream = &asked["upstream"];
    assert_eq!(address(&upstream["asked"]), at.parse().ok(), "{asked:#}");
    assert_eq!(upstream["outcome"], "answered");
    assert_eq!(upstream["rcode"], "NOERROR");
    assert_eq!(upstream["queries"], 1);
    assert_eq!(upstream["inferred"], false, "{asked:#}");
    assert!(upstream["serial"].as_u64() > asked["serial"].as_u64());
    let waited = upstream["waited_us"].as_f64().expect("it is a number");
    assert!((300_000.0..400_000.0).contains(&waited), "{waited}");
    assert_eq!(upstream["latency_us"], upstream["waited_us"]);
    assert!((stage(asked, "upstream") - waited).abs() < 1.0, "{asked:#}");
    // The server itself only reads, asks, and copies.
    assert!(stage(asked, "backend") < 50_000.0, "{asked:#}");
    assert!(asked["cause"].is_null(), "{asked:#}");
    assert!(cached["upstream"].is_null(), "{cached:#}");
    let stages = traced.summary["dns"][0]["stages"].as_array();
    let first = stages.and_then(|stages| stages.first());
    let first = first.expect("stages are ranked");
    assert_eq!(first["stage"], "upstream", "{}", traced.summary);
    assert_eq!(first["count"], 1);
}

/// What is told without `--path`: who read the query is not known then, but who answered is.
#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn an_upstream_that_never_answers_is_the_cause_of_a_server_failure() {
    let chain = Chain::new(5441, 300);
    // It reads and stays silent.
    let _upstream = LyingDns::start_with(&chain.upstream, &chain.at(UPSTREAM), &["--silent"]);
    let traced = chain.traced("", 1, || {
        assert!(chain.dig("host1.lab.test").contains("SERVFAIL"));
    });
    let rows = traced.rows();
    let cause = rows[0]["cause"].as_str().expect("it has one").to_owned();
    let waited = cause
        .strip_prefix("its server asked 2 times, 192.0.2.130:5441 last, and got no answer within ");
    let waited = waited.and_then(|rest| rest.strip_suffix(" ms"));
    let waited: Option<u64> = waited.and_then(|waited| waited.parse().ok());
    assert!(
        waited.is_some_and(|waited| (600..700).contains(&waited)),
        "{cause}"
    );
    let found = traced.found();
    assert_eq!(
        found,
        [format!("upstream_timeout: upstream server {UPSTREAM}:5441")]
    );
    let upstream = &rows[0]["upstream"];
    assert_eq!(upstream["outcome"], "unanswered");
    assert_eq!(upstream["queries"], 2);
    assert_eq!(upstream["inferred"], false, "{:#}", rows[0]);
    assert!(upstream["latency_us"].is_null());
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn an_upstream_that_rejects_is_named() {
    let chain = Chain::new(5442, 300);
    let traced = chain.traced("", 1, || {
        assert!(chain.dig("host1.lab.test").contains("SERVFAIL"));
    });
    let cause = traced.rows()[0]["cause"].to_string();
    let expected = "its server asked 192.0.2.130:5442, and was rejected";
    assert!(cause.contains(expected), "{cause}");
}

/// Two clients at once: which of the server's queries is whose cannot be told, and is not claimed.
#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn of_two_clients_that_ask_the_same_at_once_each_is_told_one_leg_as_inferred() {
    let chain = Chain::new(5443, 2000);
    let at = chain.at(UPSTREAM);
    let late = ["--delay-ms", "200"];
    let _upstream = LyingDns::start(&chain.upstream, &at, Lie::Late, &late);
    let server: SocketAddr = chain.at(SERVER).parse().expect("it is an address");
    let ask = || {
        let netns = chain.client.clone();
        thread::spawn(move || {
            inside(&netns, "client", move || {
                let socket = udp(server);
                let asked = socket.send(&query(7, "host2.lab.test", A));
                assert!(asked.is_ok());
                assert_eq!(receive(&socket), 7);
            });
        })
    };
    let traced = chain.traced("--path", 2, || {
        let clients = [ask(), ask()];
        thread::sleep(Duration::from_millis(50));
        for client in clients {
            client.join().expect("it did not panic");
        }
    });
    let rows = traced.rows();
    let legs: Vec<&Value> = rows.iter().map(|row| &row["upstream"]).collect();
    assert!(
        legs.iter().all(|leg| leg["outcome"] == "answered"),
        "{rows:#?}"
    );
    assert_ne!(legs[0]["serial"], legs[1]["serial"], "{rows:#?}");
    assert!(legs.iter().any(|leg| leg["inferred"] == true), "{rows:#?}");
    for leg in legs {
        let waited = leg["waited_us"].as_f64().expect("it is a number");
        assert!((200_000.0..300_000.0).contains(&waited), "{rows:#?}");
    }
}
