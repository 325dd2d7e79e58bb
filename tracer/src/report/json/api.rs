//! What a summary says of names: what was asked, and how the API server was heard.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

use super::{End, Time};
use crate::model::{ServicePortName, index::Standing, trace::Api};

/// An address asked, and the Service it was.
#[derive(Serialize)]
pub(super) struct AskedSummary<'a> {
    #[serde(flatten)]
    end: End,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<ServiceSummary<'a>>,
}

#[derive(Serialize)]
struct ServiceSummary<'a> {
    namespace: &'a str,
    name: &'a str,
    port: &'a str,
    via: &'static str,
}

impl<'a> AskedSummary<'a> {
    pub(super) fn of(address: SocketAddr, service: Option<&'a Arc<ServicePortName>>) -> Self {
        Self {
            end: address.into(),
            service: service.map(|name| ServiceSummary {
                namespace: &name.service.namespace,
                name: &name.service.name,
                port: &name.port,
                via: name.via.name(),
            }),
        }
    }
}

#[derive(Serialize)]
pub(super) struct ApiLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<Time>,
    kinds: Vec<KindLine<'a>>,
}

#[derive(Serialize)]
struct KindLine<'a> {
    kind: &'static str,
    status: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    own: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

impl<'a> From<&'a Api> for ApiLine<'a> {
    fn from(api: &'a Api) -> Self {
        let kinds = api.kinds.iter().map(|(kind, standing)| {
            let own = *standing == Standing::Watched { own: true };
            let (status, since, why) = match standing {
                Standing::Awaited => ("awaited", None, None),
                Standing::Watched { .. } => ("watched", None, None),
                Standing::Lost { since, why, .. } => ("lost", Some(*since), Some(&**why)),
            };
            KindLine {
                kind: kind.name(),
                status,
                own,
                since: since.map(Time),
                why,
            }
        });
        Self {
            server: api.server.as_deref(),
            snapshot: api.snapshot.map(Time),
            kinds: kinds.collect(),
        }
    }
}
