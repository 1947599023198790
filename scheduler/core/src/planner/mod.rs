//! The planner: turns a policy's wishes into a plan that holds, and says why the rest waits.
//!
//! A policy says what should run, in order; the planner finds the places and enforces the hard rules: capacity, gangs,
//! `min..max`, GPU model and memory, labels, CPU, memory, ports, nodes out of service, back-off times, and evictions
//! only inside a bundle whose starts are proven to fit. It reads a [`View`], writes a [`Plan`], and remembers nothing
//! that matters: the same view and proposal give the same plan, whatever a [`Planner`] has seen before.
//!
//! ```text
//! reservations that are ready -> drains with eviction -> the proposal in order -> Plan
//!                                                          |  fits: a bundle
//!                                                          |  first that does not: a promise (see `promise.rs`)
//!                                                          `  behind it: only what does not delay the promise
//! ```
//!
//! Start reading at `round.rs` (the walk), then `capacity.rs` (what is free), `place.rs` (where a job goes) and
//! `promise.rs` (why a large gang never starves). [`why()`] explains one job to people.

mod blocked;
mod capacity;
mod class;
mod evict;
mod evidence;
mod gpu_pick;
mod place;
mod promise;
mod reason;
mod release;
mod room;
mod round;
mod search;
mod seat;
mod shape;
mod slots;
mod stock;
mod trial;
mod turns;
mod why;

use std::collections::BTreeMap;

use berth_types::{JobId, NodeId, TaskPlacement};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::command::Bundle;
use crate::policy::{Policy, Proposal, View};

pub use capacity::{Capacity, Leeway};
pub use evict::{held, is_evictable};
pub use place::{Placed, largest, place};
pub use reason::{WaitCode, WaitReason};
pub use shape::{Shape, ShapeId, Shapes};
pub use why::{WhyParts, why};

/// Most jobs whose reason to wait is told in full; those behind them wait for their turn.
pub const MAX_WAITING: usize = 1_000;

/// Most promises in one round, each over node classes of its own.
pub const MAX_PROMISES: usize = 8;

/// Bounds of one round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanLimits {
    /// Most starts in one plan: keeps a plan at a few log entries and the time until it is applied short. The next
    /// round continues.
    pub max_starts: usize,
    /// Most jobs looked at; the design point's queue.
    pub max_looked_at: usize,
    /// Most node checks, about 20 ns each: bounds a round's time whatever the queue holds.
    pub max_node_checks: u64,
    /// True if the plan tells why jobs wait and sit where they sit, and what is promised. Without it the plan starts and
    /// stops the same jobs in the same places, and says less, which is most of a round's work when little fits.
    pub explain: bool,
    /// While the head has waited for less than this, expected durations count for its promise and for those who borrow
    /// from it; after that only enforced time limits do, since expectations can be wrong.
    pub patience_ms: u64,
}

impl Default for PlanLimits {
    fn default() -> Self {
        Self {
            max_starts: 512,
            max_looked_at: 100_000,
            max_node_checks: 20_000_000,
            patience_ms: 600_000,
            explain: true,
        }
    }
}

/// What a round decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In order; each is carried out whole or not at all.
    pub bundles: Vec<Bundle>,
    /// Why jobs wait; the first [`MAX_WAITING`] in order. Any other pending job waits for its turn (`Priority`).
    pub waiting: BTreeMap<JobId, WaitReason>,
    /// The promise to the blocked head of the queue.
    pub reservation: Option<HeadReservation>,
    /// Promises to blocked jobs further back that can only use other classes of nodes.
    pub further: Vec<HeadReservation>,
    /// Jobs with `start_now` that could not start.
    pub rejects: Vec<(JobId, String)>,
    /// When the next back-off ends or the policy wants to be asked, whichever is first: a round is due then.
    pub wake_ms: Option<u64>,
    /// How many nodes pools should have, within their bounds; pools that are not there keep the target that they had.
    pub pools: BTreeMap<String, u32>,
    /// What the round did.
    pub stats: PlanStats,
}

/// The place and time promised to a job that cannot start yet. Lives for one round and is found anew in the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadReservation {
    /// The job.
    pub job: JobId,
    /// When it can start, if the durations of what it waits for are known.
    pub start_ms: Option<u64>,
    /// Nodes that it will use, ascending.
    pub nodes: Vec<NodeId>,
    /// Where it will sit.
    pub placements: Vec<TaskPlacement>,
    /// Jobs that must end first, in the order in which they are expected to.
    pub waits_for: Vec<JobId>,
}

/// Counters of one round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlanStats {
    /// Proposed bundles looked at.
    pub looked_at: usize,
    /// Distinct request shapes among them.
    pub shapes: usize,
    /// Starts planned.
    pub starts: usize,
    /// Evictions planned.
    pub evictions: usize,
    /// Starts behind a promise.
    pub backfilled: usize,
    /// Proposed bundles that broke a hard rule.
    pub refused: usize,
    /// Starts whose proposed slots did not hold, so that the planner chose others.
    pub replaced: usize,
    /// Node checks made.
    pub node_checks: u64,
    /// True if a limit ended the round early; the next round continues.
    pub cut: bool,
}

/// Makes plans, round after round. What it keeps in between makes the next round cheap and decides nothing: each plan
/// is what [`plan()`] makes of the same view and proposal.
#[derive(Debug, Default)]
pub struct Planner {
    stock: stock::Stock,
}

impl Planner {
    /// One that has seen nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One round: asks the policy and makes a plan of its answer.
    pub fn decide(&mut self, policy: &mut dyn Policy, view: &View, limits: &PlanLimits) -> Plan {
        let mut rng = ChaCha8Rng::seed_from_u64(view.seed);
        let proposal = policy.propose(view, &mut rng);
        self.plan(view, &proposal, limits)
    }

    /// Makes a plan of a proposal.
    pub fn plan(&mut self, view: &View, proposal: &Proposal, limits: &PlanLimits) -> Plan {
        let stock = std::mem::take(&mut self.stock);
        let (plan, stock) = round::Round::new(view, limits, stock).run(proposal);
        self.stock = stock;
        plan
    }
}

/// One round of a planner that keeps nothing: asks the policy and makes a plan of its answer.
pub fn decide(policy: &mut dyn Policy, view: &View, limits: &PlanLimits) -> Plan {
    Planner::new().decide(policy, view, limits)
}

/// Makes a plan of a proposal, with nothing kept.
pub fn plan(view: &View, proposal: &Proposal, limits: &PlanLimits) -> Plan {
    Planner::new().plan(view, proposal, limits)
}
