//! Shows where DNS queries and service connections stall on a Kubernetes node.
//!
//! Kernel programs copy what they see into a ring buffer; [`kernel`] drains it, [`probes`] makes
//! facts of the records. [`correlate`] pairs queries with answers and connections with their
//! NAT, across namespaces, and yields a row for each as it ends; [`node`] names processes and
//! namespaces; [`report`] prints. [`run`] wires them together.

//pub mod cli;
pub mod correlate;
pub mod kernel;
//pub mod logging;
pub mod model;
//pub mod node;
pub mod probes;
//pub mod report;
//pub mod run;
