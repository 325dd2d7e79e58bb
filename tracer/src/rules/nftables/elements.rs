//! The elements of a set. Those of a set of single ranges come as starts and ends, of
//! concatenated ranges as pairs, of others as keys.

use std::time::Duration;

use super::{
    attributes,
    decode::{Names, comment, data},
};
use crate::rules::{Element, Set, Value, netlink::Attributes};

/// Puts elements into their set.
pub(super) struct Reader<'a> {
    set: &'a mut Set,
    names: &'a Names,
    /// Keys at which ranges end, themselves not included.
    ends: Vec<Box<[u8]>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(set: &'a mut Set, names: &'a Names) -> Self {
        Self {
            set,
            names,
            ends: Vec::new(),
        }
    }

    /// One message of a dump.
    pub(super) fn message(&mut self, body: &[u8]) {
        // NFTA_SET_ELEM_LIST_ELEMENTS
        let Some(elements) = attributes(body).and_then(|(_, all)| all.nested(3)) else {
            return;
        };
        for (_, element) in elements {
            self.element(Attributes(element));
        }
    }

    fn element(&mut self, all: Attributes<'_>) {
        const INTERVAL_END: u32 = 0x1;
        const CATCH_ALL: u32 = 0x2;
        let flags = all.be32(3).unwrap_or(0);
        let value = self.value(all);
        if flags & CATCH_ALL != 0 {
            self.set.catch_all = Some(value);
            return;
        }
        let key = |kind| all.nested(kind).and_then(|key| key.find(1));
        let Some(low) = key(1) else { return };
        if flags & INTERVAL_END != 0 {
            self.ends.push(low.into());
            return;
        }
        self.set.elements.push(Element {
            low: low.into(),
            high: key(10).map(Into::into),
            value,
            expires: all.be64(5).map(Duration::from_millis),
            comment: all.find(6).and_then(comment),
        });
    }

    fn value(&self, all: Attributes<'_>) -> Value {
        let object = || all.text(9).map(|name| Value::Object(name.into()));
        all.nested(2)
            .and_then(|nested| data(nested, self.names))
            .or_else(object)
            .unwrap_or(Value::Nothing)
    }

    /// Sorts what was read and joins starts with ends.
    pub(super) fn finish(mut self) {
        self.set.elements.sort_by(|a, b| a.low.cmp(&b.low));
        self.ends.sort();
        let single = self.set.interval && self.set.elements.iter().all(|one| one.high.is_none());
        if !single {
            return;
        }
        for index in 0..self.set.elements.len() {
            let next = self.set.elements.get(index + 1).map(|one| one.low.clone());
            let element = &mut self.set.elements[index];
            let at = self.ends.partition_point(|end| *end <= element.low);
            let end = self.ends.get(at).cloned();
            // Ranges that touch have no end between them.
            let end = [end, next].into_iter().flatten().min();
            element.high = Some(match end {
                Some(end) => before(&end),
                None => vec![u8::MAX; element.low.len()].into(),
            });
        }
    }
}

/// The number before `key`, big-endian.
fn before(key: &[u8]) -> Box<[u8]> {
    let mut bytes: Box<[u8]> = key.into();
    for byte in bytes.iter_mut().rev() {
        let (less, borrows) = byte.overflowing_sub(1);
        *byte = less;
        if !borrows {
            break;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_before_borrows() {
        assert_eq!(*before(&[10, 0, 1, 0]), [10, 0, 0, 255]);
        assert_eq!(*before(&[10, 0, 0, 1]), [10, 0, 0, 0]);
    }
}
