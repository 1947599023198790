//! Random commands that fit the state they meet: mostly what a leader would propose, some of it stale or made up.

use std::sync::Arc;

use berth_core::state::{Job, Node, State};
use berth_core::{Bundle, Command, Eviction, Start};
use berth_types::api::{Drain, Progress};
use berth_types::{
    CheckpointRecord, Epoch, Evidence, Finding, GpuShare, Grant, HealthOrder, Identity, JobId,
    JobSpec, JoinToken, LostNodeRule, NodeId, Outage, Rank, Role, Sign, TaskExit, TaskInventory,
    TaskKey, TaskPhase, TaskPlacement,
};

use crate::make::{self, GIB};

/// A kind of command and three numbers to choose its details by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dice {
    pub(crate) kind: u8,
    pub(crate) a: u16,
    pub(crate) b: u16,
    pub(crate) c: u16,
}

/// Kinds that [`command`] knows.
pub(crate) const KINDS: u8 = 36;

pub(crate) fn command(state: &State, now_ms: u64, dice: Dice) -> Command {
    match dice.kind {
        0..=3 => submit(dice),
        4..=8 => plan(state, dice),
        9..=12 => tasks(state, dice, TaskInventory::Running { since_ms: now_ms }),
        13..=16 => tasks(state, dice, ended(0, now_ms, false)),
        17 | 18 => {
            let code = [1, 75, 139, -1][usize::from(dice.c % 4)];
            tasks(state, dice, ended(code, now_ms, code < 0))
        }
        19..=23 => node_command(state, dice),
        32 | 33 => certificate_command(state, now_ms, dice),
        34 | 35 => health_command(state, now_ms, dice),
        _ => job_command(state, now_ms, dice),
    }
}

/// Few keys, so that some are repeated, with the same or another payload.
fn submit(mut dice: Dice) -> Command {
    dice.a %= 100;
    if dice.kind == 3 {
        dice.b = dice.a;
    }
    let number = u64::from(dice.a);
    make::submit(make::key(1_000_000 + number, number), spec(dice))
}

fn spec(dice: Dice) -> JobSpec {
    let Dice { a, b, .. } = dice;
    let mut spec = make::job(&format!("j{}", a % 7), 1 + u32::from(b % 3));
    let group = &mut spec.groups[0];
    group.max_workers += u32::from(a % 2);
    group.gang = b % 5 != 0;
    group.resources.milligpu = [0, 300, 500, 1000, 1000, 2000][usize::from(b % 6)];
    group.resources.millicpu = 500 * u32::from(a % 4);
    group.resources.mem_bytes = GIB * u64::from(a % 3);
    if b % 11 == 0 {
        spec.groups.push(make::group("ps", 1));
    }
    spec.priority = i32::from(a % 3);
    spec.restart.on_lost_node = match a % 3 {
        0 => LostNodeRule::Restart,
        1 => LostNodeRule::Fence,
        _ => LostNodeRule::Wait,
    };
    spec.restart.max_restarts = u32::from(b % 3);
    spec.restart.backoff_ms = u64::from(a % 4) * 100;
    spec.time_limit_ms = u64::from(b % 2) * 5_000;
    spec.start_now = a.is_multiple_of(13);
    if a.is_multiple_of(29) {
        spec.name.clear();
    }
    spec
}

fn health_command(state: &State, now_ms: u64, dice: Dice) -> Command {
    let Dice { a, b, c, .. } = dice;
    let node = pick_node(state, a);
    let gpu = (b % 7 != 0).then_some(b % 5);
    let record = state.health.get(&node).and_then(|h| h.of(gpu));
    let evidence = match c % 12 {
        0 if b % 3 == 0 => {
            let order = HealthOrder::Quarantine {
                reason: "by hand".into(),
            };
            return Command::OrderHealth { node, gpu, order };
        }
        0 | 1 => {
            let order = HealthOrder::Return;
            return Command::OrderHealth { node, gpu, order };
        }
        2 | 3 => return Command::ReviewHealth { node, gpu },
        4 | 5 => Evidence::Xid {
            xid: [13, 31, 48, 74, 79, 94, 151, 999][usize::from(b % 8)],
            at_ms: now_ms,
        },
        6 => Evidence::Out(Outage::Lost),
        7 => Evidence::Back,
        8 => Evidence::Sign {
            sign: Sign::Hot,
            points: u32::from(b) * 10,
            text: "hot".into(),
        },
        9 => Evidence::Forecast {
            per_mille: u32::from(b % 1000),
            text: "errors grow".into(),
        },
        _ => Evidence::Checked {
            number: record.map_or(0, |record| record.tests),
            passed: b % 2 == 0,
            text: "looked at".into(),
        },
    };
    let findings = vec![Finding { gpu, evidence }];
    Command::RecordHealth { node, findings }
}

fn pick<T>(mut items: impl ExactSizeIterator<Item = T>, at: u16) -> Option<T> {
    let count = items.len().max(1);
    items.nth(usize::from(at) % count)
}

fn pick_node(state: &State, at: u16) -> NodeId {
    let known = pick(
        state.nodes.keys().copied().collect::<Vec<_>>().into_iter(),
        at,
    );
    known
        .filter(|_| !at.is_multiple_of(17))
        .unwrap_or(NodeId(u32::from(at)))
}

fn pick_job(state: &State, at: u16) -> JobId {
    let known = pick(
        state.jobs.keys().copied().collect::<Vec<_>>().into_iter(),
        at,
    );
    known
        .filter(|_| !at.is_multiple_of(17))
        .unwrap_or(JobId(u64::from(at)))
}

fn pick_pending(state: &State, at: u16) -> Option<Arc<Job>> {
    let ids: Vec<JobId> = state.pending.iter().map(|k| k.job).collect();
    pick(ids.into_iter(), at).and_then(|id| state.job(id).cloned())
}

fn pick_active(state: &State, at: u16) -> Option<Arc<Job>> {
    let ids: Vec<JobId> = state.active.iter().copied().collect();
    pick(ids.into_iter(), at).and_then(|id| state.job(id).cloned())
}

fn plan(state: &State, dice: Dice) -> Command {
    let mut bundles = Vec::new();
    // What is kept and vacated is started first, as the planner does.
    for reservation in state
        .reservations
        .values()
        .filter(|r| r.waits_for.is_empty())
    {
        if let Some(job) = state.job(reservation.job) {
            let start = start(state, job, reservation.placements.clone());
            bundles.push(Bundle {
                evictions: Vec::new(),
                starts: vec![start],
            });
        }
    }
    let pending = pick_pending(state, dice.a);
    if let Some(job) = pending {
        bundles.push(if dice.kind == 8 {
            evicting(state, &job, dice)
        } else {
            let placements = first_fit(state, &job, dice.b);
            let mut start = start(state, &job, placements);
            if dice.kind == 7 {
                spoil(&mut start, dice);
            }
            Bundle {
                evictions: Vec::new(),
                starts: vec![start],
            }
        });
    }
    Command::ApplyPlan { plan: 1, bundles }
}

fn start(state: &State, job: &Job, placements: Vec<TaskPlacement>) -> Start {
    let first = placements.first().and_then(|p| state.nodes.get(&p.node));
    let free = |node: &Node| (20_000..20_100).find(|p| !node.ports.contains_key(p));
    Start {
        job: job.id,
        epoch: Epoch(job.epoch.0 + 1),
        master_port: first.and_then(|n| free(n)).unwrap_or(0),
        placements,
        because: "random".into(),
    }
}

fn spoil(start: &mut Start, dice: Dice) {
    match dice.c % 6 {
        0 => start.epoch.0 += 1,
        1 => start.master_port = 1,
        2 => {
            start.placements.pop();
        }
        3 => start
            .placements
            .iter_mut()
            .for_each(|p| p.node = NodeId(77)),
        4 => start.placements.iter_mut().for_each(|p| p.gpus.clear()),
        _ => start.placements.reverse(),
    }
}

/// An attempt leaves; the pending job, if it is of the same size, gets its places.
fn evicting(state: &State, job: &Job, dice: Dice) -> Bundle {
    let Some(victim) = pick_active(state, dice.b) else {
        let starts = Vec::new();
        return Bundle {
            evictions: Vec::new(),
            starts,
        };
    };
    let attempt = victim.attempt.as_deref();
    let tasks = attempt.map(|a| a.tasks.as_slice()).unwrap_or_default();
    // One in three moves the evicted job itself.
    let gets = if dice.c.is_multiple_of(3) {
        &victim
    } else {
        job
    };
    let placements = tasks.iter().map(|t| t.placement.clone()).collect();
    let starts = vec![start(state, gets, placements)];
    Bundle {
        evictions: vec![Eviction {
            job: victim.id,
            epoch: victim.epoch,
            reason: "random".into(),
        }],
        starts,
    }
}

/// Each task on the first node from `from` on that has room, if there is one.
fn first_fit(state: &State, job: &Job, from: u16) -> Vec<TaskPlacement> {
    let mut state = state.clone();
    let mut placements = Vec::new();
    let ids: Vec<NodeId> = state.nodes.keys().copied().collect();
    let groups = job.spec.groups.iter().zip(0u16..);
    for (group, index) in groups.flat_map(|(g, i)| (0..g.min_workers).map(move |_| (g, i))) {
        let rotated = ids
            .iter()
            .cycle()
            .skip(usize::from(from) % ids.len().max(1));
        for id in rotated.take(ids.len()) {
            let node = Arc::make_mut(state.nodes.get_mut(id).expect("known"));
            let needs = &group.resources;
            let each = needs.milligpu.min(1000);
            let free = node
                .gpus
                .iter()
                .zip(0u16..)
                .filter(|(g, _)| g.milligpu + g.reserved + each <= 1000 && each > 0);
            let gpus: Vec<GpuShare> = free
                .take(needs.devices() as usize)
                .map(|(_, gpu)| GpuShare {
                    gpu,
                    milligpu: each,
                })
                .collect();
            let host = node.used_millicpu + needs.millicpu <= node.spec.millicpu
                && node.used_mem_bytes + needs.mem_bytes <= node.spec.mem_bytes;
            if !node.is_schedulable() || !host || gpus.len() < needs.devices() as usize {
                continue;
            }
            for share in &gpus {
                node.gpus[usize::from(share.gpu)].milligpu += share.milligpu;
            }
            node.used_millicpu += needs.millicpu;
            node.used_mem_bytes += needs.mem_bytes;
            placements.push(TaskPlacement {
                rank: Rank(placements.len() as u32),
                group: index,
                node: *id,
                gpus,
            });
            break;
        }
    }
    placements
}

fn ended(code: i32, at_ms: u64, node_fault: bool) -> TaskInventory {
    TaskInventory::Ended(TaskExit {
        code,
        at_ms,
        reason: String::new(),
        node_fault,
    })
}

/// What one node says of a job: of all its tasks there, of one, or of those of an older epoch.
fn tasks(state: &State, dice: Dice, inventory: TaskInventory) -> Command {
    let nobody = Command::RecordTasks {
        node: pick_node(state, dice.b),
        tasks: Vec::new(),
    };
    let Some(job) = pick_active(state, dice.a) else {
        return nobody;
    };
    let attempt = job.attempt.as_deref();
    let tasks = attempt.map(|a| a.tasks.as_slice()).unwrap_or_default();
    let Some(task) = pick(tasks.iter(), dice.b) else {
        return nobody;
    };
    let node = task.placement.node;
    let stale = u32::from(dice.c.is_multiple_of(11));
    let said = tasks.iter().filter(|t| {
        t.placement.node == node
            && (!dice.c.is_multiple_of(3) || t.placement.rank == task.placement.rank)
    });
    let key = |rank| TaskKey {
        job: job.id,
        epoch: Epoch(job.epoch.0 - stale),
        rank,
    };
    let tasks = said.map(|t| (key(t.placement.rank), inventory.clone()));
    Command::RecordTasks {
        node,
        tasks: tasks.collect(),
    }
}

/// Few names and tokens, so that some are used up, taken or revoked.
fn certificate_command(state: &State, now_ms: u64, dice: Dice) -> Command {
    let roles = [Role::Node, Role::Submitter, Role::Admin, Role::Master];
    let identity = Identity {
        role: roles[usize::from(dice.a % 4)],
        name: ["n1", "ada", "7", "no name"][usize::from(dice.b % 4)].into(),
    };
    if dice.kind == 33 && dice.c.is_multiple_of(3) {
        return Command::RevokeCertificates { identity };
    }
    let grant = match dice.kind {
        32 => Grant::Token(JoinToken {
            id: u64::from(dice.c % 5),
            uses: u32::from(dice.c % 4),
            expires_ms: now_ms + u64::from(dice.b % 3) * 60_000,
            exact: dice.a.is_multiple_of(2),
        }),
        _ => Grant::Renewal {
            serial: u64::from(dice.c) % (state.certificates.issued + 1),
        },
    };
    Command::IssueCertificate {
        identity,
        lifetime_ms: u64::from(dice.a) * 1_000,
        grant,
    }
}

fn node_command(state: &State, dice: Dice) -> Command {
    let node = pick_node(state, dice.a);
    match dice.kind {
        19 => Command::MarkNodeLost {
            node,
            reason: "silent".into(),
        },
        20 => Command::FenceNode {
            node,
            by_operator: dice.b.is_multiple_of(2),
        },
        21 => Command::SetDrain {
            node,
            drain: dice.b.is_multiple_of(3).then(|| Drain {
                reason: "maintenance".into(),
                evict: false,
            }),
        },
        _ => {
            let mut spec = make::node(&format!("n{}", dice.a % 5), 4 - dice.b % 3 / 2);
            if dice.c.is_multiple_of(5) {
                spec.millicpu = 2_000;
            }
            if dice.c.is_multiple_of(23) {
                spec.name = "..".into();
            }
            Command::RegisterNode {
                spec: Arc::new(spec),
                incarnation: u64::from(dice.c % 8 / 7),
            }
        }
    }
}

fn job_command(state: &State, now_ms: u64, dice: Dice) -> Command {
    let job = pick_job(state, dice.a);
    let newest = state.job(job).map_or(1, |j| j.epoch.0);
    let epoch = Epoch(newest.saturating_sub(u32::from(dice.b.is_multiple_of(5))));
    let step = u64::from(dice.c % 10);
    match dice.kind {
        24 => Command::CancelJob {
            job,
            user: "bob".into(),
        },
        25 => Command::ExpireAttempt { job, epoch },
        26 => Command::RejectJob {
            job,
            reason: "full".into(),
        },
        27 => Command::RejectCheckpoint {
            job,
            epoch,
            step,
            reason: "damaged".into(),
        },
        28 => Command::RecordProgress {
            progress: vec![(
                job,
                epoch,
                Progress {
                    step,
                    at_ms: now_ms,
                    ..Progress::default()
                },
            )],
        },
        _ => Command::RecordCheckpoint {
            job,
            record: CheckpointRecord {
                epoch,
                step,
                path: "/ckpt".into(),
                bytes: 1,
                manifest_sha256: "ab".repeat(32),
                save_ms: 1,
            },
        },
    }
}

/// Commands that bring every job to its end: cancel all, then each node says that its tasks are gone.
pub(crate) fn end_everything(state: &State, now_ms: u64) -> Vec<Command> {
    let cancel = state.jobs.keys().map(|job| Command::CancelJob {
        job: *job,
        user: "bob".into(),
    });
    let mut commands: Vec<Command> = cancel.collect();
    for job in state.jobs.values() {
        for task in job.attempt.iter().flat_map(|a| a.tasks.iter()) {
            if !matches!(task.phase, TaskPhase::Ended { .. }) {
                let key = TaskKey {
                    job: job.id,
                    epoch: job.epoch,
                    rank: task.placement.rank,
                };
                commands.push(Command::RecordTasks {
                    node: task.placement.node,
                    tasks: vec![(key, ended(143, now_ms, false))],
                });
            }
        }
    }
    commands
}
