//! `gpu-clustering`: workers of one size together.
//!
//! Source: the GPU clustering that Weng et al. compare (USENIX ATC 2023, section 6.1), after Gandiva (Xiao et al., OSDI
//! 2018, section 3.3), which keeps jobs of one size on servers of their own. Sizes are: a part of a GPU, one GPU, two
//! GPUs and so on. With `q = 25 * used / largest` (GPUs in use on the node, as part of the largest node), scores are:
//! - only workers of this size sit there: `75 + q`;
//! - of this and other sizes: `50 + q`;
//! - none: `25 + q`;
//! - only of other sizes: `q`;
//! - a worker without GPUs: 0 everywhere.
//!
//! Deviations: the largest node in service stands for the authors' 8 GPUs.

use super::ask::Ask;
use super::fleet::Scale;
use super::packer::Rule;
use super::seat::Seat;

/// Like with like.
#[derive(Clone, Copy, Debug, Default)]
pub struct GpuClustering;

impl Rule for GpuClustering {
    fn name(&self) -> &'static str {
        "gpu-clustering"
    }

    fn score(&self, seat: &Seat, ask: &Ask, scale: Scale) -> i32 {
        let Some(kind) = ask.kind() else {
            return 0;
        };
        let base = match (seat.kinds.contains_key(&kind), seat.kinds.len()) {
            (true, 1) => 75,
            (true, _) => 50,
            (false, 0) => 25,
            (false, _) => 0,
        };
        let largest = u64::from(scale.milligpu);
        let used = largest.saturating_sub(seat.free_milligpu());
        base + i32::try_from(25 * used / largest).unwrap_or(25)
    }
}
