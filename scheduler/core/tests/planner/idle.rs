//! A job that fits an idle cluster, by an independent count that tries everything, is placed on it; `why` and the check
//! at submission say the same.

use std::collections::BTreeSet;

use berth_core::planner::why;
use berth_core::policy::Backfill;
use berth_core::query::can_ever_fit;
use berth_types::{GroupSpec, JobSpec, NodeSpec};
use proptest::prelude::*;

use crate::lab::{self, Lab};

const MODELS: [&str; 2] = ["a100", "h100"];

/// What is free: by node, thousandths by GPU, then CPUs.
type Free = Vec<(Vec<u32>, u32)>;

/// Tries every place for every worker, one after the other; what failed before is not tried again.
struct Everything<'a> {
    nodes: &'a [NodeSpec],
    workers: Vec<&'a GroupSpec>,
    failed: BTreeSet<(usize, Free)>,
}

impl Everything<'_> {
    fn fits(&mut self, at: usize, free: &Free) -> bool {
        let Some(group) = self.workers.get(at).copied() else {
            return true;
        };
        if self.failed.contains(&(at, free.clone())) {
            return false;
        }
        for node in 0..free.len() {
            let cpus = group.resources.millicpu;
            if free[node].1 < cpus {
                continue;
            }
            for gpus in self.gpu_sets(node, group, &free[node].0) {
                let mut left = free.clone();
                left[node].1 -= cpus;
                for gpu in gpus {
                    left[node].0[gpu] -= group.resources.milligpu.min(1_000);
                }
                if self.fits(at + 1, &left) {
                    return true;
                }
            }
        }
        self.failed.insert((at, free.clone()));
        false
    }

    fn gpu_sets(&self, node: usize, group: &GroupSpec, free: &[u32]) -> Vec<Vec<usize>> {
        let r = &group.resources;
        let count = r.milligpu.div_ceil(1_000) as usize;
        let suits = |gpu: usize| {
            let model = &self.nodes[node].gpus[gpu].model;
            free[gpu] >= r.milligpu.min(1_000)
                && (r.gpu_types.is_empty() || r.gpu_types.contains(model))
        };
        let bits = |set: usize| (0..free.len()).filter(move |gpu| set & (1 << gpu) != 0);
        let sets = (0..1usize << free.len()).filter(|set| set.count_ones() as usize == count);
        sets.map(|set| bits(set).collect::<Vec<usize>>())
            .filter(|set| set.iter().all(|&gpu| suits(gpu)))
            .collect()
    }
}

fn fits_idle(nodes: &[NodeSpec], job: &JobSpec) -> bool {
    let groups = job.groups.iter();
    let workers = groups.flat_map(|group| (0..group.min_workers).map(move |_| group));
    let free = nodes
        .iter()
        .map(|node| (vec![1_000; node.gpus.len()], node.millicpu));
    let free: Free = free.collect();
    let mut everything = Everything {
        nodes,
        workers: workers.collect(),
        failed: BTreeSet::new(),
    };
    everything.fits(0, &free)
}

fn nodes(drawn: &[(Vec<bool>, u32)]) -> Vec<NodeSpec> {
    let nodes = drawn.iter().enumerate().map(|(index, (models, cpus))| {
        let gpus = u16::try_from(models.len()).expect("few");
        let mut spec = lab::node(&format!("n{index}"), gpus, MODELS[0]);
        spec.millicpu = 1_000 * cpus;
        for (gpu, &other) in spec.gpus.iter_mut().zip(models) {
            gpu.model = MODELS[usize::from(other)].to_owned();
        }
        spec
    });
    nodes.collect()
}

fn job(drawn: &[(u32, u32, u32, u8)]) -> JobSpec {
    let groups = drawn.iter().enumerate();
    let groups = groups.map(|(index, &(workers, milligpu, cpus, kind))| {
        let mut group = lab::group(workers, milligpu);
        group.name = format!("g{index}");
        group.resources.millicpu = 1_000 * cpus;
        if milligpu > 0 && kind < 2 {
            group.resources.gpu_types = vec![MODELS[usize::from(kind)].to_owned()];
        }
        group
    });
    JobSpec {
        groups: groups.collect(),
        ..lab::job(1, 0)
    }
}

fn drawn_node() -> impl Strategy<Value = (Vec<bool>, u32)> {
    let gpus = prop_oneof![
        3 => (0usize..5, any::<bool>()).prop_map(|(count, model)| vec![model; count]),
        1 => prop::collection::vec(any::<bool>(), 0..5),
    ];
    (gpus, 1u32..9)
}

fn drawn_group() -> impl Strategy<Value = (u32, u32, u32, u8)> {
    let milligpu = prop::sample::select(vec![0, 250, 400, 500, 600, 700, 1_000, 1_000, 2_000]);
    (1u32..5, milligpu, 0u32..4, 0u8..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_fits_an_idle_cluster_is_placed_on_it(
        cluster in prop::collection::vec(drawn_node(), 1..4),
        groups in prop::collection::vec(drawn_group(), 1..4),
    ) {
        let (nodes, spec) = (nodes(&cluster), job(&groups));
        let mut lab = Lab::new();
        nodes.iter().for_each(|node| lab.add_node(node.clone()));
        let fits = fits_idle(&nodes, &spec);
        let accepted = can_ever_fit(&lab.state, &spec).is_ok();
        prop_assert!(accepted || !fits, "it fits and is refused");
        let Ok(id) = lab.submit(spec) else {
            return Ok(());
        };
        let plan = lab.plan(&lab::in_order(&lab.state, Backfill::Strict));
        prop_assert_eq!(plan.stats.starts == 1, fits);
        let job = lab.state.job(id).expect("it is pending");
        let parts = why(&lab.state, job, plan.waiting.get(&id), lab.now_ms);
        prop_assert_eq!(parts.reason == "BadConstraints", !fits, "{}", parts.text);
        lab.carry_out(&plan);
    }
}
