//! The node's GPUs as the agent knows them: what the probe says, by the node's own numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use berth_agent_core::{GpuFact, GpuProcessFact, Input, roster};
use berth_types::telemetry::{GpuCondition, GpuIdentity, GpuPath, GpuProcess, GpuReading};
use berth_types::{Epoch, GpuDigest, GpuInfo, JobId, Rank, TaskKey};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::Instant;

use crate::cgroup::tree;
use crate::gpu::line::Driver;
use crate::gpu::procfs::parent_and_start;
use crate::gpu::watch::{Looks, News};
use crate::layout::Layout;

/// Most different XIDs that are counted for one GPU; NVIDIA's catalogue has fewer than 200.
const MAX_XIDS: usize = 256;

/// Killed processes that are remembered, so that each is counted once.
const LEFTOVERS: usize = 1_024;

/// One GPU.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gpu {
    /// What it is; absent until it was found.
    pub(crate) identity: Option<GpuIdentity>,
    /// Whether it answers.
    pub(crate) condition: GpuCondition,
    /// The newest reading.
    pub(crate) reading: Option<GpuReading>,
    /// When that came.
    pub(crate) read_at: Option<Instant>,
    /// The number that reading answers.
    look: u64,
    /// The newest XID.
    pub(crate) last_xid: Option<u64>,
    /// How often each was heard.
    pub(crate) xids: BTreeMap<u64, u64>,
    /// How often calls to its driver were found hanging.
    pub(crate) hangs: u64,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Gpus {
    pub(crate) offer: Vec<GpuInfo>,
    pub(crate) gpus: Vec<Gpu>,
    pub(crate) driver: Option<Driver>,
    /// Probes started.
    pub(crate) probes: u64,
    pub(crate) probe_pid: Option<u32>,
    /// Processes of tasks that were over.
    pub(crate) leftovers: u64,
    ended: BTreeSet<(u64, u32)>,
    found: BTreeMap<u16, GpuIdentity>,
    /// By the driver's numbers: found, or known to give no answer.
    heard: BTreeSet<u16>,
    paths: Option<Vec<GpuPath>>,
    file: PathBuf,
    tasks_dir: PathBuf,
    /// The control group that has the tasks' groups; empty if there is none.
    group: String,
    looks: Option<Looks>,
}

/// What follows from news.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Facts for the core.
    pub(super) inputs: Vec<Input>,
    /// The node offers something else now.
    pub(super) offer_changed: bool,
}

impl Gpus {
    /// What was known before, from the node's directory.
    pub(super) fn open(layout: &Layout) -> Self {
        let file = layout.gpus();
        let offer = remembered(&file);
        Self {
            gpus: vec![Gpu::default(); offer.len()],
            offer,
            driver: None,
            probes: 0,
            probe_pid: None,
            leftovers: 0,
            ended: BTreeSet::new(),
            found: BTreeMap::new(),
            heard: BTreeSet::new(),
            paths: None,
            file,
            tasks_dir: layout.tasks(),
            group: String::new(),
            looks: None,
        }
    }

    /// The name of the control group that has the tasks' groups, as `/proc/PID/cgroup` says it.
    pub(super) fn set_group(&mut self, group: String) {
        self.group = group;
    }

    pub(super) fn watched(&mut self, looks: Looks) {
        self.looks = Some(looks);
    }

    pub(super) fn look(&self, number: u64) {
        if let Some(looks) = &self.looks {
            looks.ask(number);
        }
    }

    /// True once everything that the driver lists is known.
    pub(super) fn complete(&self) -> bool {
        self.all_heard() && (self.found.len() < 2 || self.paths.is_some())
    }

    /// Every GPU that the driver lists was found, or is known to give no answer.
    fn all_heard(&self) -> bool {
        let listed = self.driver.as_ref().map(|driver| usize::from(driver.gpus));
        listed.is_some_and(|listed| self.heard.len() >= listed)
    }

    pub(super) fn on_news(&mut self, news: News) -> Outcome {
        let mut outcome = Outcome::default();
        match news {
            News::Started { pid, restarts } => {
                self.probes = restarts + 1;
                self.probe_pid = Some(pid);
                self.found.clear();
                self.heard.clear();
                self.paths = None;
            }
            News::Driver(driver) => {
                self.driver = Some(driver);
                self.make_offer(&mut outcome);
            }
            News::Gpu(identity) => self.on_found(identity, &mut outcome),
            News::Paths(paths) => {
                self.paths = Some(paths);
                self.make_offer(&mut outcome);
            }
            News::Reading { look, reading } => self.on_reading(look, *reading, &mut outcome),
            News::Xid(xid) => {
                let place = self.place(xid.index);
                if let Some(gpu) = place.and_then(|at| self.gpus.get_mut(at)) {
                    tracing::warn!(gpu = place, xid = xid.xid, "the driver announced an error");
                    gpu.last_xid = Some(xid.xid);
                    if gpu.xids.len() < MAX_XIDS || gpu.xids.contains_key(&xid.xid) {
                        *gpu.xids.entry(xid.xid).or_default() += 1;
                    }
                }
                if let Some(gpu) = place.and_then(|at| u16::try_from(at).ok()) {
                    let number = u32::try_from(xid.xid).unwrap_or(u32::MAX);
                    outcome.inputs.push(Input::Xid {
                        gpu,
                        xid: number,
                        at_ms: xid.at_ms,
                    });
                }
            }
            News::Hanging(calls) => {
                for call in calls {
                    // Calls that name no GPU keep those from being found that are not yet.
                    self.heard.extend(call.index);
                    if let Some(at) = call.index.and_then(|index| self.place(index)) {
                        self.unresponsive(at, &call.call, &mut outcome);
                    }
                }
                self.make_offer(&mut outcome);
            }
            News::Silent { why } => {
                self.probe_pid = None;
                for at in 0..self.gpus.len() {
                    self.unresponsive(at, &why, &mut outcome);
                }
            }
        }
        outcome
    }

    /// Told again for as long as the driver lists it.
    pub(super) fn on_leftover_ended(&mut self, pid: u32, start_ticks: u64) {
        if self.ended.insert((start_ticks, pid)) {
            self.leftovers += 1;
        }
        while self.ended.len() > LEFTOVERS {
            self.ended.pop_first();
        }
    }

    fn place(&self, index: u16) -> Option<usize> {
        let uuid = &self.found.get(&index)?.uuid;
        self.offer.iter().position(|known| known.uuid == *uuid)
    }

    fn on_found(&mut self, identity: GpuIdentity, outcome: &mut Outcome) {
        let index = identity.index;
        self.found.insert(index, identity);
        self.heard.insert(index);
        self.make_offer(outcome);
    }

    /// GPUs that are remembered and not listed any more.
    fn miss(&mut self, outcome: &mut Outcome) {
        let listed = self.driver.as_ref().map(|driver| usize::from(driver.gpus));
        if listed != Some(self.found.len()) {
            return;
        }
        for at in 0..self.offer.len() {
            let uuid = &self.offer[at].uuid;
            if !self.found.values().any(|found| found.uuid == *uuid) {
                self.set(
                    at,
                    GpuCondition::Lost,
                    "the driver does not list it",
                    outcome,
                );
            }
        }
    }

    /// Once all are heard of, so that their order is the driver's.
    fn make_offer(&mut self, outcome: &mut Outcome) {
        if !self.all_heard() {
            return;
        }
        let found: Vec<GpuIdentity> = self.found.values().cloned().collect();
        let offer = roster::offer(&self.offer, &found, self.paths.as_deref());
        let changed = offer != self.offer;
        let longer = offer.len() > self.offer.len();
        self.gpus.resize_with(offer.len(), Gpu::default);
        self.offer = offer;
        for identity in found {
            if let Some(gpu) = self
                .place(identity.index)
                .and_then(|at| self.gpus.get_mut(at))
            {
                gpu.identity = Some(identity);
            }
        }
        if longer {
            outcome.inputs.push(self.count());
        }
        self.miss(outcome);
        if !changed {
            return;
        }
        if let Err(error) = remember(&self.file, &self.offer) {
            tracing::error!(%error, file = %self.file.display(), "the GPUs' numbers cannot be kept");
        }
        outcome.offer_changed = true;
    }

    /// How many there are, for the core.
    pub(super) fn count(&self) -> Input {
        let count = u16::try_from(self.offer.len()).unwrap_or(u16::MAX);
        Input::Gpus { count }
    }

    fn on_reading(&mut self, look: u64, mut reading: GpuReading, outcome: &mut Outcome) {
        let Some(at) = self.place(reading.index) else {
            // Not even its name could be had.
            self.heard.insert(reading.index);
            self.make_offer(outcome);
            return;
        };
        for process in reading.processes.iter_mut().flatten() {
            // A process can change its environment's words, but not leave the group.
            let confined = process.cgroup.as_deref().filter(|_| !self.group.is_empty());
            process.task = confined
                .and_then(|cgroup| tree::task_of(&self.group, cgroup))
                .or_else(|| self.task_of(process.task_dir.as_deref()?));
        }
        let fact = GpuFact {
            look,
            condition: reading.condition,
            used_bytes: reading.memory.map(|memory| memory.used_bytes),
            processes: reading
                .processes
                .iter()
                .flatten()
                .map(process_fact)
                .collect(),
            digest: Some(Box::new(digest(&reading, self.gpus.get(at)))),
        };
        let condition = reading.condition;
        self.tell_change(at, condition, "by its last reading");
        if let Some(gpu) = self.gpus.get_mut(at) {
            gpu.condition = condition;
            gpu.read_at = Some(Instant::now());
            gpu.look = look;
            gpu.reading = Some(reading);
        }
        let gpu = u16::try_from(at).unwrap_or(u16::MAX);
        outcome.inputs.push(Input::Gpu { gpu, fact });
    }

    fn unresponsive(&mut self, at: usize, why: &str, outcome: &mut Outcome) {
        let fresh = self
            .gpus
            .get(at)
            .is_some_and(|gpu| gpu.condition != GpuCondition::Unresponsive);
        if fresh {
            self.set(at, GpuCondition::Unresponsive, why, outcome);
            if let Some(gpu) = self.gpus.get_mut(at) {
                gpu.hangs += 1;
            }
        }
    }

    /// Without a reading: what was read before says nothing any more.
    fn set(&mut self, at: usize, condition: GpuCondition, why: &str, outcome: &mut Outcome) {
        self.tell_change(at, condition, why);
        let Some(gpu) = self.gpus.get_mut(at) else {
            return;
        };
        gpu.condition = condition;
        gpu.reading = None;
        let fact = GpuFact {
            look: gpu.look,
            condition,
            digest: Some(Box::new(GpuDigest {
                condition,
                ..GpuDigest::default()
            })),
            ..GpuFact::default()
        };
        let gpu = u16::try_from(at).unwrap_or(u16::MAX);
        outcome.inputs.push(Input::Gpu { gpu, fact });
    }

    fn tell_change(&self, at: usize, now: GpuCondition, why: &str) {
        let Some(gpu) = self.gpus.get(at).filter(|gpu| gpu.condition != now) else {
            return;
        };
        let uuid = self.offer.get(at).map(|info| info.uuid.as_str());
        match now {
            GpuCondition::Answering => tracing::info!(gpu = at, uuid, "the GPU answers"),
            GpuCondition::Unknown
            | GpuCondition::Unresponsive
            | GpuCondition::Lost
            | GpuCondition::ResetRequired => {
                tracing::warn!(gpu = at, uuid, was = ?gpu.condition, now = ?now, why, "the GPU cannot be used");
            }
        }
    }

    /// The task whose directory that is.
    fn task_of(&self, dir: &str) -> Option<TaskKey> {
        let relative = Path::new(dir).strip_prefix(&self.tasks_dir).ok()?;
        let mut parts = relative.iter().map(|part| part.to_str());
        Some(TaskKey {
            job: JobId(parts.next()??.parse().ok()?),
            epoch: Epoch(parts.next()??.parse().ok()?),
            rank: Rank(parts.next()??.parse().ok()?),
        })
    }
}

/// A reading in short.
fn digest(reading: &GpuReading, gpu: Option<&Gpu>) -> GpuDigest {
    let identity = gpu.and_then(|gpu| gpu.identity.as_ref());
    let links = reading.nvlink;
    let sum = |counts: &[Option<u64>]| -> Option<u64> {
        let known = counts.iter().flatten();
        known
            .copied()
            .fold(None, |sum: Option<u64>, n| Some(sum.unwrap_or(0) + n))
    };
    GpuDigest {
        gpu: 0,
        at_ms: reading.at_ms,
        condition: reading.condition,
        took_us: Some(reading.took_us),
        util_pct: reading.gpu_util_pct.map(u64::from),
        mem_used_bytes: reading.memory.map(|memory| memory.used_bytes),
        mem_total_bytes: reading.memory.map(|memory| memory.total_bytes),
        temp_c: reading.temp_c.map(u64::from),
        slowdown_temp_c: identity.and_then(|i| i.slowdown_temp_c).map(u64::from),
        mem_temp_c: reading.mem_temp_c.map(u64::from),
        power_mw: reading.power_mw.map(u64::from),
        sm_mhz: reading.sm_mhz.map(u64::from),
        max_sm_mhz: identity.and_then(|i| i.max_sm_mhz).map(u64::from),
        throttle: reading.throttle,
        ecc_corrected: reading.ecc.corrected_volatile,
        ecc_uncorrected: reading.ecc.uncorrected_volatile,
        rows_replaced: sum(&[reading.rows.corrected, reading.rows.uncorrected]),
        rows_pending: reading.rows.pending.map(u64::from),
        rows_failed: reading.rows.failed.map(u64::from),
        pcie_width: reading.pcie.width.map(u64::from),
        pcie_max_width: identity.and_then(|i| i.pcie_max_width).map(u64::from),
        pcie_replays: reading.pcie.replays,
        nvlinks: links.map(|links| u64::from(links.links)),
        nvlinks_up: links.map(|links| u64::from(links.up)),
        nvlink_errors: links.and_then(|l| sum(&[l.crc_flit, l.crc_data, l.replays, l.recoveries])),
        xids: None,
    }
}

fn process_fact(process: &GpuProcess) -> GpuProcessFact {
    GpuProcessFact {
        pid: process.pid,
        start_ticks: process.start_ticks,
        mem_bytes: process.mem_bytes,
        claim: process.task,
        ancestors: process.ancestors.clone(),
    }
}

/// Kills a process if it is still the one that was seen. True if it was there.
pub(super) fn end_process(pid: u32, start: u64) -> bool {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return false;
    };
    let Ok(process) = pidfd_open(number, PidfdFlags::empty()) else {
        return false;
    };
    // Only now is it sure that the number cannot become another process's.
    let same = parent_and_start(pid).is_some_and(|(_, began)| began == start);
    same && pidfd_send_signal(process, Signal::KILL).is_ok()
}

/// The offer before the agent's restart. Without it the driver's order counts anew.
fn remembered(file: &Path) -> Vec<GpuInfo> {
    let Ok(bytes) = std::fs::read(file) else {
        return Vec::new();
    };
    serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        tracing::error!(%error, file = %file.display(), "the GPUs' numbers cannot be read and begin anew");
        Vec::new()
    })
}

fn remember(file: &Path, offer: &[GpuInfo]) -> std::io::Result<()> {
    let text = serde_json::to_vec_pretty(offer)?;
    let part = file.with_extension("part");
    std::fs::write(&part, text)?;
    std::fs::File::open(&part)?.sync_all()?;
    std::fs::rename(&part, file)
}

#[cfg(test)]
#[path = "gpus_tests.rs"]
mod tests;
