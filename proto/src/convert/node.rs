//! Nodes.

use std::sync::Arc;

use berth_types::api::NodeView;
use berth_types::{GpuInfo, Isolation, JobId, NodeId, NodeSpec, NodeState};

use super::{DecodeError, list, narrow, required, wire};
use crate::v1;

impl From<&GpuInfo> for v1::GpuInfo {
    fn from(g: &GpuInfo) -> Self {
        Self {
            uuid: g.uuid.clone(),
            model: g.model.clone(),
            mem_bytes: g.mem_bytes,
            nvlink_group: g.nvlink_group.into(),
            numa: g.numa.into(),
        }
    }
}

impl TryFrom<v1::GpuInfo> for GpuInfo {
    type Error = DecodeError;

    fn try_from(g: v1::GpuInfo) -> Result<Self, DecodeError> {
        Ok(Self {
            uuid: g.uuid,
            model: g.model,
            mem_bytes: g.mem_bytes,
            nvlink_group: narrow(g.nvlink_group, "nvlink_group")?,
            numa: narrow(g.numa, "numa")?,
        })
    }
}

impl From<&NodeSpec> for v1::NodeSpec {
    fn from(s: &NodeSpec) -> Self {
        Self {
            name: s.name.clone(),
            address: s.address.clone(),
            labels: s.labels.clone(),
            rack: s.rack.clone(),
            millicpu: s.millicpu,
            mem_bytes: s.mem_bytes,
            gpus: wire(&s.gpus),
            simulated_gpus: s.simulated_gpus,
            port_first: s.port_first.into(),
            port_count: s.port_count.into(),
            agent_version: s.agent_version.clone(),
        }
    }
}

impl TryFrom<v1::NodeSpec> for NodeSpec {
    type Error = DecodeError;

    fn try_from(s: v1::NodeSpec) -> Result<Self, DecodeError> {
        if s.name.is_empty() {
            return Err(DecodeError::new("name", "empty", "give the node a name"));
        }
        let spec = Self {
            name: s.name,
            address: s.address,
            labels: s.labels,
            rack: s.rack,
            millicpu: s.millicpu,
            mem_bytes: s.mem_bytes,
            gpus: list(s.gpus, "gpus")?,
            simulated_gpus: s.simulated_gpus,
            port_first: narrow(s.port_first, "port_first")?,
            port_count: narrow(s.port_count, "port_count")?,
            agent_version: s.agent_version,
        };
        // GPU indices and their shares are 16 bits wide everywhere else.
        if spec.gpus.len() > usize::from(u16::MAX) {
            return Err(DecodeError::new(
                "gpus",
                "too many",
                format!("at most {}", u16::MAX),
            ));
        }
        if spec
            .port_first
            .checked_add(spec.port_count.saturating_sub(1))
            .is_none()
        {
            return Err(DecodeError::new(
                "port_count",
                "the range ends beyond port 65535",
                "lower port_first or port_count",
            ));
        }
        Ok(spec)
    }
}

fn state_to(state: NodeState) -> i32 {
    let state = match state {
        NodeState::Ready => v1::NodeState::Ready,
        NodeState::Draining => v1::NodeState::Draining,
        NodeState::Lost => v1::NodeState::Lost,
    };
    state.into()
}

fn state_from(state: i32) -> Result<NodeState, DecodeError> {
    match v1::NodeState::try_from(state) {
        Ok(v1::NodeState::Ready) => Ok(NodeState::Ready),
        Ok(v1::NodeState::Draining) => Ok(NodeState::Draining),
        Ok(v1::NodeState::Lost) => Ok(NodeState::Lost),
        Ok(v1::NodeState::Unspecified) | Err(_) => Err(DecodeError::unknown("state", state)),
    }
}

impl From<&NodeView> for v1::Node {
    fn from(n: &NodeView) -> Self {
        Self {
            id: n.id.0,
            spec: Some(n.spec.as_ref().into()),
            state: state_to(n.state),
            reason: n.reason.clone(),
            since_ms: n.since_ms,
            used_milligpu: n.used_milligpu.clone(),
            used_millicpu: n.used_millicpu,
            used_mem_bytes: n.used_mem_bytes,
            tasks: n.tasks,
            jobs: n.jobs.iter().map(|j| j.0).collect(),
            connected: n.connected,
            isolation: (n.isolation != Isolation::default()).then(|| (&n.isolation).into()),
            health: wire(&n.health),
            telemetry: wire(&n.telemetry),
        }
    }
}

impl TryFrom<v1::Node> for NodeView {
    type Error = DecodeError;

    fn try_from(n: v1::Node) -> Result<Self, DecodeError> {
        let spec: NodeSpec = required(n.spec, "spec")?;
        Ok(Self {
            id: NodeId(n.id),
            spec: Arc::new(spec),
            state: state_from(n.state)?,
            reason: n.reason,
            since_ms: n.since_ms,
            used_milligpu: n.used_milligpu,
            used_millicpu: n.used_millicpu,
            used_mem_bytes: n.used_mem_bytes,
            tasks: n.tasks,
            jobs: n.jobs.into_iter().map(JobId).collect(),
            connected: n.connected,
            isolation: match n.isolation {
                Some(isolation) => isolation.try_into()?,
                None => Isolation::default(),
            },
            health: list(n.health, "health")?,
            telemetry: list(n.telemetry, "telemetry")?,
        })
    }
}
