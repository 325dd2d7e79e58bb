//! What IPVS does to a packet that comes to this host or leaves it: which virtual server takes it, which
//! real servers may get it, and which way it goes then.

use std::net::{IpAddr, SocketAddr};

use rustc_hash::FxHashMap;

use super::{
    Ending, Memory, RuleAt, Step,
    later::Later,
    matches::masked,
    state::{Stage, State},
    walk::{Move, Walker},
};
use crate::rules::{Asked, Family, Hook, Ipvs, Method, RejectKind, VirtualServer, xt::IpvsMatch};

/// IPVS stands at these priorities (`ip_vs_ops4`, net/netfilter/ipvs/ip_vs_core.c).
pub(super) const AT: [(Hook, i32); 2] = [(Hook::Input, 99), (Hook::Output, -98)];

/// `IP_VS_SVC_F_SCHED1` and the next two: a scheduler's own settings.
const SCHEDULER_FLAGS: u32 = 0x38;

/// Virtual servers by what they balance.
pub(super) struct Servers(FxHashMap<Asked, u32>);

impl Servers {
    pub(super) fn of(ipvs: &Ipvs) -> Self {
        let all = (0..).zip(&ipvs.servers);
        Self(all.map(|(index, server)| (server.asked, index)).collect())
    }

    /// `ip_vs_service_find`: by mark, by address and port, by address.
    fn find(&self, state: &State) -> Option<u32> {
        let packet = state.packet;
        let mark = Some(Asked::Mark(state.family(), state.mark)).filter(|_| state.mark != 0);
        let exact = Asked::Address(packet.protocol, packet.destination);
        let whole = SocketAddr::new(packet.destination.ip(), 0);
        let whole = Asked::Address(packet.protocol, whole);
        [mark, Some(exact), Some(whole)]
            .into_iter()
            .flatten()
            .find_map(|asked| self.0.get(&asked).copied())
    }
}

/// Which real servers may get a new client's packet.
enum Choice {
    /// Each with this probability.
    Shares(Vec<(usize, f64)>),
    /// Any of them: it hangs on the connections that they have.
    Any(Vec<usize>),
}

fn choice(server: &VirtualServer, packet: &super::Packet) -> Choice {
    let taking = server.real.iter().enumerate();
    let taking: Vec<_> = taking.filter(|(_, real)| real.takes()).collect();
    let evenly = |weigh: &dyn Fn(u32) -> u32| {
        let total: f64 = taking
            .iter()
            .map(|(_, one)| f64::from(weigh(one.weight)))
            .sum();
        let share = |weight| f64::from(weigh(weight)) / total;
        let shares = taking.iter().map(|(at, real)| (*at, share(real.weight)));
        Choice::Shares(shares.collect())
    };
    match (&*server.scheduler, taking.as_slice()) {
        ("sh", _) if server.flags & SCHEDULER_FLAGS == 0 => {
            let at = by_source(server, packet.source.ip());
            Choice::Shares(at.map(|at| (at, 1.0)).into_iter().collect())
        }
        (_, [] | [_]) | ("rr", _) => evenly(&|_| 1),
        ("wrr", _) => evenly(&|weight| weight),
        _ => Choice::Any(taking.iter().map(|(at, _)| *at).collect()),
    }
}

/// The real server that the scheduler `sh` has for a client; `None` when it takes nothing now
/// (`ip_vs_sh_reassign`, `ip_vs_sh_get`).
fn by_source(server: &VirtualServer, client: IpAddr) -> Option<usize> {
    const BITS: u32 = 8;
    // GOLDEN_RATIO_32
    const RATIO: u32 = 0x61c8_8647;
    let folded = match client {
        IpAddr::V4(address) => address.to_bits(),
        // Words as they lie in memory are combined, then read in network order: the same.
        IpAddr::V6(address) => {
            let words = address.segments();
            let word = |at: usize| u32::from(words[at]) << 16 | u32::from(words[at + 1]);
            word(0) ^ word(2) ^ word(4) ^ word(6)
        }
    };
    let bucket = folded.wrapping_mul(RATIO) >> (32 - BITS);
    let spaces = server.real.iter().map(|real| real.weight.max(1));
    let round: u64 = spaces.clone().map(u64::from).sum();
    let mut left = u64::from(bucket) % round.max(1);
    let found = spaces.enumerate().find(|(_, weight)| {
        let here = left < u64::from(*weight);
        left = left.saturating_sub(u64::from(*weight));
        here
    });
    let (at, _) = found?;
    server.real[at].takes().then_some(at)
}

impl Walker<'_> {
    /// Hands the packet to the virtual server that takes it, where there is one.
    pub(super) fn balance(&self, state: &mut State) -> Option<Move> {
        if state.balanced.is_some() {
            return None;
        }
        if let Some(later) = state.later {
            let (index, at) = later.server()?;
            return Some(self.forward(state, index, at, Some(1.0)));
        }
        let index = self.servers.find(state)?;
        let server = self.ruleset.ipvs.servers.get(index as usize)?;
        let remembered = state.remembered.iter().find_map(|memory| match memory {
            Memory::Server(of, real) if *of == index => Some(*real as usize),
            _ => None,
        });
        let again = |at: &usize| server.real.get(*at).is_some_and(|real| real.weight > 0);
        let choice = match remembered.filter(again) {
            Some(at) if server.persistence.is_some() => Choice::Shares(vec![(at, 1.0)]),
            _ => choice(server, &state.packet),
        };
        Some(match choice {
            Choice::Shares(shares) => match shares.as_slice() {
                [] => {
                    let by = RuleAt::of_server(index, None);
                    note(state, by, Some(1.0));
                    Move::End(Ending::Rejected(unreachable_port(state)), Some(by))
                }
                [(at, _)] => self.forward(state, index, *at, Some(1.0)),
                several => {
                    let states = several.iter().map(|(at, share)| {
                        let mut one = state.clone();
                        one.chosen = Some((index, *at, Some(*share)));
                        (*share, one)
                    });
                    Move::Shares(states.collect())
                }
            },
            Choice::Any(all) => {
                let states = all.iter().map(|at| {
                    let mut one = state.clone();
                    one.chosen = Some((index, *at, None));
                    one
                });
                Move::Any(states.collect())
            }
        })
    }

    /// On with the real server that was chosen before.
    pub(super) fn forward_chosen(&self, state: &mut State) -> Option<Move> {
        let (index, at, chance) = state.chosen.take()?;
        Some(self.forward(state, index, at, chance))
    }

    /// To one of the real servers: to this host's own as if it had been asked itself, to others out again
    /// (`ip_vs_nat_xmit` and its like, net/netfilter/ipvs/ip_vs_xmit.c).
    fn forward(&self, state: &mut State, index: u32, at: usize, chance: Option<f64>) -> Move {
        state.balanced = Some((index, at));
        let server = &self.ruleset.ipvs.servers[index as usize];
        let real = &server.real[at];
        let number = u32::try_from(at).unwrap_or(u32::MAX);
        let by = RuleAt::of_server(index, Some(number));
        note(state, by, chance);
        if let Some(time) = server.persistence {
            state.affinity = Some(time);
            state.noted.push(Memory::Server(index, number));
        }
        if !self.ruleset.ipvs.conntrack {
            state.untracked = true;
        }
        match real.method {
            Method::Local => return Move::On,
            Method::Masq => {
                state.packet.destination.set_ip(real.at.ip());
                if real.at.port() != 0 {
                    state.packet.destination.set_port(real.at.port());
                }
            }
            Method::Tunnel | Method::Route => state.via = Some(real.at.ip()),
        }
        // No nat chain sees its destination any more.
        state.nat_done.0 = true;
        if self.host.is_local(state.next_hop()) {
            if state.stage == Stage::Output {
                self.choose_output(state);
            }
            return Move::On;
        }
        if self.host.route_to(state.next_hop()).is_none() {
            return Move::End(Ending::NoRoute, Some(by));
        }
        if state.packet.source.ip().is_loopback() {
            return Move::End(Ending::Martian, Some(by));
        }
        state.stage = Stage::Output;
        state.entry = 0;
        Move::On
    }

    /// `ipvs_mt`, net/netfilter/xt_ipvs.c
    pub(super) fn fits_server(&self, state: &State, wanted: &IpvsMatch) -> bool {
        let inverted = |flag: u8| wanted.inverted & flag != 0;
        let looks = |flag: u8| wanted.flags & flag != 0;
        if wanted.flags == 1 {
            return state.balanced.is_some() != inverted(1);
        }
        let servers = &self.ruleset.ipvs.servers;
        let server = state
            .balanced
            .and_then(|(index, _)| servers.get(index as usize));
        let Some(server) = server else {
            return false;
        };
        let original = state.original.destination;
        let at = match server.asked {
            Asked::Address(_, at) => at,
            Asked::Mark(..) => original,
        };
        let parts = [
            (1 << 1, wanted.protocol == state.protocol()),
            (1 << 2, masked(wanted.address, at.ip())),
            (1 << 3, wanted.port == at.port()),
            // By the way that it goes.
            (1 << 4, !state.later.is_some_and(Later::is_reply)),
            (1 << 5, wanted.method == 0),
        ];
        parts
            .into_iter()
            .all(|(flag, holds)| !looks(flag) || holds != inverted(flag))
    }
}

fn note(state: &mut State, at: RuleAt, chance: Option<f64>) {
    state.keep(Step {
        at,
        hook: state.stage.hook(),
        chance,
    });
}

/// `ip_vs_leave`
fn unreachable_port(state: &State) -> RejectKind {
    match state.family() {
        Family::V4 => RejectKind::Icmp(3),
        Family::V6 => RejectKind::Icmp(4),
    }
}
