//! Nodes that say nothing: lost after a while, fenced once their lease is certainly over.

use crate::command::Command;
use crate::replica::Replica;

impl Replica {
    /// Finds nodes that were silent for too long, and lost ones whose lease is certainly over.
    pub(in crate::replica) fn watch_nodes(&mut self) {
        let Some(lead) = self.lead.as_mut() else {
            return;
        };
        let agents = &mut lead.agents;
        for (id, node) in &self.state.nodes {
            if agents.marking.contains(id) {
                continue;
            }
            let heard = *agents.heard_ms.entry(*id).or_insert(self.now_ms);
            let silent = self.now_ms.saturating_sub(heard);
            if !node.lost && silent >= self.config.node_timeout_ms {
                let reason = format!("no word from its agent for {:.1} s", silent as f64 / 1000.0);
                self.proposals
                    .push(Command::MarkNodeLost { node: *id, reason }, None);
                agents.marking.insert(*id);
            } else if node.lost
                && !node.fenced
                && silent >= self.config.lease_ms + self.config.fence_margin_ms
            {
                self.proposals.push(
                    Command::FenceNode {
                        node: *id,
                        by_operator: false,
                    },
                    None,
                );
                agents.marking.insert(*id);
            }
        }
    }
}
