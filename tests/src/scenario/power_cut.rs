//! Everything dies at once, as when the power fails, and comes back.

use std::time::Instant;

use anyhow::ensure;
use berth_proto::v1::JobState;

use super::{Ground, HEAL, Measured, SOON, end, endless, epoch, nothing_held, only_copy, wait_for};
use crate::client::summary;
use crate::cluster::{Cluster, Plan};
use crate::ledger::Ledger;
use crate::spec;

const JOBS: usize = 20;

pub(super) async fn run(ground: &Ground) -> anyhow::Result<Measured> {
    let plan = Plan {
        agents: 2,
        dir: ground.dir.clone(),
        ..Plan::default()
    };
    let mut cluster = Cluster::start(plan).await?;
    let outcome = cut(&mut cluster, ground).await;
    cluster.explain(outcome)
}

async fn cut(cluster: &mut Cluster, ground: &Ground) -> anyhow::Result<Measured> {
    let mut measured = Measured::default();
    let client = cluster.client()?;
    let ledger = Ledger::new(cluster.dir(), "ledger");
    let (job, task) = endless(cluster, &client, &ledger, |job| job).await?;
    let mut jobs = Vec::new();
    for at in 0..JOBS {
        let work = format!("sleep 1.{}", at % 10);
        jobs.push(
            client
                .submit(&spec::shell("short", &ledger.script(&work)))
                .await?,
        );
    }
    for id in 1..=3 {
        cluster.kill_master(id);
    }
    for agent in 0..2 {
        cluster.kill_node(agent);
    }
    ensure!(
        cluster.tasks().is_empty(),
        "somebody survived: {:?}",
        cluster.tasks()
    );
    for id in 1..=3 {
        cluster.start_master(id)?;
    }
    for agent in 0..2 {
        cluster.start_agent(agent)?;
    }
    cluster.ready().await?;
    let ready = Instant::now();
    wait_for("the endless job runs again", ground.within(HEAL), || {
        ledger.of(job, "start").len() == 2
    })
    .await?;
    measured.time(
        "running jobs run again after the cluster is up",
        ready.elapsed(),
    );
    for short in &jobs {
        client.wait_state(*short, JobState::Completed, SOON).await?;
    }
    measured.say(
        "acknowledged jobs that ended well",
        format!("{} of {JOBS}", jobs.len()),
    );
    let (view, _) = client.wait_state(job, JobState::Running, SOON).await?;
    ensure!(
        epoch(&view) == 2,
        "attempt 2 was expected: {}",
        summary(&view)
    );
    ensure!(
        only_copy(cluster, job)?.pid != task.pid,
        "a process that was killed"
    );
    end(cluster, &client, job).await?;
    nothing_held(&client, ground.within(HEAL)).await?;
    Ok(measured)
}
