//! Reads nf_tables by nfnetlink: tables, chains, sets with their elements, rules; whole, of one
//! generation. What iptables wrote over nf_tables is among it.

mod decode;
mod elements;
mod monitor;

use std::{io, sync::Arc, time::Duration};

use rustc_hash::FxHashMap;
use rustix::net::netlink;

pub use self::monitor::{Monitor, Written};

use self::decode::{Names, rule};
use super::{
    Backend, BaseChain, Chain, ChainId, ChainKind, Error, Family, Hook, Set, SetId, Table,
    TableFamily,
    netlink::{Attributes, Dumped, Netlink, is_in_kernel, push},
};

// enum nf_tables_msg_types, include/uapi/linux/netfilter/nf_tables.h, of subsystem 10
// (NFNL_SUBSYS_NFTABLES, nfnetlink.h).
const SUBSYSTEM: u16 = 10 << 8;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const GET_RULE: u16 = SUBSYSTEM | 7;
const GET_SET: u16 = SUBSYSTEM | 0xa;
const GET_ELEMENTS: u16 = SUBSYSTEM | 0xd;
const GET_GENERATION: u16 = SUBSYSTEM | 0x10;

/// `struct nfgenmsg`.
const GENERIC: usize = 4;
const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// NFPROTO_INET, include/uapi/linux/netfilter.h.
const INET: u8 = 1;

/// kube-proxy writes every second at most; a reading of 10,000 Services takes about one.
const TRIES: u32 = 8;

/// All tables; empty when nf_tables is not in the kernel.
pub(super) fn read() -> Result<Vec<Table>, Error> {
    if !is_in_kernel("nf_tables", " nft_register_expr") {
        return Ok(Vec::new());
    }
    let mut netlink = Netlink::open(Some(netlink::NETFILTER))
        .map_err(Error::asked("netlink socket of netfilter"))?;
    for _ in 0..TRIES {
        let before = generation(&mut netlink).map_err(Error::asked("generation of nf_tables"))?;
        let read = whole(&mut netlink);
        let after = generation(&mut netlink).map_err(Error::asked("generation of nf_tables"))?;
        match read {
            Ok(Some(tables)) if before == after => return Ok(tables),
            // Something was removed between the question for it and the answer.
            Err(_) if before != after => {}
            Err(source) => return Err(Error::asked("rules of nf_tables")(source)),
            Ok(_) => {}
        }
    }
    Err(Error::Unsteady { tries: TRIES })
}

fn generation(netlink: &mut Netlink) -> io::Result<Option<u32>> {
    let mut found = None;
    netlink.get(GET_GENERATION, &request(AF_UNSPEC), |_, body| {
        // NFTA_GEN_ID
        found = attributes(body).and_then(|(_, all)| all.be32(1));
    })?;
    Ok(found)
}

/// `None` when it changed meanwhile.
fn whole(netlink: &mut Netlink) -> io::Result<Option<Vec<Table>>> {
    let mut tables = Tables::default();
    let unspecific = request(AF_UNSPEC);
    let mut whole = true;
    let mut note = |dumped| whole &= dumped == Dumped::Whole;
    note(netlink.dump(GET_TABLE, &unspecific, |_, body| tables.table(body))?);
    note(netlink.dump(GET_CHAIN, &unspecific, |_, body| tables.chain(body))?);
    note(netlink.dump(GET_SET, &unspecific, |_, body| tables.set(body))?);
    for (table, table_sets) in tables.all.iter_mut().zip(&tables.names) {
        for set in &mut table.sets {
            let body = request_within(table.family, &table.name, &set.name);
            let mut read = elements::Reader::new(set, table_sets);
            note(netlink.dump(GET_ELEMENTS, &body, |_, body| read.message(body))?);
            read.finish();
        }
    }
    // Chain by chain: where a dump goes on, the kernel walks again past all that it has told (nf_tables_dump_rules),
    // which for the rules of all chains at once takes the square of their number.
    for request in tables.rule_requests() {
        note(netlink.dump(GET_RULE, &request, |_, body| tables.rule(body))?);
    }
    Ok(whole.then(|| tables.finish()))
}

/// Family, table and chain of a rule, and where they are.
struct Last {
    family: u8,
    table: Box<str>,
    chain: Box<str>,
    index: usize,
    id: ChainId,
}

/// What has been read so far. `names` runs along `all`.
#[derive(Default)]
struct Tables {
    all: Vec<Table>,
    names: Vec<Names>,
    by_name: FxHashMap<(u8, Box<str>), usize>,
    /// The chain of the last rule: rules come chain by chain.
    last: Option<Last>,
}

impl Tables {
    fn table(&mut self, body: &[u8]) {
        let Some((family, all)) = attributes(body) else {
            return;
        };
        let Some(name) = all.text(1) else { return };
        self.add_table(family, name, all.be32(2).unwrap_or(0));
    }

    /// Its index.
    fn add_table(&mut self, family: u8, name: &str, flags: u32) -> usize {
        let index = self.all.len();
        self.by_name.insert((family, name.into()), index);
        self.all.push(Table {
            family: table_family(family),
            name: name.into(),
            backend: Backend::Nftables,
            dormant: flags & 1 != 0,
            chains: Vec::new(),
            sets: Vec::new(),
            by_name: FxHashMap::default(),
        });
        self.names.push(Names {
            family: if family == AF_INET6 {
                Family::V6
            } else {
                Family::V4
            },
            chains: FxHashMap::default(),
            sets: FxHashMap::default(),
        });
        index
    }

    fn index(&self, family: u8, name: &str) -> Option<usize> {
        self.by_name.get(&(family, name.into())).copied()
    }

    fn chain(&mut self, body: &[u8]) {
        let Some((family, all)) = attributes(body) else {
            return;
        };
        let (Some(table), Some(name)) = (all.text(1), all.text(3)) else {
            return;
        };
        let Some(index) = self.index(family, table) else {
            return;
        };
        self.add_chain(index, name, base_chain(all));
    }

    fn add_chain(&mut self, index: usize, name: &str, base: Option<BaseChain>) {
        let table = &mut self.all[index];
        let name: Arc<str> = name.into();
        let id = ChainId(u32::try_from(table.chains.len()).unwrap_or(u32::MAX));
        self.names[index].chains.insert(name.clone(), id);
        table.chains.push(Chain {
            name,
            base,
            rules: Vec::new(),
        });
    }

    fn set(&mut self, body: &[u8]) {
        let Some((family, all)) = attributes(body) else {
            return;
        };
        let (Some(table), Some(name)) = (all.text(1), all.text(2)) else {
            return;
        };
        let Some(index) = self.index(family, table) else {
            return;
        };
        let table = &mut self.all[index];
        let id = SetId(u32::try_from(table.sets.len()).unwrap_or(u32::MAX));
        self.names[index].sets.insert(name.into(), id);
        table.sets.push(set_of(name, all));
    }

    fn rule(&mut self, body: &[u8]) {
        let Some((family, all)) = attributes(body) else {
            return;
        };
        let (Some(table), Some(chain)) = (all.text(1), all.text(2)) else {
            return;
        };
        let known = self
            .last
            .as_ref()
            .filter(|last| last.family == family && *last.table == *table && *last.chain == *chain)
            .map(|last| (last.index, last.id));
        let Some((index, id)) = known.or_else(|| {
            let index = self.index(family, table)?;
            let id = *self.names[index].chains.get(chain)?;
            self.last = Some(Last {
                family,
                table: table.into(),
                chain: chain.into(),
                index,
                id,
            });
            Some((index, id))
        }) else {
            return;
        };
        let rule = rule(all, &self.names[index]);
        self.all[index].chains[id.0 as usize].rules.push(rule);
    }

    /// Bodies of the requests for the rules of each chain.
    fn rule_requests(&self) -> Vec<Vec<u8>> {
        let chains = self.all.iter().flat_map(|table| {
            let chains = table.chains.iter();
            chains.map(move |chain| (table, chain))
        });
        let requests =
            chains.map(|(table, chain)| request_within(table.family, &table.name, &chain.name));
        requests.collect()
    }

    fn finish(mut self) -> Vec<Table> {
        for (table, names) in self.all.iter_mut().zip(self.names) {
            table.by_name = names.chains;
            if is_of_iptables(table) {
                table.backend = Backend::IptablesNft;
            }
        }
        self.all
    }
}

/// iptables knows its own tables by these names and by base chains named after the hooks.
fn is_of_iptables(table: &Table) -> bool {
    const TABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];
    let base = |chain: &Chain| {
        chain
            .base
            .is_none_or(|base| base.hook.name().eq_ignore_ascii_case(&chain.name))
    };
    matches!(table.family, TableFamily::Ip | TableFamily::Ip6)
        && TABLES.contains(&&*table.name)
        && table.chains.iter().all(base)
        && table
            .chains
            .iter()
            .all(|chain| chain.base.is_none() || chain.name.bytes().all(|b| b.is_ascii_uppercase()))
}

/// A request's body for `family`.
fn request(family: u8) -> Vec<u8> {
    vec![family, 0, 0, 0]
}

/// A request's body for what is in the set, or the chain, of that name.
fn request_within(family: TableFamily, table: &str, name: &str) -> Vec<u8> {
    let mut body = request(family_number(family));
    // NFTA_SET_ELEM_LIST_TABLE and NFTA_SET_ELEM_LIST_SET, NFTA_RULE_TABLE and NFTA_RULE_CHAIN
    push_text(&mut body, 1, table);
    push_text(&mut body, 2, name);
    body
}

/// Family and attributes of a message.
fn attributes(body: &[u8]) -> Option<(u8, Attributes<'_>)> {
    Some((*body.first()?, Attributes(body.get(GENERIC..)?)))
}

fn table_family(number: u8) -> TableFamily {
    match number {
        AF_INET => TableFamily::Ip,
        AF_INET6 => TableFamily::Ip6,
        INET => TableFamily::Inet,
        other => TableFamily::Other(other),
    }
}

fn family_number(family: TableFamily) -> u8 {
    match family {
        TableFamily::Ip => AF_INET,
        TableFamily::Ip6 => AF_INET6,
        TableFamily::Inet => INET,
        TableFamily::Other(number) => number,
    }
}

/// What `NFTA_CHAIN_HOOK`, `_POLICY` and `_TYPE` say.
fn base_chain(chain: Attributes<'_>) -> Option<BaseChain> {
    let hook = chain.nested(4)?;
    // enum nf_inet_hooks, include/uapi/linux/netfilter.h
    let at = match hook.be32(1)? {
        0 => Hook::Prerouting,
        1 => Hook::Input,
        2 => Hook::Forward,
        3 => Hook::Output,
        4 => Hook::Postrouting,
        _ => Hook::Ingress,
    };
    Some(BaseChain {
        hook: at,
        priority: hook.be32(2)?.cast_signed(),
        kind: match chain.text(7) {
            Some("nat") => ChainKind::Nat,
            Some("route") => ChainKind::Route,
            _ => ChainKind::Filter,
        },
        // NF_DROP
        drops: chain.be32(5) == Some(0),
    })
}

fn set_of(name: &str, all: Attributes<'_>) -> Set {
    // enum nft_set_flags
    let flags = all.be32(3).unwrap_or(0);
    let length = all.be32(5).unwrap_or(0);
    Set {
        name: name.into(),
        anonymous: flags & 0x1 != 0,
        interval: flags & 0x4 != 0,
        map: flags & 0x8 != 0,
        dynamic: flags & 0x20 != 0,
        timeout: all
            .be64(11)
            .filter(|timeout| *timeout != 0)
            .map(Duration::from_millis),
        key_type: all.be32(4).unwrap_or(0),
        data_type: all.be32(6).unwrap_or(0),
        fields: fields(all).unwrap_or_else(|| [u8::try_from(length).unwrap_or(u8::MAX)].into()),
        elements: Vec::new(),
        catch_all: None,
    }
}

/// Lengths in `NFTA_SET_DESC_CONCAT`; sets without ranges do not tell them.
fn fields(set: Attributes<'_>) -> Option<Box<[u8]>> {
    let concat = set.nested(9)?.nested(2)?;
    let lengths = concat.filter_map(|(_, field)| {
        let length = Attributes(field).be32(1)?;
        u8::try_from(length).ok()
    });
    Some(lengths.collect())
}

/// Appends a string attribute, with its zero.
fn push_text(body: &mut Vec<u8>, kind: u16, text: &str) {
    push(body, kind, &[text.as_bytes(), b"\0"].concat());
}
