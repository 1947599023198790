//! Laws over random commands: the state stays sound, refusals change nothing, the log decides alone, no job is lost or
//! counted twice, no resource leaks.

use std::collections::{BTreeMap, BTreeSet};

use berth_core::apply::{Applied, CommandResult, apply};
use berth_core::codec::{decode_entry, decode_state, encode_entry, encode_state};
use berth_core::{Command, LogEntry, State};
use berth_types::{Epoch, JobId};
use proptest::prelude::*;

use crate::make;
use crate::random::{Dice, KINDS, command, end_everything};

fn dice() -> impl Strategy<Value = Dice> {
    (0..KINDS, any::<u16>(), any::<u16>(), any::<u16>()).prop_map(|(kind, a, b, c)| Dice {
        kind,
        a,
        b,
        c,
    })
}

/// A cluster under random commands, and what it did.
struct Run {
    state: State,
    now_ms: u64,
    log: Vec<LogEntry>,
    finished: Vec<JobId>,
    epochs: BTreeMap<JobId, Epoch>,
    /// How often each kind of result was seen.
    seen: BTreeMap<&'static str, u32>,
}

impl Run {
    fn new() -> Self {
        let mut run = Self {
            state: State::new(),
            now_ms: 1_000_000,
            log: Vec::new(),
            finished: Vec::new(),
            epochs: BTreeMap::new(),
            seen: BTreeMap::new(),
        };
        for n in 0..4 {
            run.apply(Command::RegisterNode {
                spec: make::node(&format!("n{n}"), 4).into(),
                incarnation: 0,
            });
        }
        run
    }

    fn roll(&mut self, dice: Dice) {
        self.now_ms += u64::from(dice.c % 400);
        let command = command(&self.state, self.now_ms, dice);
        self.apply(command);
    }

    fn apply(&mut self, command: Command) {
        let entry = make::entry(self.now_ms, vec![command]);
        let mut before = self.state.clone();
        let applied = apply(&mut self.state, self.log.len() as u64, &entry);
        if let Err(violations) = self.state.check() {
            panic!("{violations:#?}\nafter {entry:#?}");
        }
        before.time_ms = self.state.time_ms;
        if self.note(&applied) {
            assert_eq!(before, self.state, "a refusal changed the state: {entry:?}");
            assert_eq!(applied.events, []);
            assert!(applied.touched.is_empty());
        }
        let announced: Vec<_> = self
            .state
            .events
            .iter()
            .rev()
            .take(applied.events.len())
            .collect();
        assert!(announced.into_iter().rev().eq(applied.events.iter()));
        self.log.push(entry);
        for job in &applied.finished {
            self.finished.push(job.job.id);
            assert_eq!(job.seq, self.finished.len() as u64);
            assert!(job.job.attempt.is_none());
        }
        for (id, job) in &self.state.jobs {
            let newest = self.epochs.insert(*id, job.epoch).unwrap_or_default();
            assert!(newest <= job.epoch && job.epoch.0 <= newest.0 + 1);
        }
    }

    /// Counts results; true if everything was refused.
    fn note(&mut self, applied: &Applied) -> bool {
        let mut count = |what: &'static str| *self.seen.entry(what).or_insert(0) += 1;
        let mut refused = true;
        for result in &applied.results {
            match result {
                CommandResult::Done => {
                    count("done");
                    refused = false;
                }
                CommandResult::Submitted { duplicate, .. } => {
                    count(if *duplicate { "duplicate" } else { "submitted" });
                    refused &= duplicate;
                }
                CommandResult::CertificateIssued { .. } => {
                    count("certificate");
                    refused = false;
                }
                CommandResult::Rejected(_) => count("rejected"),
                CommandResult::Bundles(bundles) => {
                    for bundle in bundles {
                        count(if bundle.is_ok() {
                            "bundle"
                        } else {
                            "stale bundle"
                        });
                        refused &= bundle.is_err();
                    }
                }
            }
        }
        for event in &applied.events {
            let known = [
                "job.restarting",
                "job.fencing",
                "job.released",
                "job.reserved",
                "job.failed",
                "job.finished",
                "node.lost",
                "node.changed",
                "certificate.revoked",
                "gpu.quarantined",
                "job.gpu_fault",
            ];
            if let Some(kind) = known.into_iter().find(|k| *k == event.kind) {
                count(kind);
            }
        }
        refused
    }
}

proptest! {
    #[test]
    fn random_commands_keep_every_law(dice in proptest::collection::vec(dice(), 1..250), cut in any::<u16>()) {
        let mut run = Run::new();
        for dice in dice {
            run.roll(dice);
        }

        // Every accepted job is unfinished or finished, exactly once.
        let unfinished: BTreeSet<JobId> = run.state.jobs.keys().copied().collect();
        let finished: BTreeSet<JobId> = run.finished.iter().copied().collect();
        prop_assert_eq!(finished.len(), run.finished.len());
        let all: BTreeSet<JobId> = unfinished.union(&finished).copied().collect();
        prop_assert_eq!(all, (1..run.state.next_job).map(JobId).collect::<BTreeSet<_>>());

        // The log alone decides, as bytes too; and a snapshot anywhere in it changes nothing.
        let mut replayed = State::new();
        let cut = usize::from(cut) % run.log.len();
        for (index, entry) in run.log.iter().enumerate() {
            let read = decode_entry(&encode_entry(entry)).expect("own bytes");
            apply(&mut replayed, index as u64, &read);
            if index == cut {
                replayed = decode_state(&encode_state(&replayed)).expect("own bytes");
            }
        }
        prop_assert_eq!(replayed.digest(), run.state.digest());
        prop_assert_eq!(&replayed, &run.state);

        // Once every job is over nothing is held any more.
        for command in end_everything(&run.state, run.now_ms) {
            run.apply(command);
        }
        prop_assert!(run.state.jobs.is_empty() && run.state.reservations.is_empty());
        for node in run.state.nodes.values() {
            prop_assert!(node.jobs.is_empty() && node.ports.is_empty() && node.used_millicpu == 0);
            prop_assert!(node.gpus.iter().all(|g| g.milligpu == 0 && g.reserved == 0));
        }
    }

    /// Entries of several commands do what the commands do one by one.
    #[test]
    fn how_commands_share_entries_does_not_matter(dice in proptest::collection::vec(dice(), 1..80)) {
        let mut run = Run::new();
        for mut dice in dice {
            dice.c -= dice.c % 400;
            run.roll(dice);
        }
        let commands = run.log.iter().flat_map(|e| e.commands.clone()).collect();
        let mut state = State::new();
        apply(&mut state, 1, &make::entry(run.now_ms, commands));
        prop_assert_eq!(state.digest(), run.state.digest());
    }
}

/// The random commands reach what they are there to test.
#[test]
fn random_commands_reach_the_interesting_parts() {
    let mut seen: BTreeMap<&'static str, u32> = BTreeMap::new();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 20) as u16
    };
    for _ in 0..120 {
        let mut run = Run::new();
        for _ in 0..400 {
            let kind = (next() % u16::from(KINDS)) as u8;
            let (a, b, c) = (next(), next(), next());
            run.roll(Dice { kind, a, b, c });
        }
        for (what, count) in run.seen {
            *seen.entry(what).or_insert(0) += count;
        }
    }
    for what in [
        "done",
        "submitted",
        "duplicate",
        "certificate",
        "certificate.revoked",
        "rejected",
        "bundle",
        "stale bundle",
        "job.restarting",
        "job.fencing",
        "job.released",
        "job.reserved",
        "job.failed",
        "job.finished",
        "node.lost",
        "node.changed",
        "gpu.quarantined",
        "job.gpu_fault",
    ] {
        assert!(seen.get(what).is_some_and(|n| *n >= 5), "{what}: {seen:?}");
    }
}
