//! A legacy table's entries (`struct ipt_entry`, `struct ip6t_entry`) as chains and rules: the heads
//! as the expressions that iptables over nf_tables would write, matches and targets by `compat`.

use rustc_hash::FxHashMap;

use super::{Blob, number};
use crate::rules::{
    Backend, Base, BaseChain, Chain, ChainId, ChainKind, CompareOp, Counter, Expression, Family,
    Hook, Register, Rule, Table, TableFamily, Verdict, compat, netlink::text_of,
};

/// `struct xt_entry_match` and `struct xt_entry_target`, before what is theirs.
const EXTENSION: usize = 32;

/// Length of names of devices, IFNAMSIZ.
const DEVICE: usize = 16;

/// Where the fields of an entry lie.
pub(super) struct Layout {
    family: Family,
    /// Bytes of an address. Source, destination, and their masks are an entry's first four fields,
    /// names of devices and their masks the next.
    address: usize,
    protocol: usize,
    flags: usize,
    inverted: usize,
    /// `target_offset`; `next_offset` is behind it.
    target: usize,
    counters: usize,
    /// Where matches begin.
    length: usize,
    /// The flag of a goto.
    goto: u8,
}

impl Layout {
    pub(super) fn of(family: Family) -> Self {
        match family {
            Family::V4 => Self {
                family,
                address: 4,
                protocol: 80,
                flags: 82,
                inverted: 83,
                target: 88,
                counters: 96,
                length: 112,
                goto: 0x02,
            },
            Family::V6 => Self {
                family,
                address: 16,
                protocol: 128,
                flags: 131,
                inverted: 132,
                target: 140,
                counters: 152,
                length: 168,
                goto: 0x04,
            },
        }
    }

    /// The table called `name`. An entry that is cut ends it.
    pub(super) fn table(&self, name: &str, blob: &Blob) -> Table {
        let entries = self.entries(&blob.entries);
        let (mut chains, begins) = chains(name, blob, &entries);
        let mut current: Option<usize> = None;
        let mut index = 0;
        for (number, entry) in entries.iter().enumerate() {
            if let Some(id) = begins.get(&entry.at) {
                current = Some(id.0 as usize);
            }
            // A chain's last entry is its policy, or the return behind its rules.
            let next = entries.get(number + 1);
            let last = entry.header.is_none()
                && next.is_none_or(|next| next.header.is_some() || blob.begins_a_hook(next.at));
            let Some(chain) = current.filter(|_| entry.header.is_none() && !last) else {
                continue;
            };
            index += 1;
            let expressions = self.expressions(entry, &begins);
            chains[chain].rules.push(Rule {
                handle: index,
                expressions: expressions.into(),
                comment: None,
            });
        }
        let ids = (0..).zip(&chains);
        let by_name = ids.map(|(id, chain)| (chain.name.clone(), ChainId(id)));
        Table {
            family: match self.family {
                Family::V4 => TableFamily::Ip,
                Family::V6 => TableFamily::Ip6,
            },
            name: name.into(),
            backend: Backend::IptablesLegacy,
            dormant: false,
            by_name: by_name.collect(),
            chains,
            sets: Vec::new(),
        }
    }

    fn entries<'a>(&self, bytes: &'a [u8]) -> Vec<Entry<'a>> {
        let mut entries = Vec::new();
        let mut at = 0;
        while let Some(entry) = self.entry(bytes, at) {
            let next = at + entry.bytes.len();
            entries.push(entry);
            at = next;
        }
        entries
    }

    fn entry<'a>(&self, all: &'a [u8], at: usize) -> Option<Entry<'a>> {
        let rest = all.get(at..)?;
        let length = |at: usize| Some(usize::from(half(rest, at)?));
        let (target, next) = (length(self.target)?, length(self.target + 2)?);
        let bytes = rest
            .get(..next)
            .filter(|_| next >= self.length + EXTENSION)?;
        let target = bytes
            .get(target..)
            .filter(|bytes| bytes.len() >= EXTENSION)?;
        let name = text_of(&target[2..EXTENSION - 1])?;
        Some(Entry {
            at: u32::try_from(at).ok()?,
            bytes,
            target,
            // Before a chain that is no hook's, and at the end, stands one that leads nowhere.
            header: (name == "ERROR").then(|| text_of(&target[EXTENSION..]).unwrap_or("")),
        })
    }

    /// A rule's head, matches, counter and target, in the order in which they are evaluated.
    fn expressions(&self, entry: &Entry<'_>, begins: &FxHashMap<u32, ChainId>) -> Vec<Expression> {
        let bytes = entry.bytes;
        let mut all = self.head(bytes);
        let matches = &bytes[self.length..bytes.len() - entry.target.len()];
        all.extend(extensions(matches).map(|(name, revision, inside)| {
            let found = compat::decode_match(name, revision, self.family, inside);
            Expression::Match(Box::new(found))
        }));
        let counter = |at| {
            bytes
                .get(at..)?
                .first_chunk()
                .map(|b| u64::from_ne_bytes(*b))
        };
        all.push(Expression::Counter(Counter {
            packets: counter(self.counters).unwrap_or(0),
            bytes: counter(self.counters + 8).unwrap_or(0),
        }));
        let goto = bytes[self.flags] & self.goto != 0;
        for (name, revision, inside) in extensions(entry.target).take(1) {
            all.push(if name.is_empty() {
                let end = entry.at + u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                Expression::Verdict(verdict(inside, end, goto, begins))
            } else {
                let target = compat::target(name, revision, self.family, inside);
                Expression::Target(Box::new(target))
            });
        }
        all
    }

    /// What is compared before any match: `ip_packet_match`, net/ipv4/netfilter/ip_tables.c.
    fn head(&self, bytes: &[u8]) -> Vec<Expression> {
        // IPT_INV_VIA_IN, …_VIA_OUT, …_SRCIP, …_DSTIP, …_FRAG, …_PROTO
        let inverted = bytes[self.inverted];
        let op = |flag: u8| {
            if inverted & flag == 0 {
                CompareOp::Equal
            } else {
                CompareOp::NotEqual
            }
        };
        let mut all = Vec::new();
        let width = self.address;
        // Offsets of the addresses in the IP header.
        let places = match self.family {
            Family::V4 => [12, 16],
            Family::V6 => [8, 24],
        };
        for ((index, place), flag) in places.into_iter().enumerate().zip([0x08, 0x10]) {
            let field = |number: usize| &bytes[number * width..(number + 1) * width];
            let (address, mask) = (field(index), field(2 + index));
            if mask.iter().all(|byte| *byte == 0) && inverted & flag == 0 {
                continue;
            }
            all.push(Expression::Payload {
                base: Base::Network,
                offset: place,
                length: u32::try_from(width).unwrap_or(0),
                to: Register(0),
            });
            all.extend(masked(mask));
            all.push(compare(op(flag), address));
        }
        for ((index, key), flag) in [6, 7].into_iter().enumerate().zip([0x01, 0x02]) {
            let field = |number: usize| {
                let at = width * 4 + number * DEVICE;
                &bytes[at..at + DEVICE]
            };
            // A name's mask ends behind its zero, or where anything may follow.
            let length = field(2 + index).iter().take_while(|byte| **byte != 0);
            let name = &field(index)[..length.count()];
            if !name.is_empty() {
                let to = Register(0);
                all.push(Expression::Meta { key, to });
                all.push(compare(op(flag), name));
            }
        }
        let protocol = half(bytes, self.protocol).and_then(|number| u8::try_from(number).ok());
        if let Some(protocol) = protocol.filter(|number| *number != 0) {
            let to = Register(0);
            all.push(Expression::Meta { key: 16, to });
            all.push(compare(op(0x40), &[protocol]));
        }
        // IPT_F_FRAG: those behind the first fragment.
        if self.family == Family::V4 && bytes[self.flags] & 0x01 != 0 {
            all.push(Expression::Payload {
                base: Base::Network,
                offset: 6,
                length: 2,
                to: Register(0),
            });
            all.extend(masked(&[0x1f, 0xff]));
            let other = match op(0x20) {
                CompareOp::Equal => CompareOp::NotEqual,
                _ => CompareOp::Equal,
            };
            all.push(compare(other, &[0, 0]));
        }
        all
    }
}

impl Blob {
    /// The hook whose chain begins at this entry.
    fn begins_a_hook(&self, at: u32) -> bool {
        (0..5).any(|hook| self.hooks >> hook & 1 == 1 && self.begins[hook] == at)
    }
}

struct Entry<'a> {
    /// Bytes before it in its table.
    at: u32,
    bytes: &'a [u8],
    /// Its target, at its end.
    target: &'a [u8],
    /// Of no rule but the head of a chain: the chain's name.
    header: Option<&'a str>,
}

/// The chains, without rules, and at which entry each one's rules begin.
fn chains(
    table: &str,
    blob: &Blob,
    entries: &[Entry<'_>],
) -> (Vec<Chain>, FxHashMap<u32, ChainId>) {
    // enum nf_inet_hooks, include/uapi/linux/netfilter.h
    const HOOKS: [(Hook, &str); 5] = [
        (Hook::Prerouting, "PREROUTING"),
        (Hook::Input, "INPUT"),
        (Hook::Forward, "FORWARD"),
        (Hook::Output, "OUTPUT"),
        (Hook::Postrouting, "POSTROUTING"),
    ];
    let mut chains = Vec::new();
    let mut begins = FxHashMap::default();
    let mut add = |at: u32, name: &str, base| {
        let id = u32::try_from(chains.len()).unwrap_or(u32::MAX);
        begins.insert(at, ChainId(id));
        chains.push(Chain {
            name: name.into(),
            base,
            rules: Vec::new(),
        });
    };
    for (number, (hook, name)) in HOOKS.into_iter().enumerate() {
        if blob.hooks >> number & 1 == 0 {
            continue;
        }
        let policy = entries.iter().find(|one| one.at == blob.policies[number]);
        let policy = policy.and_then(|one| super::number(one.target, EXTENSION));
        let base = BaseChain {
            hook,
            priority: priority(table, hook),
            kind: match (table, hook) {
                ("nat", _) => ChainKind::Nat,
                ("mangle", Hook::Output) => ChainKind::Route,
                _ => ChainKind::Filter,
            },
            drops: policy.map(u32::cast_signed) == Some(DROP),
        };
        add(blob.begins[number], name, Some(base));
    }
    for pair in entries.windows(2) {
        if let (Some(name), None) = (pair[0].header, pair[1].header) {
            add(pair[1].at, name, None);
        }
    }
    (chains, begins)
}

/// `enum nf_ip_hook_priorities`, include/uapi/linux/netfilter_ipv4.h.
fn priority(table: &str, hook: Hook) -> i32 {
    match (table, hook) {
        ("raw", _) => -300,
        ("mangle", _) => -150,
        ("nat", Hook::Prerouting | Hook::Output) => -100,
        ("nat", _) => 100,
        ("security", _) => 50,
        _ => 0,
    }
}

/// `-NF_DROP - 1`
const DROP: i32 = -1;

/// What a standard target says: a verdict, or the entry of a chain. That of the next entry is no
/// chain's: a rule without a target.
fn verdict(target: &[u8], end: u32, goto: bool, begins: &FxHashMap<u32, ChainId>) -> Verdict {
    let Some(to) = number(target, 0) else {
        return Verdict::Continue;
    };
    match to.cast_signed() {
        DROP => Verdict::Drop,
        // -NF_ACCEPT - 1, -NF_QUEUE - 1, XT_RETURN
        -2 => Verdict::Accept,
        -4 => Verdict::Queue,
        -5 => Verdict::Return,
        _ if to == end => Verdict::Continue,
        _ => {
            let chain = begins.get(&to).copied().unwrap_or(ChainId::MISSING);
            if goto {
                Verdict::Goto(chain)
            } else {
                Verdict::Jump(chain)
            }
        }
    }
}

/// Name, revision and structure of each match; of a target likewise.
fn extensions(mut bytes: &[u8]) -> impl Iterator<Item = (&str, u32, &[u8])> {
    std::iter::from_fn(move || {
        let size = usize::from(half(bytes, 0)?);
        let one = bytes.get(..size).filter(|_| size >= EXTENSION)?;
        bytes = &bytes[size..];
        let name = text_of(&one[2..EXTENSION - 1])?;
        Some((name, u32::from(one[EXTENSION - 1]), &one[EXTENSION..]))
    })
}

/// A mask that leaves something out.
fn masked(mask: &[u8]) -> Option<Expression> {
    let whole = mask.iter().all(|byte| *byte == u8::MAX);
    (!whole).then(|| Expression::Bitwise {
        from: Register(0),
        to: Register(0),
        mask: mask.into(),
        xor: vec![0; mask.len()].into(),
    })
}

fn compare(op: CompareOp, with: &[u8]) -> Expression {
    Expression::Compare {
        op,
        from: Register(0),
        with: with.into(),
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}
