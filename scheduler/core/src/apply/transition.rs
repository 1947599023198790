//! One entry being applied: the state, and what is to be told about it.

use std::collections::BTreeSet;
use std::sync::Arc;

use berth_types::api::Event;
use berth_types::{JobId, NodeId};

use super::{Applied, CommandResult};
use crate::state::{FinishedJob, MAX_EVENTS, State};

/// Most bytes of free text from outside (an agent's reason, an operator's words) that are kept.
const MAX_REASON_BYTES: usize = 512;

/// Applies commands and gathers what follows from them.
pub(super) struct Transition<'a> {
    pub(super) state: &'a mut State,
    pub(super) finished: Vec<FinishedJob>,
    pub(super) touched: BTreeSet<NodeId>,
    events: Vec<Arc<Event>>,
}

impl<'a> Transition<'a> {
    pub(super) fn new(state: &'a mut State) -> Self {
        Self {
            state,
            finished: Vec::new(),
            touched: BTreeSet::new(),
            events: Vec::new(),
        }
    }

    pub(super) fn into_applied(self, results: Vec<CommandResult>) -> Applied {
        Applied {
            results,
            events: self.events,
            finished: self.finished,
            touched: self.touched,
        }
    }

    /// State time.
    pub(super) fn now(&self) -> u64 {
        self.state.time_ms
    }

    /// A node's name, for people.
    pub(super) fn node_name(&self, node: NodeId) -> String {
        match self.state.nodes.get(&node) {
            Some(node) => node.name().to_owned(),
            None => format!("#{node}"),
        }
    }

    /// An event of an unfinished job.
    pub(super) fn job_event(&mut self, kind: &str, job: JobId, text: &str) {
        let name = self.state.jobs.get(&job).map_or("", |j| &j.spec.name);
        let text = format!("job {job} `{name}` {text}");
        self.event(kind, Some(job), None, text);
    }

    pub(super) fn node_event(&mut self, kind: &str, node: NodeId, text: &str) {
        let text = format!("node {} {text}", self.node_name(node));
        self.event(kind, None, Some(node), text);
    }

    pub(super) fn event(
        &mut self,
        kind: &str,
        job: Option<JobId>,
        node: Option<NodeId>,
        text: String,
    ) {
        let event = Arc::new(Event {
            seq: self.state.next_event,
            at_ms: self.state.time_ms,
            kind: kind.to_owned(),
            job,
            node,
            text,
        });
        self.state.next_event = self.state.next_event.saturating_add(1);
        self.state.events.push_back(Arc::clone(&event));
        while self.state.events.len() > MAX_EVENTS {
            self.state.events.pop_front();
        }
        self.events.push(event);
    }
}

/// Free text from outside, cut to a length that the state can afford.
pub(super) fn short(text: &str) -> String {
    if text.len() <= MAX_REASON_BYTES {
        return text.to_owned();
    }
    let cut = (0..=MAX_REASON_BYTES)
        .rev()
        .find(|i| text.is_char_boundary(*i))
        .unwrap_or(0);
    format!("{}…", &text[..cut])
}
