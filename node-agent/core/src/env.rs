//! The environment of a task: what frameworks look for, and what Berth adds.
//!
//! Nothing of the agent's own environment reaches a task but the few names of [`LocalEnv::base`]; nothing of the
//! submitter's but what the job file names.

use std::collections::BTreeMap;

use berth_types::LaunchTask;

use crate::hooks::HookRun;

/// What only the node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalEnv {
    /// Inherited from the agent: `PATH`, `HOME`, `LANG` and the like; the job file may replace them.
    pub base: BTreeMap<String, String>,
    /// The socket that the task may report to.
    pub socket: String,
    /// The epoch's checkpoint directory.
    pub checkpoint_dir: String,
    /// The checkpoint directory to resume from; empty for a fresh start.
    pub resume_from: String,
    /// The task's own directory, where its logs are.
    pub task_dir: String,
    /// Stable names of the node's GPUs by their index in its offer; empty where GPUs are declared.
    pub gpu_uuids: Vec<String>,
}

/// All variables of a task. What Berth says of identity and rendezvous wins over the job file; `OMP_NUM_THREADS` and
/// the inherited names are only defaults.
pub fn task_env(launch: &LaunchTask, local: &LocalEnv) -> BTreeMap<String, String> {
    let mut env = local.base.clone();
    env.insert("OMP_NUM_THREADS".into(), cpus(launch).to_string());
    env.extend(launch.env.clone());
    let mut set = |name: &str, value: String| {
        env.insert(name.into(), value);
    };
    rendezvous(launch, &mut set);
    slurm_twins(launch, &mut set);
    let gpus = launch.gpus.iter().map(|share| share.gpu);
    set("CUDA_VISIBLE_DEVICES", visible_gpus(gpus, &local.gpu_uuids));
    set("BERTH_JOB_ID", launch.key.job.to_string());
    set("BERTH_JOB_NAME", launch.job_name.clone());
    set("BERTH_USER", launch.user.clone());
    set("BERTH_ATTEMPT", launch.key.epoch.to_string());
    set("BERTH_NODE_NAME", own_name(launch));
    set("BERTH_CHECKPOINT_DIR", local.checkpoint_dir.clone());
    set("BERTH_RESUME_FROM", local.resume_from.clone());
    set("BERTH_SOCKET", local.socket.clone());
    set("BERTH_TASK_DIR", local.task_dir.clone());
    env
}

/// What a prolog or an epilog is told. Numbers of GPUs are those of the node's offer, `gpu_uuids` their stable names.
pub fn hook_env(run: &HookRun, node: &str, gpu_uuids: &[String]) -> BTreeMap<String, String> {
    let gpus = run.gpus.iter().copied();
    let env = [
        ("BERTH_HOOK", run.hook.name().to_owned()),
        ("BERTH_JOB_ID", run.job.to_string()),
        ("BERTH_JOB_NAME", run.job_name.clone()),
        ("BERTH_USER", run.user.clone()),
        ("BERTH_ATTEMPT", run.epoch.to_string()),
        ("BERTH_NODE_NAME", node.to_owned()),
        ("CUDA_VISIBLE_DEVICES", visible_gpus(gpus, gpu_uuids)),
        ("SLURM_JOB_ID", run.job.to_string()),
        ("SLURM_JOB_USER", run.user.clone()),
        ("SLURMD_NODENAME", node.to_owned()),
    ];
    env.into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// CUDA's own order of GPUs need not be the driver's, so they are named where they have a name.
fn visible_gpus(gpus: impl Iterator<Item = u16>, uuids: &[String]) -> String {
    let name = |gpu: u16| match uuids.get(usize::from(gpu)) {
        Some(uuid) => uuid.clone(),
        None => gpu.to_string(),
    };
    gpus.map(name).collect::<Vec<_>>().join(",")
}

/// What torch.distributed and its relatives read.
fn rendezvous(launch: &LaunchTask, set: &mut impl FnMut(&str, String)) {
    let nodes = launch.node_names.len().max(1).to_string();
    let rank = launch.key.rank.to_string();
    set("MASTER_ADDR", launch.master_addr.clone());
    set("MASTER_PORT", launch.master_port.to_string());
    set("RANK", rank.clone());
    set("WORLD_SIZE", launch.world_size.to_string());
    set("LOCAL_RANK", launch.local_rank.to_string());
    set("LOCAL_WORLD_SIZE", launch.local_world_size.to_string());
    set("NODE_RANK", launch.node_rank.to_string());
    set("GROUP_RANK", launch.node_rank.to_string());
    set("GROUP_WORLD_SIZE", nodes);
    set("ROLE_RANK", rank);
    set("ROLE_WORLD_SIZE", launch.world_size.to_string());
}

/// What Lightning, Accelerate and others detect a Slurm job by.
fn slurm_twins(launch: &LaunchTask, set: &mut impl FnMut(&str, String)) {
    let nodes = launch.node_names.len().max(1).to_string();
    set("SLURM_JOB_ID", launch.key.job.to_string());
    set("SLURM_JOBID", launch.key.job.to_string());
    set("SLURM_JOB_NAME", launch.job_name.clone());
    set("SLURM_JOB_USER", launch.user.clone());
    set("SLURM_JOB_NODELIST", node_list(&launch.node_names));
    set("SLURM_NODELIST", node_list(&launch.node_names));
    set("SLURM_NNODES", nodes.clone());
    set("SLURM_JOB_NUM_NODES", nodes);
    set("SLURM_NTASKS", launch.world_size.to_string());
    set("SLURM_NPROCS", launch.world_size.to_string());
    set("SLURM_NTASKS_PER_NODE", launch.local_world_size.to_string());
    set("SLURM_PROCID", launch.key.rank.to_string());
    set("SLURM_LOCALID", launch.local_rank.to_string());
    set("SLURM_NODEID", launch.node_rank.to_string());
    set("SLURMD_NODENAME", own_name(launch));
    set("SLURM_RESTART_COUNT", launch.restart_count.to_string());
    set("SLURM_GPUS_ON_NODE", launch.gpus.len().to_string());
    set("SLURM_CPUS_PER_TASK", cpus(launch).to_string());
}

fn own_name(launch: &LaunchTask) -> String {
    let own = launch.node_names.get(launch.node_rank as usize);
    own.cloned().unwrap_or_default()
}

fn cpus(launch: &LaunchTask) -> u32 {
    launch.millicpu.div_ceil(berth_types::MILLI).max(1)
}

/// First and last number, and how many digits they are written with.
type Run = (u64, u64, usize);

/// Slurm's notation for node names: `gpu[01-03,07],login`. Runs of equal prefix and width are folded, order is kept.
pub fn node_list(names: &[String]) -> String {
    let mut groups: Vec<(&str, Vec<Run>, bool)> = Vec::new();
    for name in names {
        let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let (prefix, number) = name.split_at(name.len() - digits);
        let Ok(value) = number.parse::<u64>() else {
            groups.push((name, Vec::new(), false));
            continue;
        };
        match groups.last_mut() {
            Some((last, runs, true)) if *last == prefix => match runs.last_mut() {
                Some((_, end, width)) if *end + 1 == value && *width == digits => *end = value,
                _ => runs.push((value, value, digits)),
            },
            _ => groups.push((prefix, vec![(value, value, digits)], true)),
        }
    }
    let parts: Vec<String> = groups
        .into_iter()
        .map(|(p, runs, _)| group_text(p, &runs))
        .collect();
    parts.join(",")
}

fn group_text(prefix: &str, runs: &[Run]) -> String {
    match runs {
        [] => prefix.to_owned(),
        [(first, last, width)] if first == last => format!("{prefix}{first:0width$}"),
        runs => {
            let runs: Vec<String> = runs
                .iter()
                .map(|(first, last, width)| {
                    if first == last {
                        format!("{first:0width$}")
                    } else {
                        format!("{first:0width$}-{last:0width$}")
                    }
                })
                .collect();
            format!("{prefix}[{}]", runs.join(","))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_lists_are_written_as_slurm_does() {
        for (names, expected) in [
            (&[][..], ""),
            (&["login"], "login"),
            (&["gpu7"], "gpu7"),
            (&["gpu01", "gpu02", "gpu03", "gpu07"], "gpu[01-03,07]"),
            (&["a1", "a2", "b1", "b2"], "a[1-2],b[1-2]"),
            (&["n9", "n10"], "n[9,10]"),
            (&["n2", "n1"], "n[2,1]"),
            (&["x", "n1", "n2", "x"], "x,n[1-2],x"),
            (&["n99999999999999999999999"], "n99999999999999999999999"),
        ] {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            assert_eq!(node_list(&names), expected);
        }
    }
}
