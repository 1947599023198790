//! What a training application is like: its epochs, the noise of its gradient, its speed by GPU model.

use std::sync::Arc;

use berth_core::goodput::{GradientNoise, LocalBatch};

use super::profile::Profile;

/// A training application.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Application {
    /// Its name.
    pub name: String,
    /// Progress at the end of each epoch, in updates at the first batch that are worth as much.
    pub epochs: Vec<f64>,
    /// Statistics of the gradient by batch (ascending) and epoch.
    pub noise: Vec<(u32, Vec<GradientNoise>)>,
    /// What a start costs after a change of placement, in milliseconds.
    pub restart_ms: u64,
    /// What the scheduler believes that it costs.
    pub believed_restart_ms: u64,
    /// How much slower it is than its profile says.
    pub slowdown: f64,
    /// How fast it is, by GPU model.
    pub profiles: Vec<Arc<Profile>>,
}

impl Application {
    /// Batch that it begins with.
    pub fn first_batch(&self) -> u32 {
        self.noise.first().map_or(1, |(batch, _)| *batch)
    }

    /// Largest batch whose statistics are known.
    pub fn most_batch(&self) -> u32 {
        self.noise.last().map_or(1, |(batch, _)| *batch)
    }

    /// Index of the profile for a GPU model.
    pub fn profile_of(&self, gpu_model: &str) -> Option<usize> {
        self.profiles
            .iter()
            .position(|profile| *profile.gpu_model == *gpu_model)
    }

    /// Progress at which an epoch (from 0) begins.
    pub fn begins(&self, epoch: usize) -> f64 {
        epoch
            .checked_sub(1)
            .and_then(|before| self.epochs.get(before))
            .copied()
            .unwrap_or(0.0)
    }

    /// Statistics of the gradient at a batch in an epoch: between those of the nearest batches.
    pub fn noise_at(&self, batch: f64, epoch: usize) -> Option<GradientNoise> {
        let at = |(batch, epochs): &(u32, Vec<GradientNoise>)| {
            let last = epochs.len().checked_sub(1)?;
            Some((f64::from(*batch), epochs[epoch.min(last)]))
        };
        let above = self
            .noise
            .partition_point(|(known, _)| f64::from(*known) < batch);
        let Some(high) = self.noise.get(above) else {
            return self.noise.last().and_then(at).map(|(_, noise)| noise);
        };
        let (x1, high) = at(high)?;
        if x1 == batch || above == 0 {
            return Some(high);
        }
        let (x0, low) = at(&self.noise[above - 1])?;
        let share = (batch - x0) / (x1 - x0);
        let between = |a: f64, b: f64| a + (b - a) * share;
        Some(GradientNoise {
            squared_norm: between(low.squared_norm, high.squared_norm),
            variance: between(low.variance, high.variance),
        })
    }

    /// Progress per second: what an update is worth over how long it takes.
    pub fn goodput(&self, iteration_s: f64, workers: u32, batch: LocalBatch, epoch: usize) -> f64 {
        let global = batch.global(workers);
        let scale = global / f64::from(self.first_batch());
        let gain = self
            .noise_at(global, epoch)
            .map_or(0.0, |noise| noise.gain(scale));
        gain / iteration_s / self.slowdown.max(f64::MIN_POSITIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(squared_norm: f64) -> GradientNoise {
        GradientNoise {
            squared_norm,
            variance: 2.0 * squared_norm,
        }
    }

    fn application() -> Application {
        Application {
            name: "made up".into(),
            epochs: vec![10.0, 30.0],
            noise: vec![
                (100, vec![noise(1.0), noise(2.0)]),
                (200, vec![noise(3.0), noise(4.0)]),
            ],
            slowdown: 2.0,
            ..Application::default()
        }
    }

    #[test]
    fn noise_between_two_batches_lies_between_theirs() {
        let application = application();
        assert_eq!(application.noise_at(150.0, 0), Some(noise(2.0)));
        assert_eq!(application.noise_at(100.0, 1), Some(noise(2.0)));
        assert_eq!(application.noise_at(50.0, 0), Some(noise(1.0)));
        assert_eq!(application.noise_at(500.0, 7), Some(noise(4.0)));
    }

    #[test]
    fn epochs_begin_where_the_last_one_ended() {
        let application = application();
        assert_eq!(
            [0, 1, 2].map(|epoch| application.begins(epoch)),
            [0.0, 10.0, 30.0]
        );
    }

    #[test]
    fn goodput_is_the_worth_of_an_update_over_its_time() {
        let batch = LocalBatch {
            samples: 100,
            accumulated: 0,
        };
        // Gain (1 + 2) / (2 + 1) = 1 at the first batch; half a second, twice as slow.
        assert!((application().goodput(0.5, 1, batch, 0) - 1.0).abs() < 1e-12);
    }
}
