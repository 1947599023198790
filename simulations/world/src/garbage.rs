//! A policy that proposes nonsense: the planner and the replicated state must refuse what is wrong with it.

use berth_core::policy::{Action, Backfill, Policy, Proposal, ProposedBundle, View};
use berth_types::{GpuShare, JobId, NodeId, Rank, TaskPlacement};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

/// Proposes anything about anybody.
pub(crate) struct Garbage;

impl Policy for Garbage {
    fn name(&self) -> &str {
        "garbage"
    }

    fn propose(&mut self, view: &View, rng: &mut ChaCha8Rng) -> Proposal {
        let jobs: Vec<JobId> = view.state.jobs.keys().copied().collect();
        let below = |rng: &mut ChaCha8Rng, most: u64| rng.next_u64() % most.max(1);
        let mut bundles = Vec::new();
        for _ in 0..below(rng, 6) {
            let mut actions = Vec::new();
            for _ in 0..=below(rng, 3) {
                let known = jobs
                    .get(below(rng, jobs.len() as u64) as usize)
                    .copied()
                    .filter(|_| below(rng, 8) > 0);
                let job = known.unwrap_or(JobId(below(rng, 1_000)));
                actions.push(action(job, rng));
            }
            bundles.push(ProposedBundle {
                actions,
                score: if below(rng, 4) == 0 { f64::NAN } else { -1.0 },
                reason: "nonsense".into(),
            });
        }
        let backfill = match below(rng, 3) {
            0 => Backfill::Strict,
            1 => Backfill::Greedy,
            _ => Backfill::BehindReservation,
        };
        Proposal {
            bundles,
            backfill,
            ..Proposal::default()
        }
    }
}

fn action(job: JobId, rng: &mut ChaCha8Rng) -> Action {
    let number =
        |rng: &mut ChaCha8Rng, most: u64| u32::try_from(rng.next_u64() % most).unwrap_or(0);
    match rng.next_u64() % 6 {
        0 => Action::Keep(job),
        1 => Action::Wait(job),
        2 => Action::Stop(job),
        3 => {
            let workers = (0..number(rng, 3)).map(|_| number(rng, 20)).collect();
            Action::Resize {
                job,
                workers,
                slots: None,
            }
        }
        4 => Action::Start {
            job,
            workers: Some((0..number(rng, 3)).map(|_| number(rng, 20)).collect()),
            slots: None,
        },
        _ => {
            let slot = |rank, rng: &mut ChaCha8Rng| TaskPlacement {
                rank: Rank(rank),
                group: u16::try_from(number(rng, 2)).unwrap_or(0),
                node: NodeId(number(rng, 9)),
                gpus: (0..number(rng, 3))
                    .map(|gpu| GpuShare {
                        gpu: u16::try_from(gpu).unwrap_or(0),
                        milligpu: number(rng, 2_000),
                    })
                    .collect(),
            };
            let slots = (0..number(rng, 4)).map(|rank| slot(rank, rng)).collect();
            Action::Start {
                job,
                workers: None,
                slots: Some(slots),
            }
        }
    }
}
