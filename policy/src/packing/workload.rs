//! What a cluster's workers typically ask for: the yardstick of fragmentation.
//!
//! Weng et al. (USENIX ATC 2023, section 3.2) measure fragments by the tasks of the target workload, by their
//! popularity. As in their simulator, the most frequent requests count that together make up 95 % of all workers.

use std::collections::BTreeMap;

use berth_core::state::State;
use berth_types::{JobSpec, MILLI};

use super::ask::accepts;

/// The most frequent requests that together reach this share of all workers count.
const POPULAR_PERCENT: u64 = 95;
/// Newest unfinished jobs that [`Workload::recent`] looks at.
const RECENT_JOBS: usize = 2_000;
/// Most workers of one job that count, so that one large job does not hide all others.
const MOST_WORKERS: u32 = 64;

/// A request as far as fragmentation is concerned: memory and labels do not count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypicalTask {
    /// CPUs in thousandths.
    pub millicpu: u32,
    /// What it takes of each GPU, in thousandths.
    pub share: u32,
    /// GPU devices.
    pub gpus: u32,
    /// Acceptable GPU models; any if empty.
    pub gpu_types: Vec<String>,
}

impl TypicalTask {
    /// True if GPUs of this model will do.
    pub fn accepts_model(&self, model: &str) -> bool {
        accepts(&self.gpu_types, model)
    }
}

/// Typical requests with their weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    tasks: Vec<(TypicalTask, u64)>,
    weight: u64,
}

impl Workload {
    /// The popular requests of these jobs. Each worker that a job needs at least counts, up to 64.
    pub fn of<'a>(jobs: impl Iterator<Item = &'a JobSpec>) -> Self {
        let mut counts: BTreeMap<TypicalTask, u64> = BTreeMap::new();
        for group in jobs.flat_map(|job| &job.groups) {
            let resources = &group.resources;
            let task = TypicalTask {
                millicpu: resources.millicpu,
                share: resources.milligpu.min(MILLI),
                gpus: resources.devices(),
                gpu_types: resources.gpu_types.clone(),
            };
            *counts.entry(task).or_insert(0) += u64::from(group.min_workers.min(MOST_WORKERS));
        }
        let total: u64 = counts.values().sum();
        let mut tasks: Vec<(TypicalTask, u64)> = counts.into_iter().collect();
        // Equally frequent ones: the larger first, as in the authors' simulator.
        tasks.sort_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then_with(|| b.cmp(a)));
        let mut weight = 0;
        let popular = tasks.iter().take_while(|(_, count)| {
            let is_short = weight * 100 < total * POPULAR_PERCENT;
            weight += if is_short { count } else { &0 };
            is_short
        });
        let popular = popular.count();
        tasks.truncate(popular);
        Self { tasks, weight }
    }

    /// That of the newest unfinished jobs.
    pub fn recent(state: &State) -> Self {
        let newest = state.jobs.values().rev().take(RECENT_JOBS);
        Self::of(newest.map(|job| &*job.spec))
    }

    /// Typical requests, the most frequent first, each with the number of workers that asked for it.
    pub fn tasks(&self) -> &[(TypicalTask, u64)] {
        &self.tasks
    }

    /// Workers counted in all.
    pub fn weight(&self) -> u64 {
        self.weight
    }
}

#[cfg(test)]
mod tests {
    use berth_types::{GroupSpec, Resources};

    use super::*;

    fn jobs(count: usize, millicpu: u32, milligpu: u32) -> Vec<JobSpec> {
        let group = GroupSpec {
            name: "worker".into(),
            command: vec!["train".into()],
            min_workers: 1,
            max_workers: 1,
            gang: true,
            resources: Resources {
                millicpu,
                milligpu,
                ..Resources::default()
            },
            node_labels: BTreeMap::new(),
        };
        let spec = JobSpec {
            groups: vec![group],
            ..JobSpec::default()
        };
        vec![spec; count]
    }

    fn shares(workload: &Workload) -> Vec<(u32, u32, u64)> {
        (workload.tasks().iter())
            .map(|(task, count)| (task.share, task.gpus, *count))
            .collect()
    }

    #[test]
    fn the_most_frequent_requests_count_until_95_percent_are_covered() {
        let mut specs = jobs(60, 1_000, 500);
        specs.extend(jobs(35, 1_000, 2_000));
        specs.extend(jobs(5, 1_000, 0));
        let workload = Workload::of(specs.iter());
        assert_eq!(shares(&workload), [(500, 1, 60), (1_000, 2, 35)]);
        assert_eq!(workload.weight(), 95);
    }

    #[test]
    fn one_short_of_95_percent_takes_the_next_request_and_of_equals_the_larger() {
        let mut specs = jobs(94, 1_000, 500);
        specs.extend(jobs(3, 2_000, 1_000));
        specs.extend(jobs(3, 4_000, 1_000));
        let workload = Workload::of(specs.iter());
        assert_eq!(workload.tasks().len(), 2);
        assert_eq!(workload.tasks()[1].0.millicpu, 4_000);
    }
}
