//! Control groups (cgroup v2): one per task, with its limits, and one write that ends all of it.
//!
//! Owns the files below one control group that was given to this node. Must not know: processes' lives, the keeper's
//! protocol. [`place`] finds where the kernel shows them; [`tree`] makes, limits and ends the tasks' groups.

pub mod enter;
pub mod place;
pub mod tree;

pub use tree::{Limits, Tree};
