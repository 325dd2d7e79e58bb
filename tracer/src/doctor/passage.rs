//! A packet's way through this node's own rules and routes, as far as doctor wants to know it: the
//! rules are evaluated, whoever wrote them, and none is told by its text.

use std::net::{IpAddr, SocketAddr};

use crate::{
    model::cluster::PortProtocol,
    rules::{CLIENT_PORT, Ending, Host, Origin, Packet, Ruleset},
};

/// The rules and routes of this network namespace.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What netfilter holds.
    pub ruleset: Ruleset,
    /// Devices, routes and sysctls.
    pub host: Host,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It may arrive at each of these, after translation.
    Open(Vec<SocketAddr>),
    /// It does not arrive on any way; the rule or policy that says so, where one does.
    Shut(String),
    /// It hangs on a rule that is not understood.
    Unknown(String),
}

impl Rules {
    /// Reads them.
    ///
    /// # Errors
    /// In words: the kernel refuses, or the rules change all the time.
    pub(super) fn read() -> Result<Self, String> {
        let ruleset = Ruleset::read().map_err(|error| error.to_string())?;
        let host = Host::read().map_err(|error| error.to_string())?;
        Ok(Self { ruleset, host })
    }

    /// What becomes of the first packet from `source` to `destination` that comes in by `device`;
    /// by none when this node sends it.
    pub(super) fn way(
        &self,
        source: IpAddr,
        destination: SocketAddr,
        protocol: PortProtocol,
        device: Option<&str>,
    ) -> Way {
        let packet = Packet {
            source: SocketAddr::new(source, CLIENT_PORT),
            destination,
            protocol,
        };
        let origin = device.map_or(Origin::Host, |device| Origin::Device(device.into()));
        let spread = self.ruleset.judge(&self.host, packet, origin, false);
        let (mut open, mut shut, mut unknown) = (Vec::new(), None, None);
        for branch in &spread.branches {
            match &branch.outcome.ending {
                Ending::Delivered | Ending::Sent(_) => open.push(branch.outcome.destination),
                Ending::Dropped | Ending::Rejected(_) => {
                    shut.get_or_insert_with(|| branch.by.map(|at| self.ruleset.line(at)));
                }
                Ending::NoRoute | Ending::NotForwarded | Ending::Martian => {
                    let words = match branch.outcome.ending {
                        Ending::NoRoute => "there is no route to it",
                        Ending::NotForwarded => "this node does not forward",
                        _ => "a loopback address stands where none may",
                    };
                    shut.get_or_insert_with(|| Some(words.to_owned()));
                }
                Ending::Queued | Ending::Unknown => {
                    let by = branch.by.map(|at| self.ruleset.line(at));
                    unknown.get_or_insert(by.unwrap_or_default());
                }
            }
        }
        match (open.is_empty(), unknown, shut) {
            (false, ..) => Way::Open(open),
            (true, Some(rule), _) => Way::Unknown(rule),
            (true, None, shut) => Way::Shut(shut.flatten().unwrap_or_default()),
        }
    }

    /// The device by which packets from `source` come in: the one that leads back to it.
    pub(super) fn device_of(&self, source: IpAddr) -> Option<&str> {
        let route = self.host.route_to(source)?;
        route.device.as_deref()
    }
}

#[cfg(test)]
mod tests;
