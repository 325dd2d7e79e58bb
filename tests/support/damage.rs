//! Damage to bytes: by chance, and the same on every run.

/// Marsaglia's xorshift64.
pub(crate) struct Xorshift(pub(crate) u64);

impl Xorshift {
    /// Next number below `bound`, which is above 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).expect("48 bits are an index") % bound
    }

    /// Any byte.
    pub(crate) fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).expect("it is below 256")
    }

    /// Flips, overwrites, cuts out, doubles or appends, one to four times.
    pub(crate) fn damage(&mut self, bytes: &mut Vec<u8>) {
        const TELLING: [u8; 8] = [0, 1, 12, 63, 64, 0x80, 0xc0, 0xff];
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len().max(1));
            let to = (at + self.below(8)).min(bytes.len());
            match (self.below(5), bytes.get_mut(at)) {
                (0, Some(byte)) => *byte ^= 1 << self.below(8),
                (1, Some(byte)) => *byte = TELLING[self.below(8)],
                (2, Some(_)) => drop(bytes.drain(at..to)),
                (3, Some(_)) => bytes.extend_from_within(at..to),
                _ => bytes.push(self.byte()),
            }
        }
    }
}
