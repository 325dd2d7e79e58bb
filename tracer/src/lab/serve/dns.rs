//! The honest DNS server: hickory-server over one [`Zone`], a thread with its own sockets on each core.
//!
//! The sockets share their address (SO_REUSEPORT): the kernel spreads the clients over the threads,
//! and no query has to change its thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Edns, Header, HeaderCounts, Metadata, ResponseCode};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Runtime;

use super::zone::Zone;
use super::{ready, single_threaded, tcp_listener, udp_socket};
use crate::lab::Error;

/// How long the answer for `slow.lab.test` is held back.
const SLOW: Duration = Duration::from_millis(300);
/// How much of a processor's time the answer for `busy.lab.test` takes.
const BUSY: Duration = Duration::from_millis(20);
/// The largest answer over UDP, in bytes, whatever the client offers: that of most servers.
const MAX_UDP: u16 = 4096;
/// After so long without a query a TCP connection is closed.
const TCP_IDLE: Duration = Duration::from_secs(10);

/// Serves on all addresses over UDP and TCP until killed.
pub(super) fn serve(listen: &[SocketAddr]) -> Result<(), Error> {
    let zone = Arc::new(Zone::new());
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let servers = (0..cores)
        .map(|_| open(listen, &zone))
        .collect::<Result<Vec<_>, Error>>()?;
    ready()?;
    let threads: Vec<_> = servers
        .into_iter()
        .map(|(runtime, mut server)| {
            thread::spawn(move || runtime.block_on(server.block_until_done()))
        })
        .collect();
    for thread in threads {
        match thread.join() {
            Ok(served) => served?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    Ok(())
}

fn open(listen: &[SocketAddr], zone: &Arc<Zone>) -> Result<(Runtime, Server<Honest>), Error> {
    let runtime = single_threaded()?;
    let mut server = Server::new(Honest {
        zone: Arc::clone(zone),
    });
    // Sockets register with the runtime they are opened in.
    let entered = runtime.enter();
    for address in listen {
        server.register_socket(udp_socket(*address)?);
        add_tcp(&mut server, *address)?;
    }
    drop(entered);
    Ok((runtime, server))
}

/// A server of the same zone over TCP alone, beside a lying one over UDP; needs a current runtime.
pub(super) fn tcp_only(listen: &[SocketAddr], zone: Arc<Zone>) -> Result<Server<Honest>, Error> {
    let mut server = Server::new(Honest { zone });
    for address in listen {
        add_tcp(&mut server, *address)?;
    }
    Ok(server)
}

fn add_tcp(server: &mut Server<Honest>, address: SocketAddr) -> Result<(), Error> {
    // hickory's own name for it: answers queued on one connection.
    const RESPONSE_BUFFER: usize = 32;
    server.register_listener(tcp_listener(address)?, TCP_IDLE, RESPONSE_BUFFER);
    Ok(())
}

/// Answers what the zone says.
pub(super) struct Honest {
    zone: Arc<Zone>,
}

#[async_trait]
impl RequestHandler for Honest {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut client: R,
    ) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = true;
        metadata.recursion_available = true;
        let edns = request.edns.as_ref().map(|_| {
            let mut edns = Edns::new();
            edns.set_max_payload(request.max_payload().min(MAX_UDP));
            edns
        });
        let builder = MessageResponseBuilder::new(&request.queries, edns.as_ref());
        let sent = if let Ok(info) = request.request_info() {
            let query = info.query;
            if self.zone.is_slow(query.name()) {
                tokio::time::sleep(SLOW).await;
            }
            if self.zone.is_busy(query.name()) {
                work(BUSY);
            }
            let (code, answers) = self.zone.answer(query.name(), query.query_type());
            let mut answers = answers.peekable();
            let soa = if answers.peek().is_none() {
                self.zone.soa()
            } else {
                &[]
            };
            metadata.response_code = code;
            client
                .send_response(builder.build(metadata, answers, [], soa, []))
                .await
        } else {
            metadata.response_code = ResponseCode::FormErr;
            client
                .send_response(builder.build_no_records(metadata))
                .await
        };
        // A client that is gone gets no answer; hickory wants a header for its log.
        sent.unwrap_or_else(|_| {
            ResponseInfo::from(Header {
                metadata,
                counts: HeaderCounts::default(),
            })
        })
    }
}

/// Keeps this thread's processor busy until it has run for so long.
fn work(time: Duration) {
    let now = || {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Duration::try_from(now).unwrap_or_default()
    };
    let end = now() + time;
    while now() < end {}
}
