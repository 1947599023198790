//! What a run came to.

use std::sync::Arc;

use super::behaviour::{Served, Spent};
use super::figures::{self, Figures};
use super::series::Series;

/// GPU time by what it was for, in thousandths of a GPU times milliseconds. Integers, so that sums are exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Work that counted.
    pub useful: u64,
    /// Starting, loading a checkpoint, warming up.
    pub restart: u64,
    /// Work that had to be done again.
    pub lost: u64,
    /// Saving checkpoints.
    pub saving: u64,
    /// Held, but nothing ran any more.
    pub idle: u64,
}

impl Ledger {
    /// An attempt that held so much and spent its time so.
    pub fn of(milligpu: u64, spent: &Spent) -> Self {
        Self {
            useful: milligpu * spent.useful_ms,
            restart: milligpu * spent.restart_ms,
            lost: milligpu * spent.lost_ms,
            saving: milligpu * spent.saving_ms,
            idle: milligpu * spent.idle_ms,
        }
    }

    /// All classes together: what was held.
    pub fn held(&self) -> u64 {
        self.useful + self.restart + self.lost + self.saving + self.idle
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Ledger) {
        self.useful += other.useful;
        self.restart += other.restart;
        self.lost += other.lost;
        self.saving += other.saving;
        self.idle += other.idle;
    }
}

/// What became of one job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobOutcome {
    /// Its name in the source.
    pub key: String,
    /// When it was submitted.
    pub submit_ms: u64,
    /// When it was first placed, if ever.
    pub first_start_ms: Option<u64>,
    /// When it ended by its own account: inside a fixed round, its GPUs are held a little longer. `None` if it has not
    /// ended when the run did.
    pub end_ms: Option<u64>,
    /// How it ended.
    pub outcome: Option<berth_types::Outcome>,
    /// What it held, and for what.
    pub ledger: Ledger,
    /// How long it had an attempt, in all, up to its end.
    pub placed_ms: u64,
    /// Attempts beyond the first.
    pub restarts: u32,
    /// Those of them that cost nothing before work went on.
    pub free_restarts: u32,
    /// GPU models that it used, in the order of first use.
    pub gpu_models: Vec<Arc<str>>,
    /// Its requests, if it is a service.
    pub served: Option<Served>,
}

/// Who held a part of a node when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Index of the job in the trace.
    pub job: usize,
    /// Index of the node in the cluster.
    pub node: usize,
    /// GPU of the node, and how many thousandths of it.
    pub gpu: u16,
    /// See `gpu`.
    pub milligpu: u32,
    /// From.
    pub start_ms: u64,
    /// To.
    pub end_ms: u64,
}

/// How full the cluster was when so much had arrived, for packing: in thousandths of GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Asked for by all jobs that had arrived.
    pub arrived_milligpu: u64,
    /// Held after the round that followed.
    pub allocated_milligpu: u64,
}

/// The nodes of a pool over a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeUse {
    /// The pool's name; empty for nodes of no pool.
    pub pool: String,
    /// Held in all, in milliseconds: from the moment a node is granted until it is given back, boot and repair included.
    pub held_ms: u64,
    /// What that costs.
    pub cost: f64,
    /// Most nodes at once.
    pub most: u32,
    /// Nodes that were asked for and granted.
    pub granted: u64,
    /// Requests for a node that were denied.
    pub denied: u64,
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// In the order of the trace.
    pub jobs: Vec<JobOutcome>,
    /// What was going on over time.
    pub series: Series,
    /// For jobs that start now or never: one after each instant at which some arrived.
    pub packed: Vec<Packed>,
    /// Who held what when, if it was asked for; in the order of the ends.
    pub timeline: Vec<Span>,
    /// Virtual time when the run was over.
    pub end_ms: u64,
    /// Planning rounds, those included that only redeem reservations.
    pub rounds: u64,
    /// Rounds in which the policy was asked.
    pub decisions: u64,
    /// Attempts that were started.
    pub starts: u64,
    /// Attempts that were evicted.
    pub evictions: u64,
    /// Jobs that neither ended nor were rejected.
    pub unfinished: u64,
    /// In service over the run, in thousandths of GPUs times milliseconds from the first submission to the last end.
    pub capacity: u64,
    /// Fragmentation: the share of free GPU time that a random job of the trace could not have used, see
    /// [`Point::stranded_milligpu`](super::Point); 0 if nothing was ever free.
    pub fragmentation: f64,
    /// Time in which nodes were held, by pool in the order of [`Cluster::pools`](super::Cluster::pools), up to the last
    /// end; nodes of no pool come last.
    pub nodes: Vec<NodeUse>,
    /// True if whoever watched ended the run early.
    pub cut: bool,
    /// Hash of what was done: submissions, starts with their places, evictions, what became of tasks, each with its time.
    pub hash: u64,
}

impl Outcome {
    /// The figures that are reported of a run. `policy` and `trace` are names.
    pub fn figures(&self, policy: &str, trace: &str) -> Figures {
        figures::of(self, policy, trace)
    }

    /// What all jobs held.
    pub fn ledger(&self) -> Ledger {
        let mut sum = Ledger::default();
        for job in &self.jobs {
            sum.add(&job.ledger);
        }
        sum
    }

    /// The mean GPU allocation, in percent of `capacity_milligpu`, over all instants at which what had arrived was
    /// `percent` of it, rounded to whole percents. `None` if it never was. FGD (ATC'23), evaluation.
    pub fn gpu_allocation_at(&self, percent: u64, capacity_milligpu: u64) -> Option<f64> {
        let share = |milligpu: u64| 100.0 * milligpu as f64 / capacity_milligpu as f64;
        let here =
            (self.packed.iter()).filter(|p| share(p.arrived_milligpu).round() == percent as f64);
        let shares: Vec<f64> = here.map(|p| share(p.allocated_milligpu)).collect();
        (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
    }
}
