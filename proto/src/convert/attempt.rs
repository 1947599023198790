//! Attempts and their tasks.

use berth_types::{
    Attempt, AttemptEnd, AttemptPhase, Epoch, GpuShare, NodeId, PastAttempt, Rank, TaskPhase,
    TaskPlacement, TaskRecord,
};
use v1::attempt_end::{Failed, GpuFault, Kind as EndKind, Plain};
use v1::task_record::{Assigned, Ended, Phase, Running};

use super::{DecodeError, list, narrow, required, wire};
use crate::v1;

impl From<&GpuShare> for v1::GpuShare {
    fn from(s: &GpuShare) -> Self {
        Self {
            gpu: s.gpu.into(),
            milligpu: s.milligpu,
        }
    }
}

impl TryFrom<v1::GpuShare> for GpuShare {
    type Error = DecodeError;

    fn try_from(s: v1::GpuShare) -> Result<Self, DecodeError> {
        Ok(Self {
            gpu: narrow(s.gpu, "gpu")?,
            milligpu: s.milligpu,
        })
    }
}

impl From<&TaskPlacement> for v1::TaskPlacement {
    fn from(p: &TaskPlacement) -> Self {
        Self {
            rank: p.rank.0,
            group: p.group.into(),
            node: p.node.0,
            gpus: wire(&p.gpus),
        }
    }
}

impl TryFrom<v1::TaskPlacement> for TaskPlacement {
    type Error = DecodeError;

    fn try_from(p: v1::TaskPlacement) -> Result<Self, DecodeError> {
        Ok(Self {
            rank: Rank(p.rank),
            group: narrow(p.group, "group")?,
            node: NodeId(p.node),
            gpus: list(p.gpus, "gpus")?,
        })
    }
}

impl From<&TaskRecord> for v1::TaskRecord {
    fn from(t: &TaskRecord) -> Self {
        let phase = match t.phase {
            TaskPhase::Assigned => Phase::Assigned(Assigned {}),
            TaskPhase::Running { since_ms } => Phase::Running(Running { since_ms }),
            TaskPhase::Ended { code, at_ms } => Phase::Ended(Ended { code, at_ms }),
        };
        Self {
            placement: Some((&t.placement).into()),
            phase: Some(phase),
        }
    }
}

impl TryFrom<v1::TaskRecord> for TaskRecord {
    type Error = DecodeError;

    fn try_from(t: v1::TaskRecord) -> Result<Self, DecodeError> {
        let phase = match t.phase.ok_or_else(|| DecodeError::missing("phase"))? {
            Phase::Assigned(Assigned {}) => TaskPhase::Assigned,
            Phase::Running(Running { since_ms }) => TaskPhase::Running { since_ms },
            Phase::Ended(Ended { code, at_ms }) => TaskPhase::Ended { code, at_ms },
        };
        Ok(Self {
            placement: required(t.placement, "placement")?,
            phase,
        })
    }
}

impl From<&AttemptEnd> for v1::AttemptEnd {
    fn from(e: &AttemptEnd) -> Self {
        let kind = match e {
            AttemptEnd::Completed => EndKind::Completed(Plain {}),
            AttemptEnd::Failed { rank, code, reason } => EndKind::Failed(Failed {
                rank: rank.0,
                code: *code,
                reason: reason.clone(),
            }),
            AttemptEnd::NodeLost { node } => EndKind::NodeLost(node.0),
            AttemptEnd::NotStarted { reason } => EndKind::NotStarted(reason.clone()),
            AttemptEnd::Evicted { reason } => EndKind::Evicted(reason.clone()),
            AttemptEnd::Cancelled => EndKind::Cancelled(Plain {}),
            AttemptEnd::TimedOut => EndKind::TimedOut(Plain {}),
            AttemptEnd::GpuFault { node, gpu, reason } => EndKind::GpuFault(GpuFault {
                node: node.0,
                gpu: (*gpu).into(),
                reason: reason.clone(),
            }),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<v1::AttemptEnd> for AttemptEnd {
    type Error = DecodeError;

    fn try_from(e: v1::AttemptEnd) -> Result<Self, DecodeError> {
        Ok(match e.kind.ok_or_else(|| DecodeError::missing("kind"))? {
            EndKind::Completed(Plain {}) => AttemptEnd::Completed,
            EndKind::Failed(f) => AttemptEnd::Failed {
                rank: Rank(f.rank),
                code: f.code,
                reason: f.reason,
            },
            EndKind::NodeLost(node) => AttemptEnd::NodeLost { node: NodeId(node) },
            EndKind::NotStarted(reason) => AttemptEnd::NotStarted { reason },
            EndKind::Evicted(reason) => AttemptEnd::Evicted { reason },
            EndKind::Cancelled(Plain {}) => AttemptEnd::Cancelled,
            EndKind::TimedOut(Plain {}) => AttemptEnd::TimedOut,
            EndKind::GpuFault(f) => AttemptEnd::GpuFault {
                node: NodeId(f.node),
                gpu: narrow(f.gpu, "gpu_fault.gpu")?,
                reason: f.reason,
            },
        })
    }
}

impl From<&Attempt> for v1::Attempt {
    fn from(a: &Attempt) -> Self {
        let (phase, ending) = match &a.phase {
            AttemptPhase::Starting => (v1::AttemptPhase::Starting, None),
            AttemptPhase::Running => (v1::AttemptPhase::Running, None),
            AttemptPhase::Stopping(end) => (v1::AttemptPhase::Stopping, Some(end.into())),
        };
        Self {
            epoch: a.epoch.0,
            phase: phase.into(),
            ending,
            tasks: wire(&a.tasks),
            master_port: a.master_port.into(),
            started_ms: a.started_ms,
            resumed_step: a.resumed_step,
            placed_because: a.placed_because.clone(),
        }
    }
}

impl TryFrom<v1::Attempt> for Attempt {
    type Error = DecodeError;

    fn try_from(a: v1::Attempt) -> Result<Self, DecodeError> {
        let phase = match v1::AttemptPhase::try_from(a.phase) {
            Ok(v1::AttemptPhase::Starting) => AttemptPhase::Starting,
            Ok(v1::AttemptPhase::Running) => AttemptPhase::Running,
            Ok(v1::AttemptPhase::Stopping) => AttemptPhase::Stopping(required(a.ending, "ending")?),
            Ok(v1::AttemptPhase::Unspecified) | Err(_) => {
                return Err(DecodeError::unknown("phase", a.phase));
            }
        };
        Ok(Self {
            epoch: Epoch(a.epoch),
            phase,
            tasks: list(a.tasks, "tasks")?,
            master_port: narrow(a.master_port, "master_port")?,
            started_ms: a.started_ms,
            resumed_step: a.resumed_step,
            placed_because: a.placed_because,
        })
    }
}

impl From<&PastAttempt> for v1::PastAttempt {
    fn from(p: &PastAttempt) -> Self {
        Self {
            epoch: p.epoch.0,
            started_ms: p.started_ms,
            ended_ms: p.ended_ms,
            end: Some((&p.end).into()),
            nodes: p.nodes.iter().map(|n| n.0).collect(),
            resumed_step: p.resumed_step,
        }
    }
}

impl TryFrom<v1::PastAttempt> for PastAttempt {
    type Error = DecodeError;

    fn try_from(p: v1::PastAttempt) -> Result<Self, DecodeError> {
        Ok(Self {
            epoch: Epoch(p.epoch),
            started_ms: p.started_ms,
            ended_ms: p.ended_ms,
            end: required(p.end, "end")?,
            nodes: p.nodes.into_iter().map(NodeId).collect(),
            resumed_step: p.resumed_step,
        })
    }
}
