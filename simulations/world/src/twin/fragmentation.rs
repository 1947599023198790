//! How much of what is free a random job of the trace could not use.
//!
//! FGD (Weng et al., ATC'23), section 3: the fragmentation of a node with respect to a workload is the expected amount
//! of its free GPUs that a job, drawn at random from the workload, cannot be allocated. Here a job counts by what one
//! of its workers asks for, weighted by the number of its workers' GPUs, and GPUs alone are looked at: CPUs, memory
//! and models are left out, so this is a lower bound of the paper's measure.

use std::collections::BTreeMap;

use berth_types::MILLI;

use super::Trace;

/// Distinct requests that are told apart; those beyond the most frequent ones are left out.
const MAX_KINDS: usize = 32;

/// What workers of a trace ask for.
#[derive(Clone, Debug, Default)]
pub(super) struct Demand {
    /// Thousandths of GPUs per worker, and how many workers ask for it.
    kinds: Vec<(u32, u64)>,
    /// Workers in all.
    pub(super) workers: u64,
}

impl Demand {
    pub(super) fn of(trace: &Trace) -> Self {
        let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
        for group in trace.jobs.iter().flat_map(|job| &job.spec.groups) {
            if group.resources.milligpu > 0 {
                *counts.entry(group.resources.milligpu).or_insert(0) +=
                    u64::from(group.min_workers);
            }
        }
        let mut kinds: Vec<(u32, u64)> = counts.into_iter().collect();
        kinds.sort_by_key(|&(milligpu, count)| (std::cmp::Reverse(count), milligpu));
        kinds.truncate(MAX_KINDS);
        let workers = kinds.iter().map(|(_, count)| count).sum();
        Self { kinds, workers }
    }

    /// What of a node's free GPUs is stranded, in thousandths of GPUs, times the number of workers.
    pub(super) fn stranded(&self, free: &[u32]) -> u64 {
        let all: u64 = free.iter().map(|&milli| u64::from(milli)).sum();
        if all == 0 {
            return 0;
        }
        let whole = free.iter().filter(|&&milli| milli == MILLI).count() as u64;
        let below = |least: u32| -> u64 {
            let small = free.iter().filter(|&&milli| milli < least);
            small.map(|&milli| u64::from(milli)).sum()
        };
        let kinds = self.kinds.iter().map(|&(milligpu, workers)| {
            let stranded = if milligpu < MILLI {
                below(milligpu)
            } else if whole * u64::from(MILLI) < u64::from(milligpu) {
                all
            } else {
                below(MILLI)
            };
            stranded * workers
        });
        kinds.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_kind_cannot_use_counts_with_its_share() {
        let demand = Demand {
            kinds: vec![(500, 3), (2_000, 1)],
            workers: 4,
        };
        assert_eq!(demand.stranded(&[1_000, 1_000]), 0, "fits both kinds");
        assert_eq!(
            demand.stranded(&[1_000, 400]),
            3 * 400 + 1_400,
            "400 is too little for a half, everything for two whole ones"
        );
        assert_eq!(demand.stranded(&[0, 0]), 0);
    }
}
