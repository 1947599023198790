//! Election timeouts that are reproducible and do not split votes.
//!
//! raft-rs draws them from the thread's generator. Here every voter but the leader that fell silent gets a slot of its own,
//! in an order that changes with the term, so that two voters of a small group never stand at the same moment; the seed
//! adds jitter inside the slot. The first slot starts one tick after `election_ticks`, because until then the others
//! still trust the leader and would ignore the request.

use crate::PeerId;

/// Ticks between slots: two of 20 ms cover the two rounds of an election with their flushes, one absorbs the phase
/// between two clocks.
const SLOT_TICKS: u64 = 3;

/// What a timeout depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Election<'a> {
    pub(crate) id: PeerId,
    pub(crate) seed: u64,
    pub(crate) election_ticks: u32,
    pub(crate) term: u64,
    pub(crate) leader: PeerId,
    pub(crate) voters: &'a [PeerId],
}

impl Election<'_> {
    /// Ticks of silence after which this member stands, in `[election_ticks, 2 * election_ticks)`.
    pub(crate) fn timeout_ticks(self) -> usize {
        let base = u64::from(self.election_ticks);
        let candidates = self
            .voters
            .iter()
            .filter(|v| **v != self.leader)
            .count()
            .max(1) as u64;
        let spacing = ((base - 1) / candidates).clamp(1, SLOT_TICKS);
        let slot = self.slot().min((base - 1) / spacing);
        let jitter = mix(self.seed ^ mix(self.term) ^ mix(self.id.rotate_left(32)))
            % spacing.max(2).div_ceil(2);
        (base + (1 + slot * spacing + jitter).min(base - 1)) as usize
    }

    /// Rank of this member among those that may stand; the order is a permutation that changes with the term.
    fn slot(self) -> u64 {
        let key = |v: PeerId| (mix(mix(self.term).wrapping_add(v)), v);
        let own = key(self.id);
        self.voters
            .iter()
            .filter(|v| **v != self.leader && **v != self.id && key(**v) < own)
            .count() as u64
    }
}

/// A bijective scrambler (the finaliser of splitmix64; Steele, Lea, Flood 2014).
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout(
        id: PeerId,
        term: u64,
        leader: PeerId,
        voters: &[PeerId],
        election_ticks: u32,
    ) -> usize {
        Election {
            id,
            seed: id * 77,
            election_ticks,
            term,
            leader,
            voters,
        }
        .timeout_ticks()
    }

    #[test]
    fn timeouts_stay_in_range() {
        for ticks in 2..40 {
            for n in 1..8u64 {
                let voters: Vec<u64> = (1..=n).collect();
                for term in 0..50 {
                    for id in 1..=n {
                        let t = timeout(id, term, term % (n + 1), &voters, ticks);
                        assert!(
                            (ticks as usize..2 * ticks as usize).contains(&t),
                            "{t} of {ticks}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn followers_of_a_lost_leader_never_stand_within_two_ticks_of_each_other() {
        for ticks in [10, 12, 15] {
            for term in 1..2_000 {
                for leader in 1..=3 {
                    let mut others: Vec<usize> = (1..=3)
                        .filter(|id| *id != leader)
                        .map(|id| timeout(id, term, leader, &[1, 2, 3], ticks))
                        .collect();
                    others.sort_unstable();
                    assert!(others[1] - others[0] >= 2, "{others:?} in term {term}");
                }
            }
        }
    }

    #[test]
    fn the_first_to_stand_changes_with_the_term() {
        let first = |term| {
            (1..=3)
                .min_by_key(|id| timeout(*id, term, 0, &[1, 2, 3], 12))
                .unwrap()
        };
        let seen: std::collections::BTreeSet<u64> = (1..100).map(first).collect();
        assert_eq!(seen.len(), 3);
    }
}
