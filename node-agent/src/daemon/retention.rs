//! Directories of tasks whose end is committed: kept for their logs, up to a number and an age.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use berth_types::{Epoch, JobId, Rank, TaskKey};

use crate::layout::Layout;

/// Deleted in one go, so that the event loop is not held up.
const AT_ONCE: usize = 64;

/// What is kept, oldest first.
#[derive(Debug)]
pub(super) struct Retention {
    layout: Layout,
    kept: VecDeque<(SystemTime, TaskKey)>,
    most: usize,
    longest: Duration,
}

impl Retention {
    /// Starts with what lies on disk and is not `held` by the agent.
    pub(super) fn open(
        layout: &Layout,
        most: usize,
        longest: Duration,
        held: impl Fn(TaskKey) -> bool,
    ) -> Self {
        let mut found: Vec<(SystemTime, TaskKey)> =
            on_disk(layout).filter(|(_, key)| !held(*key)).collect();
        found.sort();
        Self {
            layout: layout.clone(),
            kept: found.into(),
            most,
            longest,
        }
    }

    /// This task's end is committed.
    pub(super) fn keep(&mut self, key: TaskKey) {
        self.kept.push_back((SystemTime::now(), key));
    }

    /// Takes what is due for deletion, a bounded number at once.
    pub(super) fn due(&mut self) -> Vec<PathBuf> {
        let oldest = SystemTime::now().checked_sub(self.longest);
        let mut due = Vec::new();
        while due.len() < AT_ONCE
            && let Some((since, key)) = self.kept.front().copied()
            && (self.kept.len() > self.most || oldest.is_some_and(|oldest| since < oldest))
        {
            self.kept.pop_front();
            due.push(self.layout.task_dir(key));
        }
        due
    }
}

/// Deletes task directories and what becomes empty above them. Blocks.
pub(super) fn delete(dirs: Vec<PathBuf>) {
    for dir in dirs {
        if let Err(error) = std::fs::remove_dir_all(&dir) {
            tracing::debug!(dir = %dir.display(), %error, "a task's directory cannot be deleted");
        }
        // The attempt's and the job's directory, once nothing else is in them.
        for parent in dir.ancestors().skip(1).take(2) {
            if std::fs::remove_dir(parent).is_err() {
                break;
            }
        }
    }
}

fn on_disk(layout: &Layout) -> impl Iterator<Item = (SystemTime, TaskKey)> {
    let numbers = |dir: PathBuf| {
        std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok())
            .collect::<Vec<_>>()
    };
    let tasks = layout.tasks();
    let small = |number: u64| u32::try_from(number).ok();
    let mut keys = Vec::new();
    for job in numbers(tasks.clone()) {
        for epoch in numbers(tasks.join(job.to_string()))
            .into_iter()
            .filter_map(small)
        {
            for rank in numbers(tasks.join(format!("{job}/{epoch}")))
                .into_iter()
                .filter_map(small)
            {
                keys.push(TaskKey {
                    job: JobId(job),
                    epoch: Epoch(epoch),
                    rank: Rank(rank),
                });
            }
        }
    }
    let layout = layout.clone();
    keys.into_iter().filter_map(move |key| {
        let changed = std::fs::metadata(layout.task_dir(key))
            .ok()?
            .modified()
            .ok()?;
        Some((changed, key))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_beyond_the_bound_go() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let key = |job| TaskKey {
            job: JobId(job),
            epoch: Epoch(1),
            rank: Rank(0),
        };
        for job in 1..=4 {
            std::fs::create_dir_all(layout.task_dir(key(job))).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + job);
            std::fs::File::open(layout.task_dir(key(job)))
                .unwrap()
                .set_modified(time)
                .unwrap();
        }
        let held = |k: TaskKey| k.job == JobId(1);
        let mut retention = Retention::open(&layout, 2, Duration::from_secs(1 << 40), held);
        delete(retention.due());
        let left = |job| layout.job_dir(JobId(job)).exists();
        assert!(left(1) && !left(2) && left(3) && left(4));
        retention.keep(key(1));
        delete(retention.due());
        assert!(left(1) && !left(3) && left(4));
        retention.longest = Duration::from_secs(60);
        delete(retention.due());
        assert!(left(1) && !left(4), "too old, though within the number");
    }
}
