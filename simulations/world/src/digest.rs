//! A 64-bit hash that is the same on every machine and in every version: FNV-1a over words.

use std::hash::{Hash, Hasher};

const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// Collects values into one number. Not for adversaries, only for telling two runs apart.
#[derive(Clone, Copy, Debug)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(BASIS)
    }
}

impl Digest {
    /// Adds a word.
    pub fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(PRIME);
        self.0 ^= self.0 >> 29;
    }

    /// The number so far.
    pub fn value(&self) -> u64 {
        self.0
    }

    /// Digest of `bytes`.
    pub fn of_bytes(bytes: &[u8]) -> u64 {
        let mut digest = Self::default();
        digest.write(bytes);
        digest.value()
    }

    /// Digest of any value that can be hashed.
    pub fn of(value: &impl Hash) -> u64 {
        let mut digest = Self::default();
        value.hash(&mut digest);
        digest.value()
    }
}

impl Hasher for Digest {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            self.word(u64::from_le_bytes(chunk.try_into().expect("chunks of 8")));
        }
        let mut rest = [0u8; 8];
        let tail = chunks.remainder();
        rest[..tail.len()].copy_from_slice(tail);
        self.word(u64::from_le_bytes(rest) ^ ((tail.len() as u64) << 56));
    }

    fn write_u8(&mut self, value: u8) {
        self.word(u64::from(value));
    }

    fn write_u16(&mut self, value: u16) {
        self.word(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.word(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.word(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.word(value as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::Digest;

    #[test]
    fn different_values_differ_and_equal_ones_do_not() {
        assert_eq!(Digest::of_bytes(b"berth"), Digest::of_bytes(b"berth"));
        assert_ne!(Digest::of_bytes(b"berth"), Digest::of_bytes(b"birth"));
        assert_ne!(Digest::of_bytes(b""), Digest::of_bytes(&[0]));
        assert_ne!(Digest::of(&(1u64, 2u64)), Digest::of(&(2u64, 1u64)));
    }
}
