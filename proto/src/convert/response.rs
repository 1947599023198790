//! Answers. `TryFrom<Response>` fails with the error that the answer is, if it is one.

use berth_types::api::{ApiError, ErrorKind, Event, MasterInfo, MasterView, Response, StatusView};
use berth_types::{JobId, MasterId};

use super::job_view::job_state;
use super::{DecodeError, list, wire};
use crate::v1;

/// The answer is an error, or of a kind that does not belong to the call.
pub(super) fn unexpected(response: Response) -> ApiError {
    match response {
        Response::Error(error) => error,
        _ => ApiError::new(
            ErrorKind::Internal,
            "UNEXPECTED_ANSWER",
            "the answer does not belong to the call",
            "masters may be of different versions",
        ),
    }
}

impl TryFrom<Response> for v1::SubmitResponse {
    type Error = ApiError;

    fn try_from(response: Response) -> Result<Self, ApiError> {
        match response {
            Response::Submitted { job, duplicate } => Ok(Self {
                job: job.0,
                duplicate,
            }),
            other => Err(unexpected(other)),
        }
    }
}

impl From<v1::SubmitResponse> for Response {
    fn from(r: v1::SubmitResponse) -> Self {
        Response::Submitted {
            job: JobId(r.job),
            duplicate: r.duplicate,
        }
    }
}

impl TryFrom<Response> for v1::Done {
    type Error = ApiError;

    fn try_from(response: Response) -> Result<Self, ApiError> {
        match response {
            Response::Done(text) => Ok(Self { text }),
            other => Err(unexpected(other)),
        }
    }
}

impl TryFrom<Response> for v1::Job {
    type Error = ApiError;

    fn try_from(response: Response) -> Result<Self, ApiError> {
        match response {
            Response::Job(job) => Ok(job.as_ref().into()),
            other => Err(unexpected(other)),
        }
    }
}

impl TryFrom<Response> for v1::ListJobsResponse {
    type Error = ApiError;

    fn try_from(response: Response) -> Result<Self, ApiError> {
        match response {
            Response::Jobs { jobs, next } => Ok(Self {
                jobs: wire(&jobs),
                next_page_token: next,
            }),
            other => Err(unexpected(other)),
        }
    }
}

impl TryFrom<Response> for v1::WhyResponse {
    type Error = ApiError;

    fn try_from(response: Response) -> Result<Self, ApiError> {
        match response {
            Response::Why(why) => Ok(why.into()),
            other => Err(unexpected(other)),
        }
    }
}

impl TryFrom<Response> for v1::ListNodesResponse {
    type Error = ApiError;

    fn try_from(response: Response) -> Result<Self, ApiError> {
        match response {
            Response::Nodes(nodes) => Ok(Self {
                nodes: wire(&nodes),
            }),
            other => Err(unexpected(other)),
        }
    }
}

impl TryFrom<Response> for v1::Node {
    type Error = ApiError;

    fn try_from(response: Response) -> Result<Self, ApiError> {
        match response {
            Response::Nodes(nodes) if nodes.len() == 1 => Ok((&nodes[0]).into()),
            other => Err(unexpected(other)),
        }
    }
}

impl From<&MasterView> for v1::Master {
    fn from(m: &MasterView) -> Self {
        Self {
            id: m.id.0,
            address: m.info.address.clone(),
            leader: m.leader,
            voter: m.voter,
            matched: m.matched,
            reachable: m.reachable,
        }
    }
}

impl TryFrom<v1::Master> for MasterView {
    type Error = DecodeError;

    fn try_from(m: v1::Master) -> Result<Self, DecodeError> {
        Ok(Self {
            id: MasterId(m.id),
            info: MasterInfo { address: m.address },
            leader: m.leader,
            voter: m.voter,
            matched: m.matched,
            reachable: m.reachable,
        })
    }
}

impl From<&StatusView> for v1::StatusResponse {
    fn from(s: &StatusView) -> Self {
        let count = |(&state, &jobs)| v1::JobCount {
            state: v1::JobState::from(state).into(),
            jobs,
        };
        Self {
            cluster_id: s.cluster_id,
            cluster_version: s.cluster_version,
            term: s.term,
            applied: s.applied,
            masters: wire(&s.masters),
            jobs: s.jobs.iter().map(count).collect(),
            nodes_ready: s.nodes.0,
            nodes_draining: s.nodes.1,
            nodes_lost: s.nodes.2,
            milligpu_used: s.milligpu.0,
            milligpu_usable: s.milligpu.1,
            policy: s.policy.clone(),
            rounds: s.rounds.0,
            last_round_us: s.rounds.1,
            time_ms: s.time_ms,
            alarm: s.alarm.clone(),
        }
    }
}

impl TryFrom<v1::StatusResponse> for StatusView {
    type Error = DecodeError;

    fn try_from(s: v1::StatusResponse) -> Result<Self, DecodeError> {
        let count = |(i, c): (usize, v1::JobCount)| {
            Ok((job_state(c.state, &format!("jobs[{i}].state"))?, c.jobs))
        };
        Ok(Self {
            cluster_id: s.cluster_id,
            cluster_version: s.cluster_version,
            term: s.term,
            applied: s.applied,
            masters: list(s.masters, "masters")?,
            jobs: s
                .jobs
                .into_iter()
                .enumerate()
                .map(count)
                .collect::<Result<_, DecodeError>>()?,
            nodes: (s.nodes_ready, s.nodes_draining, s.nodes_lost),
            milligpu: (s.milligpu_used, s.milligpu_usable),
            policy: s.policy,
            rounds: (s.rounds, s.last_round_us),
            time_ms: s.time_ms,
            alarm: s.alarm,
        })
    }
}

impl TryFrom<Response> for v1::StatusResponse {
    type Error = ApiError;

    fn try_from(response: Response) -> Result<Self, ApiError> {
        match response {
            Response::Status(status) => Ok(status.as_ref().into()),
            other => Err(unexpected(other)),
        }
    }
}

impl TryFrom<Response> for v1::MembersResponse {
    type Error = ApiError;

    fn try_from(response: Response) -> Result<Self, ApiError> {
        match response {
            Response::Status(status) => Ok(Self {
                cluster_id: status.cluster_id,
                term: status.term,
                masters: wire(&status.masters),
            }),
            other => Err(unexpected(other)),
        }
    }
}

impl TryFrom<Response> for v1::EventsResponse {
    type Error = ApiError;

    fn try_from(response: Response) -> Result<Self, ApiError> {
        match response {
            Response::Events { events, next_seq } => Ok(Self {
                events: wire::<Event, _>(&events),
                next_seq,
            }),
            other => Err(unexpected(other)),
        }
    }
}
