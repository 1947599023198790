//! What nodes say of themselves: isolation is shown, and a node that says it is unfit takes no new work.
//!
//! A drain for a failing health check carries [`CHECK`] in front of its reason, so that any leader knows it for the node's
//! own and ends it when the check passes again. What an operator said, and what a failed hook said, stays until an
//! operator says otherwise.

use berth_types::api::Drain;
use berth_types::{Hook, HostReport, Isolation, NodeId, TaskKey};

use super::Agents;
use crate::command::Command;
use crate::replica::Replica;

/// Begins the reason of a drain that a node's health check asked for, and of no other.
pub(in crate::replica) const CHECK: &str = "health check: ";

/// An operator's drain, which must not look like a node's own.
pub(in crate::replica) fn by_operator(drain: &Drain) -> Drain {
    let reason = match drain.reason.strip_prefix(CHECK) {
        Some(rest) => format!("operator: {rest}"),
        None => drain.reason.clone(),
    };
    Drain {
        reason,
        evict: drain.evict,
    }
}

/// What is to become of a node's drain, if anything, now that it says this of its fitness.
fn wanted(drain: Option<&Drain>, unfit: Option<&str>) -> Option<Option<Drain>> {
    let own = |why: &str| Drain {
        reason: format!("{CHECK}{why}"),
        evict: false,
    };
    match (drain, unfit) {
        (None, Some(why)) => Some(Some(own(why))),
        (Some(drain), None) if drain.reason.starts_with(CHECK) => Some(None),
        (None, None) | (Some(_), _) => None,
    }
}

impl Agents {
    /// How a connected node isolates tasks, if it has said so.
    pub(in crate::replica) fn isolation(&self, node: NodeId) -> Option<&Isolation> {
        let session = self.sessions.get(self.by_node.get(&node)?)?;
        session.host.as_ref().map(|host| &host.isolation)
    }
}

impl Replica {
    pub(super) fn on_host_report(&mut self, id: u64, report: HostReport) {
        if let Some(lead) = self.lead.as_mut()
            && let Some(session) = lead.agents.sessions.get_mut(&id)
        {
            session.host = Some(report);
        }
    }

    /// Drains a node that says it is unfit, and ends such a drain. Called on every report, so that nothing that was lost on
    /// its way into the log stays lost; a repeated command changes nothing.
    pub(super) fn heed_fitness(&mut self, id: u64) {
        let session = self
            .lead
            .as_ref()
            .and_then(|lead| lead.agents.sessions.get(&id));
        let Some((node, host)) = session.and_then(|s| Some((s.node?, s.host.as_ref()?))) else {
            return;
        };
        let Some(known) = self.state.nodes.get(&node) else {
            return;
        };
        if let Some(drain) = wanted(known.drain.as_ref(), host.unfit.as_deref()) {
            self.proposals.push(Command::SetDrain { node, drain }, None);
        }
    }

    /// Proposed before the end of the task, which comes later in the same report or in a later one.
    pub(super) fn on_hook_failed(&mut self, id: u64, key: TaskKey, hook: Hook, reason: &str) {
        let session = self
            .lead
            .as_ref()
            .and_then(|lead| lead.agents.sessions.get(&id));
        let Some(node) = session.and_then(|s| s.node) else {
            return;
        };
        let known = self.state.nodes.get(&node);
        let taken = known.and_then(|node| node.drain.as_ref());
        // A recovering check must not end what a failed hook began.
        if taken.is_some_and(|drain| !drain.reason.starts_with(CHECK)) {
            return;
        }
        let reason = format!("{} of job {}: {reason}", hook.name(), key.job);
        let evict = false;
        let drain = Some(Drain { reason, evict });
        self.proposals.push(Command::SetDrain { node, drain }, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_nodes_own_drain_ends_with_its_cause() {
        let drain = |reason: &str| Drain {
            reason: reason.into(),
            evict: false,
        };
        let (own, other) = (drain("health check: no link"), drain("new fan"));
        for (now, unfit, expected) in [
            (None, None, None),
            (None, Some("no link"), Some(Some(&own))),
            (Some(&own), Some("no link"), None),
            (Some(&own), Some("no disk"), None),
            (Some(&own), None, Some(None)),
            (Some(&other), Some("no link"), None),
            (Some(&other), None, None),
        ] {
            assert_eq!(
                wanted(now, unfit),
                expected.map(|d| d.cloned()),
                "{now:?} {unfit:?}"
            );
        }
        assert_eq!(by_operator(&own), drain("operator: no link"));
        assert_eq!(by_operator(&other), other);
    }
}
