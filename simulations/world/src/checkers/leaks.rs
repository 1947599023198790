//! When all jobs are over, nothing is held: no GPU, no port, no reservation, no process, no record.

use berth_core::State;

use super::Verdict;
use crate::machine::Machine;
use crate::report::Violation;

/// Looks at a state without jobs, and at the machines.
pub(crate) fn check(state: &State, machines: &[Machine]) -> Verdict {
    const PROMISE: &str = "when all is over, nothing is held";
    for node in state.nodes.values() {
        let free = node.gpus.iter().all(|g| g.milligpu == 0 && g.reserved == 0)
            && node.used_millicpu == 0
            && node.used_mem_bytes == 0
            && node.jobs.is_empty()
            && node.ports.is_empty();
        Violation::unless(free, PROMISE, || {
            format!(
                "node {} still holds {:?} {:?} {:?}",
                node.spec.name, node.gpus, node.jobs, node.ports
            )
        })?;
    }
    Violation::unless(state.reservations.is_empty(), PROMISE, || {
        format!("reservations are left: {:?}", state.reservations)
    })?;
    for machine in machines {
        let processes: Vec<_> = machine.keeper.processes.keys().collect();
        Violation::unless(processes.is_empty(), PROMISE, || {
            format!("machine {} still runs {processes:?}", machine.number)
        })?;
        let records: Vec<_> = machine.keeper.records.keys().collect();
        Violation::unless(records.is_empty(), PROMISE, || {
            format!(
                "machine {} still keeps records of {records:?}",
                machine.number
            )
        })?;
    }
    Ok(())
}
