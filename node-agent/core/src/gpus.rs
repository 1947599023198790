//! Which of a node's GPUs can be handed out, and which processes must leave them.
//!
//! A GPU that was used is handed out again only after a look that *began* after its last task ended has found its memory
//! free. Looks are numbered: the shell asks for number n, and a fact with a number of at least n began later. No clock is
//! compared with another.
//!
//! A node whose GPUs are declared and not read from a driver has no facts, and nothing here holds it up.

use std::collections::{BTreeMap, BTreeSet};

use berth_types::telemetry::GpuCondition;
use berth_types::{GpuDigest, GpuShare, JobId, TaskExit, TaskKey};

use crate::core::AgentCore;
use crate::effect::Effect;
use crate::task::{Phase, Task};

/// Memory in use that does not keep a GPU from being handed out: contexts of monitoring daemons and of a display, and
/// what a driver keeps for itself without calling it reserved. A context of CUDA alone takes 300 to 500 MiB.
pub const FREE_TOLERANCE_BYTES: u64 = 512 << 20;
/// A task waits so long for its GPUs; then its node is to blame.
pub const PATIENCE_MS: u64 = 30_000;
/// A look that was not answered is asked for again after so long.
const LOOK_AGAIN_MS: u64 = 500;

/// What was seen of one GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuFact {
    /// The look began after this number was asked for.
    pub look: u64,
    /// Whether it answers.
    pub condition: GpuCondition,
    /// Memory in use, if the driver says.
    pub used_bytes: Option<u64>,
    /// Processes on it.
    pub processes: Vec<GpuProcessFact>,
    /// The rest, for the leader.
    pub digest: Option<Box<GpuDigest>>,
}

/// A process on a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuProcessFact {
    /// Its id.
    pub pid: u32,
    /// With the id, this names it for good; absent if the node cannot see it.
    pub start_ticks: Option<u64>,
    /// Its memory on this GPU, if the driver says.
    pub mem_bytes: Option<u64>,
    /// The task of this node that it says it belongs to.
    pub claim: Option<TaskKey>,
    /// Its parents.
    pub ancestors: Vec<u32>,
}

/// Whether a GPU can be handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Now.
    Free,
    /// Perhaps later.
    NotYet(String),
    /// Not before somebody has mended it.
    Broken(String),
}

/// Judges one GPU for one more task. `needed` is the look that must have been taken; `tenants` are the live tasks that
/// hold other shares of it, with what their processes are known by.
pub fn judge(fact: &GpuFact, needed: u64, tenants: &Tenants) -> Verdict {
    match fact.condition {
        GpuCondition::Lost => {
            return Verdict::Broken("fell off the bus or is not listed by the driver".into());
        }
        GpuCondition::ResetRequired => return Verdict::Broken("needs a reset".into()),
        GpuCondition::Unknown => return Verdict::NotYet("was not heard of yet".into()),
        GpuCondition::Unresponsive => {
            return Verdict::NotYet("does not answer: a call to its driver hangs".into());
        }
        GpuCondition::Answering => {}
    }
    if fact.look < needed {
        return Verdict::NotYet("was not looked at since its last task ended".into());
    }
    let mut theirs = Some(0u64);
    let mut foreign = 0u64;
    for process in &fact.processes {
        if tenants.owner(process).is_some_and(|key| tenants.holds(key)) {
            theirs = theirs
                .zip(process.mem_bytes)
                .map(|(sum, bytes)| sum.saturating_add(bytes));
            continue;
        }
        let ours = process.claim.is_some();
        let bytes = process.mem_bytes.unwrap_or(0);
        foreign = foreign.saturating_add(bytes);
        if ours || foreign > FREE_TOLERANCE_BYTES {
            let whose = match process.claim {
                Some(key) => format!("task {}.{}.{}, which is over", key.job, key.epoch, key.rank),
                None => "somebody else".into(),
            };
            let (pid, mib) = (process.pid, bytes >> 20);
            return Verdict::NotYet(format!(
                "process {pid} of {whose} still holds {mib} MiB of it"
            ));
        }
    }
    // What no process accounts for; not to be told apart if the tenants' own part is not known.
    let rest = fact
        .used_bytes
        .zip(theirs)
        .map(|(used, theirs)| used.saturating_sub(theirs));
    match rest {
        Some(rest) if rest > FREE_TOLERANCE_BYTES => {
            Verdict::NotYet(format!("{} MiB of its memory are still in use", rest >> 20))
        }
        Some(_) | None => Verdict::Free,
    }
}

/// The live tasks of a node, and those of them that hold a share of one GPU.
#[derive(Clone, Debug, Default)]
pub struct Tenants {
    /// Live tasks by the id of their first process.
    pub pids: BTreeMap<u32, TaskKey>,
    /// Holders of a share.
    pub holders: BTreeSet<TaskKey>,
}

impl Tenants {
    /// The task that a process belongs to: the one it says, or that of its nearest ancestor.
    pub fn owner(&self, process: &GpuProcessFact) -> Option<TaskKey> {
        let line = std::iter::once(&process.pid).chain(&process.ancestors);
        process
            .claim
            .or_else(|| line.into_iter().find_map(|pid| self.pids.get(pid)).copied())
    }

    fn holds(&self, key: TaskKey) -> bool {
        self.holders.contains(&key)
    }
}

/// What the core knows of the node's GPUs.
#[derive(Clone, Debug, Default)]
pub(crate) struct GpuBook {
    /// By index in the node's offer; none for declared GPUs.
    known: Vec<Known>,
    look: u64,
    asked_at_ms: u64,
    /// Of the step under way.
    pub(crate) now_ms: u64,
}

#[derive(Clone, Debug, Default)]
struct Known {
    fact: GpuFact,
    needed: u64,
}

impl GpuBook {
    pub(crate) fn fact(&self, gpu: u16) -> Option<&GpuFact> {
        let known = self.known.get(usize::from(gpu))?;
        Some(&known.fact)
    }
}

impl AgentCore {
    /// True if the node's GPUs are read from a driver.
    pub(crate) fn reads_gpus(&self) -> bool {
        !self.gpus.known.is_empty()
    }

    /// True if a GPU was looked at since its last task ended, or gives no answer anyway.
    pub(crate) fn was_looked_at(&self, gpu: u16) -> bool {
        let known = self.gpus.known.get(usize::from(gpu));
        known.is_none_or(|k| k.fact.look >= k.needed || k.fact.condition != GpuCondition::Answering)
    }

    /// Asks for a look, and says which.
    pub(crate) fn ask_for_look(&mut self, effects: &mut Vec<Effect>) -> u64 {
        self.gpus.look += 1;
        let look = self.gpus.look;
        if self.reads_gpus() {
            effects.push(Effect::LookAtGpus { look });
        }
        look
    }

    /// The live tasks that hold a share of a GPU.
    pub fn gpu_holders(&self, gpu: u16) -> impl Iterator<Item = TaskKey> {
        self.tasks
            .iter()
            .filter(move |(_, task)| task.may_live() && task.memo.gpus.contains(&gpu))
            .map(|(key, _)| *key)
    }

    /// The node's GPUs are read from a driver: so many of them.
    pub(crate) fn on_gpus(&mut self, count: u16) {
        self.gpus
            .known
            .resize_with(usize::from(count), Known::default);
    }

    /// Something was seen of one.
    pub(crate) fn on_gpu(&mut self, gpu: u16, fact: GpuFact, effects: &mut Vec<Effect>) {
        let Some(known) = self.gpus.known.get_mut(usize::from(gpu)) else {
            return;
        };
        let digest = fact.digest.as_deref().copied();
        known.fact = fact;
        self.note_digest(gpu, digest);
        self.tell_withheld();
        self.end_leftovers(gpu, effects);
        self.retry_for_gpus(effects);
        self.advance_checks(effects);
    }

    /// Processes of tasks that are over. Nothing is ended before the keeper has said what runs.
    fn end_leftovers(&self, gpu: u16, effects: &mut Vec<Effect>) {
        let Some(known) = self.gpus.known.get(usize::from(gpu)) else {
            return;
        };
        if self.incarnation.is_none() {
            return;
        }
        for process in &known.fact.processes {
            let over = |key: &TaskKey| !self.tasks.get(key).is_some_and(Task::may_live);
            if let (Some(key), Some(start_ticks)) =
                (process.claim.filter(over), process.start_ticks)
            {
                effects.push(Effect::EndProcess {
                    key,
                    pid: process.pid,
                    start_ticks,
                    gpu,
                });
            }
        }
    }

    /// GPUs of a task that is over must be looked at before they are used again.
    pub(crate) fn soil_gpus(&mut self, key: TaskKey, effects: &mut Vec<Effect>) {
        let Some(task) = self.tasks.get(&key) else {
            return;
        };
        let gpus = task.memo.gpus.clone();
        self.soil(gpus, effects);
    }

    /// Nothing is known any more of what happened on any of them.
    pub(crate) fn soil_all_gpus(&mut self, effects: &mut Vec<Effect>) {
        let all = 0..u16::try_from(self.gpus.known.len()).unwrap_or(u16::MAX);
        self.soil(all.collect(), effects);
    }

    fn soil(&mut self, gpus: Vec<u16>, effects: &mut Vec<Effect>) {
        let next = self.gpus.look + 1;
        let mut soiled = false;
        for gpu in gpus {
            if let Some(known) = self.gpus.known.get_mut(usize::from(gpu)) {
                known.needed = next;
                soiled = true;
            }
        }
        if soiled {
            self.gpus.look = next;
            effects.push(Effect::LookAtGpus { look: next });
        }
    }

    /// The worst of what is to be said of a task's GPUs.
    pub(crate) fn gpus_for(&self, shares: &[GpuShare]) -> Verdict {
        let mut worst = Verdict::Free;
        if self.gpus.known.is_empty() || shares.is_empty() {
            return worst;
        }
        let mut tenants = Tenants {
            pids: self
                .tasks
                .iter()
                .filter_map(|(key, task)| Some((task.pid()?, *key)))
                .collect(),
            holders: BTreeSet::new(),
        };
        for share in shares {
            let Some(known) = self.gpus.known.get(usize::from(share.gpu)) else {
                return Verdict::Broken(format!("GPU {} is not there", share.gpu));
            };
            tenants.holders = self.gpu_holders(share.gpu).collect();
            let named = |what: String| format!("GPU {} {what}", share.gpu);
            match judge(&known.fact, known.needed, &tenants) {
                Verdict::Free => {}
                Verdict::NotYet(what) => worst = Verdict::NotYet(named(what)),
                Verdict::Broken(what) => return Verdict::Broken(named(what)),
            }
        }
        worst
    }

    /// What a task that could start is to do about its GPUs. True if it can start now.
    pub(crate) fn gpus_are_free(
        &mut self,
        key: TaskKey,
        shares: &[GpuShare],
        effects: &mut Vec<Effect>,
    ) -> bool {
        let now_ms = self.gpus.now_ms;
        let verdict = self.gpus_for(shares);
        let Some(task) = self.tasks.get_mut(&key) else {
            return false;
        };
        let why = match verdict {
            Verdict::Free => {
                task.gpu_wait_since_ms = None;
                return true;
            }
            Verdict::NotYet(why) => {
                let since = *task.gpu_wait_since_ms.get_or_insert(now_ms);
                if now_ms < since.saturating_add(PATIENCE_MS) {
                    return false;
                }
                format!("waited {} s: {why}", PATIENCE_MS / 1_000)
            }
            Verdict::Broken(why) => why,
        };
        let exit = TaskExit {
            code: -1,
            at_ms: now_ms,
            reason: format!("never started: {why}"),
            node_fault: true,
        };
        self.record_exit(key, exit, effects);
        false
    }

    /// Tries the tasks that wait for GPUs again, and asks for a look if some still do.
    pub(crate) fn retry_for_gpus(&mut self, effects: &mut Vec<Effect>) {
        let jobs = |core: &Self| -> BTreeSet<JobId> {
            let waits = |task: &Task| {
                task.gpu_wait_since_ms.is_some() && matches!(task.phase, Phase::Waiting(_))
            };
            core.tasks
                .iter()
                .filter(|(_, task)| waits(task))
                .map(|(key, _)| key.job)
                .collect()
        };
        let waiting = jobs(self);
        if waiting.is_empty() {
            return;
        }
        for job in waiting {
            self.start_waiting(job, effects);
        }
        let due = self.gpus.asked_at_ms.saturating_add(LOOK_AGAIN_MS);
        if self.gpus.now_ms >= due && !jobs(self).is_empty() {
            self.gpus.asked_at_ms = self.gpus.now_ms;
            self.gpus.look += 1;
            effects.push(Effect::LookAtGpus {
                look: self.gpus.look,
            });
        }
    }
}
