//! Packets from every kind of source to every kind of Service: what the kernel does must be what
//! the evaluator says, exactly where it is certain, by share where it is random.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use tracer::model::cluster::PortProtocol;
use tracer::rules::{Ending, Host, Packet, Ruleset, SourceChange};

use super::proxy::{BACKENDS, CLIENT, Mode, NODE, Network, OUTSIDE, Spec, fronts, specs, within};

/// How long silence is waited for.
const PATIENCE: Duration = Duration::from_millis(250);

/// What became of one connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// This backend answered, and saw this client.
    Answered(IpAddr, IpAddr),
    /// An ICMP error or a reset.
    Refused,
    /// Nothing.
    Silence,
}

/// Starts servers on all backends; each says its own address and its client's.
pub(super) fn serve(network: &Network) {
    for (netns, address) in network.backends.iter().zip(BACKENDS) {
        within(netns, || {
            let tcp = TcpListener::bind("0.0.0.0:8080").expect("the port is free");
            let udp = UdpSocket::bind("0.0.0.0:8080").expect("the port is free");
            thread::spawn(move || {
                for stream in tcp.incoming().flatten() {
                    let mut stream = stream;
                    let peer = stream.peer_addr().map(|peer| peer.ip());
                    if let Ok(peer) = peer {
                        drop(stream.write_all(format!("{address} {peer}").as_bytes()));
                    }
                }
            });
            thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                    let text = format!("{address} {}", peer.ip());
                    drop(udp.send_to(text.as_bytes(), peer));
                }
            });
        });
    }
}

/// One connection from the caller's namespace.
fn connect(protocol: &str, to: SocketAddr) -> Fate {
    let mut text = String::new();
    let result = if protocol == "tcp" {
        TcpStream::connect_timeout(&to, PATIENCE).and_then(|mut stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.read_to_string(&mut text).map(|_| ())
        })
    } else {
        UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
            socket.connect(to)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.send(b"?")?;
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer)?;
            text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            Ok(())
        })
    };
    match result {
        Ok(()) => {
            let (backend, client) = text.split_once(' ').expect("it answers so");
            let address = |text: &str| text.parse().expect("it is an address");
            Fate::Answered(address(backend), address(client))
        }
        Err(error) => match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Fate::Silence,
            _ => Fate::Refused,
        },
    }
}

/// What became of `count` connections.
pub(super) fn fates(
    netns: &str,
    protocol: &str,
    to: SocketAddr,
    count: u32,
) -> BTreeMap<Fate, u32> {
    within(netns, || {
        let mut fates = BTreeMap::new();
        for _ in 0..count {
            *fates.entry(connect(protocol, to)).or_insert(0) += 1;
        }
        fates
    })
}

/// What the evaluator says becomes of it, with probabilities.
fn foretold(
    ruleset: &Ruleset,
    host: &Host,
    source: IpAddr,
    spec: &Spec,
    to: SocketAddr,
) -> BTreeMap<Fate, f64> {
    let packet = Packet {
        source: SocketAddr::new(source, 50_000),
        destination: to,
        protocol: if spec.protocol == "tcp" {
            PortProtocol::Tcp
        } else {
            PortProtocol::Udp
        },
    };
    let spread = ruleset.judge(host, packet, host.origin_of(source), false);
    assert!(spread.unknown.is_empty(), "{spread:?}");
    let mut fates = BTreeMap::new();
    for branch in spread.branches {
        let fate = match branch.outcome.ending {
            Ending::Sent(device) if device.as_ref() != "eth0" => {
                let client = match branch.outcome.source {
                    SourceChange::Kept => source,
                    _ => NODE.parse().expect("it is an address"),
                };
                Fate::Answered(branch.outcome.destination.ip(), client)
            }
            // Whoever is outside does not know the address, and the node has no such port.
            Ending::Sent(_) | Ending::Dropped => Fate::Silence,
            Ending::Delivered | Ending::Rejected(_) => Fate::Refused,
            other => panic!("{other:?}"),
        };
        *fates.entry(fate).or_insert(0.0) += branch.high;
    }
    fates
}

/// Whether what happened can have come of what was foretold: nothing else, and for each of
/// several no further away than four standard deviations.
fn agree(foretold: &BTreeMap<Fate, f64>, happened: &BTreeMap<Fate, u32>) -> bool {
    let count: u32 = happened.values().sum();
    let only = happened.keys().all(|fate| foretold.contains_key(fate));
    only && foretold.iter().all(|(fate, probability)| {
        let seen = f64::from(happened.get(fate).copied().unwrap_or(0));
        let mean = probability * f64::from(count);
        let deviation = (mean * (1.0 - probability)).sqrt();
        (seen - mean).abs() <= 4.0 * deviation + 1e-6
    })
}

fn packets_do_what_the_evaluator_says(test: &str, mode: Mode) {
    let network = Network::new(test);
    let specs = specs();
    network.load(mode, &specs);
    serve(&network);
    let (ruleset, host) = within(&network.node, || {
        (
            Ruleset::read().expect("it reads"),
            Host::read().expect("it reads"),
        )
    });
    let sources = [
        (&network.client, CLIENT),
        (&network.outside, OUTSIDE),
        (&network.node, NODE),
        (&network.backends[0], BACKENDS[0]),
    ];
    let mut cases = 0;
    for spec in &specs {
        for to in fronts(spec) {
            for (netns, source) in sources {
                let source: IpAddr = source.parse().expect("it is an address");
                let foretold = foretold(&ruleset, &host, source, spec, to);
                let random = foretold.len() > 1;
                // Rules that remember a client let it go where it was before.
                let count = if spec.affinity || !random { 1 } else { 24 };
                let happened = fates(netns, spec.protocol, to, count);
                let agree = if spec.affinity {
                    happened.keys().all(|fate| foretold.contains_key(fate))
                } else {
                    agree(&foretold, &happened)
                };
                assert!(
                    agree,
                    "{mode:?} {} at {to} from {source}: foretold {foretold:?}, happened {happened:?}",
                    spec.name
                );
                cases += 1;
            }
        }
    }
    assert!(cases >= 60, "{cases} cases");
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn packets_through_iptables_rules_do_what_the_evaluator_says() {
    packets_do_what_the_evaluator_says("packipt", Mode::Iptables);
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn packets_through_legacy_iptables_rules_do_what_the_evaluator_says() {
    packets_do_what_the_evaluator_says("packleg", Mode::Legacy);
}

#[test]
#[ignore = "needs root; run `cargo xtask test kernel`"]
fn packets_through_nftables_rules_do_what_the_evaluator_says() {
    packets_do_what_the_evaluator_says("packnft", Mode::Nftables);
}
