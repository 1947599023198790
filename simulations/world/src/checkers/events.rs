//! Masters publish the same events under the same numbers.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_types::api::Event;

use super::Verdict;
use crate::digest::Digest;
use crate::report::Violation;

/// Digest of each event, by sequence number.
#[derive(Debug, Default)]
pub(crate) struct Events {
    seen: BTreeMap<u64, u64>,
}

impl Events {
    /// A master published these.
    pub(crate) fn on_published(&mut self, events: &[Arc<Event>]) -> Verdict {
        for event in events {
            let digest = Digest::of(&(
                event.at_ms,
                &event.kind,
                event.job.map(|j| j.0),
                event.node.map(|n| n.0),
                &event.text,
            ));
            let first = *self.seen.entry(event.seq).or_insert(digest);
            Violation::unless(
                first == digest,
                "masters publish the same events, once each",
                || format!("event {} has two meanings, one is {event:?}", event.seq),
            )?;
        }
        Ok(())
    }
}
