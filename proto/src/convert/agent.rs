//! What masters and agents say to each other.

use berth_types::{
    AgentReport, Directive, Epoch, JobId, LaunchTask, Rank, TaskEvent, TaskExit, TaskInventory,
    TaskKey, Tombstone,
};
use v1::task_event::Kind;
use v1::task_state::{Inventory, Preparing, Running};

use super::host::{hook_from, hook_to, short};
use super::job::{lost_node_from, lost_node_to};
use super::{DecodeError, list, narrow, required, wire};
use crate::v1;

impl From<&TaskKey> for v1::TaskKey {
    fn from(k: &TaskKey) -> Self {
        Self {
            job: k.job.0,
            epoch: k.epoch.0,
            rank: k.rank.0,
        }
    }
}

impl TryFrom<v1::TaskKey> for TaskKey {
    type Error = DecodeError;

    fn try_from(k: v1::TaskKey) -> Result<Self, DecodeError> {
        Ok(Self {
            job: JobId(k.job),
            epoch: Epoch(k.epoch),
            rank: Rank(k.rank),
        })
    }
}

impl From<&LaunchTask> for v1::LaunchTask {
    fn from(t: &LaunchTask) -> Self {
        Self {
            key: Some((&t.key).into()),
            job_name: t.job_name.clone(),
            user: t.user.clone(),
            command: t.command.clone(),
            env: t.env.clone(),
            work_dir: t.work_dir.clone(),
            gpus: wire(&t.gpus),
            millicpu: t.millicpu,
            mem_bytes: t.mem_bytes,
            world_size: t.world_size,
            local_rank: t.local_rank,
            local_world_size: t.local_world_size,
            node_rank: t.node_rank,
            node_names: t.node_names.clone(),
            master_addr: t.master_addr.clone(),
            master_port: t.master_port.into(),
            checkpoint_dir: t.checkpoint_dir.clone(),
            checkpoint_keep: t.checkpoint_keep,
            resume_from: wire(&t.resume_from),
            restart_count: t.restart_count,
            lost_node: lost_node_to(t.lost_node),
            grace_ms: t.grace_ms,
        }
    }
}

impl TryFrom<v1::LaunchTask> for LaunchTask {
    type Error = DecodeError;

    fn try_from(t: v1::LaunchTask) -> Result<Self, DecodeError> {
        Ok(Self {
            key: required(t.key, "key")?,
            job_name: t.job_name,
            user: t.user,
            command: t.command,
            env: t.env,
            work_dir: t.work_dir,
            gpus: list(t.gpus, "gpus")?,
            millicpu: t.millicpu,
            mem_bytes: t.mem_bytes,
            world_size: t.world_size,
            local_rank: t.local_rank,
            local_world_size: t.local_world_size,
            node_rank: t.node_rank,
            node_names: t.node_names,
            master_addr: t.master_addr,
            master_port: narrow(t.master_port, "master_port")?,
            checkpoint_dir: t.checkpoint_dir,
            checkpoint_keep: t.checkpoint_keep,
            resume_from: list(t.resume_from, "resume_from")?,
            restart_count: t.restart_count,
            lost_node: lost_node_from(t.lost_node, "lost_node")?,
            grace_ms: t.grace_ms,
        })
    }
}

impl From<&Tombstone> for v1::Tombstone {
    fn from(t: &Tombstone) -> Self {
        Self {
            job: t.job.0,
            through: t.through.0,
        }
    }
}

impl From<v1::Tombstone> for Tombstone {
    fn from(t: v1::Tombstone) -> Self {
        Self {
            job: JobId(t.job),
            through: Epoch(t.through),
        }
    }
}

impl From<&Directive> for v1::Directive {
    fn from(d: &Directive) -> Self {
        let recorded = |&(job, epoch, step): &(JobId, Epoch, u64)| v1::CheckpointRecorded {
            job: job.0,
            epoch: epoch.0,
            step,
        };
        Self {
            cluster_id: d.cluster_id,
            term: d.term,
            applied: d.applied,
            launch: wire(&d.launch),
            stop: wire(&d.stop),
            forget: wire(&d.forget),
            checkpoints_recorded: d.checkpoints_recorded.iter().map(recorded).collect(),
            lease_ms: d.lease_ms,
            masters: d.masters.clone(),
            checks: wire(&d.checks),
        }
    }
}

impl TryFrom<v1::Directive> for Directive {
    type Error = DecodeError;

    fn try_from(d: v1::Directive) -> Result<Self, DecodeError> {
        let recorded = |c: v1::CheckpointRecorded| (JobId(c.job), Epoch(c.epoch), c.step);
        Ok(Self {
            cluster_id: d.cluster_id,
            term: d.term,
            applied: d.applied,
            launch: list(d.launch, "launch")?,
            stop: d.stop.into_iter().map(Tombstone::from).collect(),
            forget: list(d.forget, "forget")?,
            checkpoints_recorded: d.checkpoints_recorded.into_iter().map(recorded).collect(),
            lease_ms: d.lease_ms,
            masters: d.masters,
            checks: list(d.checks, "checks")?,
        })
    }
}

impl From<&TaskExit> for v1::TaskExit {
    fn from(e: &TaskExit) -> Self {
        Self {
            code: e.code,
            at_ms: e.at_ms,
            reason: e.reason.clone(),
            node_fault: e.node_fault,
        }
    }
}

impl From<v1::TaskExit> for TaskExit {
    fn from(e: v1::TaskExit) -> Self {
        Self {
            code: e.code,
            at_ms: e.at_ms,
            reason: e.reason,
            node_fault: e.node_fault,
        }
    }
}

fn inventory_to(inventory: &TaskInventory) -> Inventory {
    match inventory {
        TaskInventory::Preparing => Inventory::Preparing(Preparing {}),
        TaskInventory::Running { since_ms } => Inventory::Running(Running {
            since_ms: *since_ms,
        }),
        TaskInventory::Ended(exit) => Inventory::Ended(exit.into()),
    }
}

fn inventory_from(inventory: Inventory) -> TaskInventory {
    match inventory {
        Inventory::Preparing(Preparing {}) => TaskInventory::Preparing,
        Inventory::Running(Running { since_ms }) => TaskInventory::Running { since_ms },
        Inventory::Ended(exit) => TaskInventory::Ended(exit.into()),
    }
}

impl From<&TaskEvent> for v1::TaskEvent {
    fn from(event: &TaskEvent) -> Self {
        let kind = match event {
            TaskEvent::State(key, inventory) => Kind::State(v1::TaskState {
                key: Some(key.into()),
                inventory: Some(inventory_to(inventory)),
            }),
            TaskEvent::Progress {
                key,
                step,
                samples,
                loss_micros,
                step_us,
            } => Kind::Progress(v1::TaskProgress {
                key: Some(key.into()),
                step: *step,
                samples: *samples,
                loss_micros: *loss_micros,
                step_us: *step_us,
            }),
            TaskEvent::CheckpointVerified { job, record } => {
                Kind::CheckpointVerified(v1::CheckpointVerified {
                    job: job.0,
                    record: Some(record.into()),
                })
            }
            TaskEvent::CheckpointDamaged {
                job,
                epoch,
                step,
                reason,
            } => Kind::CheckpointDamaged(v1::CheckpointDamaged {
                job: job.0,
                epoch: epoch.0,
                step: *step,
                reason: reason.clone(),
            }),
            TaskEvent::Host(report) => Kind::Host(report.into()),
            TaskEvent::HookFailed { key, hook, reason } => Kind::HookFailed(v1::HookFailed {
                key: Some(key.into()),
                hook: hook_to(*hook),
                reason: reason.clone(),
            }),
            TaskEvent::Gpu(event) => Kind::Gpu(event.into()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<v1::TaskEvent> for TaskEvent {
    type Error = DecodeError;

    fn try_from(event: v1::TaskEvent) -> Result<Self, DecodeError> {
        Ok(
            match event.kind.ok_or_else(|| DecodeError::missing("kind"))? {
                Kind::State(s) => {
                    let inventory = s
                        .inventory
                        .ok_or_else(|| DecodeError::missing("state.inventory"))?;
                    TaskEvent::State(required(s.key, "state.key")?, inventory_from(inventory))
                }
                Kind::Progress(p) => TaskEvent::Progress {
                    key: required(p.key, "progress.key")?,
                    step: p.step,
                    samples: p.samples,
                    loss_micros: p.loss_micros,
                    step_us: p.step_us,
                },
                Kind::CheckpointVerified(c) => TaskEvent::CheckpointVerified {
                    job: JobId(c.job),
                    record: required(c.record, "checkpoint_verified.record")?,
                },
                Kind::CheckpointDamaged(c) => TaskEvent::CheckpointDamaged {
                    job: JobId(c.job),
                    epoch: Epoch(c.epoch),
                    step: c.step,
                    reason: c.reason,
                },
                Kind::Host(host) => TaskEvent::Host(host.try_into()?),
                Kind::HookFailed(h) => TaskEvent::HookFailed {
                    key: required(h.key, "hook_failed.key")?,
                    hook: hook_from(h.hook)?,
                    reason: short(h.reason, "hook_failed.reason")?,
                },
                Kind::Gpu(event) => TaskEvent::Gpu(required(Some(event), "gpu")?),
            },
        )
    }
}

impl From<&AgentReport> for v1::AgentReport {
    fn from(r: &AgentReport) -> Self {
        Self {
            full_inventory: r.full_inventory,
            events: wire(&r.events),
        }
    }
}

impl TryFrom<v1::AgentReport> for AgentReport {
    type Error = DecodeError;

    fn try_from(r: v1::AgentReport) -> Result<Self, DecodeError> {
        Ok(Self {
            full_inventory: r.full_inventory,
            events: list(r.events, "events")?,
        })
    }
}
