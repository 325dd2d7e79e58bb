//! A DNS client in Rust, inside a namespace: messages written by hand, as tests want them.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Longest a client waits for one answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Query types, RFC 1035 section 3.2.2 and RFC 3596 section 2.1.
pub(crate) const A: u16 = 1;
pub(crate) const AAAA: u16 = 28;

/// Runs `client` in `netns`, on a thread of the name `comm`, and returns what it returns.
pub(crate) fn inside<T: Send + 'static>(
    netns: &str,
    comm: &str,
    client: impl FnOnce() -> T + Send + 'static,
) -> T {
    let file = File::open(Path::new("/run/netns").join(netns)).expect("the namespace exists");
    let started = thread::Builder::new().name(comm.to_owned()).spawn(move || {
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(file.as_fd(), kind).expect("we are root");
        client()
    });
    let ended = started.expect("there is room for a thread").join();
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A UDP socket connected to `server`, of the namespace the thread is in.
pub(crate) fn udp(server: SocketAddr) -> UdpSocket {
    let socket = unconnected(server);
    socket.connect(server).expect("there is a route");
    socket
}

/// A UDP socket that may send to `server`, and is not connected: as musl's resolver has it.
pub(crate) fn unconnected(server: SocketAddr) -> UdpSocket {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).expect("a port is free");
    let limit = Some(PATIENCE);
    socket.set_read_timeout(limit).expect("it is not zero");
    socket
}

/// The id of the next answer.
pub(crate) fn receive(socket: &UdpSocket) -> u16 {
    let mut answer = [0; 4096];
    let length = socket.recv(&mut answer).expect("an answer comes");
    assert!(length > 12, "an answer has a header and a question");
    u16::from_be_bytes([answer[0], answer[1]])
}

/// A TCP connection to `server` whose every write leaves at once.
pub(crate) fn tcp(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&server, PATIENCE).expect("it listens");
    stream.set_nodelay(true).expect("it is a TCP socket");
    let limit = Some(PATIENCE);
    stream.set_read_timeout(limit).expect("it is not zero");
    stream
}

/// Reads one answer over TCP and returns its id.
pub(crate) fn receive_framed(mut stream: &TcpStream) -> u16 {
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("an answer comes");
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).expect("it comes wholly");
    u16::from_be_bytes([answer[0], answer[1]])
}

/// Asks a web server and reads to the end of its answer; the connection keeps its port until it is dropped.
pub(crate) fn get(server: SocketAddr) -> TcpStream {
    let mut stream = tcp(server);
    stream
        .write_all(b"GET / HTTP/1.0\r\n\r\n")
        .expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    assert!(!answer.is_empty());
    stream
}

/// An id nobody can foretell.
pub(crate) fn random_id() -> u16 {
    let [high, low, ..] = RandomState::new().hash_one(()).to_be_bytes();
    u16::from_be_bytes([high, low])
}

/// A query with recursion desired, RFC 1035 section 4.1.
pub(crate) fn query(id: u16, name: &str, qtype: u16) -> Vec<u8> {
    let mut message = [id.to_be_bytes(), [1, 0], [0, 1], [0; 2], [0; 2], [0; 2]].concat();
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).expect("labels have up to 63 bytes"));
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(qtype.to_be_bytes());
    message.extend([0, 1]);
    message
}

/// A message with its length before it, RFC 1035 section 4.2.2.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).expect("it is short");
    [&length.to_be_bytes(), message].concat()
}
