//! Names of kube-proxy's chains, computed as it computes them.
//!
//! Source: portProtoHash and servicePortEndpointChainName, pkg/proxy/iptables/proxier.go, and
//! `ServicePortName.String`, pkg/proxy/types.go, Kubernetes 1.33.

use std::net::SocketAddr;

use data_encoding::BASE32;
use sha2::{Digest, Sha256};

use crate::lab::services::Protocol;

/// `NAMESPACE/NAME:PORT`, without the colon for a port without a name.
pub fn port_name(namespace: &str, service: &str, port: &str) -> String {
    if port.is_empty() {
        format!("{namespace}/{service}")
    } else {
        format!("{namespace}/{service}:{port}")
    }
}

/// `KUBE-SVC-…`: the chain that picks an endpoint. `name` is a [`port_name`].
pub fn service_chain(name: &str, protocol: Protocol) -> String {
    hashed("KUBE-SVC-", &[name, protocol.name()])
}

/// `KUBE-SEP-…`: the chain that translates to `endpoint`. `name` is a [`port_name`].
pub fn endpoint_chain(name: &str, protocol: Protocol, endpoint: SocketAddr) -> String {
    hashed("KUBE-SEP-", &[name, protocol.name(), &endpoint.to_string()])
}

/// Prefix and the first 16 characters of the base32 of the SHA-256 of all parts.
fn hashed(prefix: &str, parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    let encoded = BASE32.encode(&hash.finalize());
    format!("{prefix}{}", &encoded[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values are of real clusters.
    fn check(namespace: &str, service: &str, port: &str, protocol: Protocol, suffix: &str) {
        let name = port_name(namespace, service, port);
        assert_eq!(service_chain(&name, protocol), format!("KUBE-SVC-{suffix}"));
    }

    #[test]
    fn service_chains_are_named_as_kube_proxy_names_them() {
        check(
            "kube-system",
            "kube-dns",
            "dns",
            Protocol::Udp,
            "TCOU7JCQXEZGVUNU",
        );
        check(
            "kube-system",
            "kube-dns",
            "dns-tcp",
            Protocol::Tcp,
            "ERIFXISQEP7F7OF4",
        );
        check(
            "default",
            "kubernetes",
            "https",
            Protocol::Tcp,
            "NPX46M4PTMTKRN6Y",
        );
    }

    #[test]
    fn unnamed_port_leaves_no_colon() {
        assert_eq!(port_name("default", "web", ""), "default/web");
    }
}
