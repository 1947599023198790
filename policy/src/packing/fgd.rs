//! `fgd`: the place that adds least to fragmentation.
//!
//! Source: Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent",
//! USENIX ATC 2023, sections 3 and 4 (algorithm 1). A worker goes where the cluster's fragmentation
//! ([`fragment`]) grows least or falls most. As in the authors' simulator, the score of a place is
//! `100 * sigmoid((F before - F after) / 1000)`, cut to an integer, and a part of a GPU goes to the GPU of the node with
//! the best score, ties to the first.
//!
//! Deviations:
//! - Typical workers are those of the newest 2,000 unfinished jobs, looked at again after every 100 submissions,
//!   unless a workload is given. The published figures take the distribution of the whole list, which a scheduler does
//!   not know in advance: reproducing them gives it.
//! - `F` is exact, in integers.

use berth_core::policy::View;
use berth_types::MILLI;
use rand_chacha::ChaCha8Rng;

use super::ask::Ask;
use super::fleet::{Fleet, Scale};
use super::fragment::{self, Gauge};
use super::packer::Rule;
use super::seat::Seat;
use super::workload::Workload;

/// Submissions after which the recent workload is looked at again.
const RELEARN_EVERY: u64 = 100;

/// Fragmentation gradient descent.
#[derive(Clone, Debug, Default)]
pub struct Fgd {
    workload: Option<Workload>,
    gauge: Gauge,
    /// Next job's id when the workload was last looked at.
    learned_at: Option<u64>,
}

impl Fgd {
    /// Learns what is typical from the jobs that it sees.
    pub fn recent() -> Self {
        Self::default()
    }

    /// Takes this workload as what is typical.
    pub fn with_workload(workload: Workload) -> Self {
        Self {
            workload: Some(workload),
            ..Self::default()
        }
    }

    /// The score of a worker on these GPUs of a seat with fragmentation `before`.
    fn score_on(&self, seat: &Seat, ask: &Ask, gpus: &[u16], before: u64, free: &mut [u32]) -> i32 {
        free.copy_from_slice(&seat.gpus);
        for &gpu in gpus {
            free[usize::from(gpu)] -= ask.share;
        }
        let after = self
            .gauge
            .node(&seat.parts, seat.millicpu - ask.millicpu, free);
        let gained = before as f64 - after as f64;
        let gained = gained / (self.gauge.weight() as f64 * f64::from(MILLI));
        (100.0 / (1.0 + (-gained).exp())) as i32
    }

    /// The best GPUs and their score. Of GPUs with equally much left only the first is looked at.
    fn best(&self, seat: &Seat, ask: &Ask) -> (i32, Vec<u16>) {
        let before = fragment::of_seat(&self.gauge, seat);
        let mut free = seat.gpus.clone();
        if !ask.is_fraction() {
            let gpus = seat.tightest(ask);
            return (self.score_on(seat, ask, &gpus, before, &mut free), gpus);
        }
        let mut best: Option<(i32, u16)> = None;
        let mut tried: Vec<(u32, usize)> = Vec::new();
        for gpu in seat.gpus_for(ask) {
            let kind = (seat.gpus[usize::from(gpu)], seat.model_of(gpu));
            if tried.contains(&kind) {
                continue;
            }
            tried.push(kind);
            let score = self.score_on(seat, ask, &[gpu], before, &mut free);
            if best.is_none_or(|(top, _)| score > top) {
                best = Some((score, gpu));
            }
        }
        best.map_or((0, Vec::new()), |(score, gpu)| (score, vec![gpu]))
    }
}

impl Rule for Fgd {
    fn name(&self) -> &'static str {
        "fgd"
    }

    fn observe(&mut self, view: &View, fleet: &Fleet) -> bool {
        let next = view.state.next_job;
        let is_due = match self.learned_at {
            None => true,
            Some(at) => self.workload.is_none() && next.abs_diff(at) >= RELEARN_EVERY,
        };
        if !is_due && self.gauge.covers(fleet.models()) {
            return false;
        }
        let recent;
        let workload = match &self.workload {
            Some(given) => given,
            None => {
                recent = Workload::recent(&view.state);
                &recent
            }
        };
        self.gauge = Gauge::new(workload, fleet.models());
        self.learned_at = Some(next);
        true
    }

    fn score(&self, seat: &Seat, ask: &Ask, _scale: Scale) -> i32 {
        self.best(seat, ask).0
    }

    fn gpus(&self, seat: &Seat, ask: &Ask, _rng: &mut ChaCha8Rng) -> Vec<u16> {
        self.best(seat, ask).1
    }
}
