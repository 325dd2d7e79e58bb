//! The rules that the kernel holds, as read and evaluated by the tracer, against the kernel itself:
//! `iptables-save` and `nft` say what they are, real packets what they do.

mod judged;
mod mutated;
mod packets;
mod proxy;
mod stale;
mod text;
