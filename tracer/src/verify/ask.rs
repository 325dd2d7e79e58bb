//! Who asks whom, from the words of a command line: addresses, this node, names of Services.

use std::net::{IpAddr, SocketAddr};

use crate::{
    model::cluster::PortProtocol,
    rules::{CLIENT_PORT, Front, Host, Origin, Packet, RuleService},
};

/// A question about one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The packet.
    pub packet: Packet,
    /// Where it comes in.
    pub origin: Origin,
    /// The Service's port it is for, by name; `None` when it is none.
    pub service: Option<String>,
    /// Who sends it, by name; `None` when that is not known.
    pub client: Option<String>,
}

/// Why a question cannot be asked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Neither an address nor a known name.
    #[error(
        "--to {to} is no Service that the rules know: write SERVICE as shop/web:80, or ADDRESS:PORT"
    )]
    NoDestination {
        /// What was asked for.
        to: String,
    },
    /// Neither an address, nor `node`, nor a known name.
    #[error("--from {from} is no pod that is known here: write an address, or `node`")]
    NoSource {
        /// What was asked for.
        from: String,
    },
    /// Client and server are of two families.
    #[error("--from {source_ip} and --to {destination} are of two IP families")]
    Families {
        /// The client's address.
        source_ip: IpAddr,
        /// The server's address.
        destination: SocketAddr,
    },
    /// There is no address to send from.
    #[error("this node has no address to send from to {destination}")]
    NoAddress {
        /// The server's address.
        destination: SocketAddr,
    },
}

/// A client as the command line names it, with names looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Client {
    /// This node itself.
    Node,
    /// Whoever has one of these addresses, and who that is.
    Addresses(Vec<IpAddr>, Option<String>),
}

impl Ask {
    /// A question from `from` to `to`. `services` are those that can be named; of those with
    /// addresses of both families the client's is taken.
    ///
    /// # Errors
    /// A name is not known, or the two cannot talk.
    pub fn new(
        from: &Client,
        to: &str,
        protocol: PortProtocol,
        services: &[RuleService],
        host: &Host,
    ) -> Result<Self, AskError> {
        let v4 = |address: &IpAddr| address.is_ipv4();
        let families: Vec<bool> = match from {
            Client::Node => vec![true, false],
            Client::Addresses(addresses, _) => addresses.iter().map(v4).collect(),
        };
        let (destination, service) = destination(to, protocol, services, &families)
            .ok_or_else(|| AskError::NoDestination { to: to.to_owned() })?;
        let (source, client) = match from {
            Client::Node => {
                let address = host.source_for(destination.ip());
                let address = address.ok_or(AskError::NoAddress { destination })?;
                (address, Some("this node".to_owned()))
            }
            Client::Addresses(addresses, name) => {
                let mut same = addresses
                    .iter()
                    .filter(|address| v4(address) == destination.is_ipv4());
                let address = same.next().copied().ok_or(AskError::Families {
                    source_ip: addresses.first().copied().unwrap_or(destination.ip()),
                    destination,
                })?;
                (address, name.clone())
            }
        };
        Ok(Self {
            packet: Packet {
                source: SocketAddr::new(source, CLIENT_PORT),
                destination,
                protocol,
            },
            origin: host.origin_of(source),
            service,
            client,
        })
    }
}

/// `ADDRESS:PORT`, or `NAMESPACE/NAME:PORT` by number or name of the port.
fn destination(
    to: &str,
    protocol: PortProtocol,
    services: &[RuleService],
    families: &[bool],
) -> Option<(SocketAddr, Option<String>)> {
    if let Ok(address) = to.parse::<SocketAddr>() {
        let known = services.iter().find(|service| {
            service.protocol == protocol
                && service.port == address.port()
                && service.front == Front::Address(address.ip())
        });
        let name = known.and_then(|service| service.name.as_deref());
        return Some((address, name.map(str::to_owned)));
    }
    let (name, port) = to.rsplit_once(':').unwrap_or((to, ""));
    let fits = |service: &&RuleService| {
        let Some(full) = service.name.as_deref() else {
            return false;
        };
        let (of, port_name) = full.split_once(':').unwrap_or((full, ""));
        of == name
            && service.protocol == protocol
            && (port.is_empty() || port == port_name || port == service.port.to_string())
    };
    families.iter().find_map(|v4| {
        let mut fitting = services.iter().filter(fits);
        fitting.find_map(|service| match service.front {
            Front::Address(address) if address.is_ipv4() == *v4 => Some((
                SocketAddr::new(address, service.port),
                service.name.as_deref().map(str::to_owned),
            )),
            _ => None,
        })
    })
}
