//! The clients: what they send again and again, good and broken, and the first question to every backend.
//!
//! Resolver-like as glibc is: A and AAAA from one socket with random ids, five seconds, two attempts.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_server::proto::op::{Message, Query};
use hickory_server::proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::Error;
use super::serve::ready;
use super::services::{
    ECHO, EMPTY, FILTERED_DNS, KUBE_DNS, Protocol, SERVICES, SILENT, SILENT_DNS, WEB,
};

/// Between two rounds of what is answered at once.
const ROUND: Duration = Duration::from_millis(100);
/// What waits for a timeout goes with each so-many-th round.
const ROUNDS_TO_A_SLOW_ONE: u64 = 10;
/// Exchanges open at once; rounds beyond that are left out.
const MAX_OPEN: usize = 256;
/// `RES_TIMEOUT` of glibc's resolver, resolv.h.
const RESOLVER_TIMEOUT: Duration = Duration::from_secs(5);
/// `RES_DFLRETRY` of glibc's resolver, resolv.h.
const RESOLVER_ATTEMPTS: u32 = 2;
/// A pod's search path (`ndots:5`), and what is tried last.
const SEARCH: &[&str] = &[
    ".default.svc.cluster.local",
    ".svc.cluster.local",
    ".cluster.local",
    "",
];
/// How long [`probe`] asks one backend.
const PROBE_SECONDS: u64 = 5;

const A_AND_AAAA: &[RecordType] = &[RecordType::A, RecordType::AAAA];

/// Sends rounds until killed. Errors of an exchange are what the lab is for: they are ignored.
pub(super) async fn send() -> Result<(), Error> {
    ready()?;
    let mut open = JoinSet::new();
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for round in 0.. {
        rounds.tick().await;
        while open.try_join_next().is_some() {}
        if open.len() < MAX_OPEN {
            open.spawn(quick_round(round));
            if round % ROUNDS_TO_A_SLOW_ONE == 0 {
                open.spawn(slow_round());
            }
        }
    }
    Ok(())
}

/// What is answered or refused at once, one after the other.
async fn quick_round(round: u64) -> io::Result<()> {
    let dns = KUBE_DNS.socket();
    let host = format!("host{}.lab.test", round % 100 + 1);
    drop(resolve(dns, &host, A_AND_AAAA).await);
    drop(resolve(dns, &WEB.dns_name(), A_AND_AAAA).await);
    drop(resolve(dns, "missing.lab.test", &[RecordType::A]).await);
    // Three names that do not exist, then the one that does.
    for domain in SEARCH {
        drop(resolve(dns, &format!("{host}{domain}"), A_AND_AAAA).await);
    }
    if let Some(v6) = KUBE_DNS.v6 {
        let dns = SocketAddr::from((v6, 53));
        drop(resolve(dns, &host, A_AND_AAAA).await);
    }
    drop(resolve_tcp(dns, "huge.lab.test", RecordType::TXT).await);
    drop(resolve(EMPTY.socket(), &host, A_AND_AAAA).await);

    for vip in WEB.vips() {
        drop(get(SocketAddr::new(vip, 80)).await);
    }
    drop(get(SocketAddr::from((EMPTY.v4, 80))).await);
    drop(exchange_echo(ECHO.socket()).await);
    Ok(())
}

/// What waits: an answer after 300 ms, one that never comes, one whose question is dropped.
async fn slow_round() -> io::Result<()> {
    let ((), (), ()) = tokio::join!(
        async { drop(resolve(KUBE_DNS.socket(), "slow.lab.test", &[RecordType::A]).await) },
        async { drop(resolve(SILENT_DNS.socket(), "host1.lab.test", A_AND_AAAA).await) },
        async { drop(resolve(FILTERED_DNS.socket(), "host1.lab.test", A_AND_AAAA).await) },
    );
    Ok(())
}

/// Asks `server` for all `kinds` of one name from one connected socket, as glibc does; returns once
/// each has an answer.
///
/// # Errors
/// `TimedOut` after two attempts of five seconds; `ConnectionRefused` at once when the VIP rejects.
async fn resolve(server: SocketAddr, name: &str, kinds: &[RecordType]) -> io::Result<()> {
    let queries = kinds
        .iter()
        .map(|kind| query(name, *kind))
        .collect::<io::Result<Vec<_>>>()?;
    let socket = UdpSocket::bind((unspecified(server), 0)).await?;
    socket.connect(server).await?;
    for _ in 0..RESOLVER_ATTEMPTS {
        for (_, bytes) in &queries {
            socket.send(bytes).await?;
        }
        let mut ids: Vec<u16> = queries.iter().map(|(id, _)| *id).collect();
        match timeout(RESOLVER_TIMEOUT, receive_all(&socket, &mut ids)).await {
            Ok(answered) => return answered,
            Err(_late) => {}
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Reads until every id has been answered.
async fn receive_all(socket: &UdpSocket, ids: &mut Vec<u16>) -> io::Result<()> {
    let mut answer = [0; 4096];
    while !ids.is_empty() {
        let length = socket.recv(&mut answer).await?;
        if let Some(id) = answer[..length].first_chunk() {
            ids.retain(|wanted| *wanted != u16::from_be_bytes(*id));
        }
    }
    Ok(())
}

/// Asks over TCP: a length of two bytes before each message (RFC 1035 section 4.2.2).
async fn resolve_tcp(server: SocketAddr, name: &str, kind: RecordType) -> io::Result<()> {
    let (_, bytes) = query(name, kind)?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        stream
            .write_all(&[&length.to_be_bytes(), bytes.as_slice()].concat())
            .await?;
        let answer = stream.read_u16().await?;
        stream.read_exact(&mut vec![0; usize::from(answer)]).await?;
        Ok(())
    };
    timeout(RESOLVER_TIMEOUT, exchange).await?
}

/// A random id and the query that carries it.
fn query(name: &str, kind: RecordType) -> io::Result<(u16, Vec<u8>)> {
    let mut name = Name::from_ascii(name).map_err(io::Error::other)?;
    name.set_fqdn(true);
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, kind));
    let bytes = message.to_vec().map_err(io::Error::other)?;
    Ok((message.metadata.id, bytes))
}

/// One HTTP request, read to the end of the answer.
async fn get(server: SocketAddr) -> io::Result<()> {
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
        match stream.read_to_end(&mut Vec::new()).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    };
    timeout(RESOLVER_TIMEOUT, exchange).await?
}

/// Sends one datagram and waits a second for it to come back.
async fn exchange_echo(server: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind((unspecified(server), 0)).await?;
    socket.connect(server).await?;
    socket.send(b"echo").await?;
    timeout(Duration::from_secs(1), socket.recv(&mut [0; 16])).await??;
    Ok(())
}

fn unspecified(like: SocketAddr) -> IpAddr {
    match like {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Asks every backend that is to answer, at its own address, until it does.
pub(super) async fn probe() -> Result<(), Error> {
    for service in SERVICES.iter().filter(|service| !service.filtered) {
        for (port, vip) in service
            .ports
            .iter()
            .flat_map(|port| service.vips().map(move |vip| (port, vip)))
        {
            for pod in service.backends.iter().filter(|pod| **pod != SILENT) {
                let address = SocketAddr::new(pod.address_like(vip), port.target);
                until_it_answers(address, port.protocol).await?;
            }
        }
    }
    Ok(())
}

async fn until_it_answers(address: SocketAddr, protocol: Protocol) -> Result<(), Error> {
    let deadline = Instant::now() + Duration::from_secs(PROBE_SECONDS);
    while Instant::now() < deadline {
        let asked = timeout(Duration::from_millis(500), ask(address, protocol)).await;
        if matches!(asked, Ok(Ok(()))) {
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
    Err(Error::NotReady {
        address,
        protocol: protocol.name(),
        seconds: PROBE_SECONDS,
    })
}

async fn ask(address: SocketAddr, protocol: Protocol) -> io::Result<()> {
    match (protocol, address.port()) {
        (Protocol::Udp, 53) => resolve(address, "host1.lab.test", A_AND_AAAA).await,
        (Protocol::Tcp, 53) => resolve_tcp(address, "host1.lab.test", RecordType::A).await,
        (Protocol::Tcp, _) => get(address).await,
        (Protocol::Udp, _) => exchange_echo(address).await,
    }
}
