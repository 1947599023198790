//! No GPU, CPU or byte is given twice.

use std::collections::BTreeMap;

use berth_core::state::State;
use berth_types::{MILLI, NodeId, TaskPhase};

use super::Verdict;

/// What tasks hold on one node.
#[derive(Default)]
struct Given {
    gpus: BTreeMap<u16, u64>,
    millicpu: u64,
    mem_bytes: u64,
}

pub(super) fn check(state: &State) -> Verdict {
    let mut nodes: BTreeMap<NodeId, Given> = BTreeMap::new();
    for job in state.jobs.values() {
        let tasks = job.attempt.iter().flat_map(|attempt| &attempt.tasks);
        for task in tasks.filter(|task| !matches!(task.phase, TaskPhase::Ended { .. })) {
            let given = nodes.entry(task.placement.node).or_default();
            for share in &task.placement.gpus {
                *given.gpus.entry(share.gpu).or_insert(0) += u64::from(share.milligpu);
            }
            if let Some(group) = job.spec.groups.get(usize::from(task.placement.group)) {
                given.millicpu += u64::from(group.resources.millicpu);
                given.mem_bytes += group.resources.mem_bytes;
            }
        }
    }
    for (id, given) in nodes {
        let Some(node) = state.nodes.get(&id) else {
            return Err(format!("ROOM: tasks sit on node {id}, which there is not"));
        };
        let spec = &node.spec;
        if let Some((gpu, milli)) = (given.gpus.iter())
            .find(|&(gpu, milli)| *milli > u64::from(MILLI) || usize::from(*gpu) >= spec.gpus.len())
        {
            return Err(format!(
                "ROOM: {milli} thousandths of GPU {gpu} of node {id} are given"
            ));
        }
        if given.millicpu > u64::from(spec.millicpu) || given.mem_bytes > spec.mem_bytes {
            let (cpu, mem) = (given.millicpu, given.mem_bytes);
            return Err(format!(
                "ROOM: {cpu} milli-CPUs and {mem} bytes of node {id} are given"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::twin::checks::made_up::{State, placed, state};

    fn verdict(change: impl FnOnce(&mut State)) -> Result<(), String> {
        let mut state = state();
        placed(&mut state, 1, &[(1, &[(0, 600)])]);
        placed(&mut state, 2, &[(1, &[(0, 400)]), (2, &[(1, 1_000)])]);
        change(&mut state);
        super::check(&state)
    }

    #[test]
    fn a_full_gpu_is_no_fault_and_one_thousandth_more_is() {
        assert_eq!(verdict(|_| {}), Ok(()));
        let more = verdict(|state| placed(state, 3, &[(1, &[(0, 1)])]));
        assert!(
            more.unwrap_err()
                .contains("1001 thousandths of GPU 0 of node 1")
        );
    }

    #[test]
    fn devices_and_nodes_that_there_are_not_are_seen() {
        let gpu = verdict(|state| placed(state, 3, &[(2, &[(7, 10)])]));
        assert!(gpu.unwrap_err().contains("GPU 7"));
        let node = verdict(|state| placed(state, 3, &[(9, &[])]));
        assert!(node.unwrap_err().contains("node 9"));
    }

    #[test]
    fn cpus_run_out_too() {
        let tasks: Vec<(u32, &[(u16, u32)])> = (0..5).map(|_| (2, &[][..])).collect();
        let cpu = verdict(|state| placed(state, 3, &tasks));
        assert!(cpu.unwrap_err().contains("6000 milli-CPUs"));
    }
}
