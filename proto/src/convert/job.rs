//! What a user submits.

use berth_types::{CheckpointSpec, GroupSpec, JobSpec, LostNodeRule, Resources, RestartSpec};

use super::{DecodeError, list, optional, wire};
use crate::v1;

pub(super) fn lost_node_to(rule: LostNodeRule) -> i32 {
    let rule = match rule {
        LostNodeRule::Restart => v1::LostNodeRule::Restart,
        LostNodeRule::Fence => v1::LostNodeRule::Fence,
        LostNodeRule::Wait => v1::LostNodeRule::Wait,
    };
    rule.into()
}

pub(super) fn lost_node_from(rule: i32, field: &str) -> Result<LostNodeRule, DecodeError> {
    match v1::LostNodeRule::try_from(rule) {
        Ok(v1::LostNodeRule::Unspecified) => Ok(LostNodeRule::default()),
        Ok(v1::LostNodeRule::Restart) => Ok(LostNodeRule::Restart),
        Ok(v1::LostNodeRule::Fence) => Ok(LostNodeRule::Fence),
        Ok(v1::LostNodeRule::Wait) => Ok(LostNodeRule::Wait),
        Err(_) => Err(DecodeError::unknown(field, rule)),
    }
}

impl From<&Resources> for v1::Resources {
    fn from(r: &Resources) -> Self {
        Self {
            milligpu: r.milligpu,
            millicpu: r.millicpu,
            mem_bytes: r.mem_bytes,
            gpu_types: r.gpu_types.clone(),
            gpu_mem_bytes: r.gpu_mem_bytes,
        }
    }
}

impl From<v1::Resources> for Resources {
    fn from(r: v1::Resources) -> Self {
        Self {
            milligpu: r.milligpu,
            millicpu: r.millicpu,
            mem_bytes: r.mem_bytes,
            gpu_types: r.gpu_types,
            gpu_mem_bytes: r.gpu_mem_bytes,
        }
    }
}

impl From<&GroupSpec> for v1::GroupSpec {
    fn from(g: &GroupSpec) -> Self {
        Self {
            name: g.name.clone(),
            command: g.command.clone(),
            min_workers: g.min_workers,
            max_workers: Some(g.max_workers),
            gang: Some(g.gang),
            resources: Some((&g.resources).into()),
            node_labels: g.node_labels.clone(),
        }
    }
}

impl TryFrom<v1::GroupSpec> for GroupSpec {
    type Error = DecodeError;

    fn try_from(g: v1::GroupSpec) -> Result<Self, DecodeError> {
        Ok(Self {
            name: g.name,
            command: g.command,
            min_workers: g.min_workers,
            max_workers: g.max_workers.unwrap_or(g.min_workers),
            gang: g.gang.unwrap_or(true),
            resources: g.resources.map(Resources::from).unwrap_or_default(),
            node_labels: g.node_labels,
        })
    }
}

impl From<&CheckpointSpec> for v1::CheckpointSpec {
    fn from(c: &CheckpointSpec) -> Self {
        Self {
            dir: c.dir.clone(),
            keep: Some(c.keep),
        }
    }
}

impl From<v1::CheckpointSpec> for CheckpointSpec {
    fn from(c: v1::CheckpointSpec) -> Self {
        Self {
            dir: c.dir,
            keep: c.keep.unwrap_or(CheckpointSpec::default().keep),
        }
    }
}

impl From<&RestartSpec> for v1::RestartSpec {
    fn from(r: &RestartSpec) -> Self {
        Self {
            max_restarts: Some(r.max_restarts),
            backoff_ms: Some(r.backoff_ms),
            on_lost_node: lost_node_to(r.on_lost_node),
        }
    }
}

impl TryFrom<v1::RestartSpec> for RestartSpec {
    type Error = DecodeError;

    fn try_from(r: v1::RestartSpec) -> Result<Self, DecodeError> {
        let default = RestartSpec::default();
        Ok(Self {
            max_restarts: r.max_restarts.unwrap_or(default.max_restarts),
            backoff_ms: r.backoff_ms.unwrap_or(default.backoff_ms),
            on_lost_node: lost_node_from(r.on_lost_node, "on_lost_node")?,
        })
    }
}

impl From<&JobSpec> for v1::JobSpec {
    fn from(s: &JobSpec) -> Self {
        Self {
            name: s.name.clone(),
            user: s.user.clone(),
            queue: s.queue.clone(),
            priority: s.priority,
            groups: wire(&s.groups),
            env: s.env.clone(),
            work_dir: s.work_dir.clone(),
            checkpoint: Some((&s.checkpoint).into()),
            restart: Some((&s.restart).into()),
            time_limit_ms: s.time_limit_ms,
            expected_ms: s.expected_ms,
            grace_ms: Some(s.grace_ms),
            start_now: s.start_now,
            labels: s.labels.clone(),
        }
    }
}

impl TryFrom<v1::JobSpec> for JobSpec {
    type Error = DecodeError;

    fn try_from(s: v1::JobSpec) -> Result<Self, DecodeError> {
        let default = JobSpec::default();
        let queue = if s.queue.is_empty() {
            default.queue
        } else {
            s.queue
        };
        Ok(Self {
            name: s.name,
            user: s.user,
            queue,
            priority: s.priority,
            groups: list(s.groups, "groups")?,
            env: s.env,
            work_dir: s.work_dir,
            checkpoint: s.checkpoint.map(CheckpointSpec::from).unwrap_or_default(),
            restart: optional(s.restart, "restart")?.unwrap_or_default(),
            time_limit_ms: s.time_limit_ms,
            expected_ms: s.expected_ms,
            grace_ms: s.grace_ms.unwrap_or(default.grace_ms),
            start_now: s.start_now,
            labels: s.labels,
        })
    }
}
