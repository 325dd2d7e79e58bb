//! A rule's text, as the program that wrote it would list it: `iptables-save` for iptables'
//! tables, `nft list` for others.

mod iptables;
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
        let Some((table, chain)) = self.place(at) else {
            return String::new();
        };
        match at.rule(self) {
            Some(rule) => table.text_of(chain, rule),
            None => POLICY.to_owned(),
        }
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
