//! The twin: a whole workload on a whole cluster through Berth's own state machine and planner, in virtual time.
//!
//! A [`Trace`] says which jobs arrive when and how they behave ([`Truth`]); a [`Cluster`] says on what. Everything
//! here is data: files are read by the tool around it.

mod cluster;
mod trace;

pub use cluster::{Cluster, GpuModel};
pub use trace::{End, Rigid, Trace, TraceJob, Truth};
