//! A job's end is what its processes did, is counted once, and is the same in every master's history.

use std::collections::BTreeMap;

use berth_core::state::FinishedJob;
use berth_types::{AttemptEnd, Epoch, JobId, Outcome, PastAttempt, Rank, TaskKey};

use super::Verdict;
use crate::machine::Machine;
use crate::report::Violation;
use crate::workload::{Ending, PlannedJob, REQUEUE_CODE};

const PROMISE: &str = "a job's end is what its processes did, counted once";

/// How jobs ended.
#[derive(Debug, Default)]
pub(crate) struct Finished {
    by_seq: BTreeMap<u64, (JobId, Outcome)>,
    by_job: BTreeMap<JobId, FinishedJob>,
}

impl Finished {
    /// A master has written this into its history.
    pub(crate) fn on_finished(&mut self, done: &FinishedJob, machines: &[Machine]) -> Verdict {
        let id = done.job.id;
        let entry = (id, done.outcome);
        let first = *self.by_seq.entry(done.seq).or_insert(entry);
        Violation::unless(first == entry, PROMISE, || {
            format!("history {} is {first:?} here and {entry:?} there", done.seq)
        })?;
        if let Some(known) = self.by_job.get(&id) {
            return Violation::unless(known.seq == done.seq && known == done, PROMISE, || {
                format!("job {id} ended twice, as {} and {}", known.seq, done.seq)
            });
        }
        if done.outcome == Outcome::Completed {
            completed_truly(done, machines)?;
        }
        self.by_job.insert(id, done.clone());
        Ok(())
    }

    /// A job's end, if it has ended.
    pub(crate) fn get(&self, job: JobId) -> Option<&FinishedJob> {
        self.by_job.get(&job)
    }

    /// Every end is one that the job can have.
    pub(crate) fn check_ends(
        &self,
        plan_of: impl Fn(&FinishedJob) -> Option<PlannedJob>,
        cancel_asked: impl Fn(JobId) -> bool,
    ) -> Verdict {
        for done in self.by_job.values() {
            let Some(plan) = plan_of(done) else { continue };
            let kept = may_end_so(&plan, done, cancel_asked(done.job.id));
            Violation::unless(kept, "every job reaches its right end", || {
                let ends: Vec<_> = done.job.past.iter().map(|p| (p.epoch, &p.end)).collect();
                format!(
                    "job {} ({:?}, at most {} restarts, {:?}) ended as {:?} ({}) after {ends:?}",
                    done.job.id,
                    plan.behaviour.ending,
                    plan.spec.restart.max_restarts,
                    plan.spec.restart.on_lost_node,
                    done.outcome,
                    done.reason
                )
            })?;
        }
        Ok(())
    }
}

/// Every rank of the last attempt exited 0 by itself.
fn completed_truly(done: &FinishedJob, machines: &[Machine]) -> Verdict {
    let last: Option<&PastAttempt> = done.job.past.last();
    let Some(last) = last.filter(|p| p.end == AttemptEnd::Completed) else {
        let text = format!("job {} is completed without such an attempt", done.job.id);
        return Err(Violation::new(PROMISE, text));
    };
    let epoch: Epoch = last.epoch;
    for rank in 0..last.nodes.len() {
        let key = TaskKey {
            job: done.job.id,
            epoch,
            rank: Rank(u32::try_from(rank).unwrap_or(u32::MAX)),
        };
        let well = machines.iter().any(|m| {
            m.ends
                .get(&key)
                .is_some_and(|end| end.code == 0 && end.by_itself)
        });
        Violation::unless(well, PROMISE, || {
            let ends: Vec<_> = machines.iter().filter_map(|m| m.ends.get(&key)).collect();
            format!(
                "job {} is completed, but {key:?} ended as {ends:?}",
                done.job.id
            )
        })?;
    }
    Ok(())
}

/// True if a job with this behaviour can end so.
fn may_end_so(plan: &PlannedJob, done: &FinishedJob, cancel_asked: bool) -> bool {
    let restarts = plan.spec.restart.max_restarts;
    match done.outcome {
        Outcome::Completed => matches!(plan.behaviour.ending, Ending::Well | Ending::Until(..)),
        Outcome::Failed { code } => match plan.behaviour.ending {
            Ending::Always(own) => code == own,
            Ending::NoProgram => code == -1,
            Ending::Until(epochs, own) => own != REQUEUE_CODE && own == code && epochs > restarts,
            Ending::Well | Ending::Never => false,
        },
        Outcome::Cancelled => cancel_asked,
        Outcome::TimedOut => plan.spec.time_limit_ms > 0,
        Outcome::NodeLost => false,
        Outcome::Rejected => plan.spec.start_now,
    }
}
