//! Cluster files: what there is, in TOML, and the published clusters by name.
//!
//! A file names GPU models with their memory and relative speed, pools of equal nodes, and how nodes are wired. Where a
//! published cluster is itself a file of a trace (a node list, GPUs per virtual cluster and day), the TOML names that
//! file relative to `BERTH_TRACES` and says how to read it; the data is not part of Berth.
//!
//! ```text
//! name = "small"
//! [gpu_models.a100]
//! memory = "80GiB"
//! speed = 2.5                 # a job recorded on speed 1 takes 1/2.5 of its time here
//! [[pools]]
//! name = "big"
//! gpu = "a100"
//! nodes = 4
//! gpus_per_node = 8
//! cpus = 96
//! memory = "1TiB"
//! ```
//!
//! Start reading at [`open`], then `file` (the keys), `wiring` (racks, pods, spine) and `listing` (files of traces).

mod file;
mod listing;
mod section;
mod shipped;
mod units;
mod wiring;

pub use file::{ClusterFile, Pool};
pub use shipped::{NAMES, open, read};
pub use wiring::Wiring;
