//! `Here`: what this node says of a row while it is traced: the names that `node` knows, and of a packet that
//! was turned away here, which rule did it, told by evaluating the rules as they are now.

use std::{
    net::{IpAddr, SocketAddr},
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

use super::names::Local;
use crate::{
    model::{
        Ifindex, Named, NetnsInode, Outcome, Protocol, Row, Site, WallNs, cause::dropped,
        conntrack::ConntrackTotals, drops::is_netfilter,
    },
    node::Node,
    rules::{Branch, CLIENT_PORT, Ending, Host, Packet, Ruleset},
};

/// How long rules that were read are taken for those of now; and longer where reading them takes long, so that
/// no more than a hundredth of the time goes into it.
const HOLD: Duration = Duration::from_secs(2);
const SHARE: u32 = 100;

/// How long a row waits for rules at most: the ring fills meanwhile. Rules that take longer come for a later row.
const PATIENCE: Duration = Duration::from_millis(30);

/// Most packets that are judged by rules read once.
const MOST: usize = 1024;

/// From whom to what, led to which backend, and by which protocol.
type Asked = (IpAddr, SocketAddr, Option<SocketAddr>, Protocol);

/// This node.
#[derive(Debug, Default)]
pub(super) struct Here {
    node: Node,
    rules: Option<Rules>,
    /// Where the rules come from that a thread reads.
    reading: Option<Receiver<Rules>>,
}

/// Rules that were read, and what they do to packets; `None` where they could not be.
#[derive(Debug)]
struct Rules {
    read: Option<(Ruleset, Host)>,
    until: Instant,
    judged: FxHashMap<Asked, Option<Arc<str>>>,
}

impl Deref for Here {
    type Target = Node;
    fn deref(&self) -> &Node {
        &self.node
    }
}

impl DerefMut for Here {
    fn deref_mut(&mut self) -> &mut Node {
        &mut self.node
    }
}

impl Local for Here {
    fn tick(&mut self, _wall: WallNs) {
        self.node.tick();
    }

    fn name(&mut self, row: &Row) -> Named {
        let mut named = self.node.name(row);
        if self.was_turned_away(row) {
            let client = row.client().address.ip();
            let asked = (client, row.asked(), row.backend(), row.protocol());
            named.rule = self.rules().and_then(|rules| rules.by(asked));
        }
        named
    }

    fn site(&mut self, netns: NetnsInode, ifindex: Ifindex) -> Site {
        self.node.site(netns, ifindex)
    }

    fn conntrack_totals(&mut self) -> Vec<ConntrackTotals> {
        self.node.conntrack_totals()
    }
}

impl Here {
    /// Whether a rule of this network namespace dropped what the client sent, or rejected it.
    fn was_turned_away(&self, row: &Row) -> bool {
        let refused = row.outcome() == Outcome::Rejected;
        let cause = row.cause().unwrap_or_default();
        let by_netfilter = dropped(cause).is_some_and(|drop| {
            is_netfilter(&drop.reason, Some(&drop.place))
                || drop.reason.starts_with("NETFILTER_DROP")
        });
        let stopped = row.stopped().filter(|_| refused || by_netfilter);
        stopped.is_some_and(|stopped| {
            stopped.leg.is_forward() && Some(stopped.at.netns) == self.node.own_netns()
        })
    }

    /// The rules as they are now; `None` while they are being read.
    fn rules(&mut self) -> Option<&mut Rules> {
        let is_old = |rules: &Rules| rules.until <= Instant::now();
        if self.rules.as_ref().is_none_or(is_old) {
            self.rules = match self.reading.take() {
                None => self.read(PATIENCE),
                Some(reading) => self.wait(reading, Duration::ZERO),
            };
        }
        self.rules.as_mut()
    }

    /// Has a thread read them, and waits for it as long.
    fn read(&mut self, patience: Duration) -> Option<Rules> {
        let (done, reading) = sync_channel(1);
        thread::spawn(move || {
            // The trace may be over by then.
            drop(done.send(Rules::read()));
        });
        self.wait(reading, patience)
    }

    fn wait(&mut self, reading: Receiver<Rules>, patience: Duration) -> Option<Rules> {
        match reading.recv_timeout(patience) {
            Ok(rules) => Some(rules),
            Err(RecvTimeoutError::Timeout) => {
                self.reading = Some(reading);
                None
            }
            // It panicked, which is a mistake of ours: the next row has them read anew.
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }
}

impl Rules {
    fn read() -> Self {
        let begin = Instant::now();
        let read = Ruleset::read().and_then(|ruleset| Ok((ruleset, Host::read()?)));
        let read = read.inspect_err(|error| tracing::debug!(%error, "no rules"));
        let took = begin.elapsed();
        Self {
            read: read.ok(),
            until: begin + HOLD.max(took * SHARE),
            judged: FxHashMap::default(),
        }
    }

    /// The rule that turns such a packet away: table, chain and text; `None` where none does, or nobody can tell.
    fn by(&mut self, asked: Asked) -> Option<Arc<str>> {
        if let Some(known) = self.judged.get(&asked) {
            return known.clone();
        }
        if self.judged.len() >= MOST {
            return None;
        }
        let (ruleset, host) = self.read.as_ref()?;
        let rule = judge(ruleset, host, asked).map(Arc::from);
        self.judged.insert(asked, rule.clone());
        rule
    }
}

fn judge(
    ruleset: &Ruleset,
    host: &Host,
    (client, asked, backend, protocol): Asked,
) -> Option<String> {
    let packet = Packet {
        source: SocketAddr::new(client, CLIENT_PORT),
        destination: asked,
        protocol: protocol.into(),
    };
    let spread = ruleset.judge(host, packet, host.origin_of(client), false);
    // Of several backends each may have rules of its own.
    let shut = |branch: &&Branch| {
        let outcome = &branch.outcome;
        matches!(outcome.ending, Ending::Dropped | Ending::Rejected(_))
            && backend.is_none_or(|backend| backend == outcome.destination)
    };
    let by = spread.branches.iter().find(shut)?.by?;
    ruleset.place(by)?;
    Some(ruleset.line(by))
}
