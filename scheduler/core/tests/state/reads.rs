//! What callers see: views, lists, counts, and whether a job can ever start.

use std::sync::Arc;

use berth_core::apply::apply;
use berth_core::health::Telemetry;
use berth_core::query::{
    can_ever_fit, finished_view, job_view, jobs_by_state, list_jobs, matches_finished, node_view,
    nodes_by_state,
};
use berth_core::state::FinishedJob;
use berth_core::{Command, State};
use berth_types::api::JobFilter;
use berth_types::{JobId, JobSpec, JobState, NodeState};

use crate::make::{self, GIB};
use crate::script::Script;

fn script(lines: &[&str]) -> Script {
    let mut script = Script::new();
    for line in lines {
        script.line(line);
    }
    script
}

fn reason(state: &State, job: u64) -> (String, String) {
    let job = state.job(JobId(job)).expect("unfinished");
    let view = job_view(state, job, Some(("Resources", "needs 1 GPU")));
    (view.reason, view.reason_text)
}

#[test]
fn the_reason_is_what_is_known_for_certain_then_what_the_planner_says() {
    let script = script(&[
        "node n1 gpus=4",
        "node n2 gpus=4",
        "submit runs",
        "submit waits",
        "submit fails",
        "submit fences rule=fence",
        "submit evicted",
        "submit reserved",
        "start 1 n1:0",
        "start 3 n1:1",
        "exit 3 1",
        "start 4 n2:0",
        "lost n2",
        "start 5 n1:2",
        "evict 5 room then start 6 n1:2",
    ]);
    let state = &script.state;
    let code = |job| reason(state, job).0;
    assert_eq!(code(1), "");
    assert_eq!(reason(state, 2), ("Resources".into(), "needs 1 GPU".into()));
    assert_eq!(code(3), "BeginTime");
    assert_eq!(code(4), "NodeDown");
    assert!(reason(state, 4).1.contains("n2"), "{:?}", reason(state, 4));
    assert_eq!(reason(state, 5), ("Preempted".into(), "room".into()));
    assert_eq!(code(6), "Resources");
    assert!(reason(state, 6).1.contains("kept"));
    let job = state.job(JobId(2)).expect("waits");
    assert_eq!(job_view(state, job, None).reason, "None");
}

#[test]
fn a_view_names_the_nodes_of_its_attempts() {
    let script = script(&[
        "node n1 gpus=4",
        "node n2 gpus=4",
        "submit moves backoff=0",
        "start 1 n1:0",
        "exit 1 1",
        "start 1 n2:0",
    ]);
    let job = script.state.job(JobId(1)).expect("runs");
    let view = job_view(&script.state, job, None);
    let names: Vec<&str> = view.node_names.values().map(String::as_str).collect();
    assert_eq!(names, ["n1", "n2"]);
    assert_eq!(
        (view.state, view.restarts, view.past.len()),
        (JobState::Starting, 1, 1)
    );
}

fn ids(state: &State, filter: &JobFilter, before: Option<u64>, limit: usize) -> (Vec<u64>, bool) {
    let (jobs, more) = list_jobs(state, filter, before.map(JobId), limit);
    (jobs.iter().map(|j| j.id.0).collect(), more)
}

#[test]
fn lists_are_filtered_newest_first_in_pages() {
    let script = script(&[
        "node n1 gpus=4",
        "submit alpha",
        "submit beta",
        "submit alphabet",
        "submit gamma",
        "start 2 n1:0",
        "start 4 n1:1",
        "running 4",
    ]);
    let state = &script.state;
    let all = JobFilter::default();
    assert_eq!(ids(state, &all, None, 10), (vec![4, 3, 2, 1], false));
    assert_eq!(ids(state, &all, None, 3), (vec![4, 3, 2], true));
    assert_eq!(ids(state, &all, Some(2), 3), (vec![1], false));
    let states = |states: &[JobState]| JobFilter {
        states: states.to_vec(),
        ..JobFilter::default()
    };
    let active = states(&[JobState::Starting, JobState::Running]);
    assert_eq!(ids(state, &active, None, 10), (vec![4, 2], false));
    assert_eq!(ids(state, &active, Some(4), 10), (vec![2], false));
    let pending = states(&[JobState::Pending]);
    assert_eq!(ids(state, &pending, None, 1), (vec![3], true));
    let named = JobFilter {
        name_prefix: Some("alpha".into()),
        ..JobFilter::default()
    };
    assert_eq!(ids(state, &named, None, 10), (vec![3, 1], false));
    let numbered = JobFilter {
        id_prefix: Some("3".into()),
        user: Some("ann".into()),
        queue: Some("default".into()),
        ..JobFilter::default()
    };
    assert_eq!(ids(state, &numbered, None, 10), (vec![3], false));
    let others = JobFilter {
        user: Some("bob".into()),
        ..JobFilter::default()
    };
    assert_eq!(ids(state, &others, None, 10), (vec![], false));
}

fn cancelled(script: &mut Script, job: u64) -> FinishedJob {
    let command = Command::CancelJob {
        job: JobId(job),
        user: "bob".into(),
    };
    let entry = make::entry(0, vec![command]);
    let mut finished = apply(&mut script.state, 1, &entry).finished;
    finished.pop().expect("was waiting")
}

#[test]
fn finished_jobs_match_only_if_asked_for() {
    let mut script = script(&["submit over"]);
    let finished = cancelled(&mut script, 1);
    let view = finished_view(&finished);
    assert_eq!(
        (view.state, view.reason.as_str()),
        (JobState::Cancelled, "Cancelled")
    );
    assert_eq!(view.reason_text, "cancelled by bob");
    let mut filter = JobFilter::default();
    assert!(!matches_finished(&filter, &finished));
    filter.finished = true;
    assert!(matches_finished(&filter, &finished));
    filter.states = vec![JobState::Pending];
    assert!(!matches_finished(&filter, &finished));
    filter.finished = false;
    filter.states = vec![JobState::Cancelled];
    assert!(matches_finished(&filter, &finished));
    filter.name_prefix = Some("x".into());
    assert!(!matches_finished(&filter, &finished));
}

#[test]
fn counts_cover_every_job_and_node() {
    let mut script = script(&[
        "node n1 gpus=4",
        "node n2 gpus=4",
        "node n3 gpus=4",
        "submit a",
        "submit b",
        "submit c rule=wait",
        "submit d",
        "start 2 n1:0",
        "running 2",
        "start 3 n2:0",
        "lost n2",
        "drain n3",
    ]);
    cancelled(&mut script, 4);
    let counts: Vec<_> = jobs_by_state(&script.state).into_iter().collect();
    let expected = [
        (JobState::Pending, 1),
        (JobState::Running, 1),
        (JobState::Fencing, 1),
        (JobState::Cancelled, 1),
    ];
    assert_eq!(counts, expected);
    assert_eq!(nodes_by_state(&script.state), (1, 1, 1));
    let node = script.state.node_named("n1").expect("known");
    let view = node_view(&script.state, node, true, &Telemetry::new());
    assert_eq!(
        (view.state, view.tasks, view.connected),
        (NodeState::Ready, 1, true)
    );
    assert_eq!(view.used_milligpu, [1000, 0, 0, 0]);
    let lost = script.state.node_named("n2").expect("known");
    assert_eq!(
        node_view(&script.state, lost, false, &Telemetry::new()).reason,
        "no contact for 4 s"
    );
}

/// The fields at fault for a job on 2 nodes with 4 a100 of 40 GiB each (16 CPUs, 64 GiB) and one with 8 h100 of 80 GiB.
fn unfit(change: impl FnOnce(&mut JobSpec)) -> Vec<String> {
    let script = script(&[
        "node n1 gpus=4 label=disk:fast",
        "node n2 gpus=4",
        "node n3 gpus=8 model=h100 gpu_mem=80 cpu=4",
        "drain n1",
        "lost n2",
    ]);
    let mut spec = make::job("j", 1);
    change(&mut spec);
    match can_ever_fit(&script.state, &spec) {
        Ok(()) => Vec::new(),
        Err(faults) => faults.into_iter().map(|f| f.field).collect(),
    }
}

#[test]
fn what_fits_the_empty_cluster_is_let_in() {
    // Lost and draining nodes count: they may come back.
    assert_eq!(unfit(|_| {}), [""; 0]);
    assert_eq!(unfit(|s| s.groups[0].min_workers = 8 + 4), [""; 0]);
    assert_eq!(
        unfit(|s| s.groups[0].resources.gpu_types = vec!["A100".into()]),
        [""; 0]
    );
    assert_eq!(unfit(|s| s.groups[0].resources.milligpu = 8000), [""; 0]);
    assert_eq!(
        unfit(|s| s.groups[0].resources.gpu_mem_bytes = 80 * GIB),
        [""; 0]
    );
    assert_eq!(
        unfit(|s| {
            s.groups[0].node_labels.insert("disk".into(), "fast".into());
        }),
        [""; 0]
    );
    let fractions = |s: &mut JobSpec| {
        s.groups[0].resources.milligpu = 250;
        s.groups[0].resources.millicpu = 0;
        s.groups[0].min_workers = 64;
    };
    assert_eq!(unfit(fractions), [""; 0]);
}

/// A change that makes a job too large, and the field that says so.
type Case = (&'static str, fn(&mut JobSpec));

#[test]
fn what_never_fits_names_its_field() {
    let cases: &[Case] = &[
        ("groups[0].resources.gpus", |s| {
            s.groups[0].resources.milligpu = 9000
        }),
        ("groups[0].resources.gpu_types", |s| {
            s.groups[0].resources.gpu_types = vec!["b200".into()];
        }),
        ("groups[0].resources.gpu_types", |s| {
            s.groups[0].resources.milligpu = 5000;
            s.groups[0].resources.gpu_types = vec!["a100".into()];
        }),
        ("groups[0].resources.gpu_memory", |s| {
            s.groups[0].resources.gpu_mem_bytes = 81 * GIB;
        }),
        ("groups[0].resources.cpus", |s| {
            s.groups[0].resources.millicpu = 16_001
        }),
        ("groups[0].resources.memory", |s| {
            s.groups[0].resources.mem_bytes = 65 * GIB;
        }),
        ("groups[0].resources", |s| {
            s.groups[0].resources.milligpu = 8000;
            s.groups[0].resources.millicpu = 5_000;
        }),
        ("groups[0].node_labels", |s| {
            s.groups[0].node_labels.insert("disk".into(), "slow".into());
        }),
        // 4 + 4 a100 and, by its 4 CPUs, 4 of the h100.
        ("groups[0].min_workers", |s| s.groups[0].min_workers = 13),
        ("groups", |s| {
            s.groups[0].min_workers = 9;
            s.groups.push(make::group("more", 8));
        }),
    ];
    for (field, change) in cases {
        assert_eq!(unfit(change), [*field]);
    }
}

#[test]
fn an_empty_cluster_lets_everything_in() {
    let spec = make::job("j", 1000);
    assert_eq!(can_ever_fit(&State::new(), &spec), Ok(()));
    assert!(Arc::new(spec).faults().is_empty());
}
