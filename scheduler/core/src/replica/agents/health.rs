//! What agents tell of their GPUs: kept in the leader's memory, and made into evidence.

use std::sync::Arc;

use berth_types::health::MAX_EVIDENCE_BYTES;
use berth_types::node::MAX_GPUS;
use berth_types::{
    Evidence, Finding, GpuDigest, GpuEvent, HealthCheck, HealthStage, NodeId, Outage,
};

use super::session::Session;
use crate::command::Command;
use crate::health;
use crate::replica::Replica;
use crate::state::State;

impl Replica {
    pub(super) fn on_gpu_event(&mut self, session: u64, event: GpuEvent) {
        let Some(lead) = self.lead.as_mut() else {
            return;
        };
        let Some(node) = lead.agents.sessions.get(&session).and_then(|s| s.node) else {
            return;
        };
        let findings = match event {
            GpuEvent::Xid { gpu, xid, at_ms } => vec![Finding {
                gpu: Some(gpu),
                evidence: Evidence::Xid { xid, at_ms },
            }],
            GpuEvent::Digests(digests) => self.on_digests(node, digests),
            GpuEvent::Checked {
                check,
                passed,
                mut text,
            } => {
                let end =
                    (0..=MAX_EVIDENCE_BYTES.min(text.len())).rfind(|at| text.is_char_boundary(*at));
                text.truncate(end.unwrap_or(0));
                let number = check.number;
                vec![Finding {
                    gpu: check.gpu,
                    evidence: Evidence::Checked {
                        number,
                        passed,
                        text,
                    },
                }]
            }
        };
        let news: Vec<Finding> = findings
            .into_iter()
            .filter(|finding| is_news(&self.state, node, finding))
            .collect();
        if !news.is_empty() {
            let command = Command::RecordHealth {
                node,
                findings: news,
            };
            self.proposals.push(command, None);
        }
    }

    fn on_digests(&mut self, node: NodeId, mut digests: Vec<GpuDigest>) -> Vec<Finding> {
        let Some(lead) = self.lead.as_mut() else {
            return Vec::new();
        };
        digests.truncate(MAX_GPUS);
        let offered = self.state.nodes.get(&node).map_or(0, |n| n.spec.gpus.len());
        digests.retain(|digest| usize::from(digest.gpu) < offered);
        let watch = lead.agents.watches.entry(node).or_default();
        let record = self.state.health.get(&node);
        let out = |gpu: u16| -> Option<Outage> { record?.gpus.get(&gpu)?.out };
        let findings = watch.take(&digests, out);
        let newest: Vec<GpuDigest> = watch.newest().copied().collect();
        lead.agents.telemetry.insert(node, Arc::new(newest));
        findings
    }

    /// Proposes what time alone changes.
    pub(in crate::replica) fn watch_health(&mut self) {
        let Some(lead) = self.lead.as_ref() else {
            return;
        };
        let now_ms = self.now_ms.max(self.state.time_ms);
        let due = health::due(&self.state, now_ms);
        let agents = &lead.agents;
        let ready = due
            .into_iter()
            .filter(|(node, _)| agents.is_connected(*node));
        for (node, gpu) in ready {
            self.proposals
                .push(Command::ReviewHealth { node, gpu }, None);
        }
    }
}

/// False for an XID that the record has: inventories repeat them.
fn is_news(state: &State, node: NodeId, finding: &Finding) -> bool {
    let record = state.health.get(&node).and_then(|h| h.of(finding.gpu));
    match finding.evidence {
        Evidence::Xid { xid, at_ms } => {
            !record.is_some_and(|record| record.xids.contains(&(at_ms, xid)))
        }
        _ => true,
    }
}

/// Adds tests that the state wants on the node and that the session has not been told of. True if there are any.
pub(super) fn ask_for_tests(state: &State, node: NodeId, session: &mut Session) -> bool {
    let Some(health) = state.health.get(&node) else {
        return false;
    };
    let machine = std::iter::once((None, &health.machine));
    let gpus = health.gpus.iter().map(|(gpu, record)| (Some(*gpu), record));
    let mut added = false;
    for (gpu, record) in machine.chain(gpus) {
        let number = record.tests;
        let check = HealthCheck { gpu, number };
        if record.stage == HealthStage::Testing && session.told_checks.insert(check) {
            session
                .told_checks
                .retain(|told| told.gpu != gpu || told.number == number);
            session.out.checks.push(check);
            added = true;
        }
    }
    added
}
