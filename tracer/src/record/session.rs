//! `Session`: what every file of a recording says of how it was made, in its Parquet metadata.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::model::drops::DropNames;

/// Version of the tables. Columns may be added within one; it is raised when a reader of the old
/// one would read the new one wrongly.
pub const SCHEMA: u32 = 1;

/// Metadata keys of every file.
pub(super) mod key {
    /// [`super::SCHEMA`] of the writer.
    pub(in crate::record) const SCHEMA: &str = "tracer.schema";
    /// [`super::Session`] as JSON.
    pub(in crate::record) const SESSION: &str = "tracer.session";
    /// [`super::Span`] as JSON.
    pub(in crate::record) const SPAN: &str = "tracer.span";
}

/// One run of a recorder on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// When it began, which tells it from the node's others: `20261125T034500123Z`.
    pub id: String,
    /// The node's name.
    pub node: String,
    /// Version of the tracer.
    pub tracer: String,
    /// Release of the kernel.
    pub kernel: String,
    /// The machine's architecture.
    pub machine: String,
    /// The boot that kernel times count from.
    pub boot_id: String,
    /// Probes, and whether they worked.
    pub probes: Vec<SessionProbe>,
    /// What could not be seen, in words.
    pub unseen: Vec<String>,
    /// The API server that was asked; `None` when none was.
    pub api: Option<SessionApi>,
    /// Whether kube-proxy's rules of this node were read for names where no API server was heard.
    #[serde(default)]
    pub rules: bool,
    /// What was asked for.
    pub asked: Asked,
    /// Names of the kernel's drop reasons.
    pub drop_reasons: BTreeMap<u32, String>,
    /// Names of the subsystems that have reasons of their own.
    pub drop_subsystems: BTreeMap<u32, String>,
}

impl Session {
    /// Names of drop reasons, none of symbols.
    pub fn drop_names(&self) -> DropNames {
        let map = |names: &BTreeMap<u32, String>| {
            let names = names.iter();
            names.map(|(key, name)| (*key, name.clone())).collect()
        };
        DropNames {
            reasons: map(&self.drop_reasons),
            subsystems: map(&self.drop_subsystems),
            symbols: std::collections::HashMap::default(),
        }
    }
}

/// An API server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionApi {
    /// Its address; `None` where the configuration has none.
    pub server: Option<String>,
}

/// A probe as it fared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionProbe {
    /// Tracepoint.
    pub name: String,
    /// `attached`, `not_in_kernel` or `refused`.
    pub status: String,
}

/// What the one who records asked for, as far as reading needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Whether DNS is to be shown.
    pub dns: bool,
    /// Whether connections are to be shown.
    pub connections: bool,
    /// Whether the way of packets is to be shown.
    pub paths: bool,
    /// Ports that carry DNS.
    pub dns_ports: Vec<u16>,
    /// Service prefixes.
    pub vips: Vec<(IpAddr, u8)>,
    /// How long a query may go unanswered.
    pub unanswered_after_ns: u64,
    /// Most queries followed at once.
    pub tracked: u32,
}

/// What part of a session a file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Span {
    /// Place in the stream of the first event; of a derived table, the first row's number.
    pub(in crate::record) first: u64,
    /// One more than that of the last.
    pub(in crate::record) next: u64,
    /// Wall-clock time of the first event, nanoseconds since 1970.
    pub(in crate::record) begins: i64,
    /// That of the last.
    pub(in crate::record) ends: i64,
    /// Whether the recorder ended here, as it was told.
    pub(in crate::record) last: bool,
}
