//! What each configuration of each job is worth.

use std::collections::BTreeMap;

use berth_core::insight::{Configuration, Speed};
use berth_core::policy::View;
use berth_types::JobId;

use super::FlowConfig;
use crate::duration;
use crate::fleet::{Fleet, Managed};
use crate::history::History;
use crate::priors::{Outlook, Priors};

/// Goodputs below this are taken for none.
const LEAST_GOODPUT: f64 = 1e-4;
/// Remaining time of a job of which nothing is known, in seconds.
const UNKNOWN_S: f64 = 1800.0;
/// Remaining times are counted from here, so that the last seconds of a job do not outweigh everything, in seconds.
const SETTLED_S: f64 = 30.0;
/// Unit of remaining times.
const LONG_S: f64 = 1000.0;
/// GPUs for each job that make an ordinary load.
const ROOMY_GPUS: f64 = 8.0;

/// A job that may be given another configuration, with all that it may be given.
#[derive(Clone, Debug, PartialEq)]
pub struct Prospect {
    /// Index among the jobs of the fleet.
    pub job: usize,
    /// Time that is left if it were alone on the cluster, in seconds.
    pub left_s: f64,
    /// Standard deviation of the logarithm of all its work.
    pub log_sd: f64,
    /// What it may have: what it has first, then by GPUs.
    pub options: Vec<Option_>,
}

/// A configuration, and what it is worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Option_ {
    /// Index of the kind.
    pub kind: usize,
    /// GPUs.
    pub gpus: u32,
    /// Speed, as a share of that alone on the cluster.
    pub speed: f64,
    /// True if it is what the job has.
    pub keeps: bool,
    /// What it is worth; more is better, and 0 is going without.
    pub worth: f64,
}

/// What a job can do where.
#[derive(Clone, Debug)]
struct Speeds {
    /// What it was computed from: its family's version and the noise of its gradient.
    of: (u64, u64),
    /// Kind, GPUs, samples per second that count.
    options: Vec<(usize, u32, f64)>,
}

/// Knows what configurations are worth.
#[derive(Clone, Debug, Default)]
pub struct Worth {
    priors: Priors,
    history: History,
    speeds: BTreeMap<JobId, Speeds>,
    kinds: Vec<(String, u32, u32)>,
}

impl Worth {
    /// With what is known of families of jobs.
    pub fn new(priors: Priors) -> Self {
        Self {
            priors,
            ..Self::default()
        }
    }

    /// What it has learned of families of jobs.
    pub fn into_priors(self) -> Priors {
        self.priors
    }

    /// Learns from what happened since the last view.
    pub fn observe(&mut self, view: &View) {
        self.priors.observe(view);
        for id in self.history.observe(view) {
            self.speeds.remove(&id);
        }
    }

    /// What each job that is free to change may be given.
    pub fn prospects(
        &mut self,
        fleet: &Fleet<'_>,
        view: &View,
        config: &FlowConfig,
    ) -> Vec<Prospect> {
        let kinds = fleet.kinds.iter();
        let kinds = kinds.map(|k| (k.gpu_model.clone(), k.gpus(), k.whole_nodes()));
        let kinds: Vec<_> = kinds.collect();
        if kinds != self.kinds {
            self.speeds.clear();
            self.kinds = kinds;
        }
        let gpus: u32 = fleet.kinds.iter().map(|kind| kind.gpus()).sum();
        let crowd = fleet.jobs.len() as f64 * ROOMY_GPUS / f64::from(gpus.max(1));
        let power = (config.brevity + config.crowding * crowd.max(1.0).ln()).min(1.0);
        let free = fleet.jobs.iter().enumerate().filter(|(_, job)| !job.pinned);
        free.map(|(index, job)| self.prospect(fleet, index, job, view, power, config))
            .collect()
    }

    fn prospect(
        &mut self,
        fleet: &Fleet<'_>,
        index: usize,
        job: &Managed<'_>,
        view: &View,
        power: f64,
        config: &FlowConfig,
    ) -> Prospect {
        let outlook = (self.priors).outlook(job.job, job.insight.map(|insight| &**insight));
        let speeds = self.speeds(fleet, job, &outlook);
        let fastest = speeds.iter().map(|(.., speed)| *speed).fold(0.0, f64::max);
        let known = outlook.speed.is_some() && fastest > 0.0;
        let left_s = match known {
            true => outlook.left / (fastest * outlook.pace),
            false => self.said_s(job, view),
        };
        let weight = ((left_s + SETTLED_S) / LONG_S).powf(-power);
        let restart_s = job.insight.map_or(0.0, |i| i.restart_ms as f64 / 1000.0);
        let held = job.share();
        let option = |&(kind, gpus, speed): &(usize, u32, f64)| {
            let keeps = held == Some((kind, gpus));
            let speed = speed / fastest;
            let pays_s = config.horizon_s.min(left_s / speed).max(1.0);
            let kept = match keeps || held.is_none() {
                true => 1.0,
                false => pays_s / (pays_s + restart_s),
            };
            let bonus = if keeps { config.keep } else { 0.0 };
            Option_ {
                kind,
                gpus,
                speed,
                keeps,
                worth: weight * (speed * kept + bonus),
            }
        };
        let mut options: Vec<Option_> = speeds.iter().map(option).collect();
        options.sort_by_key(|option| (!option.keeps, option.gpus));
        Prospect {
            job: index,
            left_s,
            log_sd: outlook.log_sd,
            options,
        }
    }

    /// Remaining time by what its submitter says, or by what like jobs took.
    fn said_s(&self, job: &Managed<'_>, view: &View) -> f64 {
        let total_ms = duration::total_ms(job.job, view);
        let total_ms = total_ms.or_else(|| self.history.predict_alike_ms(job.job));
        let worked_ms = duration::worked_ms(job.job, view.now_ms);
        let left_ms = total_ms.map(|total_ms| total_ms.saturating_sub(worked_ms));
        left_ms.map_or(UNKNOWN_S, |ms| ms as f64 / 1000.0)
    }

    /// Samples per second that count, by configuration. Of a job whose speed is unknown, the same everywhere at its least
    /// size.
    fn speeds(
        &mut self,
        fleet: &Fleet<'_>,
        job: &Managed<'_>,
        outlook: &Outlook,
    ) -> Vec<(usize, u32, f64)> {
        let (least, most) = job.bounds;
        let kinds = fleet.kinds.iter().enumerate();
        let kinds = kinds.filter(|(_, kind)| kind.suits(job.job));
        let unknown = || {
            let roomy = kinds.clone().filter(|(_, kind)| kind.gpus() >= least);
            roomy.map(|(index, _)| (index, least, 1.0)).collect()
        };
        let own = job.insight.and_then(|insight| insight.speed.as_deref());
        let of = outlook.version;
        let speed: &dyn Speed = match (&outlook.speed, own) {
            (Some(speed), _) => &**speed,
            (None, Some(own)) => own,
            (None, None) => return unknown(),
        };
        if let Some(known) = self.speeds.get(&job.job.id)
            && known.of == of
            && outlook.speed.is_some()
        {
            return known.options.clone();
        }
        let mut options = Vec::new();
        for (index, kind) in kinds.clone() {
            let sizes = kind.sizes().chain((least == most).then_some(least));
            for gpus in sizes.filter(|gpus| (least..=most).contains(gpus)) {
                let configuration = Configuration {
                    gpu_model: &kind.gpu_model,
                    nodes: kind.span(gpus),
                    workers: gpus,
                };
                let goodput = speed.goodput(&configuration);
                if let Some(goodput) = goodput.filter(|goodput| *goodput > LEAST_GOODPUT) {
                    options.push((index, gpus, goodput));
                }
            }
        }
        options.dedup();
        if options.is_empty() {
            return unknown();
        }
        let speeds = Speeds {
            of,
            options: options.clone(),
        };
        self.speeds.insert(job.job.id, speeds);
        options
    }
}
