//! Connections in bulk, from many namespaces at once, and what becomes of each: who answers, whom it
//! takes for the client, or that nobody does. Silence is what takes time, so all is waited for side by
//! side.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, sleep};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Protocol, Socket, Type};

/// What becomes of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// This server answers, and takes that address for the client's.
    Answered(SocketAddr, IpAddr),
    /// The client is told at once that there is nobody.
    Refused,
    /// Nothing comes.
    Silence,
    /// Nothing comes, and the packet was let out to where nobody has its address.
    Passed,
}

/// One connection to be tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Try {
    /// What the one who asks calls it.
    pub(crate) cell: usize,
    /// By UDP, else by TCP.
    pub(crate) udp: bool,
    pub(crate) to: SocketAddr,
    /// From which address; the kernel's choice without it.
    pub(crate) from: Option<IpAddr>,
    /// How long silence is waited for.
    pub(crate) patience: Duration,
    /// Tried once more from the same address after this long.
    pub(crate) again: Option<Duration>,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tried {
    pub(crate) what: Try,
    pub(crate) fate: Fate,
    /// From which address and port.
    pub(crate) own: Option<SocketAddr>,
    /// The server saw the client's own port.
    pub(crate) port_kept: bool,
    /// What became of the second.
    pub(crate) again: Option<Fate>,
}

impl Tried {
    /// Which of many clients it was makes no difference: `one` stands for all of them.
    pub(crate) fn is_by(&mut self, one: IpAddr) {
        for fate in [Some(&mut self.fate), self.again.as_mut()] {
            if let Some(Fate::Answered(_, client)) = fate
                && Some(*client) == self.what.from
            {
                *client = one;
            }
        }
    }
}

/// Has all probers make their tries at once, each those at its own place; what came of them.
pub(crate) fn ask_all<'a>(
    probers: impl Iterator<Item = &'a Prober>,
    tries: Vec<Vec<Try>>,
) -> impl Iterator<Item = Tried> {
    let asked = probers.zip(tries);
    let asked: Vec<_> = asked
        .map(|(prober, tries)| (prober, prober.ask(tries)))
        .collect();
    let results = asked.into_iter();
    results.flat_map(|(prober, count)| prober.results(count))
}

/// Threads in one namespace that connect.
pub(crate) struct Prober {
    queue: Arc<Queue>,
    results: Receiver<Tried>,
}

#[derive(Default)]
struct Queue {
    tries: Mutex<(VecDeque<Try>, bool)>,
    more: Condvar,
}

impl Prober {
    /// `threads` of them in the namespace of this file.
    pub(crate) fn start(namespace: &Path, threads: usize) -> Self {
        let queue = Arc::new(Queue::default());
        let (told, results) = channel();
        for _ in 0..threads {
            let (queue, told) = (Arc::clone(&queue), told.clone());
            let namespace = namespace.to_owned();
            thread::spawn(move || {
                enter(&namespace);
                queue.work(&told);
            });
        }
        Self { queue, results }
    }

    /// Has these tried; as many results come.
    pub(crate) fn ask(&self, tries: Vec<Try>) -> usize {
        let count = tries.len();
        let mut waiting = self.queue.tries.lock().expect("no thread panics with it");
        waiting.0.extend(tries);
        self.queue.more.notify_all();
        count
    }

    /// The next `count` results.
    pub(crate) fn results(&self, count: usize) -> Vec<Tried> {
        let long = Duration::from_secs(60);
        let next = || self.results.recv_timeout(long).expect("a try ends");
        (0..count).map(|_| next()).collect()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        if let Ok(mut waiting) = self.queue.tries.lock() {
            waiting.1 = true;
        }
        self.queue.more.notify_all();
    }
}

impl Queue {
    fn work(&self, told: &Sender<Tried>) {
        loop {
            let mut waiting = self.tries.lock().expect("no thread panics with it");
            let next = loop {
                if waiting.1 {
                    return;
                }
                if let Some(next) = waiting.0.pop_front() {
                    break next;
                }
                waiting = self.more.wait(waiting).expect("no thread panics with it");
            };
            drop(waiting);
            let (fate, own, port_kept) = connect(&next);
            let again = next.again.map(|pause| {
                sleep(pause);
                connect(&next).0
            });
            let tried = Tried {
                what: next,
                fate,
                own,
                port_kept,
                again,
            };
            if told.send(tried).is_err() {
                return;
            }
        }
    }
}

/// Moves the calling thread into a network namespace.
pub(crate) fn enter(namespace: &Path) {
    let file = File::open(namespace).expect("the namespace is there");
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("root may enter it");
}

/// Runs `job` in a thread inside the namespace of this file.
pub(crate) fn within<T: Send>(namespace: &Path, job: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(namespace);
            job()
        });
        thread.join().expect("the job does not panic")
    })
}

/// One connection, from where, and whether the server saw the client's own port.
fn connect(what: &Try) -> (Fate, Option<SocketAddr>, bool) {
    let mut own = None;
    let (fate, port) = match talk(what, &mut own) {
        Ok(text) => {
            let mut words = text.trim().split(' ').map(str::parse::<SocketAddr>);
            let mut next = || words.next().and_then(Result::ok).expect("it answers so");
            let (server, client) = (next(), next());
            (Fate::Answered(server, client.ip()), Some(client.port()))
        }
        Err(error) => match error.kind() {
            // No neighbour has the address: sooner or later the last hop may say so.
            ErrorKind::TimedOut | ErrorKind::WouldBlock | ErrorKind::HostUnreachable => {
                (Fate::Silence, None)
            }
            ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable => panic!("{what:?}: {error}"),
            _ => (Fate::Refused, None),
        },
    };
    (fate, own, own.is_some_and(|own| Some(own.port()) == port))
}

/// What the server said; and the client's own address.
fn talk(what: &Try, own: &mut Option<SocketAddr>) -> std::io::Result<String> {
    let (kind, protocol) = if what.udp {
        (Type::DGRAM, Protocol::UDP)
    } else {
        (Type::STREAM, Protocol::TCP)
    };
    let socket = Socket::new(Domain::for_address(what.to), kind, Some(protocol))?;
    if let Some(from) = what.from {
        // Else few ports would do for many servers.
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    let connected = socket.connect_timeout(&what.to.into(), what.patience);
    *own = socket.local_addr()?.as_socket();
    connected?;
    socket.set_read_timeout(Some(what.patience))?;
    let mut text = String::new();
    if what.udp {
        // EPERM when this host's own rules drop it, or refuse it, of which more is told.
        if let Err(error) = socket.send(b"?")
            && error.kind() != ErrorKind::PermissionDenied
        {
            return Err(error);
        }
        let socket = UdpSocket::from(socket);
        let mut buffer = [0; 128];
        let length = socket.recv(&mut buffer)?;
        text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        // A later packet is another matter to rules than the first.
        if let Err(error) = socket.send(b"?")
            && error.kind() != ErrorKind::PermissionDenied
        {
            return Err(error);
        }
        let length = socket.recv(&mut buffer)?;
        assert_eq!(buffer[..length], *text.as_bytes(), "{what:?}");
    } else {
        // Reset at the end: a port that waits (TIME_WAIT) would refuse the next client that is given it.
        socket.set_linger(Some(Duration::ZERO))?;
        BufReader::new(TcpStream::from(socket)).read_line(&mut text)?;
    }
    Ok(text)
}

/// Packets of IPv4 that come into a namespace: from where to where.
pub(crate) struct Sniffer(Arc<Mutex<HashSet<(SocketAddrV4, SocketAddrV4)>>>);

impl Sniffer {
    /// Looks until the test ends.
    pub(crate) fn start(namespace: &Path) -> Self {
        // linux/if_ether.h
        const ETH_P_IP: u16 = 0x0800;
        let seen = Arc::new(Mutex::new(HashSet::new()));
        let (of_thread, namespace) = (Arc::clone(&seen), namespace.to_owned());
        let (opened, ready) = channel();
        thread::spawn(move || {
            enter(&namespace);
            let protocol = Protocol::from(i32::from(ETH_P_IP.to_be()));
            let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol));
            let mut socket = socket.expect("root may");
            opened.send(()).expect("the test waits");
            let mut buffer = [0; 128];
            while let Ok(length) = socket.read(&mut buffer) {
                // Version and header length; without options.
                if length >= 24 && buffer[0] == 0x45 {
                    let address = |at: usize| {
                        let octets: [u8; 4] = buffer[at..at + 4].try_into().expect("four bytes");
                        Ipv4Addr::from(octets)
                    };
                    let port = |at: usize| u16::from_be_bytes([buffer[at], buffer[at + 1]]);
                    let from = SocketAddrV4::new(address(12), port(20));
                    let to = SocketAddrV4::new(address(16), port(22));
                    let mut seen = of_thread.lock().expect("no thread panics with it");
                    seen.insert((from, to));
                }
            }
        });
        ready.recv().expect("it opens");
        Self(seen)
    }

    /// Forgets all.
    pub(crate) fn clear(&self) {
        self.0.lock().expect("no thread panics with it").clear();
    }

    /// Whether one came from that address, whatever the port.
    pub(crate) fn saw_of(&self, from: IpAddr, to: SocketAddr) -> bool {
        let seen = self.0.lock().expect("no thread panics with it");
        let mut seen = seen.iter();
        seen.any(|(of, at)| IpAddr::V4(*of.ip()) == from && SocketAddr::V4(*at) == to)
    }

    /// Whether a packet of IPv4 from there to there came.
    pub(crate) fn saw(&self, from: SocketAddr, to: SocketAddr) -> bool {
        let seen = self.0.lock().expect("no thread panics with it");
        match (from, to) {
            (SocketAddr::V4(from), SocketAddr::V4(to)) => seen.contains(&(from, to)),
            _ => false,
        }
    }
}

/// With room for all who come before they are served.
fn listen(at: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&at.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// Serves at each of `addresses` by both protocols: says its own address and the client's. Until the
/// test ends.
pub(crate) fn serve(namespace: &Path, addresses: &[SocketAddr]) {
    for at in addresses.iter().copied() {
        let namespace: PathBuf = namespace.to_owned();
        let (bound, ready) = channel();
        thread::spawn(move || {
            enter(&namespace);
            let udp = UdpSocket::bind(at).expect("the port is free");
            let tcp = listen(at).expect("the port is free");
            bound.send(()).expect("the test waits");
            thread::spawn(move || {
                let mut buffer = [0; 16];
                while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                    drop(udp.send_to(format!("{at} {peer}").as_bytes(), peer));
                }
            });
            // The client is to close first.
            let mut open = VecDeque::new();
            for mut stream in tcp.incoming().flatten() {
                if let Ok(peer) = stream.peer_addr() {
                    drop(stream.write_all(format!("{at} {peer}\n").as_bytes()));
                }
                open.push_back(stream);
                if open.len() > 32 {
                    open.pop_front();
                }
            }
        });
        ready.recv().expect("it binds");
    }
}
