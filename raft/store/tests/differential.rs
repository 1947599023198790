//! sled, redb and the model in memory are given the same batches and must agree, also after reopening.

#![allow(clippy::unwrap_used)]

use berth_raft::{
    Entry, EntryKind, HardState, Membership, Persist, Recovered, Snapshot, SnapshotMeta,
};
use berth_raft_store::{Backend, HistoryStore, LogStore, StoreOptions, open};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

/// What a replica may do to its log, as numbers that are fitted to the log as it is then.
#[derive(Debug, Clone)]
enum Step {
    /// Appends `count` entries of `size` bytes after dropping up to `back` of the last ones.
    Append {
        back: u64,
        count: u64,
        size: usize,
    },
    Vote {
        term: u64,
        vote: u64,
    },
    /// A local snapshot, `behind` the end, keeping `keep` entries before it.
    Compact {
        behind: u64,
        keep: u64,
    },
    /// A snapshot from the leader, `ahead` of the end.
    Install {
        ahead: u64,
        size: usize,
    },
    History {
        from: u64,
        count: u64,
    },
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..4u64, 1..30u64, prop_oneof![8 => 0..300usize, 1 => 5_000..9_000usize])
            .prop_map(|(back, count, size)| Step::Append { back, count, size }),
        2 => (0..3u64, 1..4u64).prop_map(|(term, vote)| Step::Vote { term, vote }),
        2 => (0..20u64, 0..20u64).prop_map(|(behind, keep)| Step::Compact { behind, keep }),
        1 => (0..40u64, 0..20_000usize).prop_map(|(ahead, size)| Step::Install { ahead, size }),
        2 => (0..60u64, 1..9u64).prop_map(|(from, count)| Step::History { from, count }),
        1 => Just(Step::Reopen),
    ];
    vec(step, 1..60)
}

/// Turns steps into batches that fit the log so far.
struct Writer {
    model: Recovered,
    number: u64,
}

impl Writer {
    /// The batch of a step, if the log allows it; it is in the model then.
    fn batch(&mut self, step: &Step) -> Option<Persist> {
        let mut batch = match *step {
            Step::Append { back, count, size } => self.append(back, count, size),
            Step::Vote { term, vote } => self.vote(term, vote),
            Step::Compact { behind, keep } => self.compact(behind, keep)?,
            Step::Install { ahead, size } => self.install(ahead, size),
            Step::History { .. } | Step::Reopen => return None,
        };
        self.number += 1;
        batch.number = self.number;
        self.model.apply(&batch);
        self.model.check().unwrap();
        Some(batch)
    }

    fn append(&self, back: u64, count: u64, size: usize) -> Persist {
        let hard = self.model.hard_state;
        let (last, base) = (self.model.last_index(), self.base());
        let first = (last - back.min(last - base.max(hard.commit))) + 1;
        let term = hard.term.max(1);
        Persist {
            entries: (first..first + count)
                .map(|i| entry(i, term, size))
                .collect(),
            hard_state: Some(HardState {
                term,
                commit: hard.commit.max(first - 1),
                ..hard
            }),
            must_sync: true,
            ..Persist::default()
        }
    }

    fn vote(&self, term: u64, vote: u64) -> Persist {
        let hard = self.model.hard_state;
        let hard_state = Some(HardState {
            term: hard.term + term,
            vote,
            ..hard
        });
        Persist {
            hard_state,
            must_sync: true,
            ..Persist::default()
        }
    }

    fn compact(&self, behind: u64, keep: u64) -> Option<Persist> {
        let index = self
            .model
            .last_index()
            .saturating_sub(behind)
            .min(self.model.hard_state.commit);
        let term = self.model.entries.iter().find(|e| e.index == index)?.term;
        let meta = SnapshotMeta {
            index,
            term,
            membership: Membership::of_voters([1, 2]),
        };
        (index > self.base()).then(|| Persist {
            membership: Some(meta.membership.clone()),
            snapshot: Some(Snapshot {
                meta,
                data: Bytes::from(vec![index as u8; 1_000]),
            }),
            compact_to: Some(index.saturating_sub(keep)),
            ..Persist::default()
        })
    }

    fn install(&self, ahead: u64, size: usize) -> Persist {
        let hard = self.model.hard_state;
        let (index, term) = (self.model.last_index().max(1) + ahead, hard.term.max(1));
        let meta = SnapshotMeta {
            index,
            term,
            membership: Membership::new([1, 2], [ahead + 3]),
        };
        Persist {
            reset_log: true,
            hard_state: Some(HardState {
                term,
                commit: index,
                ..hard
            }),
            membership: Some(meta.membership.clone()),
            snapshot: Some(Snapshot {
                meta,
                data: Bytes::from(vec![7; size]),
            }),
            must_sync: true,
            ..Persist::default()
        }
    }

    fn base(&self) -> u64 {
        self.model.snapshot.as_ref().map_or(0, |s| s.meta.index)
    }
}

fn entry(index: u64, term: u64, size: usize) -> Entry {
    let mut entry = Entry::normal(index, term, Bytes::from(vec![(index * term) as u8; size]));
    if index.is_multiple_of(7) {
        entry.kind = EntryKind::Membership;
        entry.change = Bytes::from(index.to_le_bytes().to_vec());
    }
    entry
}

type Handles = (Box<dyn LogStore>, std::sync::Arc<dyn HistoryStore>);

fn reopen(dir: &std::path::Path, backend: Backend) -> (Recovered, Handles) {
    let options = StoreOptions {
        journal_bytes: 16 << 10,
        ..StoreOptions::new(1)
    };
    let (recovered, store, history) = open(dir, backend, options).unwrap();
    (recovered, (store, history))
}

/// Where two logs differ, without their payload.
fn difference(found: &Recovered, expected: &Recovered) -> String {
    let shape = |r: &Recovered| {
        let meta = r.snapshot.as_ref().map(|s| s.meta.clone());
        (
            r.hard_state,
            r.membership.clone(),
            meta,
            r.entries.first().map(|e| e.index),
            r.last_index(),
        )
    };
    format!("{:?} instead of {:?}", shape(found), shape(expected))
}

fn run(steps: &[Step], group: usize) -> Result<(), TestCaseError> {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let backends = [Backend::Sled, Backend::Redb];
    let mut handles: Vec<Handles> = (0..2)
        .map(|i| reopen(dirs[i].path(), backends[i]).1)
        .collect();
    let mut writer = Writer {
        model: Recovered::default(),
        number: 0,
    };
    let mut waiting = Vec::new();
    for step in steps.iter().chain([&Step::Reopen]) {
        waiting.extend(writer.batch(step));
        if let Step::History { from, count } = step {
            let rows: Vec<_> = (*from..from + count)
                .map(|s| (s, s / 2, Bytes::from(vec![s as u8; 40])))
                .collect();
            handles
                .iter()
                .try_for_each(|(_, h)| h.append(&rows))
                .unwrap();
        }
        let reopens = matches!(step, Step::Reopen);
        if waiting.len() >= group || reopens {
            handles
                .iter_mut()
                .try_for_each(|(s, _)| s.persist(&waiting))
                .unwrap();
            waiting.clear();
        }
        if reopens {
            handles.clear();
            for i in 0..2 {
                let (recovered, pair) = reopen(dirs[i].path(), backends[i]);
                prop_assert!(
                    recovered == writer.model,
                    "{}: {}",
                    backends[i].name(),
                    difference(&recovered, &writer.model)
                );
                handles.push(pair);
            }
            let [(_, sled), (_, redb)] = &handles[..] else {
                unreachable!()
            };
            prop_assert_eq!(
                sled.scan(0, 1_000, false).unwrap(),
                redb.scan(0, 1_000, false).unwrap()
            );
            prop_assert_eq!(
                (sled.count(), sled.last_seq()),
                (redb.count(), redb.last_seq())
            );
            prop_assert_eq!(sled.get(9).unwrap(), redb.get(9).unwrap());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_engines_agree_with_the_model(steps in steps(), group in 1..5usize) {
        run(&steps, group)?;
    }
}
