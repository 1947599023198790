//! Desired versus actual on one node: what an agent does with the directives of its leader.
//!
//! Owns one state machine per task attempt, the fence against old or foreign leaders, where the masters are, tombstones,
//! the lease, the environment of a task, and when a checkpoint counts. Must not know: sockets, processes, files, clocks, any async
//! runtime. The daemon (`berth-agent`) and the simulator (`berth-world`) run this very code: they feed [`Input`]s and
//! carry out [`Effect`]s.
//!
//! Start reading at [`AgentCore::step`], then [`task`] (the life of one task) and [`effect`] (what a shell owes).
//!
//! What holds whatever the order of inputs:
//! - at most one epoch of a job has live processes here; a newer one waits until the older ones are gone;
//! - an ended task stays in every inventory until a leader said [`forget`](berth_types::Directive::forget);
//! - an epoch that a tombstone has named never starts;
//! - a GPU that is read from a driver is handed out only after a look that began after its last task ended;
//! - a task is stopped by a tombstone, by a newer epoch of its job, or by the lease of a `fence` job: never by absence.

mod checkpoints;
mod core;
mod directive;
pub mod effect;
pub mod env;
mod facts;
pub mod fence;
pub mod gpus;
mod health;
pub mod hooks;
pub mod input;
mod inventory;
mod lease;
pub mod masters;
mod memory;
pub mod prepare;
pub mod roster;
pub mod task;

pub use crate::core::{AgentConfig, AgentCore};
pub use effect::{Effect, StopSignal, TaskMessage};
pub use fence::{Fence, Refusal};
pub use gpus::{GpuFact, GpuProcessFact};
pub use hooks::{HookRun, Hooks};
pub use input::{Input, KeptPhase, KeptTask, ReportedCheckpoint};
pub use masters::{Learned, Route};
pub use prepare::{DamagedCheckpoint, PrepareFault, Prepared};
pub use task::TaskMemo;
