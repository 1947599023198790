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

    /// Samples per second that count, at the best batch that the profile allows.
    fn true_goodput(&self, configuration: &Configuration<'_>) -> Option<f64> {
        let application = &self.job.application;
        let index = application.profile_of(configuration.gpu_model)?;
        let profile = &application.profiles[index];
        let (nodes, workers) = (configuration.nodes.max(1), configuration.workers);
        let placement = even(nodes, workers);
        let curve = profile.curve(&placement)?;
        let limits = BatchLimits {
            most: application.most_batch(),
            local_most: profile.local_most_on(&placement)?,
            ..scheduler_limits(&self.job, profile)
        };
        let mut best: Option<f64> = None;
        let mut last = None;
        for batch in batches(&limits, workers) {
            if last.replace(batch) == Some(batch) || batch.global(workers) > f64::from(limits.most)
            {
                continue;
            }
            let Some(time) = curve.at(batch.samples) else {
                continue;
            };
            let compute_s = time.step_s - time.synchronise_s;
            let iteration_s = time.step_s + f64::from(batch.accumulated) * compute_s;
            let goodput = application.goodput(iteration_s, workers, batch, self.epoch);
            if best.is_none_or(|best| goodput > best) {
                best = Some(goodput);
            }
        }
        best.map(|goodput| goodput * f64::from(application.first_batch()))
    }
}

impl Speed for Estimate {
    fn goodput(&self, configuration: &Configuration<'_>) -> Option<f64> {
        match self.job.knowledge {
            Knowledge::True => self.true_goodput(configuration),
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
