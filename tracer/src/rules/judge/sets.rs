//! Looking keys up: single keys, ranges, concatenations.

use super::{Memory, state::State, walk::Walker};
use crate::rules::{Element, Register, Set, SetId, Value};

/// What a look-up finds.
pub(super) enum Found<'a> {
    /// The key is there.
    Value(&'a Value),
    /// It is not.
    Nothing,
    /// A part of the key is not known.
    Unknown,
}

impl Walker<'_> {
    pub(super) fn set(&self, state: &State, id: SetId) -> Option<&Set> {
        let table = self.ruleset.tables.get(state.table as usize)?;
        table.sets.get(id.0 as usize)
    }

    pub(super) fn look_up(&self, state: &State, id: SetId, key: Register) -> Found<'_> {
        let Some(set) = self.set(state, id) else {
            return Found::Unknown;
        };
        // Whom rules add with a time to end by are clients; this one is told apart.
        if set.dynamic && set.timeout.is_some() && !set.map {
            let Some(key) = state.registers.load(key, set.key_length()) else {
                return Found::Unknown;
            };
            let mut remembered = state.remembered.iter();
            let there = remembered.any(|memory| {
                let one = (state.table, id);
                matches!(memory, Memory::Set(table, set, of) if (*table, *set) == one && **of == *key)
            });
            return if there {
                Found::Value(&Value::Nothing)
            } else {
                Found::Nothing
            };
        }
        match state.registers.load(key, set.key_length()) {
            Some(key) => set.find(key).map_or(Found::Nothing, Found::Value),
            None => Found::Unknown,
        }
    }
}

impl Set {
    /// Bytes of a key, each field filled up to whole registers when there are several.
    pub fn key_length(&self) -> usize {
        match &*self.fields {
            [only] => usize::from(*only),
            fields => fields
                .iter()
                .map(|length| usize::from(*length).next_multiple_of(4))
                .sum(),
        }
    }

    /// What `key` maps to; `None` when it is not in the set.
    pub fn find(&self, key: &[u8]) -> Option<&Value> {
        let element = if !self.interval {
            let found = self
                .elements
                .binary_search_by(|element| (*element.low).cmp(key));
            found.ok().map(|index| &self.elements[index])
        } else if self.fields.len() > 1 {
            self.elements.iter().find(|one| self.all_within(one, key))
        } else {
            let after = self.elements.partition_point(|one| &*one.low <= key);
            let last = after.checked_sub(1).map(|index| &self.elements[index]);
            last.filter(|one| one.high.as_deref().is_none_or(|high| key <= high))
        };
        element
            .map(|element| &element.value)
            .or(self.catch_all.as_ref())
    }

    /// Each field of a concatenation lies in its own range.
    fn all_within(&self, element: &Element, key: &[u8]) -> bool {
        let high = element.high.as_deref().unwrap_or(&element.low);
        let mut at = 0;
        self.fields.iter().all(|length| {
            let field = at..at + usize::from(*length);
            at += usize::from(*length).next_multiple_of(4);
            let parts = (
                element.low.get(field.clone()),
                key.get(field.clone()),
                high.get(field),
            );
            matches!(parts, (Some(low), Some(key), Some(high)) if low <= key && key <= high)
        })
    }
}
