//! The sockets' ends of a query, as durations.

use serde::Serialize;

use super::{micros, named::Process};
use crate::model::{Delivery, Dns, SocketEnds};

/// What is known of an exchange's sockets.
#[derive(Serialize)]
pub(super) struct Sockets {
    #[serde(skip_serializing_if = "Option::is_none")]
    send_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<Server>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<Socket>,
}

#[derive(Serialize)]
struct Server {
    #[serde(flatten)]
    socket: Socket,
    #[serde(skip_serializing_if = "Option::is_none")]
    own_us: Option<f64>,
}

/// A datagram at its socket.
#[derive(Serialize)]
struct Socket {
    delivered_us: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    queued_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<Process>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unread: bool,
}

/// `None` when nothing is known.
pub(super) fn sockets(dns: &Dns) -> Option<Sockets> {
    let SocketEnds {
        sent,
        query,
        answer,
        ..
    } = dns.ends;
    let socket = |delivery: Delivery| {
        Some(Socket {
            delivered_us: micros(delivery.queued()? - dns.ktime),
            queued_us: delivery.waited().map(micros),
            process: delivery.reader().map(|by| Process {
                pid: by.pid,
                name: by.comm,
            }),
            unread: delivery.waits(),
        })
    };
    let server = socket(query).map(|socket| Server {
        socket,
        own_us: dns.ends.server_time().map(micros),
    });
    let sockets = Sockets {
        send_us: sent.map(|sent| micros(sent - dns.ktime)),
        server,
        client: socket(answer),
    };
    (sent.is_some() || sockets.server.is_some() || sockets.client.is_some()).then_some(sockets)
}
