//! What is written into nf_tables while it is written, as the kernel tells of it (`NFNLGRP_NFTABLES`): the
//! endpoints to which kube-proxy's new rules lead. iptables over nf_tables is among it. Only listens.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustix::net::netlink;

use super::{Tables, attributes, elements::Reader};
use crate::rules::{
    Error, Table,
    netlink::{Attributes, Netlink, is_in_kernel},
    services::{destinations_of, name_of_chain, service_of_port},
};

// enum nfnetlink_groups, as a bit; enum nf_tables_msg_types of subsystem 10
const GROUP: u32 = 1 << (7 - 1);
const NEW_RULE: u16 = super::SUBSYSTEM | 6;
const NEW_SET: u16 = super::SUBSYSTEM | 9;
const NEW_ELEMENTS: u16 = super::SUBSYSTEM | 0xc;
const NEW_GENERATION: u16 = super::SUBSYSTEM | 0xf;

/// What the kernel is asked for, in errors.
const WHAT: &str = "news of nf_tables";

/// A rule to an endpoint was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// `shop/web`; `None` where the rule does not name its Service (kube-proxy leaves comments out in large
    /// clusters).
    pub service: Option<Arc<str>>,
    /// Where it leads to.
    pub endpoint: SocketAddr,
}

/// Listens to what is written.
pub struct Monitor {
    netlink: Netlink,
    /// What the generation at hand has written so far.
    tables: Tables,
}

impl Monitor {
    /// Begins to listen; `None` where nf_tables is not in the kernel, which looking must not load.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn open() -> Result<Option<Self>, Error> {
        if !is_in_kernel("nf_tables", " nft_register_expr") {
            return Ok(None);
        }
        let netlink = Netlink::listen(netlink::NETFILTER, GROUP).map_err(Error::asked(WHAT))?;
        Ok(Some(Self {
            netlink,
            tables: Tables::default(),
        }))
    }

    /// Waits until a generation is whole, but no longer than about `patience`; what its rules lead to.
    ///
    /// # Errors
    /// The kernel refuses to go on. That it had more to tell than there was room for is no error: it goes unseen.
    pub fn next(&mut self, patience: Duration) -> Result<Vec<Written>, Error> {
        let mut whole = false;
        let tables = &mut self.tables;
        let heard = self.netlink.receive(patience, |kind, body| match kind {
            NEW_RULE => tables.new_rule(body),
            NEW_SET => tables.new_set(body),
            NEW_ELEMENTS => tables.new_elements(body),
            NEW_GENERATION => whole = true,
            _ => {}
        });
        match heard {
            Ok(()) if whole => Ok(written(std::mem::take(&mut self.tables))),
            Ok(()) => Ok(Vec::new()),
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) =>
            {
                self.tables = Tables::default();
                Ok(Vec::new())
            }
            Err(error) => Err(Error::asked(WHAT)(error)),
        }
    }
}

impl Tables {
    fn new_rule(&mut self, body: &[u8]) {
        if let Some((index, all)) = self.of(body)
            && let Some(chain) = all.text(2)
        {
            if !self.names[index].chains.contains_key(chain) {
                self.add_chain(index, chain, None);
            }
            self.rule(body);
        }
    }

    fn new_set(&mut self, body: &[u8]) {
        if self.of(body).is_some() {
            self.set(body);
        }
    }

    fn new_elements(&mut self, body: &[u8]) {
        let Some((index, all)) = self.of(body) else {
            return;
        };
        // Those of a set that was there before are of no rule that is new.
        let id = all.text(2).and_then(|set| self.names[index].sets.get(set));
        if let Some(id) = id {
            let set = &mut self.all[index].sets[id.0 as usize];
            Reader::new(set, &self.names[index]).message(body);
        }
    }

    /// The table of a message, which need not have been new.
    fn of<'a>(&mut self, body: &'a [u8]) -> Option<(usize, Attributes<'a>)> {
        let (family, all) = attributes(body)?;
        let name = all.text(1)?;
        let index = self.index(family, name);
        Some((
            index.unwrap_or_else(|| self.add_table(family, name, 0)),
            all,
        ))
    }
}

fn written(tables: Tables) -> Vec<Written> {
    let mut all = Vec::new();
    for table in &tables.finish() {
        let chains = table
            .chains
            .iter()
            .filter(|chain| is_ours(table, &chain.name));
        for chain in chains {
            let comments = || chain.rules.iter().filter_map(|rule| rule.comment());
            // `shop/web:http`, of a chain's name or a comment.
            let port = name_of_chain(&chain.name).or_else(|| {
                let mut named = comments().filter(|comment| comment.contains('/'));
                Some(named.next()?.split(' ').next()?.into())
            });
            let service = port.map(|port| service_of_port(&port).into());
            all.extend(
                destinations_of(table, chain)
                    .into_iter()
                    .map(|endpoint| Written {
                        service: service.clone(),
                        endpoint,
                    }),
            );
        }
    }
    all
}

/// Whether kube-proxy's rules in that chain lead to endpoints.
fn is_ours(table: &Table, chain: &str) -> bool {
    &*table.name == "kube-proxy" || chain.starts_with("KUBE-SEP-")
}
