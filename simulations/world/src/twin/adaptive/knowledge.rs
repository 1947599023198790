//! What the scheduler gets to know of an adaptive job: what it was seen to do, and how fast that makes it elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_core::goodput::{
    BatchLimits, GradientNoise, Learned, LearnedModel, LocalBatch, Observation, ThroughputModel,
    best_batch, divide, fit,
};
use berth_core::insight::{Configuration, Speed};

use super::application::Application;
use super::model::{Adaptive, Knowledge, Tuning};
use super::profile::Profile;
use crate::twin::alone::Alone;
use crate::twin::behaviour::Held;
use crate::twin::outcome::Ledger;
use crate::twin::trace::End;

/// Measured configurations, each once, with the model that explains them.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) observations: Arc<Vec<Observation>>,
    pub(super) fitted: Option<ThroughputModel>,
}

impl Seen {
    /// Everything that the profile has.
    pub(super) fn all_of(profile: &Profile) -> Self {
        let mut latest: BTreeMap<(u32, u32, u32), Observation> = BTreeMap::new();
        for &(nodes, workers, samples, time) in &profile.measured {
            let observation = Observation {
                nodes,
                workers,
                samples,
                step_s: time.step_s,
                synchronise_s: time.synchronise_s,
            };
            latest.insert((nodes, workers, samples), observation);
        }
        let observations: Vec<Observation> = latest.into_values().collect();
        Self {
            fitted: fit(&observations),
            observations: Arc::new(observations),
        }
    }

    /// True if it was not known yet. What comes first at one configuration counts.
    fn note(&mut self, new: Observation) -> bool {
        let known = self
            .observations
            .iter()
            .any(|o| (o.nodes, o.workers, o.samples) == (new.nodes, new.workers, new.samples));
        if !known {
            Arc::make_mut(&mut self.observations).push(new);
        }
        !known
    }

    /// Adds an observation and fits anew if it is news.
    pub(super) fn learn(&mut self, new: Observation) -> bool {
        let news = self.note(new);
        if news {
            self.fitted = fit(&self.observations);
        }
        news
    }

    /// Most workers ever seen.
    pub(super) fn largest(&self) -> u32 {
        self.observations
            .iter()
            .map(|o| o.workers)
            .max()
            .unwrap_or(0)
    }
}

/// What is published of a job's speed.
#[derive(Debug)]
pub(super) struct Estimate {
    learned: Learned,
    job: Adaptive,
    epoch: usize,
}

impl Estimate {
    /// From what was seen, by GPU model and on any, when the gradient was last like this.
    pub(super) fn new(
        job: &Adaptive,
        by_model: &[Seen],
        blind: &Seen,
        noise: Option<GradientNoise>,
        epoch: usize,
    ) -> Self {
        let profiles = job.application.profiles.iter();
        let models = profiles.zip(by_model);
        let models = models.map(|(profile, seen)| learned_model(job, profile, seen));
        let first = job.application.profiles.first();
        let blind = blind.fitted.zip(first.map(|profile| BatchLimits {
            most: job.application.most_batch(),
            ..scheduler_limits(job, profile)
        }));
        Self {
            learned: Learned {
                models: models.collect(),
                blind,
                noise,
                asked_batch: job.asked_batch,
            },
            job: job.clone(),
            epoch,
        }
    }
}

impl Speed for Estimate {
    fn goodput(&self, configuration: &Configuration<'_>) -> Option<f64> {
        match self.job.knowledge {
            Knowledge::True => {
                // Samples per second that count.
                let progress = true_goodput(&self.job, self.epoch, configuration)?;
                Some(progress * f64::from(self.job.application.first_batch()))
            }
            Knowledge::Learned | Knowledge::Seeded => self.learned.goodput(configuration),
        }
    }

    fn steps_per_s(&self, configuration: &Configuration<'_>) -> Option<f64> {
        let application = &self.job.application;
        let profile = &application.profiles[application.profile_of(configuration.gpu_model)?];
        let placement = packed(profile.gpus_per_node, configuration.workers);
        let batch = asked(&self.job, profile, &placement)?;
        let time = profile.curve(&placement)?.at(batch.samples)?;
        let compute_s = time.step_s - time.synchronise_s;
        let iteration_s = time.step_s + f64::from(batch.accumulated) * compute_s;
        Some(1.0 / (iteration_s * application.slowdown.max(f64::MIN_POSITIVE)))
    }
}

/// Progress per second in an epoch at the best batch that the profile allows.
fn true_goodput(job: &Adaptive, epoch: usize, configuration: &Configuration<'_>) -> Option<f64> {
    let application = &job.application;
    let profile = &application.profiles[application.profile_of(configuration.gpu_model)?];
    let (nodes, workers) = (configuration.nodes.max(1), configuration.workers);
    let placement = even(nodes, workers);
    let curve = profile.curve(&placement)?;
    let goodput = |batch: LocalBatch| {
        let time = curve.at(batch.samples)?;
        let compute_s = time.step_s - time.synchronise_s;
        let iteration_s = time.step_s + f64::from(batch.accumulated) * compute_s;
        Some(application.goodput(iteration_s, workers, batch, epoch))
    };
    if job.tuning == Tuning::Fixed {
        return goodput(asked(job, profile, &placement)?);
    }
    let limits = BatchLimits {
        most: application.most_batch(),
        local_most: profile.local_most_on(&placement)?,
        ..scheduler_limits(job, profile)
    };
    let mut tried: Vec<LocalBatch> = batches(&limits, workers).collect();
    tried.dedup();
    let allowed = tried
        .into_iter()
        .filter(|batch| batch.global(workers) <= f64::from(limits.most));
    allowed.filter_map(goodput).max_by(f64::total_cmp)
}

/// The job with its best configuration and batch in each epoch, and one start.
pub(super) fn alone(job: &Adaptive, choices: &[Held]) -> Option<Alone> {
    let application = &job.application;
    let mut alone = Alone {
        run_ms: application.restart_ms,
        end: End::Completed,
        ledger: Ledger::default(),
        gpu_models: Vec::new(),
    };
    for epoch in 0..application.epochs.len() {
        let speed = |held: &Held| {
            let first = held.nodes.first()?;
            let configuration = Configuration {
                gpu_model: &first.gpu_model,
                nodes: held.nodes.len() as u32,
                workers: held.workers.iter().sum(),
            };
            true_goodput(job, epoch, &configuration)
        };
        let known = choices.iter().filter_map(|held| Some((held, speed(held)?)));
        let (held, goodput) = known.max_by(|a, b| a.1.total_cmp(&b.1))?;
        let work = application.begins(epoch + 1) - application.begins(epoch);
        if goodput <= 0.0 {
            return None;
        }
        let useful_ms = (work / goodput * 1000.0).ceil() as u64;
        alone.run_ms += useful_ms;
        alone.ledger.useful += held.milligpu * useful_ms;
        if epoch == 0 {
            alone.ledger.restart += held.milligpu * application.restart_ms;
        }
        let model = held.nodes.first().map(|node| Arc::clone(&node.gpu_model));
        alone
            .gpu_models
            .extend(model.filter(|model| !alone.gpu_models.contains(model)));
    }
    Some(alone)
}

/// The batch that the job was submitted with, on this placement.
pub(super) fn asked(job: &Adaptive, profile: &Profile, placement: &[u32]) -> Option<LocalBatch> {
    let workers = placement.iter().sum::<u32>().max(1);
    let most = profile.local_most_on(placement)?;
    let first = job.application.first_batch();
    let batch = divide(f64::from(job.asked_batch), workers, first, most);
    Some(bounded(&job.application, profile, workers, batch))
}

/// The batch that the job chooses for itself on this placement.
pub(super) fn tuned(
    job: &Adaptive,
    profile: &Profile,
    placement: &[u32],
    known: Option<(ThroughputModel, GradientNoise)>,
) -> Option<LocalBatch> {
    let application = &job.application;
    let workers = placement.iter().sum::<u32>().max(1);
    let nodes = placement.iter().filter(|&&gpus| gpus > 0).count() as u32;
    let limits = BatchLimits {
        first: application.first_batch(),
        most: application.most_batch(),
        local_least: profile.local_least,
        local_most: profile.local_most_on(placement)?,
        fixed: false,
    };
    let batch = match known {
        Some((model, noise)) => best_batch(&model, noise, &limits, nodes.max(1), workers).batch,
        None => {
            let global = limits
                .first
                .max(profile.local_least.saturating_mul(workers));
            divide(f64::from(global), workers, limits.first, limits.local_most)
        }
    };
    Some(bounded(application, profile, workers, batch))
}

/// Within what memory and the statistics allow.
fn bounded(
    application: &Application,
    profile: &Profile,
    workers: u32,
    batch: LocalBatch,
) -> LocalBatch {
    let by_memory = profile.local_most_with(workers).unwrap_or(u32::MAX);
    let count = workers.saturating_mul(batch.accumulated + 1);
    let by_statistics = application.most_batch() / count.max(1);
    LocalBatch {
        samples: batch.samples.min(by_memory).min(by_statistics),
        ..batch
    }
}

/// What was learned of a job on one GPU model.
pub(super) fn learned_model(job: &Adaptive, profile: &Profile, seen: &Seen) -> LearnedModel {
    LearnedModel {
        gpu_model: Arc::clone(&profile.gpu_model),
        gpus_per_node: profile.gpus_per_node,
        limits: scheduler_limits(job, profile),
        single_gpu: profile.single_gpu(),
        fitted: seen.fitted,
    }
}

/// What the scheduler takes for the limits of a job's batch: what its user said, whatever the job finds out by itself.
fn scheduler_limits(job: &Adaptive, profile: &Profile) -> BatchLimits {
    BatchLimits {
        first: job.application.first_batch(),
        most: job.asked_batch.max(job.application.first_batch()),
        local_least: profile.local_least,
        local_most: profile.local_most,
        fixed: job.tuning == Tuning::Fixed,
    }
}

fn batches(limits: &BatchLimits, workers: u32) -> impl Iterator<Item = LocalBatch> {
    const TRIED: u32 = 50;
    let limits = *limits;
    let least = f64::from(limits.first.max(limits.local_least.saturating_mul(workers)));
    let most = f64::from(limits.most);
    (0..TRIED).map(move |i| {
        let share = f64::from(i) / f64::from(TRIED - 1);
        divide(
            least * (most / least).powf(share),
            workers,
            limits.first,
            limits.local_most,
        )
    })
}

/// Workers spread evenly over nodes.
fn even(nodes: u32, workers: u32) -> Vec<u32> {
    let rest = workers % nodes;
    (0..nodes)
        .map(|node| workers / nodes + u32::from(node < rest))
        .collect()
}

/// Workers on as few nodes as hold them.
fn packed(gpus_per_node: u32, workers: u32) -> Vec<u32> {
    let each = gpus_per_node.max(1);
    let whole = std::iter::repeat_n(each, (workers / each) as usize);
    whole
        .chain((!workers.is_multiple_of(each)).then_some(workers % each))
        .collect()
}
