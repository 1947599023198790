//! Events.

use berth_types::api::Event;
use berth_types::{JobId, NodeId};

use super::DecodeError;
use crate::v1;

impl From<&Event> for v1::Event {
    fn from(e: &Event) -> Self {
        Self {
            seq: e.seq,
            at_ms: e.at_ms,
            kind: e.kind.clone(),
            job: e.job.map(|j| j.0),
            node: e.node.map(|n| n.0),
            text: e.text.clone(),
        }
    }
}

impl TryFrom<v1::Event> for Event {
    type Error = DecodeError;

    fn try_from(e: v1::Event) -> Result<Self, DecodeError> {
        Ok(Self {
            seq: e.seq,
            at_ms: e.at_ms,
            kind: e.kind,
            job: e.job.map(JobId),
            node: e.node.map(NodeId),
            text: e.text,
        })
    }
}
