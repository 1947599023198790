//! Connections of agents: which one speaks for a node, its registration, and its end.

use std::collections::BTreeSet;
use std::sync::Arc;

use berth_types::{
    AgentReport, Directive, HealthCheck, HostReport, NodeId, NodeSpec, TaskKey, Tombstone,
};

use crate::command::Command;
use crate::replica::{Effect, Replica};
use crate::state::Node;

/// One connection.
pub(super) struct Session {
    pub(super) spec: Arc<NodeSpec>,
    pub(super) incarnation: u64,
    /// Known once the node is registered.
    pub(super) node: Option<NodeId>,
    /// Tasks that the agent has, as far as this session said or heard.
    pub(super) known: BTreeSet<TaskKey>,
    /// Live tasks that must end before the node may be used (again).
    pub(super) stale: BTreeSet<TaskKey>,
    pub(super) told_to_stop: BTreeSet<Tombstone>,
    pub(super) told_checks: BTreeSet<HealthCheck>,
    /// The agent has not been told where the masters are, or they have changed since.
    pub(super) masters_due: bool,
    pub(super) out: Directive,
    pub(super) answer_due: bool,
    pub(super) sent_ms: u64,
    pub(super) registering: bool,
    /// What the node says of itself, if it has.
    pub(super) host: Option<HostReport>,
}

/// An agent's first words.
pub(in crate::replica) struct Hello {
    pub(in crate::replica) spec: Arc<NodeSpec>,
    pub(in crate::replica) incarnation: u64,
    pub(in crate::replica) cluster_id: u64,
    pub(in crate::replica) inventory: AgentReport,
}

impl Replica {
    pub(in crate::replica) fn on_agent_connected(
        &mut self,
        id: u64,
        hello: Hello,
        out: &mut Vec<Effect>,
    ) {
        let (own, theirs) = (self.state.cluster_id, hello.cluster_id);
        if self.lead.is_none() || (theirs != 0 && theirs != own) {
            let reason = match self.lead {
                None => "this master does not lead".to_owned(),
                Some(_) => {
                    format!("this is cluster {own:016x}, the agent has served {theirs:016x}")
                }
            };
            out.push(Effect::CloseAgent {
                session: id,
                reason,
                leader: self.leader_info(),
            });
            return;
        }
        let node = self.state.node_ids.get(&hello.spec.name).copied();
        let session = Session {
            spec: hello.spec,
            incarnation: hello.incarnation,
            node,
            known: BTreeSet::new(),
            stale: BTreeSet::new(),
            told_to_stop: BTreeSet::new(),
            told_checks: BTreeSet::new(),
            masters_due: true,
            out: Directive::default(),
            answer_due: true,
            sent_ms: 0,
            registering: false,
            host: None,
        };
        let Some(lead) = self.lead.as_mut() else {
            return;
        };
        lead.agents.sessions.insert(id, session);
        lead.agents.dirty.insert(id);
        if let Some(node) = node {
            self.adopt_session(node, id, out);
        }
        self.take_inventory(id, hello.inventory);
        self.register_if_clean(id);
    }

    /// This session now speaks for the node; an older one is closed.
    fn adopt_session(&mut self, node: NodeId, id: u64, out: &mut Vec<Effect>) {
        let Some(lead) = self.lead.as_mut() else {
            return;
        };
        lead.agents.heard_ms.insert(node, self.now_ms);
        if let Some(old) = lead
            .agents
            .by_node
            .insert(node, id)
            .filter(|old| *old != id)
        {
            lead.agents.sessions.remove(&old);
            let reason = "a newer connection of this node took over".to_owned();
            out.push(Effect::CloseAgent {
                session: old,
                reason,
                leader: None,
            });
        }
    }

    /// Registers the node of this session if that would change anything and nothing stale runs there.
    pub(super) fn register_if_clean(&mut self, id: u64) {
        let Some(lead) = self.lead.as_mut() else {
            return;
        };
        let Some(session) = lead.agents.sessions.get_mut(&id) else {
            return;
        };
        if !session.stale.is_empty() || session.registering {
            return;
        }
        let known = session.node.and_then(|node| self.state.nodes.get(&node));
        let same = |node: &Arc<Node>| {
            !node.lost && node.incarnation == session.incarnation && node.spec == session.spec
        };
        if !known.is_some_and(same) {
            session.registering = true;
            let (spec, incarnation) = (session.spec.clone(), session.incarnation);
            self.proposals
                .push(Command::RegisterNode { spec, incarnation }, None);
        }
    }

    /// A registration is committed: its session now has a node.
    pub(in crate::replica) fn on_registered(&mut self, name: &str, out: &mut Vec<Effect>) {
        let Some(node) = self.state.node_ids.get(name).copied() else {
            return;
        };
        let Some(lead) = self.lead.as_mut() else {
            return;
        };
        lead.agents.heard_ms.insert(node, self.now_ms);
        let newest = lead
            .agents
            .sessions
            .iter_mut()
            .rev()
            .find(|(_, s)| s.spec.name == name);
        let Some((id, session)) = newest else { return };
        let id = *id;
        session.registering = false;
        session.node = Some(node);
        lead.agents.touched.insert(node);
        self.adopt_session(node, id, out);
        self.heed_fitness(id);
    }

    /// Ends the connection of a node: it was marked lost, or its registration makes no sense. An agent that is still there
    /// connects anew and tells everything it has.
    pub(in crate::replica) fn close_session_of(
        &mut self,
        name: &str,
        reason: &str,
        out: &mut Vec<Effect>,
    ) {
        let Some(lead) = self.lead.as_ref() else {
            return;
        };
        let named = |(_, s): &(&u64, &Session)| s.spec.name == name;
        let ids: Vec<u64> = lead
            .agents
            .sessions
            .iter()
            .filter(named)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.on_agent_gone(id);
            out.push(Effect::CloseAgent {
                session: id,
                reason: reason.to_owned(),
                leader: self.leader_info(),
            });
        }
    }

    pub(in crate::replica) fn on_agent_gone(&mut self, id: u64) {
        let Some(lead) = self.lead.as_mut() else {
            return;
        };
        let Some(session) = lead.agents.sessions.remove(&id) else {
            return;
        };
        lead.agents.dirty.remove(&id);
        if let Some(node) = session
            .node
            .filter(|node| lead.agents.by_node.get(node) == Some(&id))
        {
            lead.agents.by_node.remove(&node);
        }
    }
}
