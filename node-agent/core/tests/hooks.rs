//! Prologs, epilogs, health checks, and what the leader hears of them.

#![allow(clippy::unwrap_used, dead_code)]

mod bench;

use bench::{Bench, events, exit, key, launch, spawned, states};
use berth_agent_core::{AgentConfig, Effect, HookRun, Hooks, Input, KeptPhase, KeptTask, TaskMemo};
use berth_types::{
    Epoch, GpuShare, Hook, HostReport, Isolation, IsolationKind, JobId, TaskEvent, TaskExit,
    TaskInventory, Tombstone,
};

fn bench() -> Bench {
    let hooks = Hooks {
        prolog: true,
        epilog: true,
    };
    Bench::with(AgentConfig {
        hooks,
        ..AgentConfig::default()
    })
}

fn hook(effects: &[Effect]) -> Option<HookRun> {
    effects.iter().find_map(|effect| match effect {
        Effect::RunHook(run) => Some(run.clone()),
        _ => None,
    })
}

fn ended(bench: &mut Bench, run: HookRun, result: Result<(), &str>) -> Vec<Effect> {
    let result = result.map_err(str::to_owned);
    bench.step(Input::HookEnded { run, result })
}

fn prepares(effects: &[Effect]) -> usize {
    let prepare = |e: &&Effect| matches!(e, Effect::Prepare { .. });
    effects.iter().filter(prepare).count()
}

fn launch_two(bench: &mut Bench) -> HookRun {
    let effects = bench.direct(|d| {
        for rank in 0..2 {
            let mut task = launch(key(1, 1, rank));
            task.gpus = vec![GpuShare {
                gpu: 1 - u16::try_from(rank).unwrap(),
                milligpu: 1_000,
            }];
            d.launch.push(task);
        }
    });
    assert_eq!(prepares(&effects), 0, "the prolog comes first");
    hook(&effects).unwrap()
}

#[test]
fn one_prolog_before_and_one_epilog_after_all_tasks_of_an_attempt() {
    let mut bench = bench();
    let prolog = launch_two(&mut bench);
    assert_eq!(
        (prolog.hook, prolog.job, prolog.epoch),
        (Hook::Prolog, JobId(1), Epoch(1))
    );
    assert_eq!(
        (prolog.job_name.as_str(), prolog.user.as_str()),
        ("job", "u")
    );
    let effects = ended(&mut bench, prolog.clone(), Ok(()));
    assert_eq!(prepares(&effects), 2);
    for rank in 0..2 {
        bench.prepared(key(1, 1, rank));
        bench.step(spawned(key(1, 1, rank)));
    }
    let effects = bench.step(exit(key(1, 1, 0), 3));
    assert!(hook(&effects).is_none(), "the other still runs");
    assert_eq!(states(&effects).len(), 1, "a failed rank is told at once");
    let effects = bench.step(exit(key(1, 1, 1), 137));
    let epilog = hook(&effects).unwrap();
    assert_eq!(
        (epilog.hook, epilog.gpus.as_slice()),
        (Hook::Epilog, &[0, 1][..])
    );
    assert_eq!(states(&effects), [], "the last end waits for the epilog");
    // A newer attempt waits, too.
    let effects = bench.again(|d| d.launch.push(launch(key(1, 2, 0))));
    assert!(hook(&effects).is_none() && prepares(&effects) == 0);
    // Of another run.
    assert_eq!(ended(&mut bench, prolog, Ok(())), []);
    let effects = ended(&mut bench, epilog, Ok(()));
    assert!(
        matches!(&states(&effects)[..], [(k, TaskInventory::Ended(e))] if *k == key(1, 1, 1) && e.code == 137)
    );
    assert_eq!(hook(&effects).unwrap().epoch, Epoch(2));
}

#[test]
fn a_failed_prolog_is_the_nodes_fault_and_drains_it() {
    let mut bench = bench();
    let prolog = launch_two(&mut bench);
    let effects = ended(&mut bench, prolog, Err("exit code 1: no scratch"));
    let recorded: Vec<&TaskExit> = effects
        .iter()
        .filter_map(|e| match e {
            Effect::PersistExit { exit, .. } => Some(exit),
            _ => None,
        })
        .collect();
    assert_eq!(recorded.len(), 2);
    assert!(
        recorded
            .iter()
            .all(|e| e.node_fault && e.reason.contains("no scratch"))
    );
    let failed = |event: &&TaskEvent| {
        matches!(
            event,
            TaskEvent::HookFailed {
                hook: Hook::Prolog,
                ..
            }
        )
    };
    assert_eq!(events(&effects).filter(failed).count(), 1);
    for rank in 0..2 {
        let effects = bench.step(exit(key(1, 1, rank), -1));
        assert!(hook(&effects).is_none(), "nothing was set up");
        assert_eq!(states(&effects).len(), 1);
    }
    // Told with every inventory until the task is forgotten.
    let inventory = |bench: &mut Bench| {
        let nothing = Tombstone {
            job: JobId(9),
            through: Epoch(1),
        };
        let effects = bench.again(|d| d.stop.push(nothing));
        let told: Vec<TaskEvent> = events(&effects).cloned().collect();
        told
    };
    let told = inventory(&mut bench);
    assert!(
        failed(&&told[0]) && told.len() == 3,
        "before the ends: {told:?}"
    );
    bench.again(|d| d.forget = vec![key(1, 1, 0), key(1, 1, 1)]);
    assert_eq!(inventory(&mut bench), []);
}

#[test]
fn an_attempt_that_is_stopped_during_its_prolog_gets_its_epilog() {
    let mut bench = bench();
    let prolog = launch_two(&mut bench);
    let stop = Tombstone {
        job: JobId(1),
        through: Epoch(1),
    };
    bench.again(|d| d.stop.push(stop));
    for rank in 0..2 {
        assert_eq!(states(&bench.step(exit(key(1, 1, rank), -1))).len(), 1);
    }
    let epilog = hook(&ended(&mut bench, prolog, Ok(()))).unwrap();
    assert_eq!(epilog.hook, Hook::Epilog);
    let effects = ended(&mut bench, epilog, Err("timed out"));
    assert!(events(&effects).any(|e| matches!(
        e,
        TaskEvent::HookFailed {
            hook: Hook::Epilog,
            ..
        }
    )));
}

#[test]
fn an_agent_that_was_restarted_owes_the_epilog() {
    let mut bench = bench();
    let memo = TaskMemo {
        user: "ada".into(),
        gpus: vec![3],
        ..TaskMemo::default()
    };
    let over = TaskExit {
        code: 0,
        at_ms: 5,
        reason: String::new(),
        node_fault: false,
    };
    let kept = |rank, phase| KeptTask {
        key: key(4, 1, rank),
        memo: memo.clone(),
        phase,
    };
    let effects = bench.step(Input::KeeperState {
        incarnation: 1,
        tasks: vec![
            kept(0, KeptPhase::Ended(over.clone())),
            kept(
                1,
                KeptPhase::Running {
                    pid: 9,
                    since_ms: 1,
                },
            ),
        ],
    });
    assert!(hook(&effects).is_none(), "one still runs");
    let epilog = hook(&bench.step(exit(key(4, 1, 1), 0))).unwrap();
    assert_eq!(
        (epilog.user.as_str(), epilog.gpus.as_slice()),
        ("ada", &[3][..])
    );
    let mut bench = self::bench();
    let effects = bench.step(Input::KeeperState {
        incarnation: 1,
        tasks: vec![kept(0, KeptPhase::Ended(over))],
    });
    let epilog = hook(&effects).unwrap();
    let running = |(_, state): &(_, TaskInventory)| matches!(state, TaskInventory::Running { .. });
    assert!(
        states(&effects).iter().all(running),
        "not told as over before its epilog"
    );
    let effects = ended(&mut bench, epilog, Ok(()));
    assert!(matches!(
        &states(&effects)[..],
        [(_, TaskInventory::Ended(_))]
    ));
}

#[test]
fn what_the_node_says_of_itself_is_told_once_and_with_each_registration() {
    let mut bench = Bench::connected();
    let host = |effects: &[Effect]| -> Vec<HostReport> {
        let of = |event: &TaskEvent| match event {
            TaskEvent::Host(host) => Some(host.clone()),
            _ => None,
        };
        events(effects).filter_map(of).collect()
    };
    let isolation = Isolation {
        kind: IsolationKind::Cgroup,
        ..Isolation::default()
    };
    let effects = bench.step(Input::Isolation(isolation.clone()));
    assert_eq!(host(&effects).len(), 1);
    assert_eq!(bench.step(Input::Isolation(isolation.clone())), []);
    assert_eq!(bench.step(Input::Fitness(Ok(()))), [], "nothing new");
    let effects = bench.step(Input::Fitness(Err("x".repeat(1_000))));
    let [told] = &host(&effects)[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(told.isolation, isolation);
    assert_eq!(told.unfit.as_ref().map(String::len), Some(400));
    let effects = bench.step(Input::Connected { session: 2 });
    let [Effect::Register { inventory, .. }] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(inventory.events, [TaskEvent::Host(told.clone())]);
    let effects = bench.step(Input::Fitness(Ok(())));
    assert_eq!(host(&effects)[0].unfit, None);
}
