//! The rules that the kernel holds, as read and evaluated by the tracer, against the kernel itself:
//! `iptables-save` and `nft` say what they are, real packets what they do.

mod alone;
mod generated;
mod judged;
mod mutated;
mod older;
mod packets;
mod policies;
mod polled;
mod proxy;
mod servers;
mod sets;
mod stale;
mod text;
