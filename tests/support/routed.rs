//! A client and a server with a node between them that routes and does nothing else, until told.

use std::net::UdpSocket;
use std::thread;

use super::client::inside;
use super::{End, Topology, run_in, veth};

/// The server's address, and a second one.
pub(crate) const SERVER: &str = "198.51.100.2";
pub(crate) const SERVER2: &str = "198.51.100.3";

/// An address that rules may translate to the server's; it is routed to the node.
pub(crate) const VIP: &str = "10.96.0.10";

/// Three namespaces: `client` at 192.0.2.2 and 192.0.2.3, `node`, and `server`.
pub(crate) struct Routed {
    _topology: Topology,
    pub(crate) client: String,
    /// Device `c` leads to the client, `s` to the server.
    pub(crate) node: String,
    pub(crate) server: String,
}

impl Routed {
    pub(crate) fn new(test: &str) -> Self {
        let mut topology = Topology::new(test);
        let [client, node, server] = ["client", "node", "server"].map(|name| topology.netns(name));
        let link = |netns, addresses, device, own| {
            let outer = End {
                netns,
                device: "eth0",
                addresses,
            };
            let inner = End {
                netns: &node,
                device,
                addresses: &[own],
            };
            veth(&outer, &inner);
        };
        link(
            &client,
            &["192.0.2.2/24", "192.0.2.3/24"],
            "c",
            "192.0.2.1/24",
        );
        link(
            &server,
            &["198.51.100.2/24", "198.51.100.3/24"],
            "s",
            "198.51.100.1/24",
        );
        let by = |netns, gateway| run_in(netns, &["ip", "route", "add", "default", "via", gateway]);
        by(&client, "192.0.2.1");
        by(&server, "198.51.100.1");
        run_in(&node, &["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
        Self {
            _topology: topology,
            client,
            node,
            server,
        }
    }

    /// Answers each DNS query to port 53 of the server, no record being in the answer, which `length` bytes
    /// long at least, until the test ends.
    pub(crate) fn answer(&self, length: usize) {
        self.serve(length, 0);
    }

    /// Refuses each DNS query to port 53 of the server, until the test ends.
    pub(crate) fn refuse(&self) {
        self.serve(0, 5);
    }

    /// Answers with the response code `rcode` (RFC 1035, section 4.1.1).
    fn serve(&self, length: usize, rcode: u8) {
        let socket = inside(&self.server, "server", || {
            UdpSocket::bind((SERVER, 53)).expect("the port is free")
        });
        thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((received, peer)) = socket.recv_from(&mut query) {
                let mut answer = query[..received].to_vec();
                answer[2] |= 0x80;
                answer[3] |= rcode;
                answer.resize(length.max(received), 0);
                // That it cannot be sent is part of a test.
                drop(socket.send_to(&answer, peer));
            }
        });
    }
}
