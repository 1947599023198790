//! What clients submit, and how its processes behave.

use std::sync::Arc;

use berth_types::{
    GpuInfo, GroupSpec, JobSpec, LaunchTask, LostNodeRule, MILLI, NodeSpec, Resources, RestartSpec,
};

use crate::dice::Dice;

const GIB: u64 = 1 << 30;
/// Milliseconds of work behind one reported step.
pub(crate) const STEP_MS: u64 = 100;
/// Exit code that asks for a requeue.
pub(crate) const REQUEUE_CODE: i32 = 75;

/// How a job's processes end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Every one exits 0.
    Well,
    /// One rank exits with this code, in every attempt.
    Always(i32),
    /// One rank exits with this code up to this epoch; then all is well.
    Until(u32, i32),
    /// Runs until it is stopped.
    Never,
    /// The program does not exist.
    NoProgram,
}

/// How a job's processes behave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behaviour {
    /// Work, if nothing comes between.
    pub(crate) run_ms: u64,
    /// How it ends.
    pub(crate) ending: Ending,
    /// Goes on when asked to stop, until it is killed.
    pub(crate) ignores_stop: bool,
    /// Longest time until it stops otherwise.
    pub(crate) stops_within_ms: u64,
    /// How often rank 0 saves a checkpoint.
    pub(crate) checkpoint_ms: Option<u64>,
    /// How often rank 0 reports progress.
    pub(crate) progress_ms: Option<u64>,
    /// Its checkpoints are found damaged, in thousandths of resumes.
    pub(crate) damaged_per_mille: u32,
}

/// A job to submit, and what must become of it.
#[derive(Clone, Debug)]
pub(crate) struct PlannedJob {
    /// What is submitted.
    pub(crate) spec: Arc<JobSpec>,
    /// How its processes behave.
    pub(crate) behaviour: Behaviour,
    /// False if it may need more than the whole idle cluster has.
    pub(crate) fits: bool,
}

/// All jobs of a run.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    /// In order of submission.
    pub(crate) jobs: Vec<PlannedJob>,
}

impl Workload {
    /// Draws `count` jobs for these nodes.
    pub(crate) fn draw(count: usize, nodes: &[NodeSpec], dice: &mut Dice) -> Self {
        let jobs = (0..count).map(|number| draw_job(number, nodes, dice));
        Self {
            jobs: jobs.collect(),
        }
    }

    /// Behaviour of the task that an agent is to start: its command names the planned job.
    pub(crate) fn behaviour(&self, task: &LaunchTask) -> Option<&Behaviour> {
        let number: usize = task.command.get(1)?.parse().ok()?;
        self.jobs.get(number).map(|job| &job.behaviour)
    }
}

/// Draws what a machine offers.
pub(crate) fn draw_node(number: usize, dice: &mut Dice) -> NodeSpec {
    let gpus = dice.pick(&[0, 1, 2, 4, 4, 8]).unwrap_or(4u16);
    let model = dice.pick(&["a100", "h100"]).unwrap_or("a100");
    let gpu = |index| GpuInfo {
        uuid: format!("GPU-{number}-{index}"),
        model: model.to_owned(),
        mem_bytes: 40 * GIB,
        nvlink_group: 0,
        numa: 0,
    };
    NodeSpec {
        name: format!("node-{number}"),
        address: format!("10.0.0.{number}"),
        labels: [("parity".to_owned(), (number % 2).to_string())].into(),
        rack: format!("rack-{}", number / 2),
        millicpu: 16 * MILLI,
        mem_bytes: 64 * GIB,
        gpus: (0..gpus).map(gpu).collect(),
        simulated_gpus: true,
        port_first: 20_000,
        port_count: dice.pick(&[4, 20, 100]).unwrap_or(20),
        agent_version: "simulated".into(),
    }
}

fn draw_job(number: usize, nodes: &[NodeSpec], dice: &mut Dice) -> PlannedJob {
    let mut groups = vec![draw_group(number, 0, dice)];
    if dice.chance(100) {
        groups.push(draw_group(number, 1, dice));
    }
    let mut fits = groups_fit(&groups, nodes);
    if !fits && !dice.chance(150) {
        shrink(&mut groups);
        fits = groups_fit(&groups, nodes);
    }
    let behaviour = draw_behaviour(dice);
    let on_lost_node = dice
        .pick(&[
            LostNodeRule::Restart,
            LostNodeRule::Restart,
            LostNodeRule::Fence,
            LostNodeRule::Wait,
        ])
        .unwrap_or_default();
    let spec = JobSpec {
        name: format!("job-{number}"),
        user: format!("user-{}", number % 3),
        priority: dice.pick(&[0, 0, 0, 5, -5]).unwrap_or(0),
        groups,
        restart: RestartSpec {
            max_restarts: dice.pick(&[0, 1, 3, 3]).unwrap_or(3),
            backoff_ms: dice.pick(&[0, 100, 1_000]).unwrap_or(100),
            on_lost_node,
        },
        time_limit_ms: if matches!(behaviour.ending, Ending::Never) && dice.chance(600) {
            dice.between(1_000, 8_000)
        } else {
            0
        },
        expected_ms: if dice.chance(500) {
            behaviour.run_ms
        } else {
            0
        },
        grace_ms: dice.pick(&[0, 300, 1_500]).unwrap_or(300),
        start_now: dice.chance(60),
        ..JobSpec::default()
    };
    PlannedJob {
        spec: Arc::new(spec),
        behaviour,
        fits,
    }
}

fn draw_group(number: usize, index: usize, dice: &mut Dice) -> GroupSpec {
    let min_workers = dice.pick(&[1, 1, 1, 2, 3, 4, 8]).unwrap_or(1);
    let extra = dice.pick(&[0, 0, 0, 1, 4]).unwrap_or(0);
    let milligpu = dice
        .pick(&[0, 0, 250, 500, 1_000, 1_000, 1_000, 2_000])
        .unwrap_or(1_000);
    let gpu_types = if milligpu > 0 && dice.chance(100) {
        vec!["A100".to_owned()]
    } else {
        Vec::new()
    };
    GroupSpec {
        name: format!("group-{index}"),
        command: vec!["simulated".into(), number.to_string()],
        min_workers,
        max_workers: min_workers + extra,
        gang: !dice.chance(150),
        resources: Resources {
            milligpu,
            millicpu: dice.pick(&[0, 500, 1_000, 4_000]).unwrap_or(500),
            mem_bytes: dice.pick(&[0, GIB, 8 * GIB]).unwrap_or(GIB),
            gpu_types,
            gpu_mem_bytes: 0,
        },
        node_labels: if dice.chance(60) {
            [("parity".to_owned(), "0".to_owned())].into()
        } else {
            Default::default()
        },
    }
}

fn draw_behaviour(dice: &mut Dice) -> Behaviour {
    let code = dice.pick(&[1, 2, 137, 255]).unwrap_or(1);
    let ending = match dice.between(0, 99) {
        0..=59 => Ending::Well,
        60..=67 => Ending::Always(code),
        68..=79 => Ending::Until(u32::try_from(dice.between(1, 2)).expect("small"), code),
        80..=86 => Ending::Until(
            u32::try_from(dice.between(1, 3)).expect("small"),
            REQUEUE_CODE,
        ),
        87..=94 => Ending::Never,
        _ => Ending::NoProgram,
    };
    let longest = dice.pick(&[300, 3_000, 3_000, 15_000]).unwrap_or(3_000);
    let often = |dice: &mut Dice| dice.chance(400).then(|| dice.between(300, 2_000));
    Behaviour {
        run_ms: dice.between(1, longest),
        ending,
        ignores_stop: dice.chance(200),
        stops_within_ms: 100,
        checkpoint_ms: often(dice),
        progress_ms: often(dice),
        damaged_per_mille: if dice.chance(200) { 300 } else { 0 },
    }
}

/// Halves what is asked for until it fits about anywhere.
fn shrink(groups: &mut Vec<GroupSpec>) {
    groups.truncate(1);
    for group in groups {
        group.min_workers = 1;
        group.resources.milligpu = 0;
        group.resources.gpu_types.clear();
        group.node_labels.clear();
    }
}

/// True if every group's fewest workers fit the idle cluster at once. Groups are tried one after the other, so jobs of
/// several groups that fit only when interleaved count as not fitting: such a job is not drawn.
fn groups_fit(groups: &[GroupSpec], nodes: &[NodeSpec]) -> bool {
    let mut free: Vec<(u32, u32, u64)> = nodes
        .iter()
        .map(|n| (n.gpus.len() as u32 * MILLI, n.millicpu, n.mem_bytes))
        .collect();
    groups.iter().all(|group| {
        (0..group.min_workers).all(|_| {
            let fitting = nodes
                .iter()
                .zip(&mut free)
                .find(|(node, free)| worker_fits(group, node, **free));
            fitting.is_some_and(|(_, free)| {
                free.0 -= group.resources.milligpu;
                free.1 -= group.resources.millicpu;
                free.2 -= group.resources.mem_bytes;
                true
            })
        })
    })
}

fn worker_fits(group: &GroupSpec, node: &NodeSpec, free: (u32, u32, u64)) -> bool {
    let r = &group.resources;
    let model = node.gpus.first().map_or("", |g| g.model.as_str());
    free.0 >= r.milligpu
        && free.1 >= r.millicpu
        && free.2 >= r.mem_bytes
        && group
            .node_labels
            .iter()
            .all(|(k, v)| node.labels.get(k) == Some(v))
        && (r.gpu_types.is_empty() || r.gpu_types.iter().any(|t| t.eq_ignore_ascii_case(model)))
}

#[cfg(test)]
mod tests {
    use super::{Workload, draw_node};
    use crate::dice::Dice;

    #[test]
    fn every_job_is_sound_and_most_fit() {
        let (mut drawn, mut misfits) = (0, 0);
        for seed in 0..20 {
            let mut dice = Dice::new(seed, 1);
            let machines = 1 + dice.index(5);
            let nodes: Vec<_> = (0..machines).map(|n| draw_node(n, &mut dice)).collect();
            let load = Workload::draw(100, &nodes, &mut dice);
            for job in &load.jobs {
                assert_eq!(job.spec.faults(), vec![], "{}", job.spec.name);
            }
            drawn += load.jobs.len();
            misfits += load.jobs.iter().filter(|j| !j.fits).count();
        }
        assert!(
            misfits > 0 && misfits < drawn / 4,
            "{misfits} of {drawn} do not fit"
        );
    }
}
