//! Shows where DNS queries and service connections stall on a Kubernetes node.

pub mod cli;
pub mod lab;
