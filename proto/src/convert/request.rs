//! Calls.

use std::sync::Arc;

use berth_types::api::{Drain, JobFilter, MasterInfo, Request};
use berth_types::{Epoch, JobId, JobSpec, MasterId, Rank};
use uuid::Uuid;

use super::job_view::job_state;
use super::{DecodeError, required};
use crate::v1;

const KEY_HINT: &str = "draw a UUIDv7 per submission and repeat it on retries";

fn key_from(key: &str) -> Result<u128, DecodeError> {
    if key.is_empty() {
        return Err(DecodeError::new("key", "missing", KEY_HINT));
    }
    let uuid = Uuid::try_parse(key)
        .map_err(|e| DecodeError::new("key", format!("no UUID: {e}"), KEY_HINT))?;
    if uuid.get_version_num() != 7 {
        let what = format!("a UUID of version {}, not 7", uuid.get_version_num());
        return Err(DecodeError::new("key", what, KEY_HINT));
    }
    Ok(uuid.as_u128())
}

pub(super) fn name_from(name: String) -> Result<String, DecodeError> {
    if name.is_empty() {
        return Err(DecodeError::new("name", "empty", "give a node's name"));
    }
    Ok(name)
}

impl v1::SubmitRequest {
    /// A submission under `key`, a UUIDv7 as a number.
    pub fn new(key: u128, spec: &JobSpec) -> Self {
        Self {
            key: Uuid::from_u128(key).to_string(),
            spec: Some(spec.into()),
        }
    }
}

impl TryFrom<v1::SubmitRequest> for Request {
    type Error = DecodeError;

    fn try_from(r: v1::SubmitRequest) -> Result<Self, DecodeError> {
        let key = key_from(&r.key)?;
        let spec: JobSpec = required(r.spec, "spec")?;
        Ok(Request::Submit {
            key,
            spec: Arc::new(spec),
        })
    }
}

impl TryFrom<v1::GetJobRequest> for Request {
    type Error = DecodeError;

    fn try_from(r: v1::GetJobRequest) -> Result<Self, DecodeError> {
        Ok(Request::GetJob { job: JobId(r.job) })
    }
}

impl From<&JobFilter> for v1::ListJobsRequest {
    fn from(f: &JobFilter) -> Self {
        Self {
            states: f
                .states
                .iter()
                .map(|&s| v1::JobState::from(s).into())
                .collect(),
            user: f.user.clone(),
            queue: f.queue.clone(),
            name_prefix: f.name_prefix.clone(),
            id_prefix: f.id_prefix.clone(),
            finished: f.finished,
            page_token: f.page_token,
            page_size: f.limit,
        }
    }
}

impl TryFrom<v1::ListJobsRequest> for Request {
    type Error = DecodeError;

    fn try_from(r: v1::ListJobsRequest) -> Result<Self, DecodeError> {
        let state = |(i, s)| job_state(s, &format!("states[{i}]"));
        Ok(Request::ListJobs(JobFilter {
            states: r
                .states
                .into_iter()
                .enumerate()
                .map(state)
                .collect::<Result<_, _>>()?,
            user: r.user,
            queue: r.queue,
            name_prefix: r.name_prefix,
            id_prefix: r.id_prefix,
            finished: r.finished,
            page_token: r.page_token,
            limit: r.page_size,
        }))
    }
}

impl TryFrom<v1::CancelJobRequest> for Request {
    type Error = DecodeError;

    fn try_from(r: v1::CancelJobRequest) -> Result<Self, DecodeError> {
        Ok(Request::Cancel {
            job: JobId(r.job),
            user: r.user,
        })
    }
}

impl TryFrom<v1::WhyRequest> for Request {
    type Error = DecodeError;

    fn try_from(r: v1::WhyRequest) -> Result<Self, DecodeError> {
        Ok(Request::Why { job: JobId(r.job) })
    }
}

impl TryFrom<&v1::LogsRequest> for Request {
    type Error = DecodeError;

    fn try_from(r: &v1::LogsRequest) -> Result<Self, DecodeError> {
        log_stream(r.stream)?;
        Ok(Request::LocateLogs {
            job: JobId(r.job),
            epoch: r.attempt.map(Epoch),
            rank: Rank(r.rank),
        })
    }
}

/// Which output is asked for; both if unspecified.
///
/// # Errors
/// If the number is not known.
pub fn log_stream(stream: i32) -> Result<v1::LogStream, DecodeError> {
    v1::LogStream::try_from(stream).map_err(|_| DecodeError::unknown("stream", stream))
}

impl TryFrom<v1::ListNodesRequest> for Request {
    type Error = DecodeError;

    fn try_from(_: v1::ListNodesRequest) -> Result<Self, DecodeError> {
        Ok(Request::ListNodes)
    }
}

impl TryFrom<v1::GetNodeRequest> for Request {
    type Error = DecodeError;

    fn try_from(r: v1::GetNodeRequest) -> Result<Self, DecodeError> {
        Ok(Request::GetNode {
            name: name_from(r.name)?,
        })
    }
}

impl TryFrom<v1::DrainRequest> for Request {
    type Error = DecodeError;

    fn try_from(r: v1::DrainRequest) -> Result<Self, DecodeError> {
        Ok(Request::SetDrain {
            name: name_from(r.name)?,
            drain: Some(Drain {
                reason: r.reason,
                evict: r.evict,
            }),
        })
    }
}

impl TryFrom<v1::UndrainRequest> for Request {
    type Error = DecodeError;

    fn try_from(r: v1::UndrainRequest) -> Result<Self, DecodeError> {
        Ok(Request::SetDrain {
            name: name_from(r.name)?,
            drain: None,
        })
    }
}

impl TryFrom<v1::FenceRequest> for Request {
    type Error = DecodeError;

    fn try_from(r: v1::FenceRequest) -> Result<Self, DecodeError> {
        Ok(Request::FenceNode {
            name: name_from(r.name)?,
        })
    }
}

impl TryFrom<v1::StatusRequest> for Request {
    type Error = DecodeError;

    fn try_from(_: v1::StatusRequest) -> Result<Self, DecodeError> {
        Ok(Request::Status)
    }
}

impl TryFrom<v1::MembersRequest> for Request {
    type Error = DecodeError;

    fn try_from(_: v1::MembersRequest) -> Result<Self, DecodeError> {
        Ok(Request::Status)
    }
}

fn master_from(id: u64, field: &str) -> Result<MasterId, DecodeError> {
    if id == 0 {
        return Err(DecodeError::new(
            field,
            "0 is no master",
            "ids count from 1",
        ));
    }
    Ok(MasterId(id))
}

impl TryFrom<v1::AddMasterRequest> for Request {
    type Error = DecodeError;

    fn try_from(r: v1::AddMasterRequest) -> Result<Self, DecodeError> {
        let port = r.address.rsplit_once(':').and_then(|(host, port)| {
            let port = port.parse::<u16>().ok()?;
            (!host.is_empty()).then_some(port)
        });
        if port.is_none_or(|p| p == 0) {
            let what = format!("`{}` is no address", r.address);
            return Err(DecodeError::new("address", what, "give host:port"));
        }
        Ok(Request::AddMaster {
            id: master_from(r.id, "id")?,
            info: MasterInfo { address: r.address },
            replaces: r
                .replaces
                .map(|id| master_from(id, "replaces"))
                .transpose()?,
        })
    }
}

impl TryFrom<v1::RemoveMasterRequest> for Request {
    type Error = DecodeError;

    fn try_from(r: v1::RemoveMasterRequest) -> Result<Self, DecodeError> {
        Ok(Request::RemoveMaster {
            id: master_from(r.id, "id")?,
        })
    }
}

impl TryFrom<v1::SnapshotRequest> for Request {
    type Error = DecodeError;

    fn try_from(_: v1::SnapshotRequest) -> Result<Self, DecodeError> {
        Ok(Request::Snapshot)
    }
}

impl TryFrom<v1::EventsRequest> for Request {
    type Error = DecodeError;

    fn try_from(r: v1::EventsRequest) -> Result<Self, DecodeError> {
        Ok(Request::Events {
            since_seq: r.since_seq,
            limit: r.limit,
        })
    }
}
