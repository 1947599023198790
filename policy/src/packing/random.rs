//! `random`: any node with room, any GPU with room. The floor that other policies are measured from.
//!
//! Source: the random placement that Weng et al. compare (USENIX ATC 2023, section 6.1): uniform over the nodes where the
//! worker fits; a part of a GPU comes from any GPU that holds it, also uniformly.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use super::ask::Ask;
use super::fleet::Scale;
use super::packer::{Rule, Scored};
use super::seat::Seat;

/// Anywhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct Random;

impl Rule for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn score(&self, _seat: &Seat, _ask: &Ask, _scale: Scale) -> i32 {
        0
    }

    fn gpus(&self, seat: &Seat, ask: &Ask, rng: &mut ChaCha8Rng) -> Vec<u16> {
        if !ask.is_fraction() {
            return seat.tightest(ask);
        }
        let fitting: Vec<u16> = seat.gpus_for(ask).collect();
        (below(fitting.len(), rng))
            .map(|nth| vec![fitting[nth]])
            .unwrap_or_default()
    }

    fn pick(&self, scores: &[Scored], rng: &mut ChaCha8Rng) -> Option<usize> {
        let fits = |(_, scored): &(usize, &Scored)| scored.score().is_some();
        let count = scores.iter().enumerate().filter(fits).count();
        let nth = below(count, rng)?;
        let mut fitting = scores.iter().enumerate().filter(fits);
        fitting.nth(nth).map(|(index, _)| index)
    }
}

/// A number below `count`; none if that is 0. The bias is at most `count / 2^64`.
fn below(count: usize, rng: &mut ChaCha8Rng) -> Option<usize> {
    let wide = u128::from(rng.next_u64()) * u128::try_from(count).ok()?;
    usize::try_from(wide >> 64).ok().filter(|_| count > 0)
}
