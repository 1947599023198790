//! Health: readings in short, tests, and how GPUs and nodes are doing.

use berth_types::{
    GpuCondition, GpuDigest, GpuEvent, HealthCheck, HealthNote, HealthOrder, HealthStage,
    HealthView, Request,
};
use v1::gpu_event::{Checked, Digests, Kind, Xid};

use super::{DecodeError, list, narrow, required, wire};
use crate::v1;

/// Most characters of the index or UUID that names a GPU in a call.
const MAX_GPU_NAME: usize = 128;

fn condition_to(condition: GpuCondition) -> i32 {
    let condition = match condition {
        GpuCondition::Unknown => v1::GpuCondition::Unspecified,
        GpuCondition::Answering => v1::GpuCondition::Answering,
        GpuCondition::Unresponsive => v1::GpuCondition::Unresponsive,
        GpuCondition::Lost => v1::GpuCondition::Lost,
        GpuCondition::ResetRequired => v1::GpuCondition::ResetRequired,
    };
    condition.into()
}

fn condition_from(condition: i32) -> Result<GpuCondition, DecodeError> {
    match v1::GpuCondition::try_from(condition) {
        Ok(v1::GpuCondition::Unspecified) => Ok(GpuCondition::Unknown),
        Ok(v1::GpuCondition::Answering) => Ok(GpuCondition::Answering),
        Ok(v1::GpuCondition::Unresponsive) => Ok(GpuCondition::Unresponsive),
        Ok(v1::GpuCondition::Lost) => Ok(GpuCondition::Lost),
        Ok(v1::GpuCondition::ResetRequired) => Ok(GpuCondition::ResetRequired),
        Err(_) => Err(DecodeError::unknown("condition", condition)),
    }
}

/// The readings that have the same name and shape on both sides.
macro_rules! digests {
    ($($reading:ident),* $(,)?) => {
        impl From<&GpuDigest> for v1::GpuDigest {
            fn from(d: &GpuDigest) -> Self {
                Self {
                    gpu: d.gpu.into(),
                    at_ms: d.at_ms,
                    condition: condition_to(d.condition),
                    $($reading: d.$reading),*
                }
            }
        }

        impl TryFrom<v1::GpuDigest> for GpuDigest {
            type Error = DecodeError;

            fn try_from(d: v1::GpuDigest) -> Result<Self, DecodeError> {
                Ok(Self {
                    gpu: narrow(d.gpu, "gpu")?,
                    at_ms: d.at_ms,
                    condition: condition_from(d.condition)?,
                    $($reading: d.$reading),*
                })
            }
        }
    };
}

digests!(
    took_us,
    util_pct,
    mem_used_bytes,
    mem_total_bytes,
    temp_c,
    slowdown_temp_c,
    mem_temp_c,
    power_mw,
    sm_mhz,
    max_sm_mhz,
    throttle,
    ecc_corrected,
    ecc_uncorrected,
    rows_replaced,
    rows_pending,
    rows_failed,
    pcie_width,
    pcie_max_width,
    pcie_replays,
    nvlinks,
    nvlinks_up,
    nvlink_errors,
    xids,
);

impl From<&HealthCheck> for v1::HealthCheck {
    fn from(c: &HealthCheck) -> Self {
        Self {
            gpu: c.gpu.map(u32::from),
            number: c.number,
        }
    }
}

impl TryFrom<v1::HealthCheck> for HealthCheck {
    type Error = DecodeError;

    fn try_from(c: v1::HealthCheck) -> Result<Self, DecodeError> {
        Ok(Self {
            gpu: c.gpu.map(|gpu| narrow(gpu, "gpu")).transpose()?,
            number: c.number,
        })
    }
}

impl From<&GpuEvent> for v1::GpuEvent {
    fn from(event: &GpuEvent) -> Self {
        let kind = match event {
            GpuEvent::Xid { gpu, xid, at_ms } => Kind::Xid(Xid {
                gpu: (*gpu).into(),
                xid: *xid,
                at_ms: *at_ms,
            }),
            GpuEvent::Digests(digests) => Kind::Digests(Digests {
                digests: wire(digests),
            }),
            GpuEvent::Checked {
                check,
                passed,
                text,
            } => Kind::Checked(Checked {
                check: Some(check.into()),
                passed: *passed,
                text: text.clone(),
            }),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<v1::GpuEvent> for GpuEvent {
    type Error = DecodeError;

    fn try_from(event: v1::GpuEvent) -> Result<Self, DecodeError> {
        Ok(
            match event.kind.ok_or_else(|| DecodeError::missing("kind"))? {
                Kind::Xid(x) => GpuEvent::Xid {
                    gpu: narrow(x.gpu, "xid.gpu")?,
                    xid: x.xid,
                    at_ms: x.at_ms,
                },
                Kind::Digests(d) => GpuEvent::Digests(list(d.digests, "digests")?),
                Kind::Checked(c) => GpuEvent::Checked {
                    check: required(c.check, "checked.check")?,
                    passed: c.passed,
                    text: c.text,
                },
            },
        )
    }
}

fn stage_to(stage: HealthStage) -> i32 {
    let stage = match stage {
        HealthStage::Healthy => v1::HealthStage::Healthy,
        HealthStage::Suspect => v1::HealthStage::Suspect,
        HealthStage::Leaving => v1::HealthStage::Leaving,
        HealthStage::Quarantined => v1::HealthStage::Quarantined,
        HealthStage::Testing => v1::HealthStage::Testing,
    };
    stage.into()
}

fn stage_from(stage: i32) -> Result<HealthStage, DecodeError> {
    match v1::HealthStage::try_from(stage) {
        Ok(v1::HealthStage::Healthy) => Ok(HealthStage::Healthy),
        Ok(v1::HealthStage::Suspect) => Ok(HealthStage::Suspect),
        Ok(v1::HealthStage::Leaving) => Ok(HealthStage::Leaving),
        Ok(v1::HealthStage::Quarantined) => Ok(HealthStage::Quarantined),
        Ok(v1::HealthStage::Testing) => Ok(HealthStage::Testing),
        Ok(v1::HealthStage::Unspecified) | Err(_) => Err(DecodeError::unknown("stage", stage)),
    }
}

impl From<&HealthNote> for v1::HealthNote {
    fn from(n: &HealthNote) -> Self {
        Self {
            at_ms: n.at_ms,
            text: n.text.clone(),
        }
    }
}

impl TryFrom<v1::HealthNote> for HealthNote {
    type Error = DecodeError;

    fn try_from(n: v1::HealthNote) -> Result<Self, DecodeError> {
        Ok(Self {
            at_ms: n.at_ms,
            text: n.text,
        })
    }
}

impl From<&HealthView> for v1::Health {
    fn from(h: &HealthView) -> Self {
        Self {
            gpu: h.gpu.map(u32::from),
            stage: stage_to(h.stage),
            score: h.score,
            strikes: h.strikes,
            until_ms: h.until_ms,
            by_hand: h.by_hand,
            evidence: wire(&h.evidence),
            history: wire(&h.history),
        }
    }
}

impl TryFrom<v1::Health> for HealthView {
    type Error = DecodeError;

    fn try_from(h: v1::Health) -> Result<Self, DecodeError> {
        Ok(Self {
            gpu: h.gpu.map(|gpu| narrow(gpu, "gpu")).transpose()?,
            stage: stage_from(h.stage)?,
            score: h.score,
            strikes: h.strikes,
            until_ms: h.until_ms,
            by_hand: h.by_hand,
            evidence: list(h.evidence, "evidence")?,
            history: list(h.history, "history")?,
        })
    }
}

fn gpu_name(gpu: Option<String>) -> Result<Option<String>, DecodeError> {
    match gpu {
        Some(gpu) if gpu.is_empty() || gpu.len() > MAX_GPU_NAME => Err(DecodeError::new(
            "gpu",
            "not an index or UUID",
            "the GPU's number or UUID, as `berth node NAME` shows them",
        )),
        gpu => Ok(gpu),
    }
}

impl TryFrom<v1::QuarantineRequest> for Request {
    type Error = DecodeError;

    fn try_from(r: v1::QuarantineRequest) -> Result<Self, DecodeError> {
        Ok(Request::SetHealth {
            name: super::request::name_from(r.name)?,
            gpu: gpu_name(r.gpu)?,
            order: HealthOrder::Quarantine { reason: r.reason },
        })
    }
}

impl TryFrom<v1::ReturnRequest> for Request {
    type Error = DecodeError;

    fn try_from(r: v1::ReturnRequest) -> Result<Self, DecodeError> {
        Ok(Request::SetHealth {
            name: super::request::name_from(r.name)?,
            gpu: gpu_name(r.gpu)?,
            order: HealthOrder::Return,
        })
    }
}
