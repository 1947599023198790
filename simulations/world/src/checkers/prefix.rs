//! Masters apply the same entries in the same order, and are in the same state at the same index.

use std::collections::BTreeMap;

use berth_types::MasterId;

use super::Verdict;
use crate::host::Host;
use crate::report::Violation;

const PROMISE: &str = "masters apply the same entries and reach the same state";

/// What was applied where.
#[derive(Debug, Default)]
pub(crate) struct Prefix {
    entries: BTreeMap<u64, (u64, MasterId)>,
    states: BTreeMap<u64, (u64, MasterId)>,
}

impl Prefix {
    /// A master has applied the entries after `before` up to `applied`. What it got within a snapshot is not in its log
    /// and shows in [`on_state`](Self::on_state).
    pub(crate) fn on_applied(&mut self, host: &Host, before: u64, applied: u64) -> Verdict {
        let id = host.id;
        for (index, digest) in host.log.range(before + 1..=applied) {
            let (first, who) = *self.entries.entry(*index).or_insert((*digest, id));
            Violation::unless(first == *digest, PROMISE, || {
                format!("masters {who} and {id} applied different entries at index {index}")
            })?;
        }
        Ok(())
    }

    /// The digest of a master's state.
    pub(crate) fn on_state(&mut self, id: MasterId, applied: u64, digest: u64) -> Verdict {
        let (first, who) = *self.states.entry(applied).or_insert((digest, id));
        Violation::unless(first == digest, PROMISE, || {
            format!("the states of masters {who} and {id} differ at index {applied}")
        })
    }
}

#[cfg(test)]
mod tests {
    use berth_types::MasterId;

    use super::Prefix;

    #[test]
    fn different_states_at_one_index_are_found() {
        let mut prefix = Prefix::default();
        assert!(prefix.on_state(MasterId(1), 10, 77).is_ok());
        assert!(prefix.on_state(MasterId(2), 10, 77).is_ok());
        assert!(prefix.on_state(MasterId(2), 11, 78).is_ok());
        assert!(prefix.on_state(MasterId(3), 10, 78).is_err());
    }
}
