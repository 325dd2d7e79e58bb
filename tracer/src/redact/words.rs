//! Names to other names of the same length. What is no secret but Kubernetes' or DNS's own stays, for
//! conclusions are drawn from it.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::permute::Key;

/// Most names that are remembered.
const MOST: usize = 65_536;

/// What stays: how DNS and Kubernetes themselves call things.
const KEPT: &[&str] = &[
    "_sctp",
    "_tcp",
    "_udp",
    "arpa",
    "cluster",
    "coredns",
    "default",
    "host",
    "in-addr",
    "ip6",
    "kube-dns",
    "kube-node-lease",
    "kube-proxy",
    "kube-public",
    "kube-system",
    "kubernetes",
    "local",
    "node-local-dns",
    "pod",
    "root",
    "svc",
];

/// Letters and digits of names.
const DIGITS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// Names that became others.
#[derive(Debug)]
pub(super) struct Words {
    key: Key,
    known: FxHashMap<Box<str>, Arc<str>>,
}

impl Words {
    pub(super) fn new(secret: &[u8]) -> Self {
        Self {
            key: Key::new(secret, "names"),
            known: FxHashMap::default(),
        }
    }

    /// What a name becomes, each of its parts between dots, slashes and colons by itself: a part is the
    /// same in a DNS name and in an object's.
    pub(super) fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.known.get(name) {
            return Arc::clone(known);
        }
        if self.known.len() >= MOST {
            self.known.clear();
        }
        let mut bytes = name.as_bytes().to_vec();
        for part in bytes.split_mut(|byte| matches!(byte, b'.' | b'/' | b':')) {
            self.label(part);
        }
        let other: Arc<str> = String::from_utf8_lossy(&bytes).into();
        self.known.insert(name.into(), Arc::clone(&other));
        other
    }

    /// Replaces one part of a name: letters, small as DNS takes them, and digits by others; what else is
    /// in it but hyphens and underscores by `x`.
    pub(super) fn label(&self, label: &mut [u8]) {
        label.make_ascii_lowercase();
        if is_kept(label) {
            return;
        }
        let digit = |byte: &u8| DIGITS.iter().position(|of| of == byte);
        let mut digits: Vec<u8> = label
            .iter()
            .filter_map(digit)
            .map(|digit| u8::try_from(digit).expect("there are 36 digits"))
            .collect();
        self.key.digits(&mut digits, 36);
        let mut digits = digits.into_iter();
        for byte in &mut *label {
            if digit(byte).is_some() {
                let other = digits.next().and_then(|at| DIGITS.get(usize::from(at)));
                *byte = other.copied().unwrap_or(b'x');
            } else if !matches!(byte, b'-' | b'_') {
                *byte = b'x';
            }
        }
        // What becomes a name that stays would be taken for it.
        if is_kept(label) {
            label.fill(b'x');
        }
    }
}

fn is_kept(label: &[u8]) -> bool {
    KEPT.iter().any(|kept| kept.as_bytes() == label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_length_and_parts_and_nothing_else() {
        let mut words = Words::new(b"secret");
        let other = words.name("cart-7d9.shop.svc.cluster.local");
        assert_eq!(other.len(), "cart-7d9.shop.svc.cluster.local".len());
        assert!(other.ends_with(".svc.cluster.local"), "{other}");
        assert_eq!(other.as_bytes()[4], b'-');
        assert!(
            !other.contains("cart") && !other.contains("shop"),
            "{other}"
        );
        let pod = words.name("shop/Cart-7D9");
        let (namespace, name) = pod.split_once('/').unwrap();
        assert!(
            other.starts_with(&format!("{name}.{namespace}.")),
            "{pod}, {other}"
        );
        assert_eq!(Words::new(b"secret").name("shop"), words.name("shop"));
        assert_ne!(Words::new(b"other").name("shop"), words.name("shop"));
    }

    #[test]
    fn bytes_that_are_no_letters_are_gone() {
        let words = Words::new(b"secret");
        let mut label = *b"a\xff b";
        words.label(&mut label);
        assert_eq!(label[1..3], *b"xx");
    }
}
