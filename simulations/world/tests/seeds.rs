//! Whole runs with a plain policy: determinism, and that a run comes to its end.

use berth_core::policy::{Action, Backfill, Policy, Proposal, ProposedBundle, View};
use berth_world::run_seed;
use rand_chacha::ChaCha8Rng;

/// Starts whatever waits, in the order of the queue.
struct Plain;

impl Policy for Plain {
    fn name(&self) -> &str {
        "plain"
    }

    fn propose(&mut self, view: &View, _rng: &mut ChaCha8Rng) -> Proposal {
        let start = |job| Action::Start {
            job,
            workers: None,
            slots: None,
        };
        let bundles = view.state.pending.iter().map(|key| ProposedBundle {
            actions: vec![start(key.job)],
            score: 0.0,
            reason: "its turn".into(),
        });
        Proposal {
            bundles: bundles.collect(),
            backfill: Backfill::default(),
            ..Proposal::default()
        }
    }
}

fn plain(_: u64) -> Box<dyn Policy> {
    Box::new(Plain)
}

#[test]
fn the_same_seed_gives_the_same_events() {
    for seed in [1, 2, 3] {
        let (one, two) = (run_seed(seed, &plain, false), run_seed(seed, &plain, true));
        assert_eq!(one.hash, two.hash, "seed {seed}");
        assert_eq!(one.lines.last(), two.lines.last());
    }
    assert_ne!(
        run_seed(1, &plain, false).hash,
        run_seed(2, &plain, false).hash
    );
}

#[test]
fn twenty_seeds_keep_every_promise() {
    for seed in 1..=20 {
        let report = run_seed(seed, &plain, false);
        if let Some(violation) = report.violation {
            let lines = report.lines.join("\n");
            panic!("seed {seed}: {violation}\n{lines}");
        }
        assert!(report.healed_ms.is_some(), "seed {seed} came to its end");
    }
}
