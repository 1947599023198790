//! The numbers that Go's `math/rand` draws for a seed, so that what a program in Go drew can be drawn again.
//!
//! Source: the documented behaviour of `math/rand` before Go 1.20 seeds at random: an additive lagged Fibonacci
//! generator (Mitchell and Reeds), `x[n] = x[n-273] + x[n-607]`. Its register begins with the seed's numbers of a
//! multiplicative generator (Park and Miller, 48271), each combined with a number of a fixed table: the register that the
//! same generator reaches from seed 1 after 7.8 * 10^12 draws. That far ahead is one power of the recurrence's polynomial,
//! so the table is computed here and not carried along.

use std::sync::OnceLock;

/// Length of the register, and which earlier number is added.
const LENGTH: usize = 607;
const TAP: usize = 273;
/// Draws from seed 1 to the table.
const WARM: u64 = 7_800_000_000_000;

/// A generator.
#[derive(Clone, Debug)]
pub struct GoRandom {
    /// Numbers by their turn, modulo the length.
    register: Vec<u64>,
    turn: usize,
}

impl GoRandom {
    /// As after `rand.Seed(seed)`.
    pub fn new(seed: u64) -> Self {
        static TABLE: OnceLock<Vec<u64>> = OnceLock::new();
        let table = TABLE.get_or_init(table);
        let numbers = first_numbers(seed, [40, 20]);
        let register = (0..LENGTH as u64).map(|turn| {
            let slot = slot(turn);
            numbers[slot] ^ table[slot]
        });
        Self {
            register: register.collect(),
            turn: 0,
        }
    }

    /// `rand.Int63()`; also what one call of `rand.Int` or `rand.Float64` takes.
    pub fn draw(&mut self) -> u64 {
        let added = self.register[(self.turn + LENGTH - TAP) % LENGTH];
        let next = &mut self.register[self.turn];
        *next = next.wrapping_add(added);
        self.turn = (self.turn + 1) % LENGTH;
        *next & (u64::MAX >> 1)
    }

    /// `rand.Intn(bound)`: from 0 to below the bound, 0 for a bound of 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        let bound = u64::from(bound.max(1));
        let range = 1u64 << 31;
        let fair = range - range % bound;
        loop {
            let drawn = self.draw() >> 32;
            if drawn < fair {
                return (drawn % bound) as u32;
            }
        }
    }

    /// `rand.Shuffle` of a slice.
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            let at = self.below_by_product(last as u32 + 1);
            all.swap(last, at as usize);
        }
    }

    /// `rand.Perm(count)`.
    pub fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut order = vec![0; count];
        for next in 0..count {
            let at = self.below(next as u32 + 1) as usize;
            order[next] = order[at];
            order[at] = next;
        }
        order
    }

    /// From 0 to below the bound by multiplication (Lemire), as shuffling draws.
    fn below_by_product(&mut self, bound: u32) -> u32 {
        let unfair = bound.wrapping_neg() % bound;
        loop {
            let product = ((self.draw() >> 31) & u64::from(u32::MAX)) * u64::from(bound);
            if product as u32 >= unfair {
                return (product >> 32) as u32;
            }
        }
    }
}

/// Where in Go's register the number of a turn lies.
fn slot(turn: u64) -> usize {
    let length = LENGTH as u64;
    ((LENGTH - TAP + LENGTH - 1) as u64 + length - turn % length) as usize % LENGTH
}

/// Park and Miller's numbers for a seed, three to a slot, the first two shifted so far.
fn first_numbers(seed: u64, shifts: [u32; 2]) -> Vec<u64> {
    const MODULUS: u64 = (1 << 31) - 1;
    let mut x = match seed % MODULUS {
        0 => 89_482_311,
        x => x,
    };
    let mut next = || {
        x = x * 48_271 % MODULUS;
        x
    };
    (0..20).for_each(|_| {
        next();
    });
    let mut number = || (next() << shifts[0]) ^ (next() << shifts[1]) ^ next();
    (0..LENGTH).map(|_| number()).collect()
}

/// The table, slot by slot.
fn table() -> Vec<u64> {
    let numbers = first_numbers(1, [20, 10]);
    let mut sequence: Vec<u64> = (0..LENGTH as u64).map(|turn| numbers[slot(turn)]).collect();
    for turn in LENGTH..2 * LENGTH {
        sequence.push(sequence[turn - LENGTH].wrapping_add(sequence[turn - TAP]));
    }
    let power = power(WARM);
    let mut table = vec![0; LENGTH];
    for turn in 0..LENGTH {
        let terms = power.iter().zip(&sequence[turn..]);
        let number = terms.fold(0u64, |sum, (a, b)| sum.wrapping_add(a.wrapping_mul(*b)));
        table[slot(WARM + turn as u64)] = number;
    }
    table
}

/// The power of `x` modulo the recurrence's polynomial, `x^607 = x^334 + 1`; coefficients, the constant one first.
fn power(exponent: u64) -> Vec<u64> {
    let mut power = vec![0u64; LENGTH];
    power[0] = 1;
    for bit in (0..u64::BITS - exponent.leading_zeros()).rev() {
        let mut product = vec![0u64; 2 * LENGTH];
        for (i, a) in power.iter().enumerate() {
            for (sum, b) in product[i..].iter_mut().zip(&power) {
                *sum = sum.wrapping_add(a.wrapping_mul(*b));
            }
        }
        if (exponent >> bit) & 1 == 1 {
            product.rotate_right(1);
        }
        for high in (LENGTH..2 * LENGTH).rev() {
            let carried = std::mem::take(&mut product[high]);
            for low in [high - LENGTH, high - TAP] {
                product[low] = product[low].wrapping_add(carried);
            }
        }
        product.truncate(LENGTH);
        power = product;
    }
    power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_1_draws_what_every_program_in_go_drew_that_set_none() {
        let mut random = GoRandom::new(1);
        let drawn: Vec<u32> = (0..10).map(|_| random.below(100)).collect();
        assert_eq!(drawn, [81, 87, 47, 59, 81, 18, 25, 40, 56, 0]);
        assert_eq!(GoRandom::new(1).draw(), 5_577_006_791_947_779_410);
    }

    #[test]
    fn orders_have_each_number_once() {
        let mut random = GoRandom::new(42);
        for count in [0, 1, 2, 100] {
            let mut order = random.permutation(count);
            random.shuffle(&mut order);
            order.sort_unstable();
            assert!(order.into_iter().eq(0..count));
        }
    }
}
