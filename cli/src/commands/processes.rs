//! `berth up`, `berth down`, `berth dev`: a local cluster of real processes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::jobs::note;
use super::{Context, Outcome};
use crate::args::{Dev, Down, Up};
use crate::failure::Failure;
use crate::local::cluster::{self, Plan};
use crate::local::daemons::{AgentSettings, MasterSettings};
use crate::local::layout::Cluster;
use crate::local::process::asked_to_end;

/// How often `berth dev` looks whether its processes still run.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long `berth dev` waits until its processes are ready.
const DEV_READY_WITHIN: Duration = Duration::from_secs(30);

/// `berth up`.
pub(super) async fn up(context: &Context, args: &Up) -> Outcome {
    if !matches!(args.masters, 1 | 3 | 5) {
        return Err(Failure::usage(
            format!("{} masters", args.masters),
            "1, 3 or 5: an even number tolerates no more failures",
        ));
    }
    let dir = directory(context)?;
    let plan = Plan {
        masters: args.masters,
        first_port: 0,
        agents: args.agents,
        master: MasterSettings {
            policy: args.policy.clone(),
            storage: args.storage.clone(),
        },
        agent: AgentSettings {
            gpus: args.gpus_per_agent,
            gpu_model: args.gpu_model.clone(),
            gpu_memory: args.gpu_memory.clone(),
            cpus: args.cpus_per_agent.clone(),
            memory: args.memory_per_agent.clone(),
        },
    };
    if Cluster::exists(&dir) {
        note("the directory holds a cluster, which is started again as it is");
    }
    let asked = asked_to_end()?;
    let mut started = cluster::start(&dir, &plan)?;
    let ready = tokio::select! {
        ready = started.ready(args.ready_within) => ready.map(|()| None),
        code = asked => Ok(Some(code)),
    };
    if !matches!(ready, Ok(None)) {
        cluster::end(&started.dir, false)?;
    }
    if let Some(code) = ready? {
        return Ok(code);
    }
    let dir = started.dir.display().to_string();
    let addresses: Vec<String> = started
        .cluster
        .masters
        .iter()
        .map(|m| m.address.clone())
        .collect();
    let sentence = format!(
        "{} and {} run in {dir}\nexport BERTH_DIR={dir}",
        counted(addresses.len(), "master"),
        counted(started.cluster.agents.len(), "agent")
    );
    let value =
        json!({ "dir": dir, "addresses": addresses, "agents": started.cluster.agents.len() });
    context.screen.say(&sentence, value, &dir)?;
    Ok(0)
}

fn counted(n: usize, what: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {what}{plural}")
}

fn directory(context: &Context) -> Result<PathBuf, Failure> {
    context
        .sources
        .directory()
        .ok_or_else(|| Failure::usage("no directory is named", "add --dir DIR, or set BERTH_DIR"))
}

/// `berth down`.
pub(super) fn down(context: &Context, args: &Down) -> Outcome {
    let dir = directory(context)?;
    let ended = cluster::end(&dir, args.keep_tasks)?;
    if args.purge {
        std::fs::remove_dir_all(&dir).map_err(|e| Failure::file(&dir, e))?;
    }
    let shown = dir.display().to_string();
    let sentence = match ended.len() {
        0 => format!("nothing of the cluster in {shown} ran"),
        _ => format!("ended {}", ended.join(", ")),
    };
    context
        .screen
        .say(&sentence, json!({ "dir": shown, "ended": ended }), &shown)?;
    Ok(0)
}

/// `berth dev`: one master and one agent until Ctrl-C.
pub(super) async fn dev(context: &Context, args: &Dev) -> Outcome {
    // Before anything starts, so that no signal ends this process and leaves the others behind.
    let asked = asked_to_end()?;
    let scratch = tempfile::Builder::new().prefix("berth-dev-").tempdir()?;
    let dir = context.sources.dir.clone();
    let dir: &Path = dir.as_deref().unwrap_or(scratch.path());
    let plan = Plan {
        masters: 1,
        first_port: args.port,
        agents: 1,
        master: MasterSettings {
            policy: args.policy.clone(),
            storage: None,
        },
        agent: AgentSettings {
            gpus: args.gpus,
            gpu_model: "sim".into(),
            gpu_memory: "16GiB".into(),
            cpus: None,
            memory: None,
        },
    };
    let mut started = cluster::start(dir, &plan)?;
    let running = async {
        started.ready(DEV_READY_WITHIN).await?;
        let address = started.cluster.masters.first().map(|m| m.address.clone());
        note(&format!(
            "one master at {} and one agent with {} simulated GPUs run in {}; Ctrl-C ends them",
            address.unwrap_or_default(),
            args.gpus,
            dir.display()
        ));
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            started.check_children()?;
        }
    };
    let result: Outcome = tokio::select! {
        failed = running => failed,
        // To be ended is how it ends well.
        _ = asked => Ok(0),
    };
    cluster::end(dir, false)?;
    result
}
