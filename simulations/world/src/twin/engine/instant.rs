//! One instant: what ends, what arrives.

use berth_core::apply::Applied;
use berth_core::command::Command;
use berth_core::policy::Policy;
use berth_types::{JobId, TaskInventory};

use super::{Event, Run, Running, TwinError, job_id};
use crate::twin::behaviour::{Ended, Held, Stop};
use crate::twin::lane::{self, EXIT_STOPPED};
use crate::twin::setting::Rounds;
use crate::twin::trace::End;

/// Exit code of a job that is recorded as failed.
const EXIT_FAILED: i32 = 1;

impl Run<'_> {
    /// Everything that happens at `at_ms`.
    pub(super) fn instant(&mut self, at_ms: u64, policy: &mut dyn Policy) -> Result<(), TwinError> {
        self.meter.on_time(at_ms);
        self.pools.on_time(at_ms);
        if let Some(checks) = &mut self.checks {
            checks.on_time(at_ms);
        }
        let is_round = self.round_ms.is_some_and(|round_ms| round_ms <= at_ms);
        if is_round && matches!(self.setting.rounds, Rounds::Every { .. }) {
            self.advance_all(at_ms)?;
        }
        while let Some(event) = self.calendar.pop(at_ms) {
            self.on_event(event, at_ms)?;
        }
        let wants_packing = self.arrivals(at_ms)?;
        if let Some(outset) = self.outset().filter(|outset| outset.at_ms <= at_ms) {
            self.take_up(outset, at_ms)?;
        }
        self.settle_speeds(at_ms)?;
        self.review(at_ms)?;
        if self.round_ms.is_some_and(|round_ms| round_ms <= at_ms) {
            self.rounds(at_ms, policy)?;
        }
        if wants_packing {
            self.sample_packing();
        }
        self.check(at_ms)
    }

    fn on_event(&mut self, event: Event, now_ms: u64) -> Result<(), TwinError> {
        match event {
            Event::Due { job, version } if self.entries[job].version == version => {
                if self.is_stepped() {
                    return Ok(());
                }
                self.advance(job, now_ms)
            }
            Event::Expires { job, starts } if self.is_current(job, starts) => match self.round_ms {
                Some(round_ms) if self.is_stepped() && round_ms > now_ms => {
                    self.calendar.at(round_ms, event);
                    Ok(())
                }
                _ => self.expire(job, now_ms),
            },
            Event::Due { .. } | Event::Expires { .. } => Ok(()),
            Event::Mishap(mishap) => self.on_mishap(mishap, now_ms),
        }
    }

    /// True if this is the attempt that the job has.
    fn is_current(&self, job: usize, starts: u32) -> bool {
        self.entries[job].attempt.is_some() && self.entries[job].starts == starts
    }

    /// True if jobs are advanced at the ends of rounds only.
    fn is_stepped(&self) -> bool {
        matches!(self.setting.rounds, Rounds::Every { .. })
    }

    /// The end of a fixed round, for every running job.
    fn advance_all(&mut self, now_ms: u64) -> Result<(), TwinError> {
        let placed: Vec<usize> = self.placed.iter().copied().collect();
        for index in placed {
            self.advance(index, now_ms)?;
        }
        Ok(())
    }

    fn advance(&mut self, index: usize, now_ms: u64) -> Result<(), TwinError> {
        let Some(behaviour) = &mut self.entries[index].behaviour else {
            return Ok(());
        };
        match behaviour.advance(now_ms) {
            Some(ended) => self.end(index, ended, now_ms),
            None => {
                self.publish(index);
                self.schedule(index, now_ms)
            }
        }
    }

    /// Puts a job's next due time into the calendar.
    pub(super) fn schedule(&mut self, index: usize, now_ms: u64) -> Result<(), TwinError> {
        if self.is_stepped() {
            return Ok(());
        }
        let entry = &self.entries[index];
        if let Some(due_ms) = entry.behaviour.as_ref().and_then(|b| b.due_ms()) {
            if due_ms < now_ms {
                return Err(TwinError::Behaviour {
                    at_ms: now_ms,
                    key: entry.outcome.key.clone(),
                    what: format!("is due at {due_ms} ms, which is over"),
                });
            }
            let event = Event::Due {
                job: index,
                version: entry.version,
            };
            self.calendar.at(due_ms, event);
        }
        Ok(())
    }

    /// A job came to its own end.
    pub(super) fn end(&mut self, index: usize, ended: Ended, now_ms: u64) -> Result<(), TwinError> {
        let job = job_id(index);
        let mut commands = Vec::new();
        let code = match ended.end {
            End::Completed => 0,
            End::Failed => EXIT_FAILED,
            End::Cancelled => {
                let user = self.setting.trace.jobs[index].spec.user.clone();
                commands.push(Command::CancelJob { job, user });
                EXIT_STOPPED
            }
        };
        let said = lane::exit(code, ended.at_ms);
        self.lane.report(job, &said, &mut commands);
        self.leave(index, now_ms, ended.at_ms, Stop::Ended)?;
        let applied = self.lane.commit(now_ms, commands)?;
        self.follow(&applied, now_ms, Some(ended.at_ms))?;
        self.publish(index);
        self.want_round(now_ms);
        Ok(())
    }

    /// A job ran into its time limit.
    fn expire(&mut self, index: usize, now_ms: u64) -> Result<(), TwinError> {
        if let Some(behaviour) = &mut self.entries[index].behaviour
            && let Some(ended) = behaviour.advance(now_ms)
        {
            return self.end(index, ended, now_ms);
        }
        let job = job_id(index);
        let Some(epoch) = self.lane.state.job(job).map(|job| job.epoch) else {
            return Ok(());
        };
        let mut commands = vec![Command::ExpireAttempt { job, epoch }];
        self.lane
            .report(job, &lane::exit(EXIT_STOPPED, now_ms), &mut commands);
        self.leave(index, now_ms, now_ms, Stop::Ended)?;
        let applied = self.lane.commit(now_ms, commands)?;
        self.follow(&applied, now_ms, None)?;
        self.want_round(now_ms);
        Ok(())
    }

    /// What follows from an entry: jobs that are over, nodes that are fuller or emptier.
    pub(super) fn follow(
        &mut self,
        applied: &Applied,
        now_ms: u64,
        ended_ms: Option<u64>,
    ) -> Result<(), TwinError> {
        if let Some(checks) = &mut self.checks {
            let verdict = checks.on_applied(applied);
            verdict.map_err(|what| TwinError::Broken {
                at_ms: now_ms,
                what,
            })?;
        }
        for finished in &applied.finished {
            let index = lane::index_of(finished.job.id);
            let entry = &mut self.entries[index];
            let behaviour = entry.behaviour.take();
            entry.outcome.served = behaviour.and_then(|mut b| b.served(now_ms));
            entry.outcome.outcome = Some(finished.outcome);
            entry.outcome.end_ms = Some(ended_ms.unwrap_or(now_ms));
            self.insights.remove(&finished.job.id);
            self.trouble.idle_faults = 0;
            self.finished += 1;
            self.outcome.capacity = self.meter.capacity();
        }
        if !applied.finished.is_empty() {
            self.outcome.nodes = self.pools.usage(&self.setting.cluster);
        }
        self.meter.look(&self.lane.state, &applied.touched);
        self.disturb(&applied.touched);
        Ok(())
    }

    /// Jobs that arrive. True if some of them start now or never.
    fn arrivals(&mut self, now_ms: u64) -> Result<bool, TwinError> {
        let trace = &self.setting.trace;
        let from = self.arrived;
        let due = trace.jobs[from..]
            .iter()
            .take_while(|job| job.submit_ms <= now_ms);
        let commands: Vec<Command> = (due.zip(from..))
            .map(|(job, index)| lane::submit(index as u64, &job.spec, now_ms))
            .collect();
        if commands.is_empty() {
            return Ok(false);
        }
        self.arrived += commands.len();
        let applied = match self.lane.commit(now_ms, commands) {
            Ok(applied) => applied,
            Err(TwinError::Refused { why, .. }) => {
                // The first one that the state did not take.
                let index = usize::try_from(self.lane.state.next_job).unwrap_or(usize::MAX);
                let key = trace
                    .jobs
                    .get(index.wrapping_sub(1))
                    .map(|job| job.key.clone());
                return Err(TwinError::Job {
                    key: key.unwrap_or_default(),
                    why,
                });
            }
            Err(other) => return Err(other),
        };
        let mut wants_packing = false;
        for index in from..self.arrived {
            let job = &trace.jobs[index];
            self.entries[index].behaviour = Some(job.begin(self.setting));
            wants_packing |= job.spec.start_now;
            self.arrived_milligpu += asked_milligpu(&job.spec.groups);
            self.publish(index);
        }
        self.follow(&applied, now_ms, None)?;
        self.want_round(now_ms);
        Ok(wants_packing)
    }

    /// A round is due because something changed.
    pub(super) fn want_round(&mut self, now_ms: u64) {
        self.fruitless = 0;
        if self.outset().is_some() {
            return;
        }
        let at_ms = match self.setting.rounds {
            Rounds::OnEvent { coalesce_ms } => now_ms.saturating_add(coalesce_ms),
            Rounds::Every { ms } => now_ms.div_ceil(ms).max(1).saturating_mul(ms),
        };
        let round_ms = self.round_ms.get_or_insert(at_ms);
        *round_ms = at_ms.min(*round_ms);
    }

    /// An attempt begins.
    pub(super) fn enter(&mut self, job: JobId, held: &Held, now_ms: u64) -> Result<(), TwinError> {
        let index = lane::index_of(job);
        let spec = &self.setting.trace.jobs[index].spec;
        let entry = &mut self.entries[index];
        entry.version += 1;
        entry.starts += 1;
        entry.attempt = Some(Running {
            since_ms: now_ms,
            milligpu: held.milligpu,
            share: 1.0,
        });
        self.placed.insert(index);
        self.outcome.starts += 1;
        if entry.outcome.first_start_ms.is_some() {
            entry.outcome.restarts += 1;
        } else {
            entry.outcome.first_start_ms = Some(now_ms);
        }
        for node in &held.nodes {
            let models = &mut entry.outcome.gpu_models;
            if node.gpus > 0 && !models.contains(&node.gpu_model) {
                models.push(node.gpu_model.clone());
            }
        }
        if spec.time_limit_ms > 0 {
            let event = Event::Expires {
                job: index,
                starts: entry.starts,
            };
            let at_ms = now_ms.saturating_add(spec.time_limit_ms);
            self.calendar.at(at_ms, event);
        }
        if let Some(behaviour) = &mut entry.behaviour {
            behaviour.on_start(held, now_ms);
        }
        self.note_start(index);
        self.publish(index);
        self.schedule(index, now_ms)
    }

    /// The evicted tasks of a job are gone.
    pub(super) fn vacate(
        &mut self,
        job: JobId,
        now_ms: u64,
        out: &mut Vec<Command>,
    ) -> Result<(), TwinError> {
        let index = lane::index_of(job);
        if let Some(behaviour) = &mut self.entries[index].behaviour {
            let _ = behaviour.advance(now_ms);
        }
        let said = lane::exit(EXIT_STOPPED, now_ms);
        self.lane.report(job, &said, out);
        self.outcome.evictions += 1;
        self.leave(index, now_ms, now_ms, Stop::Evicted)?;
        self.publish(index);
        Ok(())
    }
}

/// What every task of a started job says.
pub(super) fn running(now_ms: u64) -> TaskInventory {
    TaskInventory::Running { since_ms: now_ms }
}

fn asked_milligpu(groups: &[berth_types::GroupSpec]) -> u64 {
    (groups.iter())
        .map(|group| u64::from(group.min_workers) * u64::from(group.resources.milligpu))
        .sum()
}
