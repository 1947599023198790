//! What the core does, fact by fact.

#![allow(clippy::unwrap_used)]

mod bench;

use bench::{Bench, exit, key, launch, spawned};
use berth_agent_core::{
    AgentConfig, AgentCore, Effect, Fence, Input, Learned, PrepareFault, Refusal,
    ReportedCheckpoint, StopSignal, TaskMessage,
};
use berth_types::{
    CheckpointFile, CheckpointRecord, Directive, Epoch, JobId, LostNodeRule, TaskEvent,
    TaskInventory, Tombstone,
};

fn stop(job: u64, through: u32) -> Tombstone {
    Tombstone {
        job: JobId(job),
        through: Epoch(through),
    }
}

#[test]
fn a_task_goes_from_launch_to_forgotten() {
    let mut bench = Bench::connected();
    let effects = bench.direct(|d| d.launch.push(launch(key(1, 1, 0))));
    assert!(
        matches!(&effects[..], [Effect::SaveFence(_), Effect::Prepare { .. }]),
        "{effects:?}"
    );
    let effects = bench.prepared(key(1, 1, 0));
    assert!(
        matches!(&effects[..], [Effect::Spawn { .. }]),
        "{effects:?}"
    );
    let effects = bench.step(spawned(key(1, 1, 0)));
    assert!(matches!(
        bench::states(&effects)[..],
        [(_, TaskInventory::Running { since_ms: 7 })]
    ));
    // Repeats change nothing.
    assert_eq!(bench.again(|d| d.launch.push(launch(key(1, 1, 0)))), []);
    assert_eq!(
        bench.again(|d| d.forget.push(key(1, 1, 0))),
        [],
        "it has not ended"
    );
    let effects = bench.step(exit(key(1, 1, 0), 3));
    assert!(matches!(&bench::states(&effects)[..], [(_, TaskInventory::Ended(e))] if e.code == 3));
    assert_eq!(bench.again(|d| d.launch.push(launch(key(1, 1, 0)))), []);
    let effects = bench.again(|d| d.forget.push(key(1, 1, 0)));
    assert_eq!(effects, [Effect::Forget { key: key(1, 1, 0) }]);
    assert_eq!(
        bench.again(|d| d.launch.push(launch(key(1, 1, 0)))),
        [],
        "late repeats start nothing"
    );
    assert_eq!(bench.core.held(), 0);
}

#[test]
fn a_tombstone_stops_and_blocks() {
    let mut bench = Bench::connected();
    bench.run(key(1, 2, 0));
    let effects = bench.again(|d| d.stop.push(stop(1, 2)));
    let [
        Effect::TellTask {
            message: TaskMessage::Stop { deadline_ms, .. },
            ..
        },
        Effect::Signal { signal, .. },
    ] = &effects[..]
    else {
        panic!("{effects:?}");
    };
    assert_eq!(
        (*deadline_ms, *signal),
        (bench.now_ms + 500, StopSignal::Term)
    );
    assert_eq!(
        bench.again(|d| d.stop.push(stop(1, 2))),
        [],
        "it is being stopped"
    );
    assert_eq!(bench.tick(499), []);
    let kill = |e: &Effect| {
        matches!(
            e,
            Effect::Signal {
                signal: StopSignal::Kill,
                ..
            }
        )
    };
    assert_eq!(bench.tick(1).iter().filter(|e| kill(e)).count(), 1);
    assert_eq!(bench.tick(500).iter().filter(|e| kill(e)).count(), 0);
    assert_eq!(
        bench.tick(500).iter().filter(|e| kill(e)).count(),
        1,
        "again, until it is gone"
    );
    let effects = bench.step(exit(key(1, 2, 0), 137));
    assert!(
        matches!(&bench::states(&effects)[..], [(_, TaskInventory::Ended(e))] if e.reason == "stopped by the scheduler")
    );
    for dead in [key(1, 2, 1), key(1, 1, 0)] {
        assert_eq!(bench.again(|d| d.launch.push(launch(dead))), []);
    }
    let effects = bench.again(|d| d.launch.push(launch(key(1, 3, 0))));
    assert!(matches!(&effects[..], [Effect::Prepare { .. }]));
}

#[test]
fn a_tombstone_for_nothing_is_answered_with_everything() {
    let mut bench = Bench::connected();
    bench.run(key(2, 1, 0));
    let effects = bench.again(|d| d.stop.push(stop(1, 4)));
    let [Effect::Report { report, .. }] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert!(report.full_inventory && report.events.len() == 1);
}

#[test]
fn stops_before_the_process_leave_a_record() {
    let mut bench = Bench::connected();
    bench.direct(|d| d.launch.push(launch(key(1, 1, 0))));
    let effects = bench.again(|d| d.stop.push(stop(1, 1)));
    assert!(
        matches!(&effects[..], [Effect::PersistExit { exit, .. }] if exit.code == -1),
        "{effects:?}"
    );
    assert_eq!(bench.prepared(key(1, 1, 0)), [], "too late");
    // Between spawn and its answer: TERM follows the answer.
    bench.direct(|d| d.launch.push(launch(key(2, 1, 0))));
    bench.prepared(key(2, 1, 0));
    assert_eq!(bench.again(|d| d.stop.push(stop(2, 1))), []);
    let effects = bench.step(spawned(key(2, 1, 0)));
    assert!(effects.iter().any(|e| matches!(
        e,
        Effect::Signal {
            signal: StopSignal::Term,
            ..
        }
    )));
}

#[test]
fn faults_of_preparation_are_recorded_with_the_blame() {
    let mut bench = Bench::connected();
    for (job, fault, node_fault) in [
        (1, PrepareFault::PortInUse { port: 9 }, true),
        (
            2,
            PrepareFault::WorkDir {
                path: "/w".into(),
                error: "gone".into(),
            },
            false,
        ),
    ] {
        bench.direct(|d| d.launch.push(launch(key(job, 1, 0))));
        let effects = bench.step(Input::Prepared {
            key: key(job, 1, 0),
            result: Err(fault),
        });
        assert!(
            matches!(&effects[..], [Effect::PersistExit { exit, .. }] if exit.node_fault == node_fault),
            "{effects:?}"
        );
    }
}

#[test]
fn a_newer_epoch_stops_the_older_and_waits() {
    let mut bench = Bench::connected();
    bench.run(key(1, 1, 0));
    bench.run(key(1, 1, 1));
    let effects = bench.again(|d| d.launch.push(launch(key(1, 2, 0))));
    let terms = effects
        .iter()
        .filter(|e| matches!(e, Effect::Signal { .. }))
        .count();
    assert_eq!((terms, effects.len()), (2, 4), "{effects:?}");
    let prepares = |effects: &[Effect]| {
        effects
            .iter()
            .filter(|e| matches!(e, Effect::Prepare { .. }))
            .count()
    };
    assert_eq!(prepares(&bench.step(exit(key(1, 1, 0), 143))), 0);
    assert_eq!(prepares(&bench.step(exit(key(1, 1, 1), 143))), 1);
    assert_eq!(
        bench.again(|d| d.launch.push(launch(key(1, 1, 2)))),
        [],
        "the older epoch is over"
    );
}

#[test]
fn old_and_foreign_directives_end_the_stream() {
    for (edit, foreign) in [
        ((|d| d.applied -= 1) as fn(&mut Directive), false),
        (|d| d.term -= 1, false),
        (|d| d.cluster_id += 1, true),
    ] {
        let mut bench = Bench::connected();
        bench.run(key(1, 1, 0));
        let effects = bench.again(|d| {
            d.stop.push(stop(1, 1));
            edit(d);
        });
        let [
            Effect::Refused { refusal, .. },
            Effect::Disconnect { session: 1 },
        ] = &effects[..]
        else {
            panic!("{effects:?}");
        };
        assert_eq!(matches!(refusal, Refusal::OtherCluster { .. }), foreign);
        assert_eq!(bench.core.live().count(), 1);
    }
}

#[test]
fn only_fence_tasks_end_with_the_lease() {
    let mut bench = Bench::connected();
    let mut fenced = launch(key(1, 1, 0));
    fenced.lost_node = LostNodeRule::Fence;
    fenced.grace_ms = 1_000;
    bench.run_task(fenced);
    bench.run(key(2, 1, 0));
    let effects = bench.again(|_| {});
    assert_eq!(effects, [Effect::RenewLease { lease_ms: 7_500 }]);
    bench.step(Input::Disconnected { session: 1 });
    assert_eq!(bench.tick(6_499), []);
    let effects = bench.tick(1);
    assert!(
        matches!(&effects[..], [Effect::TellTask { .. }, Effect::Signal { key: k, signal: StopSignal::Term, .. }] if *k == key(1, 1, 0))
    );
    let effects = bench.tick(1_000);
    assert!(
        matches!(&effects[..], [Effect::Signal { key: k, signal: StopSignal::Kill, .. }] if *k == key(1, 1, 0))
    );
    // A leader that speaks now does not save it.
    bench.step(Input::Connected { session: 2 });
    bench.session = 2;
    bench.again(|_| {});
    assert!(bench.tick(1_000).iter().any(|e| matches!(
        e,
        Effect::Signal {
            signal: StopSignal::Kill,
            ..
        }
    )));
    assert_eq!(bench.core.live().count(), 2);
}

#[test]
fn progress_is_coalesced_and_never_lost_at_the_end() {
    let mut bench = Bench::connected();
    bench.run(key(1, 1, 0));
    for step in 1..=10 {
        let progress = Input::Progress {
            key: key(1, 1, 0),
            step,
            samples: 0,
            loss_micros: None,
            step_us: None,
        };
        assert_eq!(bench.step(progress), []);
    }
    let steps = |effects: &[Effect]| -> Vec<u64> {
        bench::events(effects)
            .filter_map(|event| match event {
                TaskEvent::Progress { step, .. } => Some(*step),
                _ => None,
            })
            .collect()
    };
    assert_eq!(steps(&bench.tick(600)), [10]);
    assert_eq!(steps(&bench.tick(600)), [0u64; 0]);
    bench.step(Input::Progress {
        key: key(1, 1, 0),
        step: 11,
        samples: 0,
        loss_micros: None,
        step_us: None,
    });
    let effects = bench.step(exit(key(1, 1, 0), 0));
    assert_eq!(steps(&effects), [11]);
    assert!(matches!(
        bench::events(&effects).last(),
        Some(TaskEvent::State(..))
    ));
}

fn learned(effects: &[Effect]) -> Vec<&Learned> {
    let mut learned = Vec::new();
    for effect in effects {
        if let Effect::SaveMasters(masters) = effect {
            learned.push(masters);
        }
    }
    learned
}

#[test]
fn where_the_masters_are_is_learned_from_the_own_cluster_and_kept() {
    let mut bench = Bench::connected();
    let tell =
        |addresses: &[&str]| -> Vec<String> { addresses.iter().map(|a| (*a).to_owned()).collect() };
    assert!(learned(&bench.direct(|_| ())).is_empty(), "nothing is said");
    let effects = bench.direct(|d| d.masters = tell(&["a:1", "b:1"]));
    let first = learned(&effects)[0].clone();
    assert_eq!((first.cluster_id, first.addresses.len()), (5, 2));
    let again = bench.direct(|d| d.masters = tell(&["a:1", "b:1"]));
    assert!(learned(&again).is_empty(), "nothing new");
    assert!(learned(&bench.direct(|_| ())).is_empty());
    assert_eq!(bench.core.masters(), &first, "silence takes nothing back");
    let foreign = bench.direct(|d| {
        d.cluster_id = 6;
        d.masters = tell(&["x:1"]);
    });
    assert!(matches!(
        foreign[..],
        [Effect::Refused { .. }, Effect::Disconnect { .. }]
    ));
    assert_eq!(bench.core.masters(), &first);

    let restarted = |fence| {
        let core = AgentCore::new(AgentConfig::default(), fence, 0);
        core.knowing(first.clone()).masters().clone()
    };
    assert_eq!(restarted(bench.core.fence()), first);
    let other = Fence {
        cluster_id: 6,
        ..Fence::default()
    };
    assert_eq!(restarted(other), Learned::default());
}

#[test]
fn an_older_leader_does_not_say_where_the_masters_are() {
    let mut bench = Bench::connected();
    bench.direct(|d| (d.term, d.masters) = (3, vec!["new:1".to_owned()]));
    let effects = bench.direct(|d| (d.term, d.masters) = (2, vec!["old:1".to_owned()]));
    assert!(learned(&effects).is_empty());
    assert_eq!(bench.core.masters().addresses, ["new:1"]);
}

#[test]
fn a_new_keeper_makes_the_agent_register_anew() {
    let mut bench = Bench::connected();
    bench.run(key(1, 1, 0));
    // The order to start it is on its way.
    bench.direct(|d| d.launch.push(launch(key(2, 1, 0))));
    bench.prepared(key(2, 1, 0));
    // This one is being prepared, ...
    bench.direct(|d| d.launch.push(launch(key(3, 1, 0))));
    // ... and this one waits for an older attempt to end.
    bench.run(key(4, 1, 0));
    bench.direct(|d| d.launch.push(launch(key(4, 2, 0))));
    let effects = bench.step(Input::KeeperState {
        incarnation: 2,
        tasks: Vec::new(),
    });
    let lost = |effect: &Effect| match effect {
        Effect::PersistExit { key, exit } if exit.node_fault && exit.code == -1 => Some(*key),
        _ => None,
    };
    let ends: Vec<_> = effects.iter().map_while(lost).collect();
    let all = [(1, 1), (2, 1), (3, 1), (4, 1), (4, 2)].map(|(job, epoch)| key(job, epoch, 0));
    assert_eq!(
        ends, all,
        "masters free what was launched before: {effects:?}"
    );
    assert!(
        matches!(effects[all.len()..], [Effect::Disconnect { .. }]),
        "and nothing else happens: {effects:?}"
    );
    let late = bench.prepared(key(3, 1, 0));
    assert!(late.is_empty(), "it does not start any more: {late:?}");
    let effects = bench.step(Input::Connected { session: 2 });
    let [
        Effect::Register {
            incarnation: 2,
            fence: Fence { term: 1, .. },
            inventory,
            ..
        },
    ] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    let known = |event: &TaskEvent| match event {
        TaskEvent::State(key, _) => Some(*key),
        _ => None,
    };
    let inventory: Vec<_> = inventory.events.iter().filter_map(known).collect();
    assert_eq!(
        inventory, all,
        "none is forgotten before the log has its end"
    );
}

fn saved(shard: u32, shards: u32) -> ReportedCheckpoint {
    ReportedCheckpoint {
        step: 10,
        path: "/c/step-10".into(),
        files: vec![CheckpointFile {
            path: format!("f{shard}"),
            bytes: 1,
            sha256: "00".into(),
        }],
        save_ms: 5 + u64::from(shard),
        shard,
        shards,
    }
}

fn report_shard(bench: &mut Bench, rank: u32) -> Vec<Effect> {
    let checkpoint = saved(rank, 2);
    bench.step(Input::CheckpointReported {
        key: key(1, 1, rank),
        checkpoint,
    })
}

fn acks(effects: &[Effect]) -> usize {
    let accepted = |e: &&Effect| {
        matches!(
            e,
            Effect::TellTask {
                message: TaskMessage::Ack { accepted: true, .. },
                ..
            }
        )
    };
    effects.iter().filter(accepted).count()
}

fn record() -> CheckpointRecord {
    CheckpointRecord {
        epoch: Epoch(1),
        step: 10,
        path: "/c/step-10".into(),
        bytes: 2,
        manifest_sha256: "11".into(),
        save_ms: 6,
    }
}

#[test]
fn a_checkpoint_counts_when_all_shards_verify_and_the_log_has_it() {
    let mut bench = Bench::connected();
    bench.run(key(1, 1, 0));
    bench.run(key(1, 1, 1));
    assert_eq!(report_shard(&mut bench, 1), []);
    let effects = report_shard(&mut bench, 0);
    let [
        Effect::VerifyCheckpoint {
            files, save_ms: 6, ..
        },
    ] = &effects[..]
    else {
        panic!("{effects:?}");
    };
    assert_eq!(
        files.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(),
        ["f0", "f1"]
    );
    let effects = bench.step(Input::CheckpointVerified {
        job: JobId(1),
        epoch: Epoch(1),
        step: 10,
        result: Ok(record()),
    });
    assert!(matches!(
        bench::events(&effects).next(),
        Some(TaskEvent::CheckpointVerified { .. })
    ));
    // Until the log has it, a new leader hears of it too.
    bench.step(Input::Disconnected { session: 1 });
    let effects = bench.step(Input::Connected { session: 2 });
    bench.session = 2;
    let [Effect::Register { inventory, .. }] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert!(
        inventory
            .events
            .iter()
            .any(|e| matches!(e, TaskEvent::CheckpointVerified { .. }))
    );
    let effects = bench.again(|d| d.checkpoints_recorded.push((JobId(1), Epoch(1), 10)));
    assert_eq!(acks(&effects), 2);
    assert!(matches!(
        effects.last(),
        Some(Effect::PruneCheckpoints {
            step: 10,
            keep: 2,
            ..
        })
    ));
    assert_eq!(acks(&report_shard(&mut bench, 0)), 1, "said again");
}

#[test]
fn impossible_shards_and_bad_checkpoints_are_refused() {
    let mut bench = Bench::connected();
    bench.run(key(1, 1, 0));
    let refusal = |effects: &[Effect]| match effects {
        [
            Effect::TellTask {
                message:
                    TaskMessage::Ack {
                        accepted: false,
                        reason,
                        ..
                    },
                ..
            },
        ] => reason.clone(),
        other => panic!("{other:?}"),
    };
    for (shard, shards) in [(0, 0), (2, 2), (0, u32::MAX)] {
        let checkpoint = saved(shard, shards);
        let effects = bench.step(Input::CheckpointReported {
            key: key(1, 1, 0),
            checkpoint,
        });
        assert!(refusal(&effects).contains("is not possible"));
    }
    let checkpoint = saved(0, 1);
    bench.step(Input::CheckpointReported {
        key: key(1, 1, 0),
        checkpoint,
    });
    let effects = bench.step(Input::CheckpointVerified {
        job: JobId(1),
        epoch: Epoch(1),
        step: 10,
        result: Err("file `f0` is short".into()),
    });
    assert_eq!(refusal(&effects), "file `f0` is short");
}

#[test]
fn heartbeats_keep_the_silence_short() {
    let mut bench = Bench::connected();
    assert_eq!(bench.tick(999), []);
    let effects = bench.tick(1);
    assert!(matches!(&effects[..], [Effect::Report { report, .. }] if report.events.is_empty()));
    assert_eq!(bench.tick(999), []);
}
