//! What a run consists of.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_core::planner::PlanLimits;
use berth_types::{JobSpec, TaskPlacement};

use super::{Cluster, Faults, Trace};

/// A run: a workload on a cluster, and the rules of the game. The policy is handed in beside it.
#[derive(Clone, Debug)]
pub struct Setting {
    /// What there is.
    pub cluster: Arc<Cluster>,
    /// What arrives.
    pub trace: Arc<Trace>,
    /// When the scheduler looks.
    pub rounds: Rounds,
    /// Where all randomness comes from.
    pub seed: u64,
    /// Bounds of one planning round. Plans explain nothing unless it is asked for here.
    pub limits: PlanLimits,
    /// What policies are told of rigid jobs.
    pub foresight: Foresight,
    /// What starts, restarts and checkpoints cost rigid jobs.
    pub overheads: Overheads,
    /// What goes wrong.
    pub faults: Faults,
    /// Checks every invariant after every round; a broken one ends the run. For tests: it looks at everything.
    pub checks: bool,
    /// Keeps who held which GPU when, for a Gantt chart.
    pub timeline: bool,
    /// Ends the run at this virtual time, if it has not ended by itself.
    pub until_ms: Option<u64>,
    /// The cluster is at work already when planning begins.
    pub outset: Option<Outset>,
}

/// Where a run takes up a cluster that is already at work. Jobs may have been submitted before; nothing is planned until
/// then.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outset {
    /// When planning begins.
    pub at_ms: u64,
    /// What runs: jobs by their index in the trace, and where each of their tasks sits. The trace tells what is left of
    /// them from here on.
    pub placed: Vec<(usize, Vec<TaskPlacement>)>,
    /// Names of nodes that finish what they have and take nothing new.
    pub drained: Vec<String>,
}

impl Setting {
    /// A run with the defaults: rounds on events at once, no costs, no foresight, no faults, no checks.
    pub fn new(cluster: Arc<Cluster>, trace: Arc<Trace>) -> Self {
        Self {
            cluster,
            trace,
            rounds: Rounds::default(),
            seed: 0,
            limits: PlanLimits {
                explain: false,
                ..PlanLimits::default()
            },
            foresight: Foresight::default(),
            overheads: Overheads::default(),
            faults: Faults::default(),
            checks: false,
            timeline: false,
            until_ms: None,
            outset: None,
        }
    }
}

/// When the scheduler looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounds {
    /// Whenever something arrives, ends or changes, and jobs wait. If a round evicted, another one follows at the same
    /// instant.
    OnEvent {
        /// How long it waits for more events to share the round; 0 for the same millisecond only.
        coalesce_ms: u64,
    },
    /// At each multiple of `ms` after time 0, while there are unfinished jobs, once. What ends in between is seen then,
    /// and its GPUs are held until then.
    Every {
        /// Length of a round; more than 0.
        ms: u64,
    },
}

impl Default for Rounds {
    fn default() -> Self {
        Rounds::OnEvent { coalesce_ms: 0 }
    }
}

/// What policies are told of how long rigid jobs run, as [`Insight::duration`](berth_core::insight::Insight).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Foresight {
    /// Nothing but what the spec says.
    #[default]
    Blind,
    /// The recorded duration. For published policies that assume it.
    True,
}

/// Costs by family of jobs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overheads {
    /// Of families that are not listed.
    pub usual: Overhead,
    /// By family: the job's label `family`, or else its name.
    pub by_family: BTreeMap<String, Overhead>,
}

/// What starts, restarts and checkpoints cost a rigid job. The default costs nothing and loses nothing, since it saves
/// all the time; [`NEVER_SAVES`](Self::NEVER_SAVES) begins anew after each eviction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overhead {
    /// Before the first attempt makes progress.
    pub first_start_ms: u64,
    /// Before any further attempt makes progress.
    pub restart_ms: u64,
    /// Work between two checkpoints; 0 if it saves all the time, for nothing.
    pub checkpoint_every_ms: u64,
    /// What saving a checkpoint takes.
    pub save_ms: u64,
    /// True if an eviction loses what was done since the last checkpoint; otherwise its notice suffices to save. A lost
    /// node always loses it.
    pub eviction_loses: bool,
}

impl Overhead {
    /// A job that knows no checkpoints.
    pub const NEVER_SAVES: Overhead = Overhead {
        first_start_ms: 0,
        restart_ms: 0,
        checkpoint_every_ms: u64::MAX,
        save_ms: 0,
        eviction_loses: true,
    };
}

impl Overheads {
    /// What a job of this spec pays.
    pub fn of(&self, spec: &JobSpec) -> Overhead {
        let family = spec.labels.get("family").unwrap_or(&spec.name);
        *self.by_family.get(family).unwrap_or(&self.usual)
    }
}
