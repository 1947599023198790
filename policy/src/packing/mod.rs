//! Packing: policies that choose a node for every worker by a score, so that little of the GPUs is left in pieces that
//! nobody can use.
//!
//! One walk, six rules. [`packer`] goes through the queue in order and seats each job's workers one after the other on
//! the node with the highest score; a [`Rule`] is the score and the choice of GPUs on that node. The rules are those
//! that Weng et al. compare in "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient
//! Descent" (USENIX ATC 2023), one file each: [`fgd`] is theirs, the others are their baselines.
//!
//! Start reading at [`best_fit`], the shortest rule, then [`fgd`]; [`fleet`] is what they look at.

pub mod ask;
pub mod best_fit;
pub mod dot_product;
pub mod fgd;
pub mod fleet;
pub mod fragment;
pub mod gpu_clustering;
pub mod gpu_packing;
pub mod packer;
pub mod random;
pub mod seat;
pub mod workload;

pub use best_fit::BestFit;
pub use dot_product::DotProduct;
pub use fgd::Fgd;
pub use fragment::FragmentMeter;
pub use gpu_clustering::GpuClustering;
pub use gpu_packing::GpuPacking;
pub use packer::{Packer, Rule};
pub use random::Random;
pub use workload::Workload;
