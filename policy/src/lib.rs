//! Policies behind one port: which job goes next, and where.
//!
//! Owns the heuristics and their registry. PURE: no I/O, no clock, no unseeded randomness.
//!
//! Must not know: the log, agents, time other than [`View::now_ms`](berth_core::View), and how a plan is made or
//! carried out. A policy proposes; the planner refuses what breaks a hard rule.
//!
//! Start reading at [`fifo`], the shortest one; [`registry`] finds them by name. Each policy is one file with its
//! source and its deviations. What several share: [`options`] (settings behind a name), [`duration`] (how long jobs run,
//! as far as is known), [`history`] (durations from jobs that ended), [`estimates`] (which of the two), [`priors`] (speed
//! and work from jobs of the same family), [`preempt`] (evictions by rank), [`fleet`] (shares for all jobs at once) and
//! [`soft`] (rules around any policy that price evictions). [`autoscale`] puts sizes of pools around any policy.

pub mod autoscale;
pub mod best_fit_decreasing;
pub mod duration;
pub mod estimates;
pub mod fifo;
pub mod fleet;
pub mod flow;
pub mod gavel;
pub mod history;
pub mod las;
pub mod options;
pub mod packing;
pub mod pollux;
pub mod preempt;
pub mod priors;
pub mod qssf;
pub mod registry;
pub mod sia;
pub mod sjf;
pub mod soft;
pub mod srtf;

pub use autoscale::Autoscale;
pub use best_fit_decreasing::BestFitDecreasing;
pub use fifo::Fifo;
pub use flow::Flow;
pub use gavel::Gavel;
pub use las::Las;
pub use options::NameError;
pub use pollux::Pollux;
pub use qssf::Qssf;
pub use registry::{NAMES, by_name, by_name_for};
pub use sia::Sia;
pub use sjf::Sjf;
pub use soft::Soft;
pub use srtf::Srtf;
