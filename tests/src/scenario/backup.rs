//! All masters are destroyed, and one is restored from a backup. What the backup knew is back, and what runs goes on: a
//! restored master stops nothing by not knowing it.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use berth_proto::v1::{JobState, NodeState};

use super::{Ground, Measured, SOON, endless, only_copy};
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
    let client = cluster.client()?;
    let ledger = Ledger::new(cluster.dir(), "ledger");
    let mut finished = Vec::new();
    for at in 0..10 {
        finished.push(
            client
                .submit(&spec::shell(&format!("done-{at}"), "true"))
                .await?,
        );
    }
    for job in &finished {
        client.wait_state(*job, JobState::Completed, SOON).await?;
    }
    let (known, known_task) = endless(cluster, &client, &ledger, |job| job.gpus(2)).await?;
    // Both GPUs are taken.
    let waiting = client.submit(&spec::shell("waits", "true").gpus(1)).await?;
    let file = cluster.dir().join("backup").display().to_string();
    let saving = Instant::now();
    cluster.berth(&["backup", &file]).await?.ok()?;
    measured.time("backup", saving.elapsed());
    measured.say("bytes of the backup", std::fs::metadata(&file)?.len());
    // The backup does not know this one.
    let (unknown, unknown_task) = endless(cluster, &client, &ledger, |job| job).await?;

    for id in [1, 2, 3] {
        cluster.kill_master(id);
        std::fs::remove_dir_all(&cluster.master(id)?.data_dir)?;
    }
    cluster.write_lone_master(1)?;
    let restoring = Instant::now();
    let (address, data) = {
        let master = cluster.master(1)?;
        (
            master.address.clone(),
            master.data_dir.display().to_string(),
        )
    };
    let restore = [
        "restore",
        &file,
        "--data-dir",
        &data,
        "--id",
        "1",
        "--address",
        &address,
    ];
    cluster.berth(&restore).await?.ok()?;
    cluster.start_master(1)?;
    let client = cluster.client()?;
    client.leader().await?;
    measured.time("restored: a leader answers after", restoring.elapsed());
    for job in &finished {
        let view = client.job(*job).await?;
        ensure!(
            view.state() == JobState::Completed,
            "job {job} is {:?}",
            view.state()
        );
    }
    client
        .wait_node("n1", NodeState::Ready, true, SOON)
        .await
        .context("the agent finds the restored master")?;
    measured.time("the agent is back after", restoring.elapsed());
    tokio::time::sleep(PATIENCE).await;
    alive(&unknown_task, "a task that the backup does not know")?;
    ensure!(
        only_copy(cluster, known)? == known_task,
        "the known task is another process"
    );
    client.wait_state(known, JobState::Running, SOON).await?;
    let view = client.job(waiting).await?;
    ensure!(
        view.state() == JobState::Pending,
        "the waiting job is {:?}",
        view.state()
    );

    // It may get a number that the old cluster gave to a job which still runs, and must not be taken for that one.
    let fresh = Ledger::new(cluster.dir(), "fresh");
    let new = client
        .submit(&spec::shell("new", &fresh.script("true")))
        .await?;
    client
        .wait_state(new, JobState::Completed, SOON)
        .await
        .with_context(|| format!("job {unknown} of the old cluster still runs"))?;
    let ends = fresh.of(new, "end").len();
    ensure!(
        ends == 1,
        "job {new} counts as completed, but came to its end {ends} times"
    );
    client.cancel(known).await?;
    client
        .wait_state(known, JobState::Cancelled, ground.within(super::HEAL))
        .await?;
    measured.say("jobs back", finished.len() + 2);
    Ok(measured)
}

fn alive(task: &LiveTask, what: &str) -> anyhow::Result<()> {
    ensure!(procfs::alive(task.pid), "{what} was stopped");
    Ok(())
}
