//! Servers and clients that take their time at one place each, and what `--path` tells of it. Delays are
//! measured where they are made, so that a busy machine makes no test fail.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::client::{A, inside, query, receive, udp, unconnected};
use crate::support::trace::{Traced, Tracer, without_code};
use crate::support::{client_and_server, iptables_restore};

/// Long beside what the machine adds.
const LONG: Duration = Duration::from_millis(400);

/// What is told is what was measured, to 5 %; or is short, where nothing was slow.
fn assert_told(told: &Value, slow: bool, measured: Duration, row: &Value) {
    let told = told.as_f64().unwrap_or(f64::NAN);
    let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
    let right = if slow {
        (told - micros(measured)).abs() < micros(measured) * 0.05
    } else {
        told < micros(LONG) / 2.0
    };
    assert!(right, "{told} µs, measured {measured:?}: {row:#}");
}

fn start(netns: &str, port: u16) -> Tracer {
    Tracer::start(&format!("--path --dns --dns-port {port} --netns {netns}"))
}

/// Runs `work` in `netns`, beside the test.
fn beside<T: Send + 'static>(
    netns: &str,
    comm: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let netns = netns.to_owned();
    thread::spawn(move || inside(&netns, comm, work))
}

/// A datagram turned into an answer without records.
fn answer(mut query: Vec<u8>) -> Vec<u8> {
    query[2] |= 0x80;
    query
}

/// The one who is slow.
#[derive(Clone, Copy, PartialEq)]
enum Slow {
    /// The server has not read the query yet.
    ServerReads,
    /// The server has read the query and not answered yet.
    Server,
    /// The client has not read the answer yet.
    ClientReads,
}

/// One exchange by a client's socket that `open` makes; returns its row, and how long the server took to read, to
/// answer, and the client to read.
fn exchange(port: u16, slow: Slow, open: fn(SocketAddr) -> UdpSocket) -> (Value, [Duration; 3]) {
    let (_topology, client, server) = client_and_server(&format!("slow{port}"));
    let mut tracer = start(&client, port);
    let address = SocketAddr::from(([192, 0, 2, 2], port));
    let (bound, is_bound) = channel();
    let (asked, is_asked) = channel();
    let (answered, is_answered) = channel();
    let wait = move |when| sleep(if slow == when { LONG } else { Duration::ZERO });
    let serving = beside(&server, "slow-server", move || {
        let socket = UdpSocket::bind(address).expect("the port is free");
        bound.send(()).expect("the test waits for it");
        let asked: Instant = is_asked.recv().expect("the client asks");
        wait(Slow::ServerReads);
        let mut query = vec![0; 512];
        let (length, peer) = socket.recv_from(&mut query).expect("a query comes");
        let read = Instant::now();
        query.truncate(length);
        wait(Slow::Server);
        let answering = Instant::now();
        socket
            .send_to(&answer(query), peer)
            .expect("there is a route");
        answered
            .send(Instant::now())
            .expect("the client waits for it");
        [read - asked, answering - read]
    });
    is_bound.recv().expect("the server binds");
    let late = inside(&client, "slow-client", move || {
        let socket = open(address);
        // Linux takes the address of a connected socket's own peer as well.
        let sent = socket.send_to(&query(7, "host1.lab.test", A), address);
        sent.expect("there is a route");
        asked.send(Instant::now()).expect("the server waits for it");
        let answered: Instant = is_answered.recv().expect("the server answers");
        wait(Slow::ClientReads);
        assert_eq!(receive(&socket), 7);
        answered.elapsed()
    });
    let [read, own] = serving.join().expect("it did not panic");
    tracer.wait_for(1);
    let traced = tracer.stop();
    traced.assert_whole();
    let rows = traced.rows();
    assert_eq!(rows.len(), 1, "{rows:#?}");
    (rows[0].clone(), [read, own, late])
}

fn check(port: u16, slow: Slow, open: fn(SocketAddr) -> UdpSocket) {
    let (row, [read, own, late]) = exchange(port, slow, open);
    assert_eq!(row["outcome"], "answered");
    let (server, client) = (&row["sockets"]["server"], &row["sockets"]["client"]);
    let told = |told: &Value, by, measured| assert_told(told, slow == by, measured, &row);
    told(&server["queued_us"], Slow::ServerReads, read);
    told(&server["own_us"], Slow::Server, own);
    told(&client["queued_us"], Slow::ClientReads, late);
    assert_eq!(server["process"]["name"], "slow-server");
    assert_eq!(client["process"]["name"], "slow-client");
    assert_eq!(server["process"]["pid"], std::process::id());
    assert!(row["sockets"]["send_us"].is_f64(), "{row:#}");
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_server_that_reads_late_is_told_from_one_that_thinks_long_and_from_a_client_that_reads_late() {
    check(5420, Slow::ServerReads, udp);
    check(5421, Slow::Server, udp);
    check(5422, Slow::ClientReads, udp);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_client_that_reads_late_is_told_also_where_its_socket_is_not_connected() {
    check(5429, Slow::ClientReads, unconnected);
}

/// What is traced of a query to a server that never answers, and reads only if `reads`.
fn unanswered(port: u16, reads: bool) -> Traced {
    let (_topology, client, server) = client_and_server(&format!("mute{port}"));
    let mut tracer = start(&client, port);
    let address = SocketAddr::from(([192, 0, 2, 2], port));
    let socket = beside(&server, "mute-server", move || {
        UdpSocket::bind(address).expect("the port is free")
    });
    let socket = socket.join().expect("it did not panic");
    inside(&client, "client", move || {
        assert!(udp(address).send(&query(7, "host1.lab.test", A)).is_ok());
    });
    if reads {
        socket.recv(&mut [0; 512]).expect("a query comes");
    }
    tracer.wait_for(1);
    tracer.stop()
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_query_nobody_reads_is_told_from_one_that_was_read_and_not_answered() {
    let row = "udp 192.0.2.2:5423 host1.lab.test A unanswered (no answer within 1 s: \
               the query lies unread in the server's socket)";
    assert_eq!(unanswered(5423, false).briefs(), [row]);
    let traced = unanswered(5424, true);
    let cause = traced.rows()[0]["cause"].to_string();
    let pid = std::process::id();
    assert!(
        cause.contains(&format!("[{pid}] read the query")),
        "{cause}"
    );
    assert!(cause.ends_with("after it came, and sent none\""), "{cause}");
}

/// Two threads read one socket, in bursts, so that they meet: whoever is said to have read a query has read it.
#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn of_two_threads_that_read_one_socket_the_right_one_is_named_or_none() {
    const BURSTS: u16 = 40;
    const BURST: u16 = 8;
    let (_topology, client, server) = client_and_server("threads");
    let mut tracer = start(&client, 5425);
    let address = SocketAddr::from(([192, 0, 2, 2], 5425));
    let socket = beside(&server, "binds", move || {
        UdpSocket::bind(address).expect("the port is free")
    });
    let socket = socket.join().expect("it did not panic");
    let limit = Some(Duration::from_secs(2));
    socket.set_read_timeout(limit).expect("it is not zero");
    let readers = ["reader-a", "reader-b"].map(|name| {
        let socket = socket.try_clone().expect("there is room");
        beside(&server, name, move || {
            let mut read = Vec::new();
            let mut query = [0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut query) {
                read.push((u16::from_be_bytes([query[0], query[1]]), name));
                let answer = answer(query[..length].to_vec());
                socket.send_to(&answer, peer).expect("there is a route");
            }
            read
        })
    });
    inside(&client, "client", move || {
        let socket = udp(address);
        for burst in 0..BURSTS {
            for id in burst * BURST..(burst + 1) * BURST {
                assert!(socket.send(&query(id, "host1.lab.test", A)).is_ok());
            }
            for _ in 0..BURST {
                receive(&socket);
            }
        }
    });
    let read: HashMap<u16, &str> = readers
        .into_iter()
        .flat_map(|reader| reader.join().expect("it did not panic"))
        .collect();
    tracer.wait_for(usize::from(BURSTS * BURST));
    let rows = tracer.stop().rows();
    let mut told = 0;
    for row in &rows {
        let id = row["id"].as_u64().and_then(|id| u16::try_from(id).ok());
        let name = &row["sockets"]["server"]["process"]["name"];
        if !name.is_null() {
            told += 1;
            assert_eq!(*name, read[&id.expect("ids have 16 bits")], "{row:#}");
        }
    }
    let all = rows.len();
    assert!(told * 2 > all, "only {told} of {all} were told");
}

/// Rows, in short, of `count` queries sent by one connected socket from the client to `port` of the server, where
/// nobody reads.
fn sent(client: &str, port: u16, count: u16) -> Vec<String> {
    let mut tracer = start(client, port);
    inside(client, "client", move || {
        let socket = udp(([192, 0, 2, 2], port).into());
        for id in 0..count {
            // The error that an earlier one met is told here, and the query not sent.
            while socket.send(&query(id, "host1.lab.test", A)).is_err() {}
        }
    });
    tracer.wait_for(usize::from(count));
    let briefs = tracer.stop().briefs();
    briefs.iter().map(|brief| without_code(brief)).collect()
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn queries_that_find_the_receive_buffer_full_say_so() {
    let (_topology, client, server) = client_and_server("full");
    let socket = beside(&server, "binds", || {
        let socket = UdpSocket::bind("192.0.2.2:5426").expect("the port is free");
        // The kernel raises it to the least it takes: socket(7), room for two or three datagrams.
        let tiny = socket2::SockRef::from(&socket).set_recv_buffer_size(1);
        tiny.expect("it may always be less");
        socket
    });
    let _unread = socket.join().expect("it did not panic");
    let briefs = sent(&client, 5426, 8);
    let full = "udp 192.0.2.2:5426 host1.lab.test A dropped \
                (the kernel dropped the query: SOCKET_RCVBUFF, the receive buffer of its socket was full)";
    let unread = "udp 192.0.2.2:5426 host1.lab.test A unanswered \
                  (no answer within 1 s: the query lies unread in the server's socket)";
    let count = |brief| briefs.iter().filter(|&found| found == brief).count();
    assert!(count(full) > 0 && count(unread) > 0, "{briefs:#?}");
    assert_eq!(count(full) + count(unread), 8, "{briefs:#?}");
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_query_to_a_closed_port_says_which_error_the_application_got() {
    let (_topology, client, _server) = client_and_server("closed");
    let row = "udp 192.0.2.2:5427 host1.lab.test A rejected \
               (ICMP port unreachable from 192.0.2.2; the application got ECONNREFUSED)";
    assert_eq!(sent(&client, 5427, 1), [row]);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn an_icmp_error_that_gets_lost_is_told_from_no_answer() {
    let (_topology, client, server) = client_and_server("hushed");
    iptables_restore(
        &server,
        "*filter\n-A INPUT -p udp --dport 5428 -j REJECT --reject-with icmp-admin-prohibited\n\
         -A OUTPUT -p icmp -j DROP\nCOMMIT\n",
    );
    let row = "udp 192.0.2.2:5428 host1.lab.test A rejected \
               (ICMP administratively prohibited was sent, and did not reach the client; \
               the kernel dropped the query: NETFILTER_DROP in INPUT)";
    assert_eq!(sent(&client, 5428, 1), [row]);
}
