//! The twin: a whole workload on a whole cluster through Berth's own state machine and planner, in virtual time.
//!
//! A [`Trace`] says which jobs arrive when and how they behave ([`Truth`]); a [`Cluster`] says on what; a [`Setting`]
//! adds when the scheduler looks and what a restart costs. [`run`] puts them together and answers with an [`Outcome`].
//! Everything here is data: files are read by the tool around it.
//!
//! ```text
//! trace --SubmitJob-->  +--------------+ --View--> policy --Proposal--> planner --ApplyPlan--+
//! faults --MarkNode..-> | berth-core's |                                                     |
//!  +-----RecordTasks--> | state, apply | <---------------------------------------------------+
//!  |                    +--------------+ --starts, evictions-->  behaviours (one per job)
//!  +------------------------------------ ends, at their own time ------+
//! ```
//!
//! This is the fast lane: no Raft, no encoding, no latency. An evicted task is gone at once, and its reservation is
//! redeemed at the same instant.
//!
//! Start reading at [`behaviour`] (the seam between the engine and what jobs do), then `engine`.

pub mod adaptive;
mod alone;
pub mod behaviour;
mod checks;
mod cluster;
pub(crate) mod deeds;
mod elastic;
mod engine;
mod faults;
mod figures;
mod fragmentation;
pub mod generate;
pub(crate) mod lane;
mod outcome;
mod rigid;
mod series;
mod service;
mod setting;
mod toil;
mod trace;

pub use alone::{Alone, alone};
pub use behaviour::{Behaviour, Ended, Held, HeldNode, Model, Served, Spent, Stop};
pub use cluster::{Cluster, GpuModel, PoolRules};
pub use elastic::{Elastic, ElasticModel, StepTime};
pub use engine::{Progress, TwinError, run, unwatched};
pub use faults::{Faults, Interference, Neighbours, NodeFaults, Stragglers};
pub use figures::Figures;
pub use outcome::{JobOutcome, Ledger, NodeUse, Outcome, Packed, Span};
pub use series::{Point, Series};
pub use service::{Service, ServiceModel};
pub use setting::{Foresight, Outset, Overhead, Overheads, Rounds, Setting};
pub use trace::{End, Rigid, Trace, TraceJob, Truth};
