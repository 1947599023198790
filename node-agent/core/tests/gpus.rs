//! When a GPU that is read from a driver is handed out, and who must leave it.

#![allow(clippy::unwrap_used)]

#[allow(dead_code)] // shared with other tests
mod bench;

use bench::{Bench, exit, key, launch};
use berth_agent_core::gpus::{FREE_TOLERANCE_BYTES, PATIENCE_MS, Tenants, Verdict, judge};
use berth_agent_core::{Effect, GpuFact, GpuProcessFact, Input};
use berth_types::telemetry::GpuCondition;
use berth_types::{GpuShare, LaunchTask, TaskKey};

const GIB: u64 = 1 << 30;

fn process(pid: u32, mem_bytes: Option<u64>, claim: Option<TaskKey>) -> GpuProcessFact {
    GpuProcessFact {
        pid,
        start_ticks: Some(7),
        mem_bytes,
        claim,
        ancestors: Vec::new(),
    }
}

fn seen(look: u64, used_bytes: Option<u64>, processes: &[GpuProcessFact]) -> GpuFact {
    GpuFact {
        look,
        condition: GpuCondition::Answering,
        used_bytes,
        processes: processes.to_vec(),
        digest: None,
    }
}

fn in_state(condition: GpuCondition) -> GpuFact {
    GpuFact {
        condition,
        ..seen(9, Some(0), &[])
    }
}

fn says(fact: &GpuFact, tenants: &Tenants) -> String {
    match judge(fact, 3, tenants) {
        Verdict::Free => "free".into(),
        Verdict::NotYet(why) => format!("not yet: {why}"),
        Verdict::Broken(why) => format!("broken: {why}"),
    }
}

#[test]
fn a_gpu_is_free_only_when_its_memory_is() {
    let over = key(2, 1, 0);
    let small = FREE_TOLERANCE_BYTES;
    for (fact, verdict) in [
        (seen(3, Some(0), &[]), "free"),
        (seen(3, None, &[]), "free"),
        (seen(3, Some(small), &[]), "free"),
        (
            seen(2, Some(0), &[]),
            "not yet: was not looked at since its last task ended",
        ),
        (
            seen(3, Some(2 * GIB), &[]),
            "not yet: 2048 MiB of its memory are still in use",
        ),
        // Somebody else's: a monitor is small, a program is not.
        (
            seen(3, Some(small), &[process(5, Some(small), None)]),
            "free",
        ),
        (
            seen(3, Some(GIB), &[process(5, Some(GIB), None)]),
            "not yet: process 5 of somebody else still holds 1024 MiB of it",
        ),
        (seen(3, None, &[process(5, None, None)]), "free"),
        // What is left of a task is too much, however small.
        (
            seen(3, Some(0), &[process(5, Some(0), Some(over))]),
            "not yet: process 5 of task 2.1.0, which is over still holds 0 MiB of it",
        ),
        (
            seen(3, Some(0), &[process(5, None, Some(over))]),
            "not yet: process 5 of task 2.1.0, which is over still holds 0 MiB of it",
        ),
    ] {
        assert_eq!(says(&fact, &Tenants::default()), verdict, "{fact:?}");
    }
}

#[test]
fn tenants_of_a_shared_gpu_keep_what_they_have() {
    let tenant = key(1, 1, 0);
    let mut tenants = Tenants::default();
    tenants.holders.insert(tenant);
    tenants.pids.insert(500, tenant);
    let child = GpuProcessFact {
        ancestors: vec![501, 500],
        ..process(9, Some(20 * GIB), None)
    };
    for (fact, verdict) in [
        (
            seen(
                3,
                Some(20 * GIB),
                &[process(5, Some(20 * GIB), Some(tenant))],
            ),
            "free",
        ),
        (
            seen(3, Some(20 * GIB), std::slice::from_ref(&child)),
            "free",
        ),
        (
            seen(3, Some(20 * GIB), &[process(500, Some(20 * GIB), None)]),
            "free",
        ),
        (
            seen(
                3,
                Some(23 * GIB),
                &[process(5, Some(20 * GIB), Some(tenant))],
            ),
            "not yet: 3072 MiB of its memory are still in use",
        ),
        (
            seen(3, Some(23 * GIB), &[process(5, None, Some(tenant))]),
            "free",
        ),
    ] {
        assert_eq!(says(&fact, &tenants), verdict, "{fact:?}");
    }
    // The same child without its parent among the tenants is a stranger.
    let strange = seen(3, Some(20 * GIB), &[child]);
    assert!(says(&strange, &Tenants::default()).starts_with("not yet: process 9 of somebody else"));
}

#[test]
fn a_gpu_that_does_not_answer_is_not_free() {
    for (fact, verdict) in [
        (
            in_state(GpuCondition::Unknown),
            "not yet: was not heard of yet",
        ),
        (
            in_state(GpuCondition::Unresponsive),
            "not yet: does not answer: a call to its driver hangs",
        ),
        (
            in_state(GpuCondition::Lost),
            "broken: fell off the bus or is not listed by the driver",
        ),
        (
            in_state(GpuCondition::ResetRequired),
            "broken: needs a reset",
        ),
    ] {
        assert_eq!(says(&fact, &Tenants::default()), verdict);
    }
}

fn on_gpu(key: TaskKey, gpu: u16) -> LaunchTask {
    LaunchTask {
        gpus: vec![GpuShare {
            gpu,
            milligpu: 1_000,
        }],
        ..launch(key)
    }
}

fn gpu(number: u16, fact: GpuFact) -> Input {
    Input::Gpu { gpu: number, fact }
}

fn look(effects: &[Effect]) -> Option<u64> {
    effects.iter().find_map(|effect| match effect {
        Effect::LookAtGpus { look } => Some(*look),
        _ => None,
    })
}

fn prepares(effects: &[Effect]) -> bool {
    effects.iter().any(|e| matches!(e, Effect::Prepare { .. }))
}

fn refusal(effects: &[Effect]) -> Option<(String, bool)> {
    effects.iter().find_map(|effect| match effect {
        Effect::PersistExit { exit, .. } => Some((exit.reason.clone(), exit.node_fault)),
        _ => None,
    })
}

/// Two GPUs from a driver, both free.
fn two_free() -> Bench {
    let mut bench = Bench::connected();
    bench.step(Input::Gpus { count: 2 });
    for number in 0..2 {
        bench.step(gpu(number, seen(0, Some(0), &[])));
    }
    bench
}

#[test]
fn declared_gpus_hold_nothing_up() {
    let mut bench = Bench::connected();
    let effects = bench.direct(|d| d.launch.push(on_gpu(key(1, 1, 0), 5)));
    assert!(prepares(&effects));
}

#[test]
fn a_task_waits_for_a_look_that_began_after_the_last_one_ended() {
    let mut bench = two_free();
    bench.run_task(on_gpu(key(1, 1, 0), 0));
    let effects = bench.step(exit(key(1, 1, 0), 0));
    let needed = look(&effects).unwrap();
    let effects = bench.direct(|d| {
        d.launch.push(on_gpu(key(2, 1, 0), 0));
        d.launch.push(on_gpu(key(3, 1, 0), 1));
    });
    // The other GPU is not concerned.
    let prepared: Vec<TaskKey> = effects
        .iter()
        .filter_map(|e| match e {
            Effect::Prepare { launch } => Some(launch.key),
            _ => None,
        })
        .collect();
    assert_eq!(prepared, [key(3, 1, 0)]);
    // A look that began before says nothing, whatever it saw.
    assert!(!prepares(
        &bench.step(gpu(0, seen(needed - 1, Some(0), &[])))
    ));
    let full = seen(needed, Some(40 * GIB), &[]);
    assert!(!prepares(&bench.step(gpu(0, full))));
    assert!(prepares(&bench.step(gpu(0, seen(needed, Some(0), &[])))));
}

#[test]
fn a_look_is_asked_for_again_until_the_gpu_is_free() {
    let mut bench = two_free();
    bench.run_task(on_gpu(key(1, 1, 0), 0));
    let first = look(&bench.step(exit(key(1, 1, 0), 0))).unwrap();
    bench.direct(|d| d.launch.push(on_gpu(key(2, 1, 0), 0)));
    let mut asked = Vec::new();
    for _ in 0..20 {
        asked.extend(look(&bench.tick(100)));
    }
    assert!((3..=5).contains(&asked.len()), "{asked:?}");
    assert!(asked.iter().all(|number| *number > first));
    assert!(prepares(&bench.step(gpu(0, seen(first, Some(0), &[])))));
    assert_eq!(look(&bench.tick(1_000)), None);
}

#[test]
fn a_node_whose_gpu_does_not_get_free_is_to_blame() {
    let mut bench = two_free();
    bench.run_task(on_gpu(key(1, 1, 0), 0));
    bench.step(exit(key(1, 1, 0), 0));
    bench.direct(|d| d.launch.push(on_gpu(key(2, 1, 0), 0)));
    let stuck = seen(99, Some(40 * GIB), &[process(5, Some(40 * GIB), None)]);
    bench.step(gpu(0, stuck));
    assert_eq!(refusal(&bench.tick(PATIENCE_MS - 100)), None);
    let (reason, node_fault) = refusal(&bench.tick(100)).unwrap();
    assert!(node_fault);
    assert_eq!(
        reason,
        "never started: waited 30 s: GPU 0 process 5 of somebody else still holds 40960 MiB of it"
    );
}

#[test]
fn a_lost_gpu_is_refused_at_once() {
    let mut bench = two_free();
    bench.step(gpu(1, in_state(GpuCondition::Lost)));
    let effects = bench.direct(|d| d.launch.push(on_gpu(key(2, 1, 0), 1)));
    let (reason, node_fault) = refusal(&effects).unwrap();
    assert!(
        node_fault && reason.contains("GPU 1 fell off the bus"),
        "{reason}"
    );
}

#[test]
fn a_task_that_waits_for_its_gpu_can_be_stopped() {
    let mut bench = two_free();
    bench.step(gpu(0, in_state(GpuCondition::Unresponsive)));
    assert!(!prepares(
        &bench.direct(|d| d.launch.push(on_gpu(key(2, 1, 0), 0)))
    ));
    let effects = bench.direct(|d| {
        d.stop.push(berth_types::Tombstone {
            job: key(2, 1, 0).job,
            through: key(2, 1, 0).epoch,
        });
    });
    assert!(
        refusal(&effects)
            .unwrap()
            .0
            .starts_with("never started: stopped")
    );
    assert!(!prepares(&bench.step(gpu(0, seen(9, Some(0), &[])))));
}

#[test]
fn processes_of_tasks_that_are_over_are_ended() {
    let mut bench = two_free();
    bench.run_task(on_gpu(key(1, 1, 0), 0));
    let at_work = seen(1, Some(GIB), &[process(5, Some(GIB), Some(key(1, 1, 0)))]);
    let ends = |effects: &[Effect]| {
        effects
            .iter()
            .any(|e| matches!(e, Effect::EndProcess { .. }))
    };
    assert!(!ends(&bench.step(gpu(0, at_work.clone()))));
    bench.step(exit(key(1, 1, 0), 0));
    let effects = bench.step(gpu(0, at_work.clone()));
    let ended = Effect::EndProcess {
        key: key(1, 1, 0),
        pid: 5,
        start_ticks: 7,
        gpu: 0,
    };
    assert!(effects.contains(&ended), "{effects:?}");
    // Also when nobody remembers the task, and never those of others or those that cannot be told apart.
    let forgotten = process(6, Some(GIB), Some(key(77, 1, 0)));
    let nameless = GpuProcessFact {
        start_ticks: None,
        ..forgotten.clone()
    };
    assert!(ends(&bench.step(gpu(1, seen(2, Some(GIB), &[forgotten])))));
    assert!(!ends(&bench.step(gpu(1, seen(2, Some(GIB), &[nameless])))));
    assert!(!ends(&bench.step(gpu(
        1,
        seen(2, Some(GIB), &[process(8, Some(GIB), None)])
    ))));
}

#[test]
fn nothing_is_ended_before_the_keeper_has_spoken() {
    use berth_agent_core::{AgentConfig, AgentCore, Fence};
    let mut core = AgentCore::new(AgentConfig::default(), Fence::default(), 0);
    let mut effects = Vec::new();
    core.step(0, Input::Gpus { count: 1 }, &mut effects);
    let fact = seen(0, Some(GIB), &[process(5, Some(GIB), Some(key(1, 1, 0)))]);
    core.step(0, gpu(0, fact), &mut effects);
    assert_eq!(effects, []);
}
