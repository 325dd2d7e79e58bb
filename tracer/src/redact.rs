//! Redaction: names and addresses in a recording become others, each always the same other one, so that
//! a recording can be given away and still tells its story. Ports, lengths, times and structure stay.
//!
//! Works on events, before anything is made of them: rows, reports and captures made of redacted events
//! know no others. Nothing is remembered but for speed: a name's or an address's other one follows from
//! it and the key.

mod addresses;
mod dns;
mod event;
mod objects;
mod packet;
mod permute;
mod streams;
mod words;

use self::{addresses::Addresses, streams::Streams, words::Words};

/// What is replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redact {
    /// Names: of pods, Services, nodes, processes, in DNS, and so on.
    pub names: bool,
    /// IP addresses, those in DNS messages too.
    pub addresses: bool,
}

/// Replaces what is to be replaced.
#[derive(Debug)]
pub struct Redactor {
    what: Redact,
    words: Words,
    addresses: Addresses,
    streams: Streams,
    dns_ports: Vec<u16>,
}

impl Redactor {
    /// By `key`: with the same key the same becomes the same.
    pub fn new(what: Redact, key: &[u8]) -> Self {
        Self {
            what,
            words: Words::new(key),
            addresses: Addresses::new(key),
            streams: Streams::default(),
            dns_ports: Vec::new(),
        }
    }
}
