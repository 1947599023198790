//! What the leader is told of the GPUs' health, and tests of GPUs that were out of service.
//!
//! A test looks at the GPU anew: it must answer, its memory must be free, and no row of it may wait to be replaced. Then
//! the shell runs the operator's command, if there is one.
//!
//! The end of a task that failed on a GPU is told only after a look at that GPU, half a second later at most: what its
//! driver has to say of it comes first, because it decides whether the failure is the job's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use berth_types::{GpuDigest, GpuEvent, HealthCheck, TaskEvent, TaskKey};

use crate::core::AgentCore;
use crate::effect::Effect;
use crate::gpus::{GpuFact, PATIENCE_MS, Tenants, Verdict, judge};

/// Newest XIDs that each inventory repeats.
const XIDS: usize = 64;
/// Longest that the end of a task waits for a look.
const WITHHELD_MS: u64 = 500;

/// What the leader was told, and what it wants to know.
#[derive(Clone, Debug, Default)]
pub(crate) struct HealthBook {
    /// By GPU, the newest.
    digests: BTreeMap<u16, GpuDigest>,
    told_at_ms: u64,
    /// GPU, number and time, oldest first.
    xids: VecDeque<(u16, u32, u64)>,
    heard: BTreeMap<u16, u64>,
    /// Tests under way: the look that must have been taken, and since when.
    checks: BTreeMap<HealthCheck, Waiting>,
    /// Tasks whose end is not told yet, since when.
    withheld: BTreeMap<TaskKey, u64>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    look: u64,
    since_ms: u64,
    /// The shell runs the operator's command.
    runs: bool,
}

impl AgentCore {
    /// The driver announced an error.
    pub(crate) fn on_xid(&mut self, gpu: u16, xid: u32, at_ms: u64) {
        let book = &mut self.health;
        if book.xids.len() >= XIDS {
            book.xids.pop_front();
        }
        book.xids.push_back((gpu, xid, at_ms));
        *book.heard.entry(gpu).or_default() += 1;
        let event = GpuEvent::Xid { gpu, xid, at_ms };
        self.events.push(TaskEvent::Gpu(event));
    }

    /// A GPU was looked at: a new condition is told at once, the rest with the next report of readings.
    pub(crate) fn note_digest(&mut self, gpu: u16, digest: Option<GpuDigest>) {
        let Some(mut digest) = digest else {
            return;
        };
        digest.gpu = gpu;
        digest.xids = Some(self.health.heard.get(&gpu).copied().unwrap_or(0));
        let before = self.health.digests.insert(gpu, digest);
        if before.is_none_or(|before| before.condition != digest.condition) {
            let event = GpuEvent::Digests(vec![digest]);
            self.events.push(TaskEvent::Gpu(event));
        }
    }

    /// What an inventory says of the GPUs.
    pub(crate) fn gpu_events(&self) -> Vec<TaskEvent> {
        let book = &self.health;
        let xid = |&(gpu, xid, at_ms): &(u16, u32, u64)| GpuEvent::Xid { gpu, xid, at_ms };
        let mut events: Vec<GpuEvent> = book.xids.iter().map(xid).collect();
        events.extend(self.all_digests());
        events.into_iter().map(TaskEvent::Gpu).collect()
    }

    fn all_digests(&self) -> Option<GpuEvent> {
        let digests: Vec<GpuDigest> = self.health.digests.values().copied().collect();
        (!digests.is_empty()).then_some(GpuEvent::Digests(digests))
    }

    pub(crate) fn tick_health(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if now_ms >= self.health.told_at_ms + self.config.digest_ms {
            self.health.told_at_ms = now_ms;
            let digests = self.all_digests();
            self.events.extend(digests.map(TaskEvent::Gpu));
        }
        self.advance_checks(effects);
        self.tell_withheld();
    }

    /// A test is wanted. One that is under way goes on.
    pub(crate) fn on_check(&mut self, check: HealthCheck, effects: &mut Vec<Effect>) {
        if self.health.checks.contains_key(&check) {
            return;
        }
        // An older test of the same thing is of no interest any more.
        let older = |known: &HealthCheck| known.gpu == check.gpu;
        self.health.checks.retain(|known, _| !older(known));
        let look = match check.gpu {
            Some(_) => self.ask_for_look(effects),
            None => 0,
        };
        let waiting = Waiting {
            look,
            since_ms: self.gpus.now_ms,
            runs: false,
        };
        self.health.checks.insert(check, waiting);
        self.advance_checks(effects);
    }

    /// The operator's command has ended, or there is none.
    pub(crate) fn on_checked(&mut self, check: HealthCheck, passed: bool, text: String) {
        if self.health.checks.remove(&check).is_some() {
            let event = GpuEvent::Checked {
                check,
                passed,
                text,
            };
            self.events.push(TaskEvent::Gpu(event));
        }
    }

    pub(crate) fn advance_checks(&mut self, effects: &mut Vec<Effect>) {
        let now_ms = self.gpus.now_ms;
        let open: Vec<(HealthCheck, Waiting)> = self
            .health
            .checks
            .iter()
            .filter(|(_, waiting)| !waiting.runs)
            .map(|(check, waiting)| (*check, *waiting))
            .collect();
        for (check, waiting) in open {
            match self.look_for_check(check, waiting) {
                Verdict::Free => {
                    if let Some(waiting) = self.health.checks.get_mut(&check) {
                        waiting.runs = true;
                    }
                    effects.push(Effect::RunCheck { check });
                }
                Verdict::NotYet(_) if now_ms < waiting.since_ms + PATIENCE_MS => {}
                Verdict::NotYet(why) | Verdict::Broken(why) => {
                    self.on_checked(check, false, why);
                }
            }
        }
    }

    /// What a GPU looks like to a test.
    fn look_for_check(&self, check: HealthCheck, waiting: Waiting) -> Verdict {
        let Some(gpu) = check.gpu.filter(|_| self.reads_gpus()) else {
            return Verdict::Free;
        };
        let Some(fact) = self.gpu_fact(gpu) else {
            return Verdict::Broken(format!("GPU {gpu} is not there"));
        };
        let verdict = judge(fact, waiting.look, &Tenants::default());
        let digest = fact.digest.as_deref().copied().unwrap_or_default();
        match verdict {
            Verdict::Free if digest.rows_failed == Some(1) => {
                Verdict::Broken("has no rows of memory left to replace a bad one".into())
            }
            Verdict::Free if digest.rows_pending == Some(1) => {
                Verdict::Broken("needs a reset: a row of its memory waits to be replaced".into())
            }
            verdict => verdict,
        }
    }

    /// True if the end of a task waits for a look at its GPUs; the look has been asked for.
    pub(crate) fn withhold(&mut self, key: TaskKey) -> bool {
        let uses = self
            .tasks
            .get(&key)
            .is_some_and(|t| !t.memo.gpus.is_empty());
        if !uses || !self.reads_gpus() {
            return false;
        }
        self.health.withheld.insert(key, self.gpus.now_ms);
        true
    }

    /// Tells the ends whose GPUs were looked at.
    pub(crate) fn tell_withheld(&mut self) {
        let now_ms = self.gpus.now_ms;
        let seen: BTreeSet<TaskKey> =
            self.health
                .withheld
                .iter()
                .filter(|(key, since_ms)| {
                    let late = now_ms >= **since_ms + WITHHELD_MS;
                    late || self.tasks.get(key).is_none_or(|task| {
                        task.memo.gpus.iter().all(|gpu| self.was_looked_at(*gpu))
                    })
                })
                .map(|(key, _)| *key)
                .collect();
        for key in seen {
            self.health.withheld.remove(&key);
            if let Some(task) = self.tasks.get(&key) {
                self.events.push(TaskEvent::State(key, task.inventory()));
            }
        }
    }

    fn gpu_fact(&self, gpu: u16) -> Option<&GpuFact> {
        self.gpus.fact(gpu)
    }
}
