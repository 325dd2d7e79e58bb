//! Whether the rules that kube-proxy wrote do what the API objects say, by evaluating them: never
//! by comparing their text. `judge` judges all of them, `walk` shows what they make of one packet.

mod ask;
mod askers;
mod compare;
mod endpoints;
mod expect;
mod habits;
mod judgement;
mod leftovers;
mod plan;
mod stale;
mod translation;
mod walk;
mod words;

pub use ask::{Ask, AskError, Client, origin_of};
pub use judgement::judge;
pub use stale::stale;
pub use translation::{Past, Translation, alike, verdict};
pub use walk::walk;

#[cfg(test)]
mod tests;
