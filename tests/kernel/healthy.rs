//! Nothing is wrong, and nothing is said to be: very many exchanges of every healthy kind.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::client::{A, AAAA, framed, inside, query, receive, receive_framed, tcp, udp};
use crate::support::trace::{Traced, Tracer};
use crate::support::{End, Topology, ip, iptables_restore, run_in, veth};

const VIP: &str = "10.96.0.10";
const BACKENDS: [&str; 2] = ["192.0.2.129", "192.0.2.131"];
const CLIENTS: usize = 4;
/// Pairs of A and AAAA that one socket asks.
const PAIRS: usize = 40;
/// What one round of a client takes at least: all clients together ask 8,000 queries a second, which
/// leaves the tracer its part of a small machine.
const ROUND: Duration = Duration::from_millis(41);
/// Enough for all that a run sees, however little of the machine the tracer gets.
const RING_KIB: u32 = 131_072;

struct Bed {
    _topology: Topology,
    client: String,
    node: String,
    server: String,
    port: u16,
}

fn bed(port: u16) -> Bed {
    let mut topology = Topology::new(&format!("sound{port}"));
    let [client, node, server] = ["client", "node", "server"].map(|name| topology.netns(name));
    let end = |netns, device, addresses| End {
        netns,
        device,
        addresses,
    };
    veth(
        &end(&client, "eth0", &["192.0.2.1/25"]),
        &end(&node, "client", &["192.0.2.2/25"]),
    );
    veth(
        &end(&server, "eth0", &["192.0.2.129/25", "192.0.2.131/25"]),
        &end(&node, "server", &["192.0.2.130/25"]),
    );
    ip(&["-n", &client, "route", "add", "default", "via", "192.0.2.2"]);
    ip(&[
        "-n",
        &server,
        "route",
        "add",
        "default",
        "via",
        "192.0.2.130",
    ]);
    run_in(&node, &["sysctl", "-q", "net.ipv4.ip_forward=1"]);
    let bed = Bed {
        _topology: topology,
        client,
        node,
        server,
        port,
    };
    bed.translate(&BACKENDS);
    bed
}

impl Bed {
    /// The VIP becomes one of `backends`, as kube-proxy has it.
    fn translate(&self, backends: &[&str]) {
        let port = self.port;
        let mut rules = "*nat\n".to_owned();
        for protocol in ["udp", "tcp"] {
            for (nth, backend) in backends.iter().enumerate() {
                let left = backends.len() - nth;
                let written = writeln!(
                    rules,
                    "-A PREROUTING -d {VIP} -p {protocol} --dport {port} -m statistic --mode nth \
                     --every {left} --packet 0 -j DNAT --to-destination {backend}:{port}"
                );
                assert!(written.is_ok(), "a String takes every line");
            }
        }
        iptables_restore(&self.node, &(rules + "COMMIT\n"));
    }

    /// Answers at both addresses over UDP and TCP, for as long as the test runs.
    fn serve(&self) {
        for address in BACKENDS {
            let at = SocketAddr::new(ip_of(address), self.port);
            let (socket, listener) = inside(&self.server, "binds", move || {
                let socket = UdpSocket::bind(at).expect("the port is free");
                (socket, TcpListener::bind(at).expect("the port is free"))
            });
            thread::spawn(move || answer_datagrams(&socket));
            thread::spawn(move || answer_streams(&listener));
        }
    }
}

fn ip_of(text: &str) -> IpAddr {
    text.parse().expect("it is an address")
}

/// Turns a query into an answer without records; truncated where the name begins with `big`.
fn answer(message: &mut [u8], may_truncate: bool) {
    message[2] |= 0x80;
    if may_truncate && message[13..].starts_with(b"big") {
        message[2] |= 0x02;
    }
}

fn answer_datagrams(socket: &UdpSocket) {
    let mut message = [0; 512];
    while let Ok((length, client)) = socket.recv_from(&mut message) {
        answer(&mut message[..length], true);
        socket
            .send_to(&message[..length], client)
            .expect("there is a route");
    }
}

fn answer_streams(listener: &TcpListener) {
    while let Ok((mut stream, _)) = listener.accept() {
        let mut length = [0; 2];
        while stream.read_exact(&mut length).is_ok() {
            let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut message).expect("it comes wholly");
            answer(&mut message, false);
            stream.write_all(&framed(&message)).expect("it is read");
        }
    }
}

/// Asks A and AAAA at once, pair after pair, from one socket after the other; a truncated answer again over TCP.
fn ask(server: SocketAddr, enough: usize, asked: &AtomicUsize) {
    let mut id: u16 = 1;
    while asked.load(Ordering::Relaxed) < enough {
        let began = Instant::now();
        let socket = udp(server);
        for _ in 0..PAIRS {
            let name = format!("host{}.lab.test", id % 100);
            for kind in [A, AAAA] {
                id = id.wrapping_add(1);
                assert!(socket.send(&query(id, &name, kind)).is_ok());
            }
            let answers = [receive(&socket), receive(&socket)];
            assert!(answers.contains(&id) && answers.contains(&id.wrapping_sub(1)));
        }
        id = id.wrapping_add(1);
        assert!(socket.send(&query(id, "big.lab.test", A)).is_ok());
        assert_eq!(receive(&socket), id);
        let stream = tcp(server);
        let again = framed(&query(id, "big.lab.test", A));
        assert!((&stream).write_all(&again).is_ok());
        assert_eq!(receive_framed(&stream), id);
        asked.fetch_add(2 * PAIRS + 2, Ordering::Relaxed);
        sleep(ROUND.saturating_sub(began.elapsed()));
    }
}

/// Traces `enough` exchanges, or a few more, while backends come and go.
fn traced(port: u16, enough: usize, words: &str) -> (Traced, usize) {
    let bed = bed(port);
    bed.serve();
    let client = &bed.client;
    let words = format!("--dns-port {port} --netns {client} --ring-kib {RING_KIB} {words}");
    let tracer = Tracer::start(&words);
    let asked = Arc::new(AtomicUsize::new(0));
    let over = AtomicBool::new(false);
    let server = SocketAddr::new(ip_of(VIP), port);
    let (done, is_done) = mpsc::channel::<()>();
    let clients: Vec<JoinHandle<()>> = (0..CLIENTS)
        .map(|_| {
            let (netns, asked, done) = (client.clone(), Arc::clone(&asked), done.clone());
            thread::spawn(move || {
                inside(&netns, "client", move || ask(server, enough, &asked));
                drop(done);
            })
        })
        .collect();
    drop(done);
    thread::scope(|scope| {
        scope.spawn(|| {
            let endpoints: [&[&str]; 3] = [&BACKENDS, &BACKENDS[..1], &BACKENDS[1..]];
            for backends in endpoints.iter().cycle() {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                bed.translate(backends);
                sleep(Duration::from_millis(100));
            }
        });
        // It errs when the last client has gone.
        assert!(is_done.recv().is_err());
        over.store(true, Ordering::Relaxed);
    });
    for client in clients {
        client.join().expect("each query is answered");
    }
    let traced = tracer.stop();
    traced.assert_whole();
    (traced, asked.load(Ordering::Relaxed))
}

/// Every query, and nothing but good ends.
fn assert_sound(summary: &Value, asked: usize) {
    let dns = summary["dns"].as_array().expect("it is an array");
    let sum = |key: &str| -> u64 { dns.iter().filter_map(|of| of[key].as_u64()).sum() };
    assert_eq!(
        (sum("queries"), sum("failed"), sum("late")),
        (asked as u64, 0, 0),
        "{summary}"
    );
    let connections = summary["connections"].as_array().expect("it is an array");
    for of in connections.iter().chain(dns) {
        let outcomes = of["outcomes"].as_object().expect("it is an object");
        assert!(outcomes.keys().eq(["answered"]), "{summary}");
        assert!(of["stopped"].is_null(), "{summary}");
    }
    assert_eq!(summary["unplaced"]["unmatched"], 0, "{summary}");
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_hundred_thousand_healthy_exchanges_are_accused_of_nothing() {
    let (traced, asked) = traced(5470, 100_000, "");
    assert_eq!(traced.found(), [""; 0]);
    assert!(asked >= 100_000);
    assert_sound(&traced.summary, asked);
    for wrong in ["\"cause\"", "\"stopped_at\"", "\"amends\"", "\"retry_of\""] {
        assert_eq!(traced.count(wrong), 0, "{wrong}");
    }
}

/// With paths there is more to be wrong about.
#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn healthy_exchanges_followed_into_their_sockets_are_accused_of_nothing() {
    let (traced, asked) = traced(5471, 20_000, "--path --summary");
    assert_eq!(traced.found(), [""; 0]);
    assert_sound(&traced.summary, asked);
}
