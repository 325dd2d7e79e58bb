//! Health check node ports, which kube-proxy itself serves: the rules are to let them be asked from outside,
//! and the answer is to say how many endpoints the node has.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tracer::model::Snapshot;
use tracer::model::cluster::{PortProtocol, Service};
use tracer::rules::{Ending, Host, Packet, Ruleset};

use crate::cluster::bed::Cluster;
use crate::support::generated::objects::NAMESPACE;
use crate::support::generated::world::{Asker, NODES, Who, file};
use crate::support::probe::within;

/// How many were asked, and where the answer is not what the objects and the rules foretell.
pub(super) fn checked(
    cluster: &Cluster,
    snapshot: &Snapshot,
    rules: &[(Ruleset, Host)],
) -> (usize, Vec<String>) {
    let mut services = snapshot.services.iter();
    let mut count = 0;
    let mut wrong = Vec::new();
    while let Some(service) = services.find(|one| &*one.name.namespace == NAMESPACE) {
        let Some(port) = service.health_check_node_port else {
            continue;
        };
        for (node, (ruleset, host)) in rules.iter().enumerate() {
            // The control plane is outside, as far as nodes know.
            let asker = Asker {
                node,
                who: Who::Node,
            };
            let at = SocketAddr::new(asker.address(true), port);
            let source = SocketAddr::from(([192, 0, 2, 10], 50_000));
            let packet = Packet {
                source,
                destination: at,
                protocol: PortProtocol::Tcp,
            };
            let spread = ruleset.judge(host, packet, host.origin_of(source.ip()), false);
            let lets = spread.certain().map(|one| &one.outcome.ending) == Some(&Ending::Delivered);
            let control = file(&cluster.netns("control"));
            let said = within(&control, || answer(at)).unwrap_or_default();
            let local = local_endpoints(snapshot, service, NODES[node]);
            let status = if local > 0 { "200" } else { "503" };
            let counts = said.contains(&format!("\"localEndpoints\": {local},"));
            if !lets || !said.starts_with(&format!("HTTP/1.0 {status} ")) || !counts {
                let name = &service.name;
                wrong.push(format!(
                    "{name}: health check at {at}: let in {lets}, {local} local endpoints, said {said:?}"
                ));
            }
            count += 1;
        }
    }
    (count, wrong)
}

/// Ready ones on a node, each once.
fn local_endpoints(snapshot: &Snapshot, service: &Service, node: &str) -> usize {
    let slices = snapshot.slices.iter().filter(|slice| {
        slice.name.namespace == service.name.namespace && slice.service == service.name.name
    });
    // What kube-proxy counts is of its node's own family.
    let endpoints = slices.flat_map(|slice| &slice.endpoints).filter(|one| {
        one.ready
            && one.node.as_deref() == Some(node)
            && one.addresses.iter().all(std::net::IpAddr::is_ipv4)
    });
    endpoints.count()
}

fn answer(at: SocketAddr) -> std::io::Result<String> {
    let patience = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&at, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}
