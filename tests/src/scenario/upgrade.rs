//! An agent is stopped and started again, as an upgrade does. Elsewhere that leaves two copies of a job.

use anyhow::ensure;
use berth_proto::v1::{JobState, NodeState};

use super::{Ground, HEAL, Measured, end, endless, epoch, nothing_held, only_copy};
use crate::client::summary;
use crate::cluster::{Cluster, Plan};
use crate::ledger::Ledger;
use crate::procfs;

pub(super) async fn run(ground: &Ground) -> anyhow::Result<Measured> {
    let plan = Plan {
        masters: 1,
        agents: 2,
        dir: ground.dir.clone(),
        ..Plan::default()
    };
    let mut cluster = Cluster::start(plan).await?;
    let outcome = upgraded(&mut cluster, ground).await;
    cluster.explain(outcome)
}

async fn upgraded(cluster: &mut Cluster, ground: &Ground) -> anyhow::Result<Measured> {
    let mut measured = Measured::default();
    let client = cluster.client()?;
    let ledger = Ledger::new(cluster.dir(), "ledger");
    let (job, task) = endless(cluster, &client, &ledger, |job| job).await?;
    let name = cluster.agents[task.agent].name.clone();
    let stopping = std::time::Instant::now();
    cluster.stop_agent(task.agent).await?;
    measured.time("agent ended after SIGTERM", stopping.elapsed());
    ensure!(procfs::alive(task.pid), "the task died with its agent");
    cluster.start_agent(task.agent)?;
    let (_, back) = client
        .wait_node(&name, NodeState::Ready, true, ground.within(HEAL))
        .await?;
    measured.time("agent back after its start", back);
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
    let lost = client.events().await?;
    ensure!(
        !lost.iter().any(|event| event.kind == "node.lost"),
        "the node counted as lost meanwhile"
    );
    end(cluster, &client, job).await?;
    nothing_held(&client, ground.within(HEAL)).await?;
    Ok(measured)
}
