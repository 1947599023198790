//! GPUs that break, and the scheduler's health model: the twin brings the evidence that agents would bring, makes what it
//! sees of it with the leader's own code, and answers tests by what is true.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_core::command::Command;
use berth_core::health::{self, Records, Telemetry, Watch};
use berth_types::{Evidence, Finding, GpuCondition, GpuDigest, HealthStage, NodeId, TaskPhase};

use super::{Run, TwinError, job_id};
use crate::twin::behaviour::Stop;
use crate::twin::lane::{self, EXIT_STOPPED};

/// Records are looked at no more often than this.
const REVIEW_MS: u64 = 60_000;
/// Temperature from which a GPU of this world slows itself down.
const SLOWDOWN_C: u64 = 87;
/// `nvmlClocksEventReasonHwThermalSlowdown`.
const THERMAL_SLOWDOWN: u64 = 0x40;
/// Readings in a row that make a sign last.
const READINGS: u64 = 3;
/// Errors that break a GPU, in turn: one of each kind of remedy.
const FATAL: [u32; 4] = [79, 48, 95, 119];

/// What is wrong with GPUs, and what is known of it.
#[derive(Debug, Default)]
pub(super) struct Ailing {
    /// GPUs that are broken until somebody mends them.
    broken: BTreeSet<(NodeId, u16)>,
    watches: BTreeMap<NodeId, Watch>,
    /// XIDs of each GPU so far.
    xids: BTreeMap<(NodeId, u16), u64>,
    pub(super) telemetry: Telemetry,
    /// The records for which `due_ms` was found.
    looked_at: Records,
    due_ms: Option<u64>,
}

impl Run<'_> {
    /// When a health record's time comes.
    pub(super) fn review_ms(&self) -> Option<u64> {
        self.ailing.due_ms
    }

    /// Reviews what is due, answers tests, and finds when the next one is.
    pub(super) fn review(&mut self, now_ms: u64) -> Result<(), TwinError> {
        if self.ailing.due_ms.is_some_and(|due_ms| due_ms <= now_ms) {
            let due = health::due(&self.lane.state, now_ms);
            // Of a GPU in use, or a node that is away, the time comes later.
            self.ailing.due_ms = None;
            for (node, gpu) in due {
                let applied = self
                    .lane
                    .commit(now_ms, vec![Command::ReviewHealth { node, gpu }])?;
                self.follow(&applied, now_ms, None)?;
                self.answer_test(node, gpu, now_ms)?;
                self.want_round(now_ms);
            }
        } else if self.lane.state.health.ptr_eq(&self.ailing.looked_at) {
            return Ok(());
        }
        self.ailing.looked_at = self.lane.state.health.clone();
        let next_ms = health::next_due_ms(&self.lane.state);
        self.ailing.due_ms = next_ms.map(|at_ms| at_ms.max(now_ms.saturating_add(REVIEW_MS)));
        Ok(())
    }

    fn answer_test(
        &mut self,
        node: NodeId,
        gpu: Option<u16>,
        now_ms: u64,
    ) -> Result<(), TwinError> {
        let health = self.lane.state.health.get(&node);
        let record = health.and_then(|health| health.of(gpu));
        let Some(record) = record.filter(|r| r.stage == HealthStage::Testing) else {
            return Ok(());
        };
        let number = record.tests;
        let passed = gpu.is_none_or(|gpu| !self.ailing.broken.contains(&(node, gpu)));
        let text = if passed { "sound" } else { "still broken" };
        let evidence = Evidence::Checked {
            number,
            passed,
            text: text.to_owned(),
        };
        self.find(node, vec![Finding { gpu, evidence }], now_ms)
    }

    /// Commits evidence.
    fn find(&mut self, node: NodeId, findings: Vec<Finding>, now_ms: u64) -> Result<(), TwinError> {
        if findings.is_empty() {
            return Ok(());
        }
        let applied = self
            .lane
            .commit(now_ms, vec![Command::RecordHealth { node, findings }])?;
        self.follow(&applied, now_ms, None)
    }

    /// A GPU breaks: its driver announces an error, and what ran on it is lost with it.
    pub(super) fn break_gpu(
        &mut self,
        node: NodeId,
        gpu: u16,
        now_ms: u64,
    ) -> Result<(), TwinError> {
        self.ailing.broken.insert((node, gpu));
        let count = self.ailing.xids.entry((node, gpu)).or_default();
        *count += 1;
        let kinds = FATAL.len() as u64;
        let xid = FATAL[(*count + u64::from(gpu)).rem_euclid(kinds) as usize];
        let mut hit = Vec::new();
        for index in self.jobs_on(node) {
            if !self.uses(index, node, gpu) {
                continue;
            }
            let behaviour = &mut self.entries[index].behaviour;
            match behaviour.as_mut().and_then(|b| b.advance(now_ms)) {
                Some(ended) => self.end(index, ended, now_ms)?,
                None => hit.push(index),
            }
        }
        for &index in &hit {
            self.leave(index, now_ms, now_ms, Stop::NodeLost)?;
        }
        let at_ms = now_ms;
        let evidence = Evidence::Xid { xid, at_ms };
        let gpu = Some(gpu);
        self.find(node, vec![Finding { gpu, evidence }], now_ms)?;
        let mut rest = Vec::new();
        for &index in &hit {
            let said = lane::exit(EXIT_STOPPED, now_ms);
            self.lane.report(job_id(index), &said, &mut rest);
        }
        if !rest.is_empty() {
            let applied = self.lane.commit(now_ms, rest)?;
            self.follow(&applied, now_ms, None)?;
        }
        for index in hit {
            self.publish(index);
        }
        self.want_round(now_ms);
        Ok(())
    }

    pub(super) fn mend_gpu(&mut self, node: NodeId, gpu: u16) {
        self.ailing.broken.remove(&(node, gpu));
    }

    /// A GPU is as slow, or as fast, as this from now on: what its readings show of it.
    pub(super) fn read_speed(
        &mut self,
        node: NodeId,
        gpu: u16,
        share: f64,
        now_ms: u64,
    ) -> Result<(), TwinError> {
        let slow = share < 1.0;
        let mut findings = Vec::new();
        for reading in 0..READINGS {
            let digest = GpuDigest {
                gpu,
                at_ms: now_ms.saturating_add(reading),
                condition: GpuCondition::Answering,
                temp_c: Some(if slow { SLOWDOWN_C + 2 } else { 61 }),
                slowdown_temp_c: Some(SLOWDOWN_C),
                throttle: Some(if slow { THERMAL_SLOWDOWN } else { 0 }),
                xids: Some(*self.ailing.xids.get(&(node, gpu)).unwrap_or(&0)),
                ..GpuDigest::default()
            };
            let watch = self.ailing.watches.entry(node).or_default();
            findings.extend(watch.take(&[digest], |_| None));
        }
        let watch = self.ailing.watches.entry(node).or_default();
        let newest: Vec<GpuDigest> = watch.newest().copied().collect();
        self.ailing.telemetry.insert(node, Arc::new(newest));
        self.find(node, findings, now_ms)
    }

    fn uses(&self, index: usize, node: NodeId, gpu: u16) -> bool {
        let job = self.lane.state.job(job_id(index));
        let tasks = job.iter().flat_map(|job| job.attempt.iter());
        tasks.flat_map(|attempt| &attempt.tasks).any(|task| {
            !matches!(task.phase, TaskPhase::Ended { .. })
                && task.placement.node == node
                && task.placement.gpus.iter().any(|share| share.gpu == gpu)
        })
    }
}
