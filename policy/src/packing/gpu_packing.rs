//! `gpu-packing`: GPUs in use before free ones, nodes in use before free ones.
//!
//! Source: the GPU packing that Weng et al. compare (USENIX ATC 2023, section 6.1), after MLaaS in the wild (Weng et al.,
//! NSDI 2022, section 6). With `n` GPUs on a node, scores are:
//! - all of them free: `33 - n`, at least `n`;
//! - `k` free ones are needed beside those in use: `50 - k`, at least 33;
//! - GPUs in use suffice: 100 less a tenth of the percents left on those taken, at least 50;
//! - a worker without GPUs: 0 everywhere.

use berth_types::MILLI;

use super::ask::Ask;
use super::fleet::Scale;
use super::packer::Rule;
use super::seat::Seat;

/// Used GPUs first, then used nodes.
#[derive(Clone, Copy, Debug, Default)]
pub struct GpuPacking;

impl Rule for GpuPacking {
    fn name(&self) -> &'static str {
        "gpu-packing"
    }

    fn score(&self, seat: &Seat, ask: &Ask, _scale: Scale) -> i32 {
        if ask.gpus == 0 {
            return 0;
        }
        let gpus = as_score(seat.gpus.len());
        if seat.whole_gpus() == seat.gpus.len() {
            return (33 - gpus).max(gpus);
        }
        let taken = seat.tightest(ask);
        let free = || taken.iter().map(|&gpu| seat.gpus[usize::from(gpu)]);
        let whole = as_score(free().filter(|&free| free == MILLI).count());
        if whole > 0 {
            return (50 - whole).max(33);
        }
        let percents: u32 = free().map(|free| free * 100 / MILLI).sum();
        (100 - as_score((percents / 10) as usize)).max(50)
    }
}

fn as_score(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
