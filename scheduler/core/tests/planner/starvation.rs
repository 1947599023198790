//! A large gang starts within the bound that the planner states, whatever small jobs stream past it.

use std::collections::BTreeMap;

use berth_core::planner::PlanLimits;
use berth_core::policy::Backfill;
use berth_types::{JobId, JobSpec};
use proptest::prelude::*;

use crate::lab::{self, Lab};

const NODES: u32 = 4;
const GPUS: u16 = 4;
const PATIENCE_MS: u64 = 60_000;
/// Longest that a small job really runs.
const LONGEST_MS: u64 = 40_000;
const GRACE_MS: u64 = 1_000;
const STEP_MS: u64 = 1_000;

/// What a small job claims, against what it does.
#[derive(Clone, Copy, Debug)]
struct Small {
    gpus: u8,
    runs_ms: u64,
    claims: Claim,
}

#[derive(Clone, Copy, Debug)]
enum Claim {
    /// Nothing.
    Nothing,
    /// A limit that it keeps.
    Limit,
    /// A limit far above what it needs.
    LooseLimit,
    /// What it really takes.
    Honest,
    /// A fraction of what it really takes.
    Liar,
}

fn small() -> impl Strategy<Value = Small> {
    let claims = prop::sample::select(vec![
        Claim::Nothing,
        Claim::Limit,
        Claim::LooseLimit,
        Claim::Honest,
        Claim::Liar,
    ]);
    let one_of_them = (1u8..3, 1u64..=LONGEST_MS / 1_000, claims);
    one_of_them.prop_map(|(gpus, seconds, claims)| Small {
        gpus,
        runs_ms: seconds * 1_000,
        claims,
    })
}

fn spec(small: Small) -> JobSpec {
    let mut spec = lab::job(1, 1_000 * u32::from(small.gpus));
    spec.grace_ms = GRACE_MS;
    match small.claims {
        Claim::Nothing => {}
        Claim::Limit => spec.time_limit_ms = small.runs_ms,
        Claim::LooseLimit => spec.time_limit_ms = LONGEST_MS,
        Claim::Honest => spec.expected_ms = small.runs_ms,
        Claim::Liar => spec.expected_ms = small.runs_ms / 10 + 1,
    }
    spec
}

struct Stream<'s> {
    lab: Lab,
    small: &'s [Small],
    next: usize,
    runs: BTreeMap<JobId, u64>,
    ends: BTreeMap<JobId, u64>,
}

impl Stream<'_> {
    /// Keeps a few more small jobs waiting than could run.
    fn submit_some(&mut self) {
        while self.lab.state.pending.len() < 12 {
            let small = self.small[self.next % self.small.len()];
            self.next += 1;
            let job = self.lab.submit(spec(small)).expect("it fits");
            self.runs.insert(job, small.runs_ms);
        }
    }

    fn step(&mut self, backfill: Backfill) {
        let over: Vec<JobId> = (self.ends.iter())
            .filter(|(_, end)| **end <= self.lab.now_ms)
            .map(|(job, _)| *job)
            .collect();
        for job in over {
            self.ends.remove(&job);
            self.lab.end(job, 0);
        }
        self.submit_some();
        let proposal = lab::in_order(&self.lab.state, backfill);
        let plan = self.lab.plan(&proposal);
        self.lab.carry_out(&plan);
        for start in plan.bundles.iter().flat_map(|bundle| &bundle.starts) {
            self.lab.run(start.job);
            if let Some(runs_ms) = self.runs.get(&start.job) {
                self.ends.insert(start.job, self.lab.now_ms + runs_ms);
            }
        }
        self.lab.now_ms += STEP_MS;
    }
}

/// Time that a gang waits in a stream of small jobs that is always there; `None` if it starves.
fn wait_of_gang(small: &[Small], workers: u32, gpus: u32, backfill: Backfill) -> Option<u64> {
    let mut lab = Lab::new();
    lab.limits = PlanLimits {
        patience_ms: PATIENCE_MS,
        ..PlanLimits::default()
    };
    for index in 0..NODES {
        lab.add_node(lab::node(&format!("n{index}"), GPUS, "a100"));
    }
    let mut stream = Stream {
        lab,
        small,
        next: 0,
        runs: BTreeMap::new(),
        ends: BTreeMap::new(),
    };
    for _ in 0..30 {
        stream.step(backfill);
    }
    let gang = stream
        .lab
        .submit(lab::job(workers, 1_000 * gpus))
        .expect("it fits");
    // Those who came first go first; the wait counts from when the gang is the head.
    let mut head_since = None;
    for _ in 0..2_000 {
        let is_head = stream
            .lab
            .state
            .pending
            .iter()
            .next()
            .is_some_and(|key| key.job == gang);
        if is_head && head_since.is_none() {
            head_since = Some(stream.lab.now_ms);
        }
        let Some(job) = stream.lab.state.job(gang) else {
            panic!("it is gone")
        };
        if job.attempt.is_some() {
            return Some(stream.lab.now_ms - head_since.unwrap_or(stream.lab.now_ms));
        }
        stream.step(backfill);
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_large_gang_starts_within_the_stated_bound(
        small in prop::collection::vec(small(), 1..20),
        workers in 1u32..=4,
        gpus in 3u32..=4,
    ) {
        let waited = wait_of_gang(&small, workers, gpus, Backfill::BehindReservation);
        let waited = waited.expect("it starved");
        let bound = PATIENCE_MS + LONGEST_MS + (LONGEST_MS + GRACE_MS) + 2 * STEP_MS;
        prop_assert!(waited <= bound, "waited {waited} ms of at most {bound}");
    }
}

/// Small jobs that never leave the cluster empty, and say nothing of how long they take.
fn stream_of_unknown_length() -> [Small; 5] {
    [7, 11, 13, 17, 40].map(|seconds| Small {
        gpus: 1,
        runs_ms: seconds * 1_000,
        claims: Claim::Nothing,
    })
}

#[test]
fn a_stream_of_unknown_length_does_not_starve_a_gang_of_the_whole_cluster() {
    let small = stream_of_unknown_length();
    let backfill = Backfill::BehindReservation;
    let waited = wait_of_gang(&small, NODES, u32::from(GPUS), backfill).expect("it starved");
    assert!(waited <= LONGEST_MS + 2 * STEP_MS, "waited {waited} ms");
}

/// What the promise is for: these tests can fail.
#[test]
fn without_a_promise_the_same_stream_starves_it() {
    let small = stream_of_unknown_length();
    let waited = wait_of_gang(&small, NODES, u32::from(GPUS), Backfill::Greedy);
    assert_eq!(waited, None);
}
