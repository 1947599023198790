//! The seam between the engine and what a job really does.
//!
//! The scheduler sees a job's record; the engine holds the job's [`Behaviour`], and tells it what happens to the job:
//!
//! ```text
//!            on_start(held, t0)
//!  waiting ---------------------> running --+-- advance(t) -> None: goes on; when it is due next, due_ms() says
//!     ^                             |       '-- advance(t) -> Some(Ended { at_ms <= t })
//!     |   on_stop(t, why) -> Spent  |                 |
//!     '-----------------------------'<----------------'  (on_stop follows each end, too)
//! ```
//!
//! - **Event-driven** ([`Rounds::OnEvent`](super::Rounds)): `advance` is called when the job is due, and before every
//!   `on_stop` and `on_speed`. It ends at the very millisecond that `due_ms` named.
//! - **Fixed rounds** ([`Rounds::Every`](super::Rounds)): `advance` is called for every running job at the end of each
//!   round, and in between only if its GPUs change speed or die, whatever `due_ms` says. A job that ends inside the round says when ([`Ended::at_ms`]),
//!   and its GPUs stay held until the round's end.
//!
//! Time is handed in and never read. All that a behaviour may draw at random, it draws from a seed that its
//! [`Model`] was given. What the scheduler may know of the job, it publishes as an [`Insight`].

use std::fmt::Debug;
use std::sync::Arc;

use berth_core::insight::Insight;
use berth_types::NodeId;

use super::alone::Alone;
use super::trace::{End, TraceJob};

/// Makes behaviours: what a job is like, shared by all runs of it.
pub trait Model: Debug + Send + Sync {
    /// The behaviour of this job from its submission on.
    fn begin(&self, job: &TraceJob) -> Box<dyn Behaviour>;

    /// The job alone on a cluster, if it could have any of these at any time and changes cost nothing; `None` if it
    /// cannot change as it goes.
    fn alone(&self, job: &TraceJob, choices: &[Held]) -> Option<Alone> {
        let _ = (job, choices);
        None
    }
}

/// What one job does, from its submission to its end, over all of its attempts.
pub trait Behaviour: Debug + Send {
    /// An attempt begins: the job holds this from `now_ms` on. Whether anything was lost or must be loaded again
    /// (because this is the first start, or another GPU model, or another shape) is the behaviour's to say, by not
    /// making progress for a while.
    fn on_start(&mut self, held: &Held, now_ms: u64);

    /// When the running attempt must be advanced next: its end, or earlier if what it publishes changes. `None` if it
    /// would run for ever like this. Asked after `on_start`, `advance` and `on_speed`.
    fn due_ms(&self) -> Option<u64>;

    /// Time passed. The end, if the job has ended by now.
    fn advance(&mut self, now_ms: u64) -> Option<Ended>;

    /// The attempt is over; `advance(now_ms)` came right before. How its time was spent: the sum is exactly the time
    /// since `on_start`.
    fn on_stop(&mut self, now_ms: u64, why: Stop) -> Spent;

    /// From now on the GPUs run at this share of their speed (a degraded GPU, a neighbour on the same GPU, a slow
    /// rank); 1 is undisturbed. `advance(now_ms)` came right before. Ignored by default.
    fn on_speed(&mut self, share: f64, now_ms: u64) {
        let _ = (share, now_ms);
    }

    /// What the scheduler learns of the job, if it changed since this was asked last. Asked at submission and after
    /// every other call.
    fn insight(&mut self) -> Option<Arc<Insight>> {
        None
    }

    /// For a service: the requests until now. Asked once, when the job or the run is over.
    fn served(&mut self, now_ms: u64) -> Option<Served> {
        let _ = now_ms;
        None
    }
}

/// Requests to a service.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Served {
    /// All that came in while it lived.
    pub asked: f64,
    /// Those that its workers could serve.
    pub served: f64,
}

/// What an attempt holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// Workers by group.
    pub workers: Vec<u32>,
    /// By node, ascending; a node with GPUs of several models is there once for each that is held.
    pub nodes: Vec<HeldNode>,
    /// Thousandths of GPUs in all.
    pub milligpu: u64,
}

/// What an attempt holds on one node.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldNode {
    /// The node.
    pub node: NodeId,
    /// Model of the GPUs, as nodes report it; empty without GPUs.
    pub gpu_model: Arc<str>,
    /// Speed of that model for rigid jobs, see [`GpuModel`](super::GpuModel).
    pub speed: f64,
    /// Workers here.
    pub workers: u32,
    /// Distinct GPUs here.
    pub gpus: u32,
}

impl Held {
    /// Speed of the slowest GPU, which a gang runs at; 1 without GPUs.
    pub fn speed(&self) -> f64 {
        let speeds = self.nodes.iter().filter(|node| node.gpus > 0);
        let least = speeds.map(|node| node.speed).fold(f64::INFINITY, f64::min);
        if least.is_finite() { least } else { 1.0 }
    }

    /// GPUs by node, zeros left out.
    pub fn gpus_per_node(&self) -> impl Iterator<Item = u32> + '_ {
        self.nodes
            .iter()
            .map(|node| node.gpus)
            .filter(|&gpus| gpus > 0)
    }
}

/// The end of a job, by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// When; at most the time that was handed in.
    pub at_ms: u64,
    /// How.
    pub end: End,
}

/// Why an attempt is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// `advance` said so.
    Ended,
    /// The scheduler evicted it; it had notice.
    Evicted,
    /// A node died under it, without notice.
    NodeLost,
    /// The run of the twin is over, and the job is not.
    Unfinished,
}

/// How the time of an attempt was spent, in milliseconds of its allocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Work that counted.
    pub useful_ms: u64,
    /// Starting, loading a checkpoint, warming up.
    pub restart_ms: u64,
    /// Work since the last checkpoint that has to be done again.
    pub lost_ms: u64,
    /// Saving checkpoints.
    pub saving_ms: u64,
    /// Held, but nothing ran any more: the rest of a fixed round.
    pub idle_ms: u64,
}

impl Spent {
    /// All of it.
    pub fn sum_ms(&self) -> u64 {
        self.useful_ms + self.restart_ms + self.lost_ms + self.saving_ms + self.idle_ms
    }
}
