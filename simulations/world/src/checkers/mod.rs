//! Berth's promises, one per file. A checker sees facts that no single master could see, and says which was broken.
//!
//! | file | promise |
//! | --- | --- |
//! | [`submissions`] | an acknowledged job is never lost, a key never makes two jobs, reads never go back |
//! | [`leaders`] | one leader per term |
//! | [`prefix`] | masters apply the same entries and reach the same state |
//! | [`events`] | masters publish the same events, once each |
//! | [`invariants`] | the replicated state's own invariants hold |
//! | [`epochs`] | epochs only grow, a finished job stays finished, a cancelled one never starts again |
//! | [`exits`] | an exit is recorded once and truly, and forgotten only then |
//! | [`gangs`] | a gang is placed whole |
//! | [`copies`] | a task starts once; two copies only across isolation; `fence` and `wait` jobs never |
//! | [`devices`] | no GPU and no port is used twice |
//! | [`tombstones`] | only a committed decision, or the lease, stops a task |
//! | [`finished`] | a job's end is what its processes did |
//! | [`leaks`] | when all is over, nothing is held |

pub(crate) mod copies;
pub(crate) mod devices;
pub(crate) mod epochs;
pub(crate) mod events;
pub(crate) mod exits;
pub(crate) mod finished;
pub(crate) mod gangs;
pub(crate) mod invariants;
pub(crate) mod leaders;
pub(crate) mod leaks;
pub(crate) mod prefix;
pub(crate) mod submissions;
pub(crate) mod tombstones;

use berth_core::State;
use berth_types::TaskKey;

use crate::machine::Machine;
use crate::report::Violation;

/// What a checker says.
pub(crate) type Verdict = Result<(), Violation>;

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Checkers {
    pub(crate) submissions: submissions::Submissions,
    pub(crate) leaders: leaders::Leaders,
    pub(crate) prefix: prefix::Prefix,
    pub(crate) events: events::Events,
    pub(crate) epochs: epochs::Epochs,
    pub(crate) exits: exits::Exits,
    pub(crate) copies: copies::Copies,
    pub(crate) tombstones: tombstones::Tombstones,
    pub(crate) finished: finished::Finished,
}

impl Checkers {
    /// A state that is further than any before.
    pub(crate) fn on_newest(&mut self, state: &State) -> Verdict {
        self.epochs.on_newest(state)?;
        self.exits.on_newest(state)?;
        gangs::check(state)
    }

    /// A process was started on machine `number`.
    pub(crate) fn on_spawn(
        &mut self,
        machines: &[Machine],
        number: usize,
        key: TaskKey,
    ) -> Verdict {
        self.copies.on_spawn(machines, number, key)?;
        devices::check(machines, number, key)
    }

    /// Attempts beyond each job's first.
    pub(crate) fn restarts(&self) -> u64 {
        self.epochs.restarts()
    }
}
