//! Policies behind one port: which job goes next, and where.
//!
//! Owns the heuristics and their registry. PURE: no I/O, no clock, no unseeded randomness.
//!
//! Must not know: the log, agents, time other than [`View::now_ms`](berth_core::View), and how a plan is made or
//! carried out. A policy proposes; the planner refuses what breaks a hard rule.
//!
//! Start reading at [`fifo`], the shortest one; [`registry`] finds them by name. Each policy is one file with its
//! source and its deviations.

pub mod best_fit;
pub mod fifo;
pub mod registry;
pub mod srtf;

pub use best_fit::BestFit;
pub use fifo::Fifo;
pub use registry::{NAMES, UnknownPolicy, by_name};
pub use srtf::Srtf;
