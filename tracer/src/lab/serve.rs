//! `lab-serve`: what runs inside the lab's namespaces, servers and clients alike.
//!
//! The servers: DNS (honest, forwarding, silent or lying), a web server, a UDP echo. Each opens its sockets,
//! says `ready` on standard output and serves until it is killed.

mod dns;
mod forward;
mod lie;
mod zone;

use std::error::Error as _;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Subcommand};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::{self, Runtime};
use tokio::task::JoinSet;

use super::process::READY;
use super::{Error, traffic};

pub use lie::Lie;

/// What `lab-serve` takes.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// End when standard input is closed: with the lab, however that ended
    #[arg(long, global = true)]
    with_parent: bool,
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Answer DNS queries over UDP and TCP
    Dns(DnsArgs),
    /// Answer each TCP connection once and close it
    Web(Listen),
    /// Send each datagram back
    Echo(Listen),
    /// Send the lab's traffic, good and broken, until killed
    Traffic,
    /// Ask every backend that should answer; fail if one does not
    Probe,
}

#[derive(Debug, Args)]
struct Listen {
    /// Address and port; may be given several times
    #[arg(long, required = true)]
    listen: Vec<SocketAddr>,
}

#[derive(Debug, Args)]
struct DnsArgs {
    #[command(flatten)]
    at: Listen,
    /// Read every query and answer none
    #[arg(long, conflicts_with = "lie")]
    silent: bool,
    /// Misbehave over UDP; TCP stays honest
    #[arg(long, value_enum)]
    lie: Option<Lie>,
    /// How late `--lie late` answers, in milliseconds
    #[arg(long, default_value_t = 300)]
    delay_ms: u64,
    /// Where `--lie other-source` answers from; another port of the same address if not given
    #[arg(long)]
    from: Option<SocketAddr>,
    /// Ask this server instead of knowing anything; answer SERVFAIL when it stays silent. Over UDP alone
    #[arg(long, conflicts_with_all = ["silent", "lie"])]
    forward: Option<SocketAddr>,
    /// How long `--forward` waits for an answer, in milliseconds, before it asks again
    #[arg(long, default_value_t = 2000)]
    patience_ms: u64,
    /// How often `--forward` asks
    #[arg(long, default_value_t = 2)]
    tries: u32,
}

/// Plays its role until killed; with a parent, an error is also said on standard output. Only `probe` ends by itself.
pub fn serve(args: ServeArgs) -> Result<(), Error> {
    if !args.with_parent {
        return play(args.role);
    }
    std::thread::spawn(end_with_parent);
    let played = play(args.role);
    if let Err(error) = &played {
        say(&in_one_line(error))?;
    }
    played
}

fn play(role: Role) -> Result<(), Error> {
    match role {
        Role::Dns(DnsArgs {
            at, silent: true, ..
        }) => block_on(silent(at.listen)),
        Role::Dns(DnsArgs {
            at,
            lie: Some(lie),
            delay_ms,
            from,
            ..
        }) => block_on(lie::serve(
            at.listen,
            lie,
            Duration::from_millis(delay_ms),
            from,
        )),
        Role::Dns(DnsArgs {
            at,
            forward: Some(address),
            patience_ms,
            tries,
            ..
        }) => block_on(forward::serve(
            at.listen,
            forward::Upstream {
                address,
                patience: Duration::from_millis(patience_ms),
                tries,
            },
        )),
        Role::Dns(DnsArgs { at, .. }) => dns::serve(&at.listen),
        Role::Web(at) => block_on(web(at.listen)),
        Role::Echo(at) => block_on(echo(at.listen)),
        Role::Traffic => block_on(traffic::send()),
        Role::Probe => block_on(traffic::probe()),
    }
}

/// The parent never writes: the read ends when its end of the pipe is closed.
fn end_with_parent() {
    drop(io::stdin().read(&mut [0]));
    std::process::exit(0);
}

fn block_on(role: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    single_threaded()?.block_on(role)
}

fn single_threaded() -> Result<Runtime, Error> {
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Runtime { source })
}

/// Tells the parent that all sockets are open.
pub(super) fn ready() -> Result<(), Error> {
    say(READY)
}

fn in_one_line(error: &Error) -> String {
    error
        .source()
        .map_or(error.to_string(), |cause| format!("{error}: {cause}"))
}

/// The parent reads one line of standard output, and nothing of standard error.
fn say(line: &str) -> Result<(), Error> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .map_err(|source| Error::Runtime { source })
}

/// Opens a UDP socket that may share its address with others of this program (SO_REUSEPORT).
fn udp_socket(address: SocketAddr) -> Result<UdpSocket, Error> {
    bound(address, Type::DGRAM)
        .and_then(|socket| UdpSocket::from_std(socket.into()))
        .map_err(|source| Error::Listen { address, source })
}

/// Opens a listener that may share its address with others of this program (SO_REUSEPORT).
fn tcp_listener(address: SocketAddr) -> Result<TcpListener, Error> {
    bound(address, Type::STREAM)
        .and_then(|socket| {
            socket.listen(1024)?;
            TcpListener::from_std(socket.into())
        })
        .map_err(|source| Error::Listen { address, source })
}

fn bound(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(kind == Type::STREAM)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

async fn web(listen: Vec<SocketAddr>) -> Result<(), Error> {
    let mut serving = JoinSet::new();
    for address in listen {
        let listener = tcp_listener(address)?;
        serving.spawn(accept(listener, answer_once));
    }
    ready()?;
    serving.join_all().await;
    Ok(())
}

/// Accepts until the process is killed, and gives every connection to `each`.
async fn accept<F>(listener: TcpListener, each: fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut open = JoinSet::new();
    loop {
        // Out of descriptors, or the client left before: both pass.
        match listener.accept().await {
            Ok((stream, _)) => drop(open.spawn(each(stream))),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
        while open.try_join_next().is_some() {}
    }
}

/// Reads one request of up to 1 kB, answers whatever it was, and closes.
async fn answer_once(mut stream: TcpStream) {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nweb\n";
    if stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {
        // A client that is gone has no use for the error.
        drop(stream.write_all(ANSWER).await);
    }
}

async fn echo(listen: Vec<SocketAddr>) -> Result<(), Error> {
    let mut serving = JoinSet::new();
    for address in listen {
        let socket = udp_socket(address)?;
        serving.spawn(async move {
            let mut datagram = [0; 2048];
            loop {
                if let Ok((length, from)) = socket.recv_from(&mut datagram).await {
                    drop(socket.send_to(&datagram[..length], from).await);
                }
            }
        });
    }
    ready()?;
    serving.join_all().await;
    Ok(())
}

/// Reads queries over UDP and TCP and answers none.
async fn silent(listen: Vec<SocketAddr>) -> Result<(), Error> {
    let mut serving = JoinSet::new();
    for address in listen {
        let socket = udp_socket(address)?;
        serving.spawn(async move {
            loop {
                drop(socket.recv_from(&mut [0; 512]).await);
            }
        });
        serving.spawn(accept(tcp_listener(address)?, read_on));
    }
    ready()?;
    serving.join_all().await;
    Ok(())
}

async fn read_on(mut stream: TcpStream) {
    while stream.read(&mut [0; 512]).await.is_ok_and(|read| read > 0) {}
}
