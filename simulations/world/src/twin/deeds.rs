//! What was done in a run, as one number: submissions, starts with their places, evictions, and what became of tasks, each
//! with its virtual time. What happens within one millisecond has no order, and words do not count.
//!
//! Both lanes keep such a record, and it must be the same where nothing takes time and nothing fails.

use std::collections::BTreeSet;

use berth_core::command::{Bundle, Command};
use berth_types::{Epoch, JobId, TaskInventory, TaskKey};

use crate::Digest;

/// The record.
#[derive(Debug, Default)]
pub(crate) struct Deeds {
    hash: Digest,
    now_ms: u64,
    /// Done at `now_ms`.
    now: Vec<u64>,
    /// Tasks that were said to run, and to have ended.
    ran: BTreeSet<TaskKey>,
    ended: BTreeSet<TaskKey>,
    evicted: BTreeSet<(JobId, Epoch)>,
}

impl Deeds {
    /// A command at this time, which never goes back.
    pub(crate) fn on_command(&mut self, now_ms: u64, command: &Command) {
        if now_ms != self.now_ms {
            self.settle();
            self.now_ms = now_ms;
        }
        match command {
            Command::SubmitJob { spec, .. } => {
                self.note(&[1, Digest::of_bytes(spec.name.as_bytes())]);
            }
            Command::ApplyPlan { bundles, .. } => {
                bundles.iter().for_each(|bundle| self.on_bundle(bundle));
            }
            Command::RecordTasks { node, tasks } => {
                for (key, said) in tasks {
                    self.on_task(u64::from(node.0), *key, said);
                }
            }
            Command::RejectJob { job, .. } => self.note(&[5, job.0]),
            Command::CancelJob { job, .. } => self.note(&[6, job.0]),
            Command::ExpireAttempt { job, epoch } => self.note(&[7, job.0, u64::from(epoch.0)]),
            Command::MarkNodeLost { node, .. } => self.note(&[8, u64::from(node.0)]),
            // How a cluster comes up, and what is learned on the way.
            Command::Bootstrap { .. }
            | Command::RegisterNode { .. }
            | Command::FenceNode { .. }
            | Command::SetDrain { .. }
            | Command::RecordCheckpoint { .. }
            | Command::RejectCheckpoint { .. }
            | Command::RecordProgress { .. }
            | Command::SetMaster { .. }
            | Command::SetClusterVersion { .. }
            | Command::IssueCertificate { .. }
            | Command::RevokeCertificates { .. }
            | Command::RecordHealth { .. }
            | Command::OrderHealth { .. }
            | Command::ReviewHealth { .. } => {}
        }
    }

    /// The number.
    pub(crate) fn hash(&mut self) -> u64 {
        self.settle();
        self.hash.value()
    }

    fn on_bundle(&mut self, bundle: &Bundle) {
        for eviction in &bundle.evictions {
            self.evicted.insert((eviction.job, eviction.epoch));
            self.note(&[2, eviction.job.0, u64::from(eviction.epoch.0)]);
        }
        // With evictions the starts are reservations, which start later.
        for start in bundle.starts.iter().filter(|_| bundle.evictions.is_empty()) {
            let port = u64::from(start.master_port);
            let mut words = vec![3, start.job.0, u64::from(start.epoch.0), port];
            for task in &start.placements {
                words.push(u64::from(task.node.0));
                let shares = task.gpus.iter();
                words.extend(shares.map(|s| u64::from(s.gpu) << 32 | u64::from(s.milligpu)));
            }
            self.note(&words);
        }
    }

    fn on_task(&mut self, node: u64, key: TaskKey, said: &TaskInventory) {
        let what = match said {
            TaskInventory::Preparing => return,
            TaskInventory::Running { .. } if self.ran.insert(key) => 0,
            TaskInventory::Ended(exit) if self.ended.insert(key) => {
                let evicted = self.evicted.contains(&(key.job, key.epoch));
                1 + u64::from(!evicted && exit.code != 0)
            }
            // Agents say things again.
            TaskInventory::Running { .. } | TaskInventory::Ended(_) => return,
        };
        let (epoch, rank) = (u64::from(key.epoch.0), u64::from(key.rank.0));
        self.note(&[4, node, key.job.0, epoch, rank, what]);
    }

    fn note(&mut self, words: &[u64]) {
        let mut digest = Digest::default();
        words.iter().for_each(|word| digest.word(*word));
        self.now.push(digest.value());
    }

    fn settle(&mut self) {
        if self.now.is_empty() {
            return;
        }
        self.now.sort_unstable();
        self.hash.word(self.now_ms);
        for deed in self.now.drain(..) {
            self.hash.word(deed);
        }
    }
}
