//! What a member remembers after a restart.

use crate::{Entry, HardState, Membership, Persist, Snapshot};

/// The durable state of a member.
///
/// The application's state is rebuilt from `snapshot` (before [`crate::Raft::new`]) and by applying the log again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recovered {
    /// Term, vote and commit.
    pub hard_state: HardState,
    /// The newest local snapshot.
    pub snapshot: Option<Snapshot>,
    /// The membership at the start of the log: that of the snapshot, or the initial voters. Empty in a member that
    /// waits to be added to a group.
    pub membership: Membership,
    /// Consecutive. May start at or before the snapshot's index (a tail kept for slow peers).
    pub entries: Vec<Entry>,
}

impl Recovered {
    /// The first start of a member of a new group.
    pub fn bootstrap(membership: Membership) -> Recovered {
        Recovered {
            membership,
            ..Recovered::default()
        }
    }

    /// True when nothing was ever written.
    pub fn is_blank(&self) -> bool {
        self.hard_state == HardState::default()
            && self.snapshot.is_none()
            && self.entries.is_empty()
    }

    /// Index of the last entry, or of the snapshot, or 0.
    pub fn last_index(&self) -> u64 {
        let snapshot = self.snapshot.as_ref().map_or(0, |s| s.meta.index);
        self.entries.last().map_or(0, |e| e.index).max(snapshot)
    }

    /// What one durable batch does. Log stores are tested against this, and a simulated disk can be this.
    pub fn apply(&mut self, batch: &Persist) {
        if batch.reset_log {
            self.entries.clear();
        }
        if let Some(first) = batch.entries.first() {
            let keep = self.entries.partition_point(|e| e.index < first.index);
            self.entries.truncate(keep);
            self.entries.extend(batch.entries.iter().cloned());
        }
        if let Some(hard_state) = batch.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(membership) = &batch.membership {
            self.membership = membership.clone();
        }
        if let Some(snapshot) = &batch.snapshot {
            self.snapshot = Some(snapshot.clone());
        }
        if let Some(to) = batch.compact_to {
            let gone = self.entries.partition_point(|e| e.index <= to);
            self.entries.drain(..gone);
        }
    }

    /// Checks that the parts belong together.
    ///
    /// # Errors
    /// Says in words what is missing or contradictory.
    pub fn check(&self) -> Result<(), String> {
        if !self.membership.is_sound() {
            return Err(format!("the membership {:?} is not valid", self.membership));
        }
        if let Some(w) = self
            .entries
            .windows(2)
            .find(|w| w[1].index != w[0].index + 1)
        {
            return Err(format!("entry {} follows entry {}", w[1].index, w[0].index));
        }
        if let Some(w) = self.entries.windows(2).find(|w| w[1].term < w[0].term) {
            return Err(format!("the term falls at entry {}", w[1].index));
        }
        let base = self.snapshot.as_ref().map_or(0, |s| s.meta.index);
        if let Some(first) = self.entries.first()
            && (first.index == 0 || first.index > base + 1)
        {
            return Err(format!(
                "the log starts at {} but the snapshot ends at {base}",
                first.index
            ));
        }
        if self.entries.last().is_some_and(|last| last.index < base) {
            return Err(format!("the log ends before the snapshot at {base}"));
        }
        let snapshot_term = self.snapshot.as_ref().map_or(0, |s| s.meta.term);
        if let Some(e) = self
            .entries
            .iter()
            .find(|e| e.index == base && e.term != snapshot_term)
        {
            return Err(format!(
                "entry {base} is of term {} but the snapshot of term {snapshot_term}",
                e.term
            ));
        }
        if self.hard_state.commit > self.last_index() {
            return Err(format!(
                "index {} is known to be committed but the log ends at {}",
                self.hard_state.commit,
                self.last_index()
            ));
        }
        if self.entries.last().map_or(snapshot_term, |last| last.term) > self.hard_state.term {
            return Err(format!(
                "the log is newer than term {}",
                self.hard_state.term
            ));
        }
        Ok(())
    }
}
