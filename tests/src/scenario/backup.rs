//! All masters are destroyed, and one is restored from a backup. What the backup knew is back, and what runs goes on: a
//! restored master stops nothing by not knowing it.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use berth_proto::v1::{JobState, NodeState};

use super::{Ground, Measured, SOON, endless, only_copy};
use crate::client::{Client, summary};
use crate::cluster::{Cluster, LiveTask, Plan};
use crate::ledger::Ledger;
use crate::procfs;
use crate::spec::{self, Shape};

/// Reconciling happens within a second or two; a task that lives longer is not going to be stopped.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn run(ground: &Ground) -> anyhow::Result<Measured> {
    let plan = Plan {
        agents: 1,
        dir: ground.dir.clone(),
        ..Plan::default()
    };
    let mut cluster = Cluster::start(plan).await?;
    let outcome = restored(&mut cluster, ground).await;
    cluster.explain(outcome)
}

async fn restored(cluster: &mut Cluster, ground: &Ground) -> anyhow::Result<Measured> {
    let mut measured = Measured::default();
    let ledger = Ledger::new(cluster.dir(), "ledger");
    let file = cluster.dir().join("backup").display().to_string();
    let before = saved(cluster, &ledger, &file, &mut measured).await?;
    // The backup does not know this one.
    let (unknown, unknown_task) = endless(cluster, &cluster.client()?, &ledger, |job| job).await?;

    rebuilt(cluster, &file, &mut measured).await?;
    let client = cluster.client()?;
    for job in &before.finished {
        is(&client, *job, JobState::Completed).await?;
    }
    tokio::time::sleep(PATIENCE).await;
    ensure!(
        procfs::alive(unknown_task.pid),
        "a task that the backup does not know was stopped"
    );
    ensure!(
        only_copy(cluster, before.running)? == before.task,
        "the task that the backup knows is another process"
    );
    is(&client, before.running, JobState::Running).await?;
    is(&client, before.waiting, JobState::Pending).await?;
    runs_itself(cluster, &client, unknown).await?;
    client.cancel(before.running).await?;
    client
        .wait_state(
            before.running,
            JobState::Cancelled,
            ground.within(super::HEAL),
        )
        .await?;
    measured.say("jobs back", before.finished.len() + 2);
    Ok(measured)
}

/// What the backup knows.
struct Before {
    finished: Vec<u64>,
    running: u64,
    task: LiveTask,
    waiting: u64,
}

/// Jobs in every stage of life, and a backup of them.
async fn saved(
    cluster: &Cluster,
    ledger: &Ledger,
    file: &str,
    measured: &mut Measured,
) -> anyhow::Result<Before> {
    let client = cluster.client()?;
    let mut finished = Vec::new();
    for _ in 0..10 {
        finished.push(client.submit(&spec::shell("done", "true")).await?);
    }
    for job in &finished {
        client.wait_state(*job, JobState::Completed, SOON).await?;
    }
    let (running, task) = endless(cluster, &client, ledger, |job| job.gpus(2)).await?;
    // Both GPUs are taken.
    let waiting = client.submit(&spec::shell("waits", "true").gpus(1)).await?;
    let saving = Instant::now();
    cluster.berth(&["backup", file]).await?.ok()?;
    measured.time("backup", saving.elapsed());
    measured.say("bytes of the backup", std::fs::metadata(file)?.len());
    Ok(Before {
        finished,
        running,
        task,
        waiting,
    })
}

/// Destroys all masters, and makes one from the backup.
async fn rebuilt(cluster: &mut Cluster, file: &str, measured: &mut Measured) -> anyhow::Result<()> {
    for id in [1, 2, 3] {
        cluster.kill_master(id);
        std::fs::remove_dir_all(&cluster.master(id)?.data_dir)?;
    }
    cluster.write_lone_master(1)?;
    let restoring = Instant::now();
    let master = cluster.master(1)?;
    let data = master.data_dir.display().to_string();
    let restore = ["restore", file, "--data-dir", &data, "--id", "1"];
    let at = ["--address", &master.address];
    cluster
        .berth(&[&restore[..], &at[..]].concat())
        .await?
        .ok()?;
    cluster.start_master(1)?;
    let client = cluster.client()?;
    client.leader().await?;
    measured.time("restored: a leader answers after", restoring.elapsed());
    client
        .wait_node("n1", NodeState::Ready, true, SOON)
        .await
        .context("the agent finds the restored master")?;
    measured.time("the agent is back after", restoring.elapsed());
    Ok(())
}

/// A new job may get a number that the old cluster gave to a job which still runs, and must not be taken for that one.
async fn runs_itself(cluster: &Cluster, client: &Client, unknown: u64) -> anyhow::Result<()> {
    let fresh = Ledger::new(cluster.dir(), "fresh");
    let new = spec::shell("new", &fresh.script("true"));
    let new = client.submit(&new).await?;
    client
        .wait_state(new, JobState::Completed, SOON)
        .await
        .with_context(|| format!("job {unknown} of the old cluster still runs"))?;
    let ends = fresh.of(new, "end").len();
    ensure!(
        ends == 1,
        "job {new} counts as completed, but came to its end {ends} times"
    );
    Ok(())
}

async fn is(client: &Client, job: u64, state: JobState) -> anyhow::Result<()> {
    let view = client.job(job).await?;
    ensure!(view.state() == state, "job {job}: {}", summary(&view));
    Ok(())
}
