//! Nothing is committed twice.
//!
//! A GPU is never used for more than one whole. What may grow on a node (tasks that are not being stopped, and
//! reservations) fits what it offers; tasks that are being stopped may for a while hold what is promised already.

use std::collections::BTreeMap;

use berth_types::{AttemptPhase, MILLI, NodeId, TaskPhase};

use super::Report;
use crate::state::{Claim, State};

#[derive(Default)]
struct Lasting {
    gpus: BTreeMap<u16, u64>,
    millicpu: u64,
    mem_bytes: u64,
}

pub(super) fn check(state: &State, report: &mut Report) {
    for (id, node) in &state.nodes {
        for (gpu, used) in node.gpus.iter().enumerate() {
            report.expect(used.milligpu <= MILLI, "GPU_OVERCOMMIT", || {
                format!(
                    "GPU {gpu} of node {id} is used for {} thousandths",
                    used.milligpu
                )
            });
        }
    }
    for (id, lasting) in lasting_use(state) {
        let Some(node) = state.nodes.get(&id) else {
            report.expect(false, "NODE_UNKNOWN", || {
                format!("something is placed on node {id}")
            });
            continue;
        };
        for (gpu, milligpu) in lasting.gpus {
            let there = usize::from(gpu) < node.spec.gpus.len();
            report.expect(
                there && milligpu <= u64::from(MILLI),
                "GPU_PROMISED",
                || format!("{milligpu} thousandths of GPU {gpu} of node {id} are promised"),
            );
        }
        let offered = u64::from(node.spec.millicpu);
        report.expect(lasting.millicpu <= offered, "CPU_OVERCOMMIT", || {
            format!(
                "{} of {offered} thousandths of CPUs of node {id}",
                lasting.millicpu
            )
        });
        let offered = node.spec.mem_bytes;
        report.expect(lasting.mem_bytes <= offered, "MEM_OVERCOMMIT", || {
            format!(
                "{} of {offered} bytes of memory of node {id}",
                lasting.mem_bytes
            )
        });
    }
}

fn lasting_use(state: &State) -> BTreeMap<NodeId, Lasting> {
    let mut nodes: BTreeMap<NodeId, Lasting> = BTreeMap::new();
    let mut add = |claim: Claim<'_>| {
        let lasting = nodes.entry(claim.node).or_default();
        lasting.millicpu += u64::from(claim.millicpu);
        lasting.mem_bytes = lasting.mem_bytes.saturating_add(claim.mem_bytes);
        for share in claim.gpus {
            *lasting.gpus.entry(share.gpu).or_insert(0) += u64::from(share.milligpu);
        }
    };
    for job in state.jobs.values() {
        let attempt = job.attempt.iter();
        let lasting = attempt.filter(|a| !matches!(a.phase, AttemptPhase::Stopping(_)));
        for task in lasting.flat_map(|a| a.tasks.iter()) {
            if !matches!(task.phase, TaskPhase::Ended { .. }) {
                add(Claim::of(job, &task.placement));
            }
        }
    }
    for (job, reservation) in &state.reservations {
        if let Some(job) = state.jobs.get(job) {
            for placement in &reservation.placements {
                add(Claim::of(job, placement));
            }
        }
    }
    nodes
}
