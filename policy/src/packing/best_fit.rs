//! `best-fit`: the node that has least left once the worker is there.
//!
//! Source: best fit as Weng et al. compare it (USENIX ATC 2023, section 6.1), after Protean (Hadary et al., OSDI 2020,
//! section 4): `100 * (1 - sum of w * (free - asked) / largest)` over CPUs and GPUs with equal weights, cut to an integer;
//! the highest score wins. A part of a GPU comes from the fullest GPU that still holds it.
//!
//! Jobs start in the order of the queue. Those that start in one round get their places the largest first (best fit
//! decreasing; Johnson, Journal of Computer and System Sciences 8, 1974), so that small ones fill gaps instead of
//! breaking up nodes that a larger one needs whole.
//!
//! Deviations:
//! - `largest` is the largest node in service; in the authors' simulator it is 128 CPUs and 8 GPUs.
//! - There, scores are stretched to 0..100 over the nodes that fit before they are compared. That keeps their order.

use super::ask::Ask;
use super::fleet::Scale;
use super::packer::Rule;
use super::seat::Seat;

/// Least left over.
#[derive(Clone, Copy, Debug, Default)]
pub struct BestFit;

impl Rule for BestFit {
    fn name(&self) -> &'static str {
        "best-fit"
    }

    fn repacks(&self) -> bool {
        true
    }

    fn score(&self, seat: &Seat, ask: &Ask, scale: Scale) -> i32 {
        let cpu_left = f64::from(seat.millicpu) - f64::from(ask.millicpu);
        let gpu_left = seat.free_milligpu() as f64 - ask.milligpu() as f64;
        let left =
            cpu_left / f64::from(scale.millicpu) * 0.5 + gpu_left / f64::from(scale.milligpu) * 0.5;
        ((1.0 - left) * 100.0) as i32
    }
}
