//! Whether the rules that kube-proxy wrote do what the API objects say, by evaluating them: never
//! by comparing their text. `walk` shows what they make of one packet.

mod ask;
mod walk;

pub use ask::{Ask, AskError, Client, origin_of};
pub use walk::walk;
