//! All randomness of a run: streams of one ChaCha generator, drawn as integers.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A seeded source of decisions. Streams with the same seed and different labels are independent, so that one more
/// draw for the network does not change the workload.
#[derive(Clone, Debug)]
pub(crate) struct Dice {
    rng: ChaCha8Rng,
}

impl Dice {
    /// Stream `label` of `seed`.
    pub(crate) fn new(seed: u64, label: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(label);
        Self { rng }
    }

    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// A number in `low..=high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        debug_assert!(low <= high, "an empty range has no number");
        let span = u128::from(high.saturating_sub(low)) + 1;
        let scaled = (u128::from(self.bits()) * span) >> 64;
        low + u64::try_from(scaled).expect("less than the span")
    }

    /// An index below `len`; 0 if there is none.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        let last = (len as u64).saturating_sub(1);
        usize::try_from(self.between(0, last)).expect("below a usize")
    }

    /// True in `per_mille` of 1000 cases.
    pub(crate) fn chance(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.between(0, 999) < u64::from(per_mille)
    }

    /// One of `items`, if there are any.
    pub(crate) fn pick<T: Clone>(&mut self, items: &[T]) -> Option<T> {
        if items.is_empty() {
            return None;
        }
        let index = self.index(items.len());
        items.get(index).cloned()
    }

    /// Mixes the order of `items`.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.index(last + 1);
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Dice;

    #[test]
    fn ranges_are_inclusive_and_streams_differ() {
        let mut dice = Dice::new(7, 1);
        let drawn: Vec<u64> = (0..200).map(|_| dice.between(3, 5)).collect();
        for wanted in 3..=5 {
            assert!(drawn.contains(&wanted));
        }
        assert!(drawn.iter().all(|d| (3..=5).contains(d)));
        assert_ne!(Dice::new(7, 1).bits(), Dice::new(7, 2).bits());
        assert_eq!(Dice::new(7, 1).bits(), Dice::new(7, 1).bits());
        assert!(!dice.chance(0) && dice.chance(1000));
    }
}
