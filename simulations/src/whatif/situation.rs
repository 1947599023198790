//! A snapshot and a change, as a run of the twin.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_core::state::Job;
use berth_policy::duration::said_ms;
use berth_policy::history::History;
use berth_types::{AttemptPhase, JobId, JobSpec, NodeId, NodeSpec, NodeState, TaskPlacement};
use berth_world::twin::{Cluster, End, Outset, Rigid, Setting, Trace, TraceJob, Truth};

use super::change::Change;
use super::snapshot::Snapshot;

/// What a job is taken to run for if nothing at all is known.
const UNKNOWN_MS: u64 = 3_600_000;
/// A job that has outlived its prediction is taken to need this share of its age once more, in percent.
const OUTLIVED_PERCENT: u64 = 10;
/// Nothing is closer to its end than this.
const LEAST_MS: u64 = 1_000;

/// Where a job's duration comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Basis {
    /// Jobs of the same user and like names that completed.
    History,
    /// What its submitter said: the expected duration, else the time limit.
    Said,
    /// Jobs that completed, whosever.
    Others,
    /// Nothing is known: an hour.
    Nothing,
}

impl Basis {
    /// For people and scripts.
    pub fn as_str(self) -> &'static str {
        match self {
            Basis::History => "history",
            Basis::Said => "submitter",
            Basis::Others => "others",
            Basis::Nothing => "nothing",
        }
    }
}

/// A job of the run.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its id; `None` for one that is only asked about.
    pub id: Option<JobId>,
    /// What was submitted.
    pub spec: Arc<JobSpec>,
    /// True if it runs already.
    pub running: bool,
    /// Where its duration comes from.
    pub basis: Basis,
}

/// A run of the twin that begins where the cluster is.
#[derive(Debug)]
pub struct Situation {
    /// The run.
    pub setting: Setting,
    /// Its jobs, by index in the trace.
    pub jobs: Vec<Asked>,
    /// The present, in the run's time.
    pub now_ms: u64,
    /// GPUs of the nodes in service, in thousandths.
    pub milligpu: u64,
}

impl Situation {
    /// The cluster as it is, with a change.
    pub fn of(snapshot: &Snapshot, change: &Change) -> Self {
        let state = &snapshot.state;
        let mut cluster = Cluster {
            name: format!("cluster {:016x}", state.cluster_id),
            ..Cluster::default()
        };
        let (mut drained, mut ids, mut milligpu) = (Vec::new(), BTreeMap::new(), 0);
        let mut add = |spec: &NodeSpec, in_service: bool| {
            if in_service {
                milligpu += spec.gpus.len() as u64 * u64::from(berth_types::MILLI);
            } else {
                drained.push(spec.name.clone());
            }
            cluster.nodes.push(spec.clone());
            NodeId(u32::try_from(cluster.nodes.len()).unwrap_or(u32::MAX))
        };
        for node in state.nodes.values().filter(|node| !node.lost) {
            let in_service =
                node.state() == NodeState::Ready && !change.drained.contains(&node.spec.name);
            ids.insert(node.id, add(&node.spec, in_service));
        }
        for spec in &change.added {
            add(spec, true);
        }
        let mut jobs = Jobs::new(snapshot);
        for job in state.jobs.values() {
            jobs.add_known(job, &ids);
        }
        for spec in &change.submitted {
            jobs.add_new(spec);
        }
        let now_ms = jobs.now_ms();
        let trace = Trace {
            name: "what is there".to_owned(),
            jobs: jobs.trace,
        };
        let mut setting = Setting::new(Arc::new(cluster), Arc::new(trace));
        setting.outset = Some(Outset {
            at_ms: now_ms,
            placed: jobs.placed,
            drained,
        });
        Self {
            setting,
            jobs: jobs.asked,
            now_ms,
            milligpu,
        }
    }
}

struct Jobs<'s> {
    snapshot: &'s Snapshot,
    /// Where the run's time begins.
    zero_ms: u64,
    trace: Vec<TraceJob>,
    placed: Vec<(usize, Vec<TaskPlacement>)>,
    asked: Vec<Asked>,
}

impl<'s> Jobs<'s> {
    fn new(snapshot: &'s Snapshot) -> Self {
        let submitted = snapshot.state.jobs.values().map(|job| job.submitted_ms);
        Self {
            zero_ms: submitted.min().unwrap_or(snapshot.now_ms),
            snapshot,
            trace: Vec::new(),
            placed: Vec::new(),
            asked: Vec::new(),
        }
    }

    fn now_ms(&self) -> u64 {
        self.snapshot.now_ms.saturating_sub(self.zero_ms)
    }

    /// A job of the cluster; ids say in which order they came, also where clocks did not.
    fn add_known(&mut self, job: &Job, ids: &BTreeMap<NodeId, NodeId>) {
        let latest = self.trace.last().map_or(0, |before| before.submit_ms);
        let submit_ms = (job.submitted_ms.saturating_sub(self.zero_ms))
            .clamp(latest, self.now_ms().max(latest));
        let (total_ms, basis) = total_ms(&self.snapshot.history, job);
        let here = placement(job, ids);
        let mut spec = Arc::clone(&job.spec);
        let mut run_ms = total_ms;
        if let Some((started_ms, _)) = here {
            let age_ms = self.snapshot.now_ms.saturating_sub(started_ms);
            run_ms = left_ms(total_ms, age_ms);
            if spec.time_limit_ms > 0 {
                // The clock of the limit runs already.
                let limit_ms = spec.time_limit_ms.saturating_sub(age_ms).max(LEAST_MS);
                Arc::make_mut(&mut spec).time_limit_ms = limit_ms;
            }
        }
        let running = here.is_some();
        if let Some((_, slots)) = here {
            self.placed.push((self.trace.len(), slots));
        }
        self.push(submit_ms, spec, run_ms);
        self.asked.push(Asked {
            id: Some(job.id),
            spec: Arc::clone(&job.spec),
            running,
            basis,
        });
    }

    fn add_new(&mut self, spec: &JobSpec) {
        let spec = Arc::new(spec.clone());
        let job = Job::new(JobId(0), Arc::clone(&spec), self.snapshot.now_ms);
        let (total_ms, basis) = total_ms(&self.snapshot.history, &job);
        self.push(self.now_ms(), Arc::clone(&spec), total_ms);
        self.asked.push(Asked {
            id: None,
            spec,
            running: false,
            basis,
        });
    }

    fn push(&mut self, submit_ms: u64, spec: Arc<JobSpec>, run_ms: u64) {
        let truth = Truth::Rigid(Rigid {
            run_ms,
            end: End::Completed,
        });
        self.trace.push(TraceJob {
            key: spec.name.clone(),
            submit_ms,
            spec,
            truth,
        });
    }
}

fn total_ms(history: &History, job: &Job) -> (u64, Basis) {
    let known = history
        .predict_alike_ms(job)
        .map(|ms| (ms, Basis::History))
        .or_else(|| said_ms(job).map(|ms| (ms, Basis::Said)))
        .or_else(|| history.predict_ms(job).map(|ms| (ms, Basis::Others)));
    let (ms, basis) = known.unwrap_or((UNKNOWN_MS, Basis::Nothing));
    (ms.max(LEAST_MS), basis)
}

/// What is left of a job that has run for a while.
fn left_ms(total_ms: u64, age_ms: u64) -> u64 {
    let outlived_ms = age_ms / 100 * OUTLIVED_PERCENT;
    total_ms
        .saturating_sub(age_ms)
        .max(outlived_ms)
        .max(LEAST_MS)
}

/// When the job was placed, and where, if it is to stay there: it runs, and none of its nodes is lost.
fn placement(job: &Job, ids: &BTreeMap<NodeId, NodeId>) -> Option<(u64, Vec<TaskPlacement>)> {
    let attempt = job.attempt.as_ref().filter(|attempt| {
        job.fencing.is_none() && !matches!(attempt.phase, AttemptPhase::Stopping(_))
    })?;
    let tasks = attempt.tasks.iter().map(|task| {
        Some(TaskPlacement {
            node: *ids.get(&task.placement.node)?,
            ..task.placement.clone()
        })
    });
    Some((attempt.started_ms, tasks.collect::<Option<Vec<_>>>()?))
}

#[cfg(test)]
mod tests {
    use super::left_ms;

    #[test]
    fn a_job_that_outlived_its_prediction_is_not_over_at_once() {
        assert_eq!(left_ms(100_000, 30_000), 70_000);
        assert_eq!(left_ms(100_000, 99_000), 9_900);
        assert_eq!(left_ms(100_000, 1_000_000), 100_000);
        assert_eq!(left_ms(100, 0), 1_000);
    }
}
