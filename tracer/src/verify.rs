//! Whether the rules that kube-proxy wrote do what the API objects say, by evaluating them: never
//! by comparing their text. `judge` judges all of them, `judge_alone` where no object is known, `walk` shows what they make of one packet.

mod alone;
mod ask;
mod askers;
mod compare;
mod endpoints;
mod expect;
mod followers;
mod habits;
mod judgement;
mod leftovers;
mod plan;
mod stale;
mod translation;
mod walk;
mod words;

pub use alone::judge_alone;
pub use ask::{Ask, AskError, Client};
pub use judgement::{Besides, judge, judge_with};
pub use translation::{Past, Translation, alike, verdict};
pub use walk::walk;

#[cfg(test)]
mod tests;
