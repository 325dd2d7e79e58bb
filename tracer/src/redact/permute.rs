//! Keyed permutations of small sets and of strings of digits: what two become differs where they differ,
//! without a table of what became what.

use sha2::{Digest as _, Sha256};

/// What a permutation depends on.
#[derive(Clone, Debug)]
pub(super) struct Key([u8; 32]);

/// Rounds of the Feistel network; NIST SP 800-38G takes ten for strings of digits.
const ROUNDS: u8 = 10;

impl Key {
    /// Made of `secret`, for one `purpose`.
    pub(super) fn new(secret: &[u8], purpose: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(purpose.as_bytes());
        hash.update([0]);
        hash.update(secret);
        Self(hash.finalize().into())
    }

    fn hash(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.0);
        for part in parts {
            hash.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    /// What `value` becomes among `set`, which it belongs to; another order for each `context`. One
    /// outside the set stays.
    pub(super) fn among(&self, context: &[u8], set: &[u8], value: u8) -> u8 {
        let mut order = set.to_vec();
        let hash = self.hash(&[context, set]);
        let seed = hash.first_chunk().expect("a hash has 32 bytes");
        let mut random = u64::from_le_bytes(*seed);
        // Fisher and Yates, by splitmix64.
        for last in (1..order.len()).rev() {
            random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = random;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^= mixed >> 31;
            let at = mixed % (last as u64 + 1);
            order.swap(last, usize::try_from(at).unwrap_or(last));
        }
        let at = set.iter().position(|of| *of == value);
        at.and_then(|at| order.get(at).copied()).unwrap_or(value)
    }

    /// Permutes strings of that many `digits`, each less than `radix`.
    pub(super) fn digits(&self, digits: &mut [u8], radix: u8) {
        if let [digit] = digits {
            let set: Vec<u8> = (0..radix).collect();
            *digit = self.among(b"digit", &set, *digit);
            return;
        }
        let half = digits.len() / 2;
        for round in 0..ROUNDS {
            let (left, right) = digits.split_at_mut(half);
            let (changed, by) = if round % 2 == 0 {
                (left, right)
            } else {
                (right, left)
            };
            let hash = self.hash(&[&[round, radix], by]);
            for (digit, add) in changed.iter_mut().zip(hash.iter().cycle()) {
                let sum = u16::from(*digit) + u16::from(*add);
                *digit = u8::try_from(sum % u16::from(radix)).unwrap_or(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_become_the_same() {
        let key = Key::new(b"secret", "test");
        let mut seen = BTreeSet::new();
        for a in 0..36 {
            for b in 0..36 {
                let mut digits = [a, b];
                key.digits(&mut digits, 36);
                assert!(digits.iter().all(|digit| *digit < 36));
                seen.insert(digits);
            }
        }
        assert_eq!(seen.len(), 36 * 36);
        let set = [3, 5, 9, 11];
        let images: BTreeSet<u8> = set.iter().map(|of| key.among(b"", &set, *of)).collect();
        assert_eq!(images, BTreeSet::from(set));
        assert_eq!(key.among(b"", &set, 4), 4);
    }

    #[test]
    fn another_key_is_another_permutation() {
        let permuted = |secret: &[u8]| {
            let mut digits = [1, 2, 3, 4, 5, 6, 7];
            Key::new(secret, "test").digits(&mut digits, 36);
            digits
        };
        assert_eq!(permuted(b"a"), permuted(b"a"));
        assert_ne!(permuted(b"a"), permuted(b"b"));
    }
}
