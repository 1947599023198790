//! An agent is killed and restarted under running tasks. Elsewhere it does not adopt them.

use std::time::Duration;

use anyhow::{Context, ensure};
use berth_proto::v1::{JobState, NodeState};

use super::{Ground, HEAL, Measured, SOON, end, endless, epoch, nothing_held, only_copy, wait_for};
use crate::client::summary;
use crate::cluster::{Cluster, Plan};
use crate::ledger::Ledger;
use crate::{procfs, spec};

pub(super) async fn run(ground: &Ground) -> anyhow::Result<Measured> {
    let plan = Plan {
        masters: 1,
        agents: 2,
        dir: ground.dir.clone(),
        ..Plan::default()
    };
    let mut cluster = Cluster::start(plan).await?;
    let outcome = adopted(&mut cluster, ground).await;
    cluster.explain(outcome)
}

async fn adopted(cluster: &mut Cluster, ground: &Ground) -> anyhow::Result<Measured> {
    let mut measured = Measured::default();
    let client = cluster.client()?;
    let ledger = Ledger::new(cluster.dir(), "ledger");
    let (job, task) = endless(cluster, &client, &ledger, |job| job).await?;
    let name = cluster.agents[task.agent].name.clone();
    let gate = cluster.dir().join("gate");
    let work = format!("until [ -e '{}' ]; do sleep 0.1; done", gate.display());
    let mut short = spec::shell("short", &ledger.script(&work));
    short.groups[0]
        .node_labels
        .insert("name".to_owned(), name.clone());
    let short = client.submit(&short).await?;
    client.wait_state(short, JobState::Running, SOON).await?;

    cluster.kill_agent(task.agent);
    client
        .wait_node(&name, NodeState::Ready, false, ground.within(HEAL))
        .await
        .context("the leader notices at once that the agent's stream ended")?;
    std::fs::write(&gate, "")?;
    wait_for("the short task ends while the agent is away", SOON, || {
        !ledger.of(short, "end").is_empty()
    })
    .await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    ensure!(procfs::alive(task.pid), "the task died with its agent");
    cluster.start_agent(task.agent)?;
    let (_, back) = client
        .wait_node(&name, NodeState::Ready, true, ground.within(HEAL))
        .await?;
    measured.time("agent back after its start", back);
    let (view, known) = client
        .wait_state(short, JobState::Completed, ground.within(HEAL))
        .await?;
    measured.time("end in between known after that", known);
    ensure!(
        epoch(&view) == 1,
        "the job that ended meanwhile was run again"
    );
    let (view, _) = client
        .wait_state(job, JobState::Running, ground.within(HEAL))
        .await?;
    ensure!(
        epoch(&view) == 1,
        "the job was restarted: {}",
        summary(&view)
    );
    ensure!(
        only_copy(cluster, job)? == task,
        "another process than before"
    );
    ensure!(
        ledger.of(job, "start").len() == 1,
        "the task was started twice"
    );
    // Adopted in deed: it can still be ended.
    end(cluster, &client, job).await?;
    nothing_held(&client, ground.within(HEAL)).await?;
    measured.say("process", format!("{} before and after", task.pid));
    Ok(measured)
}
