//! The port between the planner and whatever decides the order and shape of what runs.
//!
//! A policy reads a [`View`] and answers with a [`Proposal`]. It never changes state and never sees the log. What the
//! proposal leaves open (GPU slots), the [planner](crate::planner) fills in; what it gets wrong, the planner refuses.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_types::{JobId, NodeSpec, TaskPlacement};
use rand_chacha::ChaCha8Rng;

use crate::health::Telemetry;
use crate::insight::Insights;
use crate::state::State;

/// Decides. Implementations live in `berth-policy`; the same object serves masters and the simulator.
pub trait Policy: Send {
    /// Name, as configured and shown.
    fn name(&self) -> &str;

    /// Proposes what should run next. All randomness comes from `rng`.
    fn propose(&mut self, view: &View, rng: &mut ChaCha8Rng) -> Proposal;
}

/// An immutable, ordered snapshot of what a policy may know. Shares its records with the state.
#[derive(Clone, Debug)]
pub struct View {
    /// Round number of this leader.
    pub round: u64,
    /// Seed of this round's randomness.
    pub seed: u64,
    /// Now, by the leader's clock, at least state time.
    pub now_ms: u64,
    /// The replicated state.
    pub state: State,
    /// What is known or believed about jobs beyond their records; a job without an entry is unknown.
    pub insights: Insights,
    /// Pools whose size can be changed, by name; empty where nobody could change one.
    pub pools: Arc<[Pool]>,
    /// Newest readings of GPUs: utilisation, memory, temperature, throttling, errors. Empty where nothing reads them.
    pub telemetry: Telemetry,
}

/// Label that names a node's pool.
pub const POOL_LABEL: &str = "pool";

/// Equal nodes of which there can be more or fewer. A node belongs to the pool that its label [`POOL_LABEL`] names.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// A node of it as it registers, but for its name.
    pub node: Arc<NodeSpec>,
    /// Nodes that there are, those under repair included.
    pub nodes: u32,
    /// Nodes that were granted and are on their way.
    pub coming: u32,
    /// Fewest nodes that it may have.
    pub min_nodes: u32,
    /// Most nodes that it may have.
    pub max_nodes: u32,
    /// From asking for a node to its registration.
    pub boot_ms: u64,
    /// What a node costs for an hour, in whatever currency; comparable between pools.
    pub price_per_hour: f64,
    /// A request was denied; the next one is made no earlier than this. 0 if none was denied lately.
    pub denied_until_ms: u64,
}

/// What should run, in order of importance.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proposal {
    /// Tried in order; each is an atomic unit.
    pub bundles: Vec<ProposedBundle>,
    /// What comes after the bundles.
    pub rest: Rest,
    /// What to do about pending jobs behind one that does not fit.
    pub backfill: Backfill,
    /// How many nodes pools should have, by name. A target holds until another one is given; a pool that was never named
    /// stays as it is. Targets outside a pool's bounds are cut to them, and no node is taken from a job.
    pub pools: BTreeMap<String, u32>,
    /// When the policy wants to be asked again even if nothing happens until then.
    pub wake_ms: Option<u64>,
}

/// What a proposal says of pending jobs that are in none of its bundles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rest {
    /// They are not looked at.
    #[default]
    Nothing,
    /// They start in the order of [`State::pending`] at the largest size that fits. Says the same as a bundle for each
    /// of them, and costs what kinds of requests there are instead of what jobs there are.
    InTurn,
}

/// Actions that belong together, with their reason.
#[derive(Clone, Debug, PartialEq)]
pub struct ProposedBundle {
    /// Carried out together or not at all.
    pub actions: Vec<Action>,
    /// How good the policy thinks this is; for explanation only.
    pub score: f64,
    /// In the policy's words.
    pub reason: String,
}

/// One decision about one job.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Leave a running job as it is.
    Keep(JobId),
    /// Let a pending job wait on purpose.
    Wait(JobId),
    /// Stop a running job; it goes back to the queue.
    Stop(JobId),
    /// Start a pending job.
    Start {
        /// The job.
        job: JobId,
        /// Workers per group; `None` for the largest size that fits.
        workers: Option<Vec<u32>>,
        /// Where each task goes; `None` leaves it to the planner.
        slots: Option<Vec<TaskPlacement>>,
    },
    /// Run a running job with another number of workers per group, or elsewhere: stop it and start it anew.
    Resize {
        /// The job.
        job: JobId,
        /// Workers per group.
        workers: Vec<u32>,
        /// Where each task goes; `None` leaves it to the planner. What the job holds now counts as free.
        slots: Option<Vec<TaskPlacement>>,
    },
}

/// What happens behind a start that does not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backfill {
    /// The first job that does not fit is promised its place; others start only where they do not delay it.
    #[default]
    BehindReservation,
    /// Whatever fits starts; nobody is promised anything.
    Greedy,
    /// Nothing starts behind a job that does not fit.
    Strict,
}

impl ProposedBundle {
    /// Start a pending job at the largest size that fits, wherever the planner finds room.
    pub fn start(job: JobId) -> Self {
        Self {
            actions: vec![Action::Start {
                job,
                workers: None,
                slots: None,
            }],
            score: 0.0,
            reason: String::new(),
        }
    }
}
