//! Jobs as shown.

use std::sync::Arc;

use berth_types::api::{JobView, Progress, WhyView};
use berth_types::{JobId, JobSpec, JobState, NodeId, Outcome};

use super::{DecodeError, list, optional, required, wire};
use crate::v1;

impl From<JobState> for v1::JobState {
    fn from(state: JobState) -> Self {
        match state {
            JobState::Pending => v1::JobState::Pending,
            JobState::Starting => v1::JobState::Starting,
            JobState::Running => v1::JobState::Running,
            JobState::Stopping => v1::JobState::Stopping,
            JobState::Fencing => v1::JobState::Fencing,
            JobState::Completed => v1::JobState::Completed,
            JobState::Failed => v1::JobState::Failed,
            JobState::Cancelled => v1::JobState::Cancelled,
            JobState::TimedOut => v1::JobState::TimedOut,
        }
    }
}

pub(super) fn job_state(state: i32, field: &str) -> Result<JobState, DecodeError> {
    Ok(match v1::JobState::try_from(state) {
        Ok(v1::JobState::Pending) => JobState::Pending,
        Ok(v1::JobState::Starting) => JobState::Starting,
        Ok(v1::JobState::Running) => JobState::Running,
        Ok(v1::JobState::Stopping) => JobState::Stopping,
        Ok(v1::JobState::Fencing) => JobState::Fencing,
        Ok(v1::JobState::Completed) => JobState::Completed,
        Ok(v1::JobState::Failed) => JobState::Failed,
        Ok(v1::JobState::Cancelled) => JobState::Cancelled,
        Ok(v1::JobState::TimedOut) => JobState::TimedOut,
        Ok(v1::JobState::Unspecified) | Err(_) => return Err(DecodeError::unknown(field, state)),
    })
}

impl From<&Outcome> for v1::Outcome {
    fn from(outcome: &Outcome) -> Self {
        let (kind, code) = match outcome {
            Outcome::Completed => (v1::OutcomeKind::Completed, 0),
            Outcome::Failed { code } => (v1::OutcomeKind::Failed, *code),
            Outcome::Cancelled => (v1::OutcomeKind::Cancelled, 0),
            Outcome::TimedOut => (v1::OutcomeKind::TimedOut, 0),
            Outcome::NodeLost => (v1::OutcomeKind::NodeLost, 0),
            Outcome::Rejected => (v1::OutcomeKind::Rejected, 0),
        };
        Self {
            kind: kind.into(),
            code,
        }
    }
}

impl TryFrom<v1::Outcome> for Outcome {
    type Error = DecodeError;

    fn try_from(o: v1::Outcome) -> Result<Self, DecodeError> {
        Ok(match v1::OutcomeKind::try_from(o.kind) {
            Ok(v1::OutcomeKind::Completed) => Outcome::Completed,
            Ok(v1::OutcomeKind::Failed) => Outcome::Failed { code: o.code },
            Ok(v1::OutcomeKind::Cancelled) => Outcome::Cancelled,
            Ok(v1::OutcomeKind::TimedOut) => Outcome::TimedOut,
            Ok(v1::OutcomeKind::NodeLost) => Outcome::NodeLost,
            Ok(v1::OutcomeKind::Rejected) => Outcome::Rejected,
            Ok(v1::OutcomeKind::Unspecified) | Err(_) => {
                return Err(DecodeError::unknown("kind", o.kind));
            }
        })
    }
}

impl From<&Progress> for v1::Progress {
    fn from(p: &Progress) -> Self {
        Self {
            step: p.step,
            samples: p.samples,
            loss_micros: p.loss_micros,
            step_us: p.step_us,
            at_ms: p.at_ms,
        }
    }
}

impl From<v1::Progress> for Progress {
    fn from(p: v1::Progress) -> Self {
        Self {
            step: p.step,
            samples: p.samples,
            loss_micros: p.loss_micros,
            step_us: p.step_us,
            at_ms: p.at_ms,
        }
    }
}

impl From<&JobView> for v1::Job {
    fn from(j: &JobView) -> Self {
        Self {
            id: j.id.0,
            spec: Some(j.spec.as_ref().into()),
            state: v1::JobState::from(j.state).into(),
            reason: j.reason.clone(),
            reason_text: j.reason_text.clone(),
            submitted_ms: j.submitted_ms,
            started_ms: j.started_ms,
            ended_ms: j.ended_ms,
            outcome: j.outcome.as_ref().map(Into::into),
            attempt: j.attempt.as_ref().map(Into::into),
            past: wire(&j.past),
            restarts: j.restarts,
            checkpoints: wire(&j.checkpoints),
            progress: j.progress.as_ref().map(Into::into),
            node_names: j
                .node_names
                .iter()
                .map(|(id, name)| (id.0, name.clone()))
                .collect(),
        }
    }
}

impl TryFrom<v1::Job> for JobView {
    type Error = DecodeError;

    fn try_from(j: v1::Job) -> Result<Self, DecodeError> {
        let spec: JobSpec = required(j.spec, "spec")?;
        Ok(Self {
            id: JobId(j.id),
            spec: Arc::new(spec),
            state: job_state(j.state, "state")?,
            reason: j.reason,
            reason_text: j.reason_text,
            submitted_ms: j.submitted_ms,
            started_ms: j.started_ms,
            ended_ms: j.ended_ms,
            outcome: optional(j.outcome, "outcome")?,
            attempt: optional(j.attempt, "attempt")?,
            past: list(j.past, "past")?,
            restarts: j.restarts,
            checkpoints: list(j.checkpoints, "checkpoints")?,
            progress: j.progress.map(Into::into),
            node_names: j
                .node_names
                .into_iter()
                .map(|(id, name)| (NodeId(id), name))
                .collect(),
        })
    }
}

impl From<WhyView> for v1::WhyResponse {
    fn from(w: WhyView) -> Self {
        Self {
            job: w.job.0,
            state: v1::JobState::from(w.state).into(),
            reason: w.reason,
            text: w.text,
            unblock: w.unblock,
            ahead: w.ahead,
            evidence: w.evidence,
        }
    }
}

impl TryFrom<v1::WhyResponse> for WhyView {
    type Error = DecodeError;

    fn try_from(w: v1::WhyResponse) -> Result<Self, DecodeError> {
        Ok(Self {
            job: JobId(w.job),
            state: job_state(w.state, "state")?,
            reason: w.reason,
            text: w.text,
            unblock: w.unblock,
            ahead: w.ahead,
            evidence: w.evidence,
        })
    }
}
