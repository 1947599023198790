//! What an adaptive job does: loads, trains epoch by epoch, tunes its batch, and is seen doing it.
//!
//! Source: the simulator of the Sia artifact (Jayaram Subramanya et al., SOSP 2023), whose rules of stepping it keeps:
//! an epoch takes whole seconds; the batch is tuned after each epoch and each time the job is looked at; a start after a
//! change of shape or GPU model costs a fixed time, during which GPUs are held; nothing is lost by an eviction.
//!
//! Beyond it: a node that dies without notice throws the job back to the start of its epoch.

use std::sync::Arc;

use berth_core::goodput::{GradientNoise, LocalBatch, Observation};
use berth_core::insight::{Insight, Record, Speed};

use super::knowledge::{Estimate, Seen, asked, learned_model, tuned};
use super::model::{Adaptive, Knowledge, Tuning};
use super::profile::{Curve, Profile};
use crate::twin::behaviour::{Behaviour, Ended, Held, Spent, Stop};
use crate::twin::trace::End;

/// What the job runs on.
#[derive(Clone, Debug)]
struct Place {
    /// Index of the GPU model among the application's profiles.
    model: usize,
    /// GPUs per node, in the order of nodes.
    placement: Vec<u32>,
    /// Its speed there; `None` if that is beyond what was measured, so that the job makes no progress.
    curve: Option<Arc<Curve>>,
}

/// An adaptive job from its submission on.
#[derive(Debug)]
pub(super) struct AdaptiveJob {
    job: Adaptive,
    progress: f64,
    epoch: usize,
    place: Option<Place>,
    batch: LocalBatch,
    /// Share of their speed that the GPUs run at.
    share: f64,
    running: bool,
    ended: bool,
    /// Up to when it was advanced.
    at_ms: u64,
    /// What of the start is left.
    loading_ms: u64,
    spent: Spent,
    /// Useful time since the epoch began, within this attempt.
    epoch_ms: u64,
    restarts: Option<u32>,
    /// Largest batch of all workers that it ran.
    most_batch: u32,
    by_model: Vec<Seen>,
    blind: Seen,
    noise: Option<GradientNoise>,
    speed: Option<Arc<dyn Speed>>,
    is_news: bool,
}

impl AdaptiveJob {
    pub(super) fn new(job: Adaptive) -> Self {
        let profiles = &job.application.profiles;
        let by_model = match job.knowledge {
            Knowledge::Seeded => profiles.iter().map(|p| Seen::all_of(p)).collect(),
            Knowledge::Learned | Knowledge::True => vec![Seen::default(); profiles.len()],
        };
        Self {
            progress: 0.0,
            epoch: 0,
            place: None,
            batch: LocalBatch {
                samples: 1,
                accumulated: 0,
            },
            share: 1.0,
            running: false,
            ended: false,
            at_ms: 0,
            loading_ms: 0,
            spent: Spent::default(),
            epoch_ms: 0,
            restarts: None,
            most_batch: 0,
            by_model,
            blind: Seen::default(),
            noise: None,
            speed: None,
            is_news: true,
            job,
        }
    }

    fn profile(&self, place: &Place) -> &Arc<Profile> {
        &self.job.application.profiles[place.model]
    }

    /// Chooses the batch for the present place.
    fn tune(&mut self) {
        let Some(place) = &self.place else {
            return;
        };
        let profile = self.profile(place);
        let seen = match self.job.tuning {
            Tuning::Blind => &self.blind,
            Tuning::PerModel | Tuning::Fixed => &self.by_model[place.model],
        };
        let batch = match self.job.tuning {
            Tuning::Fixed => asked(&self.job, profile, &place.placement),
            Tuning::PerModel | Tuning::Blind => tuned(
                &self.job,
                profile,
                &place.placement,
                seen.fitted.zip(self.noise),
            ),
        };
        if let Some(batch) = batch {
            self.batch = batch;
        }
    }

    /// Progress per second as things are, and what is seen of it; `None` if it is unknown or none.
    fn goodput(&self) -> Option<(f64, Observation, GradientNoise)> {
        let place = self.place.as_ref()?;
        let time = place.curve.as_ref()?.at(self.batch.samples)?;
        let workers = place.placement.iter().sum();
        let compute_s = time.step_s - time.synchronise_s;
        let iteration_s = time.step_s + f64::from(self.batch.accumulated) * compute_s;
        let application = &self.job.application;
        let noise = application.noise_at(self.batch.global(workers), self.epoch)?;
        let goodput = application.goodput(iteration_s, workers, self.batch, self.epoch);
        let observation = Observation {
            nodes: place.placement.len() as u32,
            workers,
            samples: self.batch.samples,
            step_s: time.step_s,
            synchronise_s: time.synchronise_s,
        };
        let goodput = goodput * self.share;
        (goodput > 0.0).then_some((goodput, observation, noise))
    }

    fn observe(&mut self, observation: Observation, noise: GradientNoise) {
        let global = self.batch.global(observation.workers) as u32;
        self.most_batch = self.most_batch.max(global);
        let mut news = self.noise.replace(noise) != Some(noise);
        if let Some(place) = &self.place {
            news |= match self.job.tuning {
                Tuning::Blind => self.blind.learn(observation),
                Tuning::PerModel | Tuning::Fixed => self.by_model[place.model].learn(observation),
            };
        }
        if news {
            self.speed = None;
            self.is_news = true;
        }
    }

    /// Time to the end of the epoch at this goodput, in whole seconds; where that is none, one millisecond.
    fn epoch_left_ms(&self, goodput: f64) -> u64 {
        let left = self.job.application.begins(self.epoch + 1) - self.progress;
        let seconds = (left / goodput).max(0.0).round_ties_even();
        ((seconds * 1000.0) as u64).max(1)
    }

    /// Trains for some time after the start is over. True if it came to its end.
    fn train(&mut self, mut left_ms: u64) -> bool {
        while left_ms > 0 {
            let Some((goodput, observation, noise)) = self.goodput() else {
                self.spent.idle_ms += left_ms;
                self.at_ms += left_ms;
                return false;
            };
            self.observe(observation, noise);
            let epoch_ms = self.epoch_left_ms(goodput);
            if left_ms < epoch_ms {
                self.progress += goodput * left_ms as f64 / 1000.0;
                self.work(left_ms);
                left_ms = 0;
            } else {
                self.work(epoch_ms);
                left_ms -= epoch_ms;
                self.epoch += 1;
                self.epoch_ms = 0;
                self.progress = self.job.application.begins(self.epoch);
                if self.epoch >= self.job.application.epochs.len() {
                    self.spent.idle_ms += left_ms;
                    return true;
                }
            }
            self.tune();
        }
        false
    }

    fn work(&mut self, ms: u64) {
        self.is_news = true;
        self.at_ms += ms;
        self.epoch_ms += ms;
        self.spent.useful_ms += ms;
    }

    /// What it was seen to do.
    fn record(&self) -> Record {
        let application = &self.job.application;
        let first = f64::from(application.first_batch());
        let models = application.profiles.iter().zip(&self.by_model);
        let total = application.epochs.last().map(|total| total * first);
        Record {
            done: self.progress * first,
            total: total.filter(|_| self.job.knowledge == Knowledge::True),
            at_ms: self.at_ms,
            noise: self.noise,
            models: models
                .map(|(profile, seen)| {
                    let observations = Arc::clone(&seen.observations);
                    (learned_model(&self.job, profile, seen), observations)
                })
                .collect(),
            most_batch: self.most_batch,
        }
    }

    /// Most workers worth trying next: twice the most that were seen, on any GPU model.
    fn ramp(&self) -> u32 {
        let profiles = self.job.application.profiles.iter();
        let most = profiles.zip(&self.by_model).map(|(profile, seen)| {
            let seen = seen.largest().max(self.blind.largest());
            let by_batch = self.job.application.most_batch() / profile.local_least.max(1);
            let ramp = match self.job.knowledge {
                Knowledge::True => u32::MAX,
                Knowledge::Learned | Knowledge::Seeded => seen.saturating_mul(2).max(1),
            };
            ramp.min(self.job.most_workers).min(by_batch)
        });
        most.max().unwrap_or(0)
    }
}

impl Behaviour for AdaptiveJob {
    fn on_start(&mut self, held: &Held, now_ms: u64) {
        let application = &self.job.application;
        let placement: Vec<u32> = held.gpus_per_node().collect();
        // GPUs of several models train in step, so the slowest kind sets the pace.
        let models = held.nodes.iter().filter(|node| node.gpus > 0);
        let models = models.filter_map(|node| application.profile_of(&node.gpu_model));
        let speed = |&model: &usize| application.profiles[model].single_gpu();
        let slowest = models.min_by(|a, b| speed(a).total_cmp(&speed(b)));
        let place = slowest.map(|model| Place {
            model,
            curve: application.profiles[model].curve(&placement),
            placement,
        });
        let same = |(old, new): (&Place, &Place)| {
            (old.model, &old.placement) == (new.model, &new.placement)
        };
        let stayed = self.place.as_ref().zip(place.as_ref()).is_some_and(same);
        let moved_only = self.job.free_moves && stayed && self.at_ms == now_ms && !self.ended;
        if !moved_only || self.restarts.is_none() {
            self.place = place;
            self.loading_ms = application.restart_ms;
            self.restarts = Some(self.restarts.map_or(0, |restarts| restarts + 1));
            self.tune();
        }
        self.running = true;
        self.at_ms = now_ms;
        self.spent = Spent::default();
        self.epoch_ms = 0;
        self.is_news = true;
    }

    fn due_ms(&self) -> Option<u64> {
        if !self.running || self.ended {
            return None;
        }
        let (goodput, ..) = self.goodput()?;
        // The end of the epoch; but the end of the start is news, too.
        let ms = match self.loading_ms {
            0 => self.epoch_left_ms(goodput),
            loading_ms => loading_ms,
        };
        Some(self.at_ms + ms)
    }

    fn advance(&mut self, now_ms: u64) -> Option<Ended> {
        if !self.running || self.ended {
            return None;
        }
        let left_ms = now_ms.saturating_sub(self.at_ms);
        let loading_ms = self.loading_ms.min(left_ms);
        if loading_ms > 0 {
            self.loading_ms -= loading_ms;
            self.is_news |= self.loading_ms == 0;
            self.spent.restart_ms += loading_ms;
            self.at_ms += loading_ms;
        }
        self.ended = self.train(left_ms - loading_ms);
        self.ended.then_some(Ended {
            at_ms: self.at_ms,
            end: End::Completed,
        })
    }

    fn on_stop(&mut self, now_ms: u64, why: Stop) -> Spent {
        self.running = false;
        if why == Stop::NodeLost {
            self.place = None;
            self.progress = self.job.application.begins(self.epoch);
            self.spent.useful_ms -= self.epoch_ms;
            self.spent.lost_ms += self.epoch_ms;
        }
        self.at_ms = now_ms;
        self.is_news = true;
        std::mem::take(&mut self.spent)
    }

    fn on_speed(&mut self, share: f64, _now_ms: u64) {
        self.share = share;
    }

    fn insight(&mut self) -> Option<Arc<Insight>> {
        if !std::mem::take(&mut self.is_news) {
            return None;
        }
        let job = &self.job;
        let speed = self.speed.get_or_insert_with(|| {
            let (by_model, blind) = (&self.by_model, &self.blind);
            Arc::new(Estimate::new(job, by_model, blind, self.noise, self.epoch))
        });
        let speed = Some(Arc::clone(speed));
        let record = self.record();
        Some(Arc::new(Insight {
            duration: None,
            speed,
            restart_ms: self.job.application.believed_restart_ms,
            max_workers: self.ramp(),
            restarts: self.restarts.unwrap_or(0),
            starting: self.running && self.loading_ms > 0,
            record: Some(Arc::new(record)),
        }))
    }
}
