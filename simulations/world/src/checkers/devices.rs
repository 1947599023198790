//! No GPU is used for more than one whole, and no rendezvous port by two gangs.

use std::collections::BTreeMap;

use berth_types::{MILLI, TaskKey};

use super::Verdict;
use crate::machine::Machine;
use crate::report::Violation;

/// Looks at the machine on which `key` was just started.
pub(crate) fn check(machines: &[Machine], number: usize, key: TaskKey) -> Verdict {
    let Some(machine) = machines.get(number) else {
        return Ok(());
    };
    let mut used: BTreeMap<u16, u32> = BTreeMap::new();
    for process in machine.keeper.processes.values() {
        for share in &process.launch.gpus {
            *used.entry(share.gpu).or_default() += share.milligpu;
        }
    }
    let live: Vec<&TaskKey> = machine.keeper.processes.keys().collect();
    for (gpu, milligpu) in used {
        let exists = usize::from(gpu) < machine.full_spec.gpus.len();
        Violation::unless(exists && milligpu <= MILLI, "no GPU is used twice", || {
            format!(
                "GPU {gpu} of machine {number} holds {milligpu} thousandths after {key:?}: {live:?}"
            )
        })?;
    }
    let port = machine
        .keeper
        .processes
        .get(&key)
        .map(|process| process.launch.master_port);
    let clash =
        machine.keeper.processes.values().find(|p| {
            p.key.job != key.job && p.key.rank.0 == 0 && Some(p.launch.master_port) == port
        });
    let clash = clash.filter(|_| key.rank.0 == 0 && port != Some(0));
    Violation::unless(clash.is_none(), "no port is leased twice", || {
        format!(
            "{key:?} has port {port:?} on machine {number}, and so has {:?}",
            clash.map(|p| p.key)
        )
    })
}
