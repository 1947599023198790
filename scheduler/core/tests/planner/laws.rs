//! Laws over random clusters, queues and happenings: whatever the planner emits is accepted whole by `apply` on the
//! same state, nothing is over-committed (the lab checks the invariants after each command), equal views give equal
//! plans, and nothing that fits is left lying.

use std::collections::BTreeMap;

use berth_core::Command;
use berth_core::planner::Plan;
use berth_core::policy::{Action, Backfill, Proposal, ProposedBundle};
use berth_core::state::{Job, Node, State};
use berth_types::api::Drain;
use berth_types::{JobId, JobSpec, MILLI, NodeId, Resources, TaskPlacement};
use proptest::prelude::*;

use crate::lab::{self, GIB, Lab};

/// Something that happens.
#[derive(Clone, Debug)]
enum Happening {
    Submit(Request),
    Round(u8),
    /// A bundle of actions: kind, job, workers.
    Propose(Vec<(u8, u8, u8)>),
    End(u8, bool),
    Stopped,
    Drain(u8, u8),
    Lose(u8),
    Wait(u16),
}

#[derive(Clone, Debug)]
struct Request {
    workers: u8,
    more: u8,
    milligpu: u32,
    cpus: u8,
    mem_gib: u8,
    kind: u8,
    limit: u8,
    expected: u8,
    second_group: bool,
    now: bool,
    priority: u8,
}

fn request() -> impl Strategy<Value = Request> {
    let milligpu = prop::sample::select(vec![0, 250, 400, 500, 1000, 1000, 2000, 4000]);
    let sizes = (1u8..5, 0u8..4, milligpu, 0u8..12, 0u8..32);
    let rest = (0u8..6, 0u8..3, 0u8..3, any::<bool>(), 0u8..10, 0u8..3);
    (sizes, rest).prop_map(|((workers, more, milligpu, cpus, mem_gib), rest)| {
        let (kind, limit, expected, second, now, priority) = rest;
        Request {
            workers,
            more,
            milligpu,
            cpus,
            mem_gib,
            kind,
            limit,
            expected,
            second_group: second && now % 3 == 0,
            now: now == 0,
            priority,
        }
    })
}

fn happening() -> impl Strategy<Value = Happening> {
    let action = (0u8..5, any::<u8>(), 0u8..6);
    prop_oneof![
        5 => request().prop_map(Happening::Submit),
        5 => (0u8..3).prop_map(Happening::Round),
        3 => prop::collection::vec(action, 1..4).prop_map(Happening::Propose),
        3 => (any::<u8>(), any::<bool>()).prop_map(|(job, ok)| Happening::End(job, ok)),
        1 => Just(Happening::Stopped),
        1 => (any::<u8>(), 0u8..3).prop_map(|(node, how)| Happening::Drain(node, how)),
        1 => any::<u8>().prop_map(Happening::Lose),
        2 => (0u16..20_000).prop_map(Happening::Wait),
    ]
}

fn spec(request: &Request) -> JobSpec {
    let mut spec = lab::job(u32::from(request.workers), request.milligpu);
    let group = &mut spec.groups[0];
    group.max_workers += u32::from(request.more);
    let resources = &mut group.resources;
    resources.millicpu = 1_000 * u32::from(request.cpus);
    resources.mem_bytes = GIB * u64::from(request.mem_gib);
    match request.kind {
        0 if request.milligpu > 0 => resources.gpu_types = vec!["H100".to_owned()],
        1 if request.milligpu > 0 => resources.gpu_mem_bytes = 64 * GIB,
        2 => {
            group.node_labels.insert("zone".to_owned(), "a".to_owned());
        }
        _ => {}
    }
    if request.second_group {
        let mut second = lab::group(1, 0);
        second.name = "second".to_owned();
        second.resources.millicpu = 2_000;
        spec.groups.push(second);
    }
    spec.time_limit_ms = 5_000 * u64::from(request.limit);
    spec.expected_ms = 4_000 * u64::from(request.expected);
    spec.grace_ms = 1_000;
    spec.start_now = request.now;
    spec.priority = i32::from(request.priority);
    spec
}

fn cluster(nodes: &[(u8, u8)]) -> Lab {
    let mut lab = Lab::new();
    for (index, (gpus, kind)) in nodes.iter().enumerate() {
        let model = if kind % 2 == 0 { "a100" } else { "h100" };
        let mut spec = lab::node(&format!("n{index}"), u16::from(*gpus), model);
        spec.millicpu = 16_000 + 8_000 * u32::from(kind % 3);
        spec.mem_bytes = 64 * GIB;
        spec.rack = ["", "r1", "r2"][usize::from(kind % 3)].to_owned();
        spec.port_count = 1 + 3 * u16::from(kind % 4);
        for gpu in &mut spec.gpus {
            gpu.nvlink_group *= u16::from(kind % 2);
            gpu.mem_bytes = if kind % 5 == 0 { 80 * GIB } else { 40 * GIB };
        }
        if kind % 2 == 0 {
            spec.labels.insert("zone".to_owned(), "a".to_owned());
        }
        lab.add_node(spec);
    }
    lab
}

fn pick<T: Copy>(items: &[T], at: u8) -> Option<T> {
    items.get(usize::from(at) % items.len().max(1)).copied()
}

fn happen(lab: &mut Lab, what: &Happening) {
    match what {
        Happening::Submit(request) => {
            // A job that can never fit is refused; that is no concern of the planner's.
            let _ = lab.submit(spec(request));
        }
        Happening::Round(backfill) => round(lab, *backfill),
        Happening::Propose(actions) => propose(lab, actions),
        Happening::End(job, ok) => {
            let active: Vec<JobId> = lab.state.active.iter().copied().collect();
            if let Some(job) = pick(&active, *job) {
                lab.end(job, i32::from(!*ok));
            }
        }
        Happening::Stopped => lab.stop_stopping(),
        Happening::Drain(node, how) => {
            let nodes: Vec<NodeId> = lab.state.nodes.keys().copied().collect();
            if let Some(node) = pick(&nodes, *node) {
                let drain = (*how > 0).then(|| Drain {
                    reason: String::new(),
                    evict: *how > 1,
                });
                lab.commit(Command::SetDrain { node, drain });
            }
        }
        Happening::Lose(node) => {
            let nodes: Vec<NodeId> = lab.state.nodes.keys().copied().collect();
            let Some(node) = pick(&nodes, *node) else {
                return;
            };
            let spec = lab.state.nodes[&node].spec.clone();
            let reason = String::new();
            lab.commit(Command::MarkNodeLost { node, reason });
            if node.0.is_multiple_of(2) {
                lab.commit(Command::RegisterNode {
                    spec,
                    incarnation: lab.now_ms,
                });
            }
        }
        Happening::Wait(ms) => lab.now_ms += u64::from(*ms),
    }
}

fn round(lab: &mut Lab, backfill: u8) {
    let backfill = match backfill {
        0 => Backfill::BehindReservation,
        1 => Backfill::Greedy,
        _ => Backfill::Strict,
    };
    let proposal = lab::in_order(&lab.state, backfill);
    let plan = lab.plan(&proposal);
    assert_eq!(plan, lab.plan(&proposal), "equal views give equal plans");
    lab.says_the_same_in_turn(backfill, &plan);
    check_plan(&lab.state, &plan);
    lab.carry_out(&plan);
    for bundle in plan
        .bundles
        .iter()
        .filter(|bundle| bundle.evictions.is_empty())
    {
        for start in &bundle.starts {
            lab.run(start.job);
        }
    }
    if backfill == Backfill::Greedy {
        nothing_that_fits_is_left(lab);
    }
    everything_is_explained(lab, &plan);
}

fn propose(lab: &mut Lab, actions: &[(u8, u8, u8)]) {
    let pending: Vec<JobId> = lab.state.pending.iter().map(|key| key.job).collect();
    let active: Vec<JobId> = lab.state.active.iter().copied().collect();
    let actions: Vec<Action> = actions
        .iter()
        .filter_map(|&(kind, job, workers)| {
            let workers = vec![u32::from(workers)];
            Some(match kind {
                0 => Action::Stop(pick(&active, job)?),
                1 => Action::Resize {
                    job: pick(&active, job)?,
                    workers,
                    slots: None,
                },
                2 => Action::Start {
                    job: pick(&pending, job)?,
                    workers: Some(workers),
                    slots: None,
                },
                3 => Action::Start {
                    job: pick(&pending, job)?,
                    workers: None,
                    slots: Some(made_up_slots(workers[0], job)),
                },
                _ => Action::Start {
                    job: pick(&pending, job)?,
                    workers: None,
                    slots: None,
                },
            })
        })
        .collect();
    let bundle = ProposedBundle {
        actions,
        score: f64::NAN,
        reason: String::new(),
    };
    let proposal = Proposal {
        bundles: vec![bundle],
        backfill: Backfill::BehindReservation,
        ..Proposal::default()
    };
    let plan = lab.plan(&proposal);
    check_plan(&lab.state, &plan);
    lab.carry_out(&plan);
}

/// Slots that sometimes hold.
fn made_up_slots(workers: u32, dice: u8) -> Vec<TaskPlacement> {
    (0..workers.max(1))
        .map(|rank| TaskPlacement {
            rank: berth_types::Rank(rank),
            group: 0,
            node: NodeId(1 + u32::from(dice % 7)),
            gpus: vec![berth_types::GpuShare {
                gpu: u16::from(dice % 3) + u16::try_from(rank).unwrap_or(0),
                milligpu: MILLI,
            }],
        })
        .collect()
}

/// Gangs are whole, sizes are within bounds, and every waiting job waits for one reason.
fn check_plan(state: &State, plan: &Plan) {
    for start in plan.bundles.iter().flat_map(|bundle| &bundle.starts) {
        let job = state.job(start.job).expect("it exists");
        let mut sizes = vec![0; job.spec.groups.len()];
        for task in &start.placements {
            sizes[usize::from(task.group)] += 1;
        }
        for (group, size) in job.spec.groups.iter().zip(sizes) {
            assert!((group.min_workers..=group.max_workers).contains(&size));
        }
        assert!(!start.because.is_empty());
        assert!(
            !plan.waiting.contains_key(&start.job),
            "started, and told to wait"
        );
    }
    assert!(plan.waiting.values().all(|reason| !reason.text.is_empty()));
}

/// By an independent count: no pending job of one group fits.
fn nothing_that_fits_is_left(lab: &Lab) {
    for key in &lab.state.pending {
        let job = lab.state.job(key.job).expect("it is pending");
        let [group] = job.spec.groups.as_slice() else {
            continue;
        };
        let reserved = lab.state.reservations.contains_key(&job.id);
        if job.not_before_ms > lab.now_ms || reserved {
            continue;
        }
        let needs_port = group.max_workers > 1;
        let room: u32 = (lab.state.nodes.values())
            .filter(|node| !needs_port || node.ports.len() < usize::from(node.spec.port_count))
            .map(|node| workers_on(node, job))
            .sum();
        assert!(room < group.min_workers, "job {} fits and was left", job.id);
    }
}

fn workers_on(node: &Node, job: &Job) -> u32 {
    let group = &job.spec.groups[0];
    let labels = group
        .node_labels
        .iter()
        .all(|(k, v)| node.spec.labels.get(k) == Some(v));
    if !node.is_schedulable() || !labels {
        return 0;
    }
    let r = &group.resources;
    let free: BTreeMap<usize, u32> = (node.spec.gpus.iter().enumerate())
        .filter(|(_, gpu)| gpu.mem_bytes >= r.gpu_mem_bytes && type_suits(r, &gpu.model))
        .map(|(index, _)| {
            let used = node.gpus[index];
            (index, MILLI.saturating_sub(used.milligpu + used.reserved))
        })
        .collect();
    let mut workers = 64;
    if r.milligpu >= MILLI {
        let whole = free.values().filter(|free| **free == MILLI).count();
        workers = workers.min(u32::try_from(whole).unwrap_or(0) / r.devices());
    } else if r.milligpu > 0 {
        workers = workers.min(free.values().map(|free| free / r.milligpu).sum());
    }
    let (Some(cpu), Some(mem)) = (
        node.spec.millicpu.checked_sub(node.used_millicpu),
        node.spec.mem_bytes.checked_sub(node.used_mem_bytes),
    ) else {
        return 0;
    };
    workers = workers.min(cpu.checked_div(r.millicpu).unwrap_or(workers));
    workers.min(u32::try_from(mem.checked_div(r.mem_bytes).unwrap_or(64)).unwrap_or(64))
}

fn type_suits(r: &Resources, model: &str) -> bool {
    r.gpu_types.is_empty() || r.gpu_types.iter().any(|t| t.eq_ignore_ascii_case(model))
}

/// `why` has an answer for every job, whatever happened.
fn everything_is_explained(lab: &Lab, plan: &Plan) {
    for job in lab.state.jobs.values() {
        let told = plan.waiting.get(&job.id);
        let parts = berth_core::planner::why(&lab.state, job, told, lab.now_ms);
        assert!(!parts.reason.is_empty() && !parts.text.is_empty());
        assert_eq!(
            parts.unblock.is_empty(),
            job.attempt.is_some() && job.fencing.is_none()
        );
    }
}

/// A gang was left though it fitted: an evicted job's next start had leased the last port, which no reservation keeps.
#[test]
fn a_reserved_start_takes_no_port_from_a_gang() {
    let request = |workers: u8, milligpu: u32, now: bool| {
        Happening::Submit(Request {
            workers,
            more: 0,
            milligpu,
            cpus: 0,
            mem_gib: 0,
            kind: 3,
            limit: 0,
            expected: 0,
            second_group: false,
            now,
            priority: 0,
        })
    };
    let mut lab = cluster(&[(0, 0), (2, 12)]);
    happen(&mut lab, &request(1, 0, false));
    round(&mut lab, 0);
    let node = lab.state.jobs.values().next().expect("it was submitted");
    let node = node.attempt.as_ref().expect("it fits").tasks[0]
        .placement
        .node;
    lab.commit(Command::SetDrain {
        node,
        drain: Some(Drain {
            reason: String::new(),
            evict: true,
        }),
    });
    happen(&mut lab, &request(2, 0, false));
    round(&mut lab, 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_bundle_is_accepted_and_nothing_is_over_committed(
        nodes in prop::collection::vec((0u8..9, any::<u8>()), 1..7),
        happenings in prop::collection::vec(happening(), 1..60),
    ) {
        let mut lab = cluster(&nodes);
        for what in &happenings {
            happen(&mut lab, what);
        }
        round(&mut lab, 1);
    }
}
