//! A rule's text, as the program that wrote it would list it: `iptables-save` for iptables'
//! tables, `nft list` for others.

mod conntrack;
mod iptables;
mod ipvs;
mod matches;
mod names;
mod nft;
mod sets;

use super::{Backend, Chain, Rule, RuleAt, Ruleset, Table};

/// What a policy that drops reads like.
const POLICY: &str = "policy drop";

impl Ruleset {
    /// The text of a rule, without its chain; of a chain's policy, when it is that.
    pub fn text(&self, at: RuleAt) -> String {
        match at.server(self) {
            Some((_, Some(real))) => return real.to_string(),
            Some((server, None)) => return server.settings(),
            None => {}
        }
        let Some((table, chain)) = self.place(at) else {
            return String::new();
        };
        match at.rule(self) {
            Some(rule) => table.text_of(chain, rule),
            None => POLICY.to_owned(),
        }
    }

    /// Where a rule stands, and its text: `ip filter FORWARD: -A FORWARD -j DROP`.
    pub fn line(&self, at: RuleAt) -> String {
        let place = match (at.server(self), self.place(at)) {
            (Some((server, _)), _) => format!("ipvs {server}"),
            (None, Some((table, chain))) => format!("{table} {}", chain.name),
            (None, None) => return String::new(),
        };
        format!("{place}: {}", self.text(at))
    }

    /// Table and chain of a rule.
    pub fn place(&self, at: RuleAt) -> Option<(&Table, &Chain)> {
        let table = self.tables.get(at.table as usize)?;
        Some((table, table.chains.get(at.chain as usize)?))
    }
}

impl Table {
    /// The text of one of its rules.
    pub fn text_of(&self, chain: &Chain, rule: &Rule) -> String {
        match self.backend {
            Backend::Nftables => nft::text(self, rule),
            Backend::IptablesNft | Backend::IptablesLegacy => iptables::text(self, chain, rule),
        }
    }

    /// The name of a chain that a verdict leads to.
    fn chain_name(&self, id: super::ChainId) -> &str {
        let chain = self.chains.get(id.0 as usize);
        chain.map_or("(missing)", |chain| &chain.name)
    }
}
