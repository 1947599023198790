//! Random workloads under a policy that starts, stops and resizes at random: every promise holds at every instant.

use std::sync::Arc;

use berth_core::policy::{Action, Backfill, Policy, Proposal, ProposedBundle, View};
use berth_types::JobId;
use berth_world::twin::{
    End, Faults, Foresight, Interference, Neighbours, NodeFaults, Overhead, Rounds, Setting,
    Stragglers,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::lab::{cluster, ending, job, outcome, setting, with};

fn below(rng: &mut ChaCha8Rng, limit: u64) -> u64 {
    rng.next_u64() % limit
}

fn pick<T: Copy>(rng: &mut ChaCha8Rng, items: &[T]) -> T {
    items[below(rng, items.len() as u64) as usize]
}

/// Whatever comes to its mind, sound or not. Calms down after a while, so that runs end.
struct Whim {
    left: u32,
}

impl Policy for Whim {
    fn name(&self) -> &str {
        "whim"
    }

    fn propose(&mut self, view: &View, rng: &mut ChaCha8Rng) -> Proposal {
        let pending: Vec<JobId> = view.state.pending.iter().map(|key| key.job).collect();
        let active: Vec<JobId> = view.state.active.iter().copied().collect();
        let mut bundles: Vec<ProposedBundle> = Vec::new();
        if self.left > 0 {
            self.left -= 1;
            for _ in 0..below(rng, 4) {
                bundles.extend(whim(&pending, &active, rng));
            }
        } else {
            bundles.extend(pending.iter().map(|&job| ProposedBundle::start(job)));
        }
        Proposal {
            bundles,
            backfill: pick(
                rng,
                &[
                    Backfill::Greedy,
                    Backfill::Strict,
                    Backfill::BehindReservation,
                ],
            ),
            ..Proposal::default()
        }
    }
}

fn whim(pending: &[JobId], active: &[JobId], rng: &mut ChaCha8Rng) -> Option<ProposedBundle> {
    let start = |rng: &mut ChaCha8Rng| {
        (!pending.is_empty()).then(|| ProposedBundle::start(pick(rng, pending)).actions.remove(0))
    };
    let mut actions = Vec::new();
    match below(rng, 4) {
        0 => actions.extend(start(rng)),
        1 if !active.is_empty() => {
            for _ in 0..=below(rng, 2) {
                actions.push(Action::Stop(pick(rng, active)));
            }
            actions.extend(start(rng));
            actions.extend(start(rng));
        }
        2 if !active.is_empty() => actions.push(Action::Resize {
            job: pick(rng, active),
            workers: vec![1 + below(rng, 4) as u32],
            slots: None,
        }),
        _ => actions.push(Action::Wait(*pending.first()?)),
    }
    Some(ProposedBundle {
        actions,
        score: 0.0,
        reason: String::new(),
    })
}

/// A setting that a seed draws.
pub(crate) fn drawn(seed: u64) -> Setting {
    let rng = &mut ChaCha8Rng::seed_from_u64(seed);
    let nodes: Vec<usize> = (0..=below(rng, 5))
        .map(|_| pick(rng, &[1, 2, 4, 8]))
        .collect();
    let mut at_ms = 0;
    let jobs = (0..5 + below(rng, 40)).map(|number| {
        at_ms += below(rng, 80);
        let milligpu = pick(rng, &[250, 500, 1_000, 1_000, 2_000, 4_000]);
        let drawn = job(&number.to_string(), at_ms, milligpu, below(rng, 300));
        let drawn = ending(
            drawn,
            pick(
                rng,
                &[End::Completed, End::Completed, End::Failed, End::Cancelled],
            ),
        );
        with(drawn, |spec| {
            spec.groups[0].min_workers = pick(rng, &[1, 1, 2]);
            spec.groups[0].max_workers = spec.groups[0].min_workers + pick(rng, &[0, 0, 2]);
            spec.restart.max_restarts = pick(rng, &[0, 0, 1]);
            spec.restart.backoff_ms = 40;
            spec.time_limit_ms = pick(rng, &[0, 0, 150]);
            spec.priority = pick(rng, &[0, 0, 3]);
            spec.start_now = below(rng, 10) == 0;
        })
    });
    let mut drawn = setting(cluster(&nodes), jobs.collect());
    drawn.seed = seed;
    drawn.rounds = match below(rng, 3) {
        0 => Rounds::Every { ms: 50 },
        1 => Rounds::OnEvent { coalesce_ms: 7 },
        _ => Rounds::OnEvent { coalesce_ms: 0 },
    };
    drawn.foresight = pick(rng, &[Foresight::Blind, Foresight::True]);
    drawn.overheads.usual = Overhead {
        first_start_ms: below(rng, 10),
        restart_ms: below(rng, 20),
        checkpoint_every_ms: pick(rng, &[0, 1, 30, 100]),
        save_ms: below(rng, 5),
        eviction_loses: below(rng, 2) == 0,
    };
    let cluster = Arc::make_mut(&mut drawn.cluster);
    if let Some(node) = cluster.nodes.first_mut() {
        for gpu in &mut node.gpus {
            gpu.model = "slow".into();
        }
    }
    let slow = berth_world::twin::GpuModel { speed: 0.37 };
    cluster.gpu_models.insert("slow".into(), slow);
    drawn.timeline = true;
    if below(rng, 2) == 0 {
        drawn.faults = faults(rng);
    }
    drawn
}

fn faults(rng: &mut ChaCha8Rng) -> Faults {
    Faults {
        usual: NodeFaults {
            fails_every_ms: pick(rng, &[0, 300, 2_000]),
            repair_ms: 100,
            degrades_every_ms: pick(rng, &[0, 200]),
            gpu_fails_every_ms: pick(rng, &[0, 0, 300]),
            gpu_repair_ms: pick(rng, &[50, 400_000]),
            degraded_ms: 90,
            degraded_per_mille: 400,
            cold: below(rng, 3) == 0,
            boot_ms: below(rng, 60),
            denied_per_mille: 300,
            retry_ms: 25,
        },
        stragglers: Stragglers {
            per_mille: pick(rng, &[0, 200]),
            left_per_mille: 700,
        },
        interference: Interference {
            elsewhere: Neighbours {
                usual: pick(rng, &[1.0, 0.8]),
                ..Neighbours::default()
            },
            ..Interference::default()
        },
        ..Faults::default()
    }
}

#[test]
fn whatever_a_policy_does_every_promise_holds() {
    let (mut evictions, mut lost, mut idle) = (0, 0, 0);
    for seed in 0..150 {
        let setting = drawn(seed);
        let outcome = outcome(&setting, &mut Whim { left: 300 })
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let drawn_held: u64 = (outcome.timeline.iter())
            .map(|span| u64::from(span.milligpu) * (span.end_ms - span.start_ms))
            .sum();
        assert_eq!(drawn_held, outcome.ledger().held(), "seed {seed}");
        for job in &outcome.jobs {
            let order = [Some(job.submit_ms), job.first_start_ms, job.end_ms];
            let order: Vec<u64> = order.into_iter().flatten().collect();
            assert!(order.is_sorted(), "seed {seed}, job {}: {order:?}", job.key);
        }
        evictions += outcome.evictions;
        lost += outcome.ledger().lost;
        idle += outcome.ledger().idle;
    }
    assert!(
        evictions > 500 && lost > 0 && idle > 0,
        "{evictions} evictions, {lost} lost, {idle} idle"
    );
}

#[test]
fn the_same_seed_gives_the_same_run_whatever_goes_wrong() {
    for seed in 0..20 {
        let setting = drawn(seed);
        let run = || outcome(&setting, &mut Whim { left: 300 }).unwrap();
        let (first, second) = (run(), run());
        assert_eq!(first, second, "seed {seed}");
        assert_eq!(format!("{first:?}"), format!("{second:?}"), "seed {seed}");
    }
}
