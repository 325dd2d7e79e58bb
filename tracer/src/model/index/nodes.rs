//! Nodes by name and by address.

use std::{net::IpAddr, sync::Arc};

use rustc_hash::FxHashMap;

use crate::model::cluster::Node;

#[derive(Debug, Default)]
pub(super) struct Nodes {
    nodes: FxHashMap<Arc<str>, (Arc<Node>, u32)>,
    by_address: FxHashMap<IpAddr, Arc<str>>,
}

impl Nodes {
    pub(super) fn by_address(&self, address: IpAddr) -> Option<&Arc<str>> {
        self.by_address.get(&address)
    }

    /// Those `of` a generation.
    pub(super) fn all(&self, of: impl Fn(u32) -> bool) -> impl Iterator<Item = &Arc<Node>> {
        let all = self.nodes.values();
        all.filter(move |(_, generation)| of(*generation))
            .map(|(node, _)| node)
    }

    pub(super) fn by_name(&self, name: &str) -> Option<&Arc<Node>> {
        self.nodes.get(name).map(|(node, _)| node)
    }

    pub(super) fn generation(&self, name: &str) -> Option<u32> {
        self.nodes.get(name).map(|(_, of)| *of)
    }

    pub(super) fn set(&mut self, node: Arc<Node>, generation: u32) {
        if let Some((before, _)) = self.nodes.get(&node.name)
            && before.addresses != node.addresses
        {
            self.forget_addresses(&Arc::clone(before));
        }
        for address in &node.addresses {
            self.by_address.insert(*address, Arc::clone(&node.name));
        }
        self.nodes
            .insert(Arc::clone(&node.name), (node, generation));
    }

    pub(super) fn end(&mut self, name: &str) {
        if let Some((node, _)) = self.nodes.remove(name) {
            self.forget_addresses(&node);
        }
    }

    pub(super) fn end_before(&mut self, generation: u32) {
        let gone = self
            .nodes
            .extract_if(|_, (_, of)| *of < generation)
            .map(|(_, (node, _))| node);
        for node in gone.collect::<Vec<_>>() {
            self.forget_addresses(&node);
        }
    }

    fn forget_addresses(&mut self, node: &Node) {
        for address in &node.addresses {
            if self.by_address.get(address) == Some(&node.name) {
                self.by_address.remove(address);
            }
        }
    }
}
