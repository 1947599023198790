//! What the leader hears: full inventories and progress.

use berth_types::{TaskEvent, TaskExit, TaskInventory, TaskKey};

use crate::core::AgentCore;
use crate::facts::damaged_events;
use crate::task::{Progress, Task};

/// Longest reason in an inventory.
const INVENTORY_REASON_BYTES: usize = 180;

impl AgentCore {
    /// The state of every task, and everything else that a leader must know and has not acknowledged.
    pub(crate) fn inventory(&mut self) -> Vec<TaskEvent> {
        let mut events = Vec::with_capacity(self.tasks.len());
        for ((job, _), attempt) in &self.checkpoints {
            events.extend(attempt.unrecorded(*job));
        }
        events.extend(self.host.clone().map(TaskEvent::Host));
        events.extend(self.failed_hooks());
        for (key, task) in &mut self.tasks {
            events.extend(damaged_events(*key, task));
            events.extend(task.progress.as_mut().map(|p| progress_event(*key, p)));
            events.push(TaskEvent::State(*key, shortened(task.inventory())));
        }
        events.extend(self.gpu_events());
        events
    }

    /// Queues the progress that is not reported yet.
    pub(crate) fn report_progress(&mut self) {
        for (key, task) in &mut self.tasks {
            if let Task {
                progress: Some(progress),
                ..
            } = task
                && progress.fresh
            {
                self.events.push(progress_event(*key, progress));
            }
        }
    }
}

/// An inventory of very many records must still fit a message; the whole reason was told when it happened.
fn shortened(state: TaskInventory) -> TaskInventory {
    let TaskInventory::Ended(mut exit) = state else {
        return state;
    };
    if exit.reason.len() > INVENTORY_REASON_BYTES {
        let end = (0..=INVENTORY_REASON_BYTES)
            .rev()
            .find(|at| exit.reason.is_char_boundary(*at));
        exit.reason.truncate(end.unwrap_or(0));
    }
    TaskInventory::Ended(exit)
}

fn progress_event(key: TaskKey, progress: &mut Progress) -> TaskEvent {
    progress.fresh = false;
    TaskEvent::Progress {
        key,
        step: progress.step,
        samples: progress.samples,
        loss_micros: progress.loss_micros,
        step_us: progress.step_us,
    }
}

/// The record of a task that vanished with its keeper.
pub(crate) fn lost_with_keeper(at_ms: u64) -> TaskExit {
    TaskExit {
        code: -1,
        at_ms,
        reason: "lost with the keeper".into(),
        node_fault: true,
    }
}
