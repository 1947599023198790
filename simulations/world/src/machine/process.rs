//! A simulated process: it works for a while, obeys signals or does not, and exits.

use std::sync::Arc;

use berth_agent_core::{Prepared, StopSignal};
use berth_types::{LaunchTask, TaskKey};

use crate::dice::Dice;
use crate::workload::{Behaviour, Ending, STEP_MS};

/// Exit code after SIGTERM.
const TERMINATED: i32 = 143;
/// Exit code after SIGKILL.
const KILLED: i32 = 137;

/// A live process of one task.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// Which task.
    pub(crate) key: TaskKey,
    /// What it was started with.
    pub(crate) launch: Arc<LaunchTask>,
    /// Where its checkpoints go.
    pub(crate) checkpoint_dir: String,
    /// When it started, in virtual time.
    pub(crate) started_ms: u64,
    /// Steps that were done before it started.
    pub(crate) first_step: u64,
    /// Works so long.
    pub(crate) ends_ms: Option<u64>,
    /// Then exits with this.
    pub(crate) code: i32,
    /// How it behaves.
    pub(crate) behaviour: Behaviour,
    /// Counts changes of its end, so that an outdated one is ignored.
    pub(crate) version: u64,
    /// True once a signal has settled how it ends.
    pub(crate) dying: bool,
    /// Its node stops it because the lease is over.
    pub(crate) by_lease: bool,
}

impl Process {
    /// A process that starts now; `None` if there is no such program.
    pub(crate) fn start(
        launch: Arc<LaunchTask>,
        prepared: &Prepared,
        behaviour: Behaviour,
        now_ms: u64,
    ) -> Option<Self> {
        let first_step = prepared.resume.as_ref().map_or(0, |c| c.step);
        let left_ms = behaviour.run_ms.saturating_sub(first_step * STEP_MS).max(1);
        let key = launch.key;
        let unlucky = key.epoch.0 % launch.world_size.max(1) == key.rank.0;
        let code_of = |code| if unlucky { code } else { 0 };
        let (ends_ms, code) = match behaviour.ending {
            Ending::NoProgram => return None,
            Ending::Never => (None, 0),
            Ending::Well => (Some(now_ms + left_ms), 0),
            Ending::Always(code) => (Some(now_ms + left_ms), code_of(code)),
            Ending::Until(epoch, code) if key.epoch.0 <= epoch => {
                (Some(now_ms + left_ms), code_of(code))
            }
            Ending::Until(..) => (Some(now_ms + left_ms), 0),
        };
        Some(Self {
            key,
            launch,
            checkpoint_dir: prepared.checkpoint_dir.clone(),
            started_ms: now_ms,
            first_step,
            ends_ms,
            code,
            behaviour,
            version: 0,
            dying: false,
            by_lease: false,
        })
    }

    /// Steps done by now.
    pub(crate) fn step(&self, now_ms: u64) -> u64 {
        self.first_step + now_ms.saturating_sub(self.started_ms) / STEP_MS
    }

    /// A signal: true if its end has changed.
    pub(crate) fn signal(&mut self, signal: StopSignal, now_ms: u64, dice: &mut Dice) -> bool {
        let (end, code) = match signal {
            StopSignal::Kill => (now_ms, KILLED),
            StopSignal::Term if self.behaviour.ignores_stop || self.dying => return false,
            StopSignal::Term => {
                let code = if dice.chance(200) { 0 } else { TERMINATED };
                (
                    now_ms + dice.between(0, self.behaviour.stops_within_ms),
                    code,
                )
            }
        };
        if self.ends_ms.is_some_and(|ends| ends <= end) {
            return false;
        }
        self.ends_ms = Some(end);
        self.code = code;
        self.dying = true;
        self.version += 1;
        true
    }
}
