//! The whole control plane under faults, with the policies that masters can be configured with.

use berth_sim::chaos;
use berth_sim::cli::{ChaosOptions, Output};
use berth_sim::report::Totals;

fn options(start: u64, seeds: u64) -> ChaosOptions {
    ChaosOptions {
        seeds,
        start,
        seed: None,
        jobs: 0,
        keep_going: true,
        verbose: false,
        output: Output::Table,
    }
}

#[test]
fn three_hundred_seeds_keep_every_promise() {
    let campaign = chaos::run(&options(1, 300), true);
    let totals = Totals::of(&campaign);
    let failures: Vec<String> = totals
        .failures
        .iter()
        .map(|f| format!("{}\n  again: {}", f.what, f.command))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(totals.seeds >= 300);
    // A swarm that injects nothing proves nothing.
    assert!(totals.faults.len() >= 15, "{:?}", totals.faults);
    assert!(totals.jobs_completed > 1_000 && totals.jobs_restarted > 100);
    assert!(totals.elections > 600 && totals.snapshots > 100);
}

#[test]
fn the_hash_does_not_depend_on_threads() {
    let one = ChaosOptions {
        jobs: 1,
        ..options(500, 6)
    };
    let two = ChaosOptions {
        jobs: 3,
        ..options(500, 6)
    };
    let hash = |options: &ChaosOptions| Totals::of(&chaos::run(options, true)).hash;
    assert_eq!(hash(&one), hash(&two));
}
