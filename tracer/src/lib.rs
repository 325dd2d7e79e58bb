//! Shows where DNS queries and service connections stall on a Kubernetes node.
//!
//! Kernel programs copy what they see into a ring buffer; [`kernel`] drains it, [`probes`] makes
//! facts of the records. [`correlate`] pairs queries with answers and connections with their
//! NAT, across namespaces, and yields a row for each as it ends; [`node`] names processes and
//! namespaces; [`report`] prints, and [`record`] keeps the same stream in files, which [`export`] makes
//! captures of, [`redact`] hides names in, and [`join`] tells together where several nodes made them. [`run`] wires them together, and [`lab`] is a network to try it all on. [`doctor`] tells what is wrong before a
//! packet moves.

pub mod cli;
pub mod logging;
pub mod plugin;
pub mod run;

pub mod model;

pub mod kernel;
pub mod probes;

pub mod cluster;
pub mod correlate;
pub mod node;
pub mod rules;
pub mod verify;

pub mod export;
pub mod join;
pub mod record;
pub mod redact;
pub mod report;

pub mod diagnose;
pub mod doctor;

pub mod lab;
