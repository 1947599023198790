//! `dot-product`: the node whose free amounts are least like the request in size and proportion.
//!
//! Source: Weng et al. (USENIX ATC 2023, section 6.1), after Tetris (Grandl et al., "Multi-resource packing for cluster
//! schedulers", SIGCOMM 2014, section 3.2): `100 * (1 - (free . asked) / 2)` over CPUs and GPUs as parts of the largest
//! node, cut to an integer; the highest score wins.
//!
//! Deviations: the largest node in service stands for the authors' 128 CPUs and 8 GPUs. Tetris itself prefers the larger
//! dot product; what is reproduced here is the comparison's.

use super::ask::Ask;
use super::fleet::Scale;
use super::packer::Rule;
use super::seat::Seat;

/// Least dot product of what is free with what is asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct DotProduct;

impl Rule for DotProduct {
    fn name(&self) -> &'static str {
        "dot-product"
    }

    fn score(&self, seat: &Seat, ask: &Ask, scale: Scale) -> i32 {
        let (cpus, gpus) = (f64::from(scale.millicpu), f64::from(scale.milligpu));
        let cpu = f64::from(seat.millicpu) / cpus * (f64::from(ask.millicpu) / cpus);
        let gpu = seat.free_milligpu() as f64 / gpus * (ask.milligpu() as f64 / gpus);
        (100.0 * (1.0 - (cpu + gpu) / 2.0)) as i32
    }
}
