//! Workloads that others recorded, as [`Trace`](berth_world::twin::Trace)s: one file per format.
//!
//! A loader reads a [`Source`](crate::input::Source) row by row and hands each job to a [`Builder`], which knows what is
//! wrong with a job in any format: a key used twice, a spec that Berth refuses, more than the cluster has.
//! [`load()`] is the door to all of them.

mod builder;
mod date;
mod format;
mod limits;

pub mod berth;
pub mod berth_csv;
pub mod dlrm;
pub mod genai;
pub mod go_random;
pub mod helios;
pub mod interference;
pub mod openb;
pub mod pai;
pub mod philly;
pub mod philly_gavel;
pub mod sacct;
pub mod sia;
pub mod sia_profiles;
pub mod swf;

pub use builder::{Builder, Loaded, Origin, Recorded};
pub use format::{Extras, Format, load};
pub use limits::Limits;
