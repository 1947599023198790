//! What is known of a job before it has shown it itself: from jobs of its family.
//!
//! A family is what a user runs again and again: the label `family`, else the name without what counts up. Of each family
//! this keeps every configuration that one of its jobs was seen in, with a throughput model fitted to all of them; how the
//! noise of the gradient went over the longest of its runs; how much work those that finished were; and how much slower
//! its jobs get on than the model says. A job's own statistics come before its family's.
//!
//! Sources: the throughput model is that of Pollux (Qiao et al., OSDI 2021, section 3.2); that what recurs is worth
//! remembering, Hu et al., SC 2021, section 3.3 (users submit like jobs over and over).

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_core::goodput::{GradientNoise, Learned, LearnedModel, Observation, fit};
use berth_core::insight::{Configuration, Insight, Record, Speed};
use berth_core::policy::View;
use berth_core::state::Job;
use berth_types::{JobId, NodeId};

use crate::history;

/// Most families remembered; the half that was not met for longest is forgotten then.
const MAX_FAMILIES: usize = 4_096;
/// Most configurations of a family on one GPU model.
const MAX_OBSERVATIONS: usize = 256;
/// Weight of a new measurement of the pace.
const NEWEST: f64 = 0.05;
/// Points of the gradient's noise over a run.
const MAX_POINTS: usize = 256;
/// Standard deviation of the logarithm of the work of a job unlike any that ended.
const UNKNOWN_LOG_SD: f64 = 1.5;

/// What is known of families of jobs.
#[derive(Clone, Debug, Default)]
pub struct Priors {
    families: BTreeMap<String, Family>,
    open: BTreeMap<JobId, Open>,
    met: u64,
}

/// What is known of one.
#[derive(Clone, Debug, Default)]
pub struct Family {
    models: Vec<(LearnedModel, Vec<Observation>)>,
    /// By progress, of the longest run.
    noise: Vec<(f64, GradientNoise)>,
    most_batch: u32,
    /// Logarithms of the work of those that finished: count, mean, sum of squared differences.
    total: (u32, f64, f64),
    /// Progress per second over what the model says.
    pace: Option<f64>,
    longest: f64,
    met: u64,
    /// Grows with everything that changes its speed.
    version: u64,
}

/// A job that was there in the last view.
#[derive(Clone, Debug)]
struct Open {
    family: String,
    record: Arc<Record>,
    seen: Vec<usize>,
    noise: Vec<(f64, GradientNoise)>,
    /// Progress per second between the last two records.
    rate: f64,
    /// Where it ran when it was seen last.
    running: Option<Shape>,
}

/// GPU model, nodes, GPUs.
type Shape = (String, u32, u32);

/// What may be expected of a job.
#[derive(Clone, Debug)]
pub struct Outlook {
    /// How fast it is where, in samples per second that count; `None` if nothing is known of its family.
    pub speed: Option<Arc<dyn Speed>>,
    /// Work that is left, in samples that count.
    pub left: f64,
    /// Standard deviation of the logarithm of all its work; above 1 if no like job ever finished.
    pub log_sd: f64,
    /// Progress per second over what `speed` says.
    pub pace: f64,
    /// Two outlooks of a job with the same version have the same speed.
    pub version: (u64, u64),
}

/// Where a job runs, if it does, on GPUs of one model.
fn shape(job: &Job, view: &View) -> Option<Shape> {
    let attempt = job.attempt.as_ref()?;
    let nodes: BTreeMap<NodeId, u32> =
        attempt
            .tasks
            .iter()
            .fold(BTreeMap::new(), |mut nodes, task| {
                *nodes.entry(task.placement.node).or_default() += task.placement.gpus.len() as u32;
                nodes
            });
    let model = |node: &NodeId| Some(&view.state.nodes.get(node)?.spec.gpus.first()?.model);
    let first = model(nodes.keys().next()?)?;
    let alike = nodes.keys().all(|node| model(node) == Some(first));
    alike.then(|| (first.to_string(), nodes.len() as u32, nodes.values().sum()))
}

/// The family of a job.
pub fn family(job: &Job) -> String {
    match job.spec.labels.get("family") {
        Some(family) => family.clone(),
        None => format!("{}/{}", job.spec.user, history::family(&job.spec.name)),
    }
}

impl Priors {
    /// Learns from what jobs were seen to do since the last view, and from those that are gone.
    pub fn observe(&mut self, view: &View) {
        let finished: BTreeMap<JobId, u64> = (view.state.events.iter().rev().take(4096))
            .filter(|event| event.kind == "job.finished")
            .filter_map(|event| Some((event.job?, event.at_ms)))
            .collect();
        let gone: Vec<JobId> = (self.open.keys().copied())
            .filter(|id| !view.state.jobs.contains_key(id))
            .collect();
        for id in gone {
            if let (Some(open), Some(&at_ms)) = (self.open.remove(&id), finished.get(&id)) {
                self.close(&open, at_ms);
            }
        }
        for (id, insight) in view.insights.iter() {
            if let Some(job) = view.state.jobs.get(id) {
                self.look(*id, job, insight, view);
            }
        }
        if self.families.len() > MAX_FAMILIES {
            let mut met: Vec<u64> = self.families.values().map(|f| f.met).collect();
            met.sort_unstable();
            let oldest = met[met.len() / 2];
            self.families.retain(|_, family| family.met > oldest);
        }
    }

    fn close(&mut self, open: &Open, at_ms: u64) {
        let since_s = at_ms.saturating_sub(open.record.at_ms) as f64 / 1000.0;
        let total = open.record.done + open.rate * since_s;
        if total <= 0.0 {
            return;
        }
        let family = self.families.entry(open.family.clone()).or_default();
        let (count, mean, squares) = &mut family.total;
        *count += 1;
        let off = total.ln() - *mean;
        *mean += off / f64::from(*count);
        *squares += off * (total.ln() - *mean);
    }

    fn look(&mut self, id: JobId, job: &Job, insight: &Insight, view: &View) {
        let Some(record) = &insight.record else {
            return;
        };
        self.met += 1;
        let before = self.open.get(&id);
        if before.is_some_and(|before| Arc::ptr_eq(&before.record, record)) {
            return;
        }
        let mut open = before.cloned().unwrap_or_else(|| Open {
            family: family(job),
            record: Arc::clone(record),
            seen: Vec::new(),
            noise: Vec::new(),
            rate: 0.0,
            running: None,
        });
        let family = self.families.entry(open.family.clone()).or_default();
        family.met = self.met;
        let running = shape(job, view).filter(|_| !insight.starting);
        let ms = record.at_ms.saturating_sub(open.record.at_ms);
        let gained = record.done - open.record.done;
        if ms > 0 && gained > 0.0 {
            open.rate = gained / (ms as f64 / 1000.0);
            family.learn_pace(open.rate, &running, &open.running, record.noise);
        }
        open.running = running;
        family.longest = family.longest.max(record.done);
        if record.most_batch > family.most_batch {
            family.most_batch = record.most_batch;
            family.version += 1;
        }
        if let Some(noise) = record.noise
            && open.noise.last().is_none_or(|last| last.1 != noise)
            && open.noise.len() < MAX_POINTS
        {
            open.noise.push((record.done, noise));
        }
        let reach = |noise: &[(f64, GradientNoise)]| noise.last().map_or(-1.0, |last| last.0);
        if reach(&open.noise) > reach(&family.noise) {
            family.noise.clone_from(&open.noise);
            family.version += 1;
        }
        open.seen.resize(record.models.len(), 0);
        for ((model, observations), seen) in record.models.iter().zip(&mut open.seen) {
            if observations.len() > *seen {
                family.learn(model, &observations[*seen..]);
                *seen = observations.len();
            } else if *seen == 0 {
                family.learn(model, &[]);
            }
        }
        open.record = Arc::clone(record);
        self.open.insert(id, open);
    }

    /// What may be expected of a job that shows this. What is known to be true comes first, then what the job was seen to
    /// do, then its family.
    pub fn outlook(&self, job: &Job, insight: Option<&Insight>) -> Outlook {
        let record = insight.and_then(|insight| insight.record.as_deref());
        let done = record.map_or(0.0, |record| record.done);
        let own = record.and_then(|record| record.noise);
        let variance =
            |noise: GradientNoise| (noise.variance / noise.squared_norm.max(1e-300)).to_bits();
        if let Some(total) = record.and_then(|record| record.total) {
            return Outlook {
                speed: insight.and_then(|insight| insight.speed.clone()),
                left: (total - done).max(0.0),
                log_sd: 0.0,
                pace: 1.0,
                version: (u64::MAX, own.map_or(0, variance)),
            };
        }
        let Some(family) = self.families.get(&family(job)) else {
            return Outlook {
                speed: None,
                left: done,
                log_sd: UNKNOWN_LOG_SD,
                pace: 1.0,
                version: (0, 0),
            };
        };
        let noise = own.or_else(|| family.noise_at(done));
        let (left, log_sd) = family.left(done);
        Outlook {
            speed: noise.and_then(|noise| family.speed(noise)),
            left,
            log_sd,
            pace: family.pace.unwrap_or(1.0),
            version: (family.version, noise.map_or(0, variance)),
        }
    }

    /// What is known, as the past of another cluster: without the jobs that are open.
    pub fn into_past(mut self) -> Self {
        self.open.clear();
        self
    }
}

impl Family {
    fn learn(&mut self, model: &LearnedModel, observations: &[Observation]) {
        let known = (self.models.iter()).position(|(m, _)| m.gpu_model == model.gpu_model);
        let at = known.unwrap_or_else(|| {
            let fitted = None;
            let model = LearnedModel {
                fitted,
                ..model.clone()
            };
            self.models.push((model, Vec::new()));
            self.models.len() - 1
        });
        let (kept, seen) = &mut self.models[at];
        kept.limits.most = kept.limits.most.max(model.limits.most);
        let before = seen.len();
        for new in observations {
            let same = |o: &Observation| {
                (o.nodes, o.workers, o.samples) == (new.nodes, new.workers, new.samples)
            };
            if seen.len() < MAX_OBSERVATIONS && !seen.iter().any(same) {
                seen.push(*new);
            }
        }
        if seen.len() > before {
            kept.fitted = fit(seen);
            self.version += 1;
        }
    }

    /// Learns from a job that ran in this shape since it was seen last.
    fn learn_pace(
        &mut self,
        rate: f64,
        now: &Option<Shape>,
        before: &Option<Shape>,
        noise: Option<GradientNoise>,
    ) {
        let Some((gpu_model, nodes, workers)) = before.as_ref().filter(|_| now == before) else {
            return;
        };
        let configuration = Configuration {
            gpu_model,
            nodes: *nodes,
            workers: *workers,
        };
        let speed = noise.and_then(|noise| self.speed(noise));
        let goodput = speed.and_then(|speed| speed.goodput(&configuration));
        if let Some(goodput) = goodput.filter(|goodput| *goodput > 0.0) {
            let pace = rate / goodput;
            let known = self.pace.get_or_insert(pace);
            *known += NEWEST * (pace - *known);
        }
    }

    fn noise_at(&self, done: f64) -> Option<GradientNoise> {
        let after = self.noise.partition_point(|point| point.0 <= done);
        let at = after.saturating_sub(1);
        self.noise.get(at).map(|point| point.1)
    }

    /// How fast its jobs are when the noise of their gradient is this; `None` if none was ever seen to run.
    fn speed(&self, noise: GradientNoise) -> Option<Arc<dyn Speed>> {
        let fitted = |(model, _): &(LearnedModel, Vec<Observation>)| model.fitted.is_some();
        if !self.models.iter().any(fitted) {
            return None;
        }
        let models = self.models.iter().map(|(model, _)| {
            let mut model = model.clone();
            model.limits.most = model.limits.most.max(self.most_batch);
            model
        });
        Some(Arc::new(Learned {
            models: models.collect(),
            blind: None,
            noise: Some(noise),
            asked_batch: self.most_batch,
        }))
    }

    /// Work that is left of a job that has done so much, and the deviation of the logarithm of all its work.
    fn left(&self, done: f64) -> (f64, f64) {
        let (count, mean, squares) = self.total;
        if count == 0 {
            // Nothing like it ever ended: as much again as the longest has done.
            return (self.longest.max(done), UNKNOWN_LOG_SD);
        }
        let sd = (squares / f64::from(count)).sqrt() + 1.0 / f64::from(count).sqrt() * 0.1;
        let total = mean.exp();
        // Beyond what is usual it goes on as it did.
        ((total - done).max(done * 0.05).max(1e-9), sd)
    }
}
