//! Carrying out the core's effects.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_agent_core::{Effect, Fence, Input, Prepared, TaskMemo};
use berth_types::{LaunchTask, TaskExit, TaskKey};

use crate::cgroup::Limits;
use crate::daemon::agent::Agent;
use crate::daemon::checkpoints::{self, Reported};
use crate::daemon::happening::Happening;
use crate::daemon::{gpus, prepare, program};
use crate::keeper::protocol::{Request, SpawnRequest};

pub(super) fn carry_out(agent: &mut Agent, effect: Effect) {
    match effect {
        Effect::Register {
            session: _,
            incarnation,
            fence,
            inventory,
        } => agent.register(incarnation, fence, &inventory),
        Effect::Report { session, report } => agent.report(session, report),
        Effect::SaveFence(fence) => save_fence(agent, fence),
        Effect::SaveMasters(learned) => agent.save_masters(learned),
        Effect::Prepare { launch } => prepare_task(agent, launch),
        Effect::Spawn {
            launch,
            prepared,
            memo,
        } => spawn_task(agent, &launch, &prepared, &memo),
        Effect::Signal {
            key,
            signal,
            by_node,
        } => agent.signal(key, signal, by_node),
        Effect::PersistExit { key, exit } => record(agent, key, exit),
        Effect::Forget { key } => agent.forget(key),
        Effect::RenewLease { lease_ms } => {
            agent.keeper_requests.push(Request::Lease { ms: lease_ms })
        }
        Effect::VerifyCheckpoint {
            job,
            epoch,
            step,
            checkpoint_dir,
            path,
            files,
            save_ms,
        } => verify_checkpoint(
            agent,
            Reported {
                job,
                epoch,
                step,
                base: PathBuf::from(checkpoint_dir),
                path: PathBuf::from(path),
                files,
                save_ms,
            },
        ),
        Effect::PruneCheckpoints {
            job,
            epoch,
            step,
            checkpoint_dir,
            keep,
        } => drop(tokio::task::spawn_blocking(move || {
            checkpoints::prune(Path::new(&checkpoint_dir), job, epoch, step, keep as usize)
        })),
        Effect::RunHook(run) => agent.run_hook(run),
        Effect::LookAtGpus { look } => agent.look_at_gpus(look),
        Effect::EndProcess {
            key,
            pid,
            start_ticks,
            gpu,
        } => end_process(agent, key, pid, start_ticks, gpu),
        Effect::RunCheck { check } => agent.run_check(check),
        Effect::TellTask { key, message } => agent.tell_task(key, &message),
        Effect::Disconnect { session: _ } => agent.drop_session(),
        Effect::Refused { refusal, .. } => tracing::warn!(%refusal, "a directive is refused"),
    }
}

fn record(agent: &mut Agent, key: TaskKey, exit: TaskExit) {
    let exit = exit.into();
    agent.keeper_requests.push(Request::Record { key, exit });
}

fn end_process(agent: &mut Agent, key: TaskKey, pid: u32, start_ticks: u64, gpu: u16) {
    tracing::warn!(job = %key.job, attempt = %key.epoch, rank = %key.rank, pid, gpu, "a process outlived its task and holds a GPU: killing it");
    let out = agent.out.clone();
    tokio::task::spawn_blocking(move || {
        if gpus::end_process(pid, start_ticks) {
            out.send(Happening::LeftoverEnded { pid, start_ticks });
        }
    });
}

fn save_fence(agent: &mut Agent, fence: Fence) {
    if let Err(error) = agent.fence_file.save(fence) {
        tracing::error!(%error, "the fence cannot be saved");
    }
}

fn prepare_task(agent: &mut Agent, launch: Arc<LaunchTask>) {
    let key = launch.key;
    tracing::debug!(job = %key.job, attempt = %key.epoch, rank = %key.rank, name = launch.job_name, "task accepted");
    agent.writers.set(key, true);
    let layout = agent.layout.clone();
    if prepare::is_quick(&launch) {
        let result = prepare::prepare(&layout, &launch);
        agent.feed(Input::Prepared { key, result });
        return;
    }
    let out = agent.out.clone();
    tokio::task::spawn_blocking(move || {
        let result = prepare::prepare(&layout, &launch);
        out.send(Happening::Fact(Input::Prepared { key, result }));
    });
}

fn spawn_task(agent: &mut Agent, launch: &LaunchTask, prepared: &Prepared, memo: &TaskMemo) {
    let key = launch.key;
    let env = agent.environment(launch, prepared);
    let task_dir = agent.layout.task_dir(key);
    let work_dir = match launch.work_dir.as_str() {
        "" => task_dir.clone(),
        named => PathBuf::from(named),
    };
    let wanted = launch
        .command
        .first()
        .map(String::as_str)
        .unwrap_or_default();
    let path = env.get("PATH").map(String::as_str).unwrap_or_default();
    match program::find(wanted, path, &work_dir) {
        Ok(found) => agent.keeper_requests.push(Request::SpawnWithin {
            spawn: Box::new(SpawnRequest {
                key,
                program: found.display().to_string(),
                args: launch.command.clone(),
                env: env.into_iter().collect(),
                work_dir: work_dir.display().to_string(),
                task_dir: task_dir.display().to_string(),
                fence: memo.fence,
                memo: serde_json::to_vec(memo).expect("plain data is JSON"),
            }),
            limits: Limits {
                millicpu: launch.millicpu,
                mem_bytes: launch.mem_bytes,
                pids: agent.task_pids,
            },
        }),
        Err(problem) => {
            let exit = TaskExit {
                code: problem.code,
                at_ms: agent.clock.now_ms(),
                reason: problem.reason,
                node_fault: false,
            };
            let exit = exit.into();
            agent.keeper_requests.push(Request::Record { key, exit });
        }
    }
}

fn verify_checkpoint(agent: &Agent, reported: Reported) {
    let (out, verifiers) = (agent.out.clone(), Arc::clone(&agent.verifiers));
    let (job, epoch, step) = (reported.job, reported.epoch, reported.step);
    tokio::spawn(async move {
        let permit = verifiers.acquire_owned().await;
        let verifying = tokio::task::spawn_blocking(move || {
            let result = checkpoints::verify(reported).map_err(|fault| fault.to_string());
            drop(permit);
            result
        });
        let result = verifying
            .await
            .unwrap_or_else(|e| Err(format!("the agent failed to verify it: {e}")));
        if let Err(reason) = &result {
            tracing::warn!(%job, attempt = %epoch, step, reason, "a checkpoint does not verify");
        }
        out.send(Happening::Fact(Input::CheckpointVerified {
            job,
            epoch,
            step,
            result,
        }));
    });
}
