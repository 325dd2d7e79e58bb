//! A DNS server that knows nothing itself: it asks an upstream, as CoreDNS' `forward` does, and keeps what it was told.
//!
//! Each client's query goes upstream by itself, from a socket of its own. Without an answer the client gets SERVFAIL.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_server::proto::op::{Message, MessageType, Query, ResponseCode};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{ready, udp_socket};
use crate::lab::Error;

/// Whom to ask, and how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    /// For one try.
    pub(super) patience: Duration,
    pub(super) tries: u32,
}

/// Forwards what comes over UDP until killed.
pub(super) async fn serve(listen: Vec<SocketAddr>, upstream: Upstream) -> Result<(), Error> {
    let mut serving = JoinSet::new();
    for address in listen {
        let forwarder = Forwarder {
            socket: udp_socket(address)?,
            upstream,
            cache: Mutex::default(),
        };
        serving.spawn(Arc::new(forwarder).run());
    }
    ready()?;
    serving.join_all().await;
    Ok(())
}

struct Forwarder {
    socket: UdpSocket,
    upstream: Upstream,
    /// Good answers, for as long as this runs.
    cache: Mutex<HashMap<Query, Message>>,
}

impl Forwarder {
    async fn run(self: Arc<Self>) {
        let mut query = [0; 4096];
        let mut forwarding = JoinSet::new();
        loop {
            // An error is that of an earlier answer (port unreachable): nothing to do about it.
            if let Ok((length, client)) = self.socket.recv_from(&mut query).await
                && let Ok(query) = Message::from_vec(&query[..length])
            {
                forwarding.spawn(Arc::clone(&self).answer(query, client));
            }
            while forwarding.try_join_next().is_some() {}
        }
    }

    async fn answer(self: Arc<Self>, query: Message, client: SocketAddr) {
        let Some(question) = query.queries.first().cloned() else {
            return;
        };
        let mut answer = match self.cached(&question) {
            Some(answer) => answer,
            None => self.ask(&query).await.unwrap_or_else(|_| failure(&query)),
        };
        if answer.metadata.response_code == ResponseCode::NoError {
            self.keep(question, answer.clone());
        }
        answer.metadata.id = query.metadata.id;
        if let Ok(bytes) = answer.to_vec() {
            drop(self.socket.send_to(&bytes, client).await);
        }
    }

    fn cached(&self, question: &Query) -> Option<Message> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.get(question).cloned()
    }

    fn keep(&self, question: Query, answer: Message) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.insert(question, answer);
    }

    /// Asks upstream with an id of its own; `TimedOut` when no try is answered.
    async fn ask(&self, query: &Message) -> io::Result<Message> {
        let Upstream {
            address,
            patience,
            tries,
        } = self.upstream;
        let any: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(address).await?;
        let mut outward = Message::query();
        outward.metadata.recursion_desired = true;
        outward.add_queries(query.queries.iter().cloned());
        let bytes = outward.to_vec().map_err(io::Error::other)?;
        let mut answer = [0; 4096];
        for _ in 0..tries {
            socket.send(&bytes).await?;
            if let Ok(length) = timeout(patience, socket.recv(&mut answer)).await {
                return Message::from_vec(&answer[..length?]).map_err(io::Error::other);
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

fn failure(query: &Message) -> Message {
    let mut answer = Message::new(
        query.metadata.id,
        MessageType::Response,
        query.metadata.op_code,
    );
    answer.metadata.response_code = ResponseCode::ServFail;
    answer.add_queries(query.queries.iter().cloned());
    answer
}
