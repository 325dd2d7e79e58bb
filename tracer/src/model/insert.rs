//! `Insert`: what went wrong, or nearly so, when a packet was to have its conntrack entry.

use super::{
    fact::Conntrack,
    ids::{KtimeNs, NetnsInode, SkbId},
};

/// Something that happened while a packet was to have an entry.
#[derive(Clone, Debug)]
pub struct Insert {
    /// When.
    pub ktime: KtimeNs,
    /// In which network namespace; inode 0 when not known.
    pub netns: NetnsInode,
    /// What.
    pub event: InsertEvent,
}

/// What can happen.
#[derive(Clone, Debug)]
pub enum InsertEvent {
    /// Another packet's entry was in the way.
    Clash(Box<Clash>),
    /// The table was full, and no entry in it could go: the packet is dropped next.
    Full,
}

/// Two packets that were to have the same entry: each had been looked up before the other's was
/// inserted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    /// The packet that came second.
    pub skb: SkbId,
    /// The entry it was to have.
    pub own: Conntrack,
    /// The entry of the one that came first.
    pub other: Conntrack,
    /// The kernel found a way for both. Else it drops the second.
    pub resolved: bool,
}
