//! The drop that explains why nothing came.

use super::inserts::{Counted, Suspect};

/// Of the drops seen of one packet and its clones, the first of the packet itself, else the first:
/// a clone flooded to the wrong port is freed there, and nothing is lost.
#[derive(Debug, Default)]
pub(super) struct Dropped(Option<Box<Drop>>);

#[derive(Debug)]
struct Drop {
    same: bool,
    cause: String,
    suspect: Option<Suspect>,
}

impl Dropped {
    /// Takes a further drop; `same` where it is of the packet itself.
    pub(super) fn note(&mut self, same: bool, cause: String, suspect: Option<Suspect>) {
        if self.0.as_ref().is_none_or(|drop| same && !drop.same) {
            self.0 = Some(Box::new(Drop {
                same,
                cause,
                suspect,
            }));
        }
    }

    /// The cause in words, with what conntrack counted meanwhile.
    pub(super) fn take(&mut self, counted: &Counted) -> Option<String> {
        self.0.take().map(|drop| {
            let mut cause = drop.cause;
            counted.add_to(&mut cause, drop.suspect);
            cause
        })
    }
}
