//! Rule `wait`: nothing restarts until the node returns or an operator says that it is certainly dead.

use std::time::{Duration, Instant};

use anyhow::ensure;
use berth_proto::v1::{JobState, LostNodeRule, NodeState};

use super::{Ground, HEAL, Measured, SOON, end, endless, epoch, nothing_held, only_copy};
use crate::client::{Client, summary};
use crate::cluster::{Cluster, Plan};
use crate::config::Settings;
use crate::ledger::Ledger;
use crate::spec::Shape;

/// Longer than any other rule would wait: lease and margin below.
const PATIENCE: Duration = Duration::from_secs(6);

pub(super) async fn run(ground: &Ground) -> anyhow::Result<Measured> {
    let plan = Plan {
        agents: 2,
        proxied: true,
        settings: Settings {
            timeouts: vec![("node", "2s"), ("lease", "2s"), ("fence_margin", "1s")],
            ..Settings::default()
        },
        dir: ground.dir.clone(),
        ..Plan::default()
    };
    let mut cluster = Cluster::start(plan).await?;
    let client = cluster.client()?;
    let mut measured = Measured::default();
    let mut outcome = returned(&mut cluster, &client, ground, &mut measured).await;
    if outcome.is_ok() {
        outcome = fenced_by_hand(&mut cluster, &client, ground, &mut measured).await;
    }
    cluster.explain(outcome).map(|()| measured)
}

/// The node was only cut off: the very same process goes on.
async fn returned(
    cluster: &mut Cluster,
    client: &Client,
    ground: &Ground,
    measured: &mut Measured,
) -> anyhow::Result<()> {
    let ledger = Ledger::new(cluster.dir(), "returned");
    let (job, task) = endless(cluster, client, &ledger, |job| {
        job.gpus(1).on_lost_node(LostNodeRule::Wait)
    })
    .await?;
    let name = cluster.agents[task.agent].name.clone();
    cluster.cut_agent(task.agent);
    client
        .wait_node(&name, NodeState::Lost, false, ground.within(HEAL))
        .await?;
    client.wait_state(job, JobState::Fencing, SOON).await?;
    tokio::time::sleep(PATIENCE).await;
    ensure!(
        only_copy(cluster, job)? == task,
        "another process than before"
    );
    cluster.heal();
    let (view, back) = client
        .wait_state(job, JobState::Running, ground.within(HEAL))
        .await?;
    measured.time("runs again after the heal", back);
    ensure!(
        epoch(&view) == 1,
        "the job was restarted: {}",
        summary(&view)
    );
    ensure!(
        only_copy(cluster, job)? == task,
        "another process than before"
    );
    end(cluster, client, job).await?;
    nothing_held(client, ground.within(HEAL)).await?;
    Ok(())
}

/// The node is dead, and only an operator can know.
async fn fenced_by_hand(
    cluster: &mut Cluster,
    client: &Client,
    ground: &Ground,
    measured: &mut Measured,
) -> anyhow::Result<()> {
    let ledger = Ledger::new(cluster.dir(), "fenced");
    let (job, task) = endless(cluster, client, &ledger, |job| {
        job.gpus(1).on_lost_node(LostNodeRule::Wait)
    })
    .await?;
    let name = cluster.agents[task.agent].name.clone();
    cluster.kill_node(task.agent);
    client
        .wait_node(&name, NodeState::Lost, false, ground.within(HEAL))
        .await?;
    tokio::time::sleep(PATIENCE).await;
    let view = client.job(job).await?;
    ensure!(
        view.state() == JobState::Fencing && cluster.tasks_of(job).is_empty(),
        "nobody fenced the node, but the job went on: {}",
        summary(&view)
    );
    let asked = Instant::now();
    client.fence(&name).await?;
    let (view, _) = client
        .wait_state(job, JobState::Running, ground.within(HEAL))
        .await?;
    measured.time("runs elsewhere after `node fence`", asked.elapsed());
    ensure!(
        epoch(&view) == 2,
        "attempt 2 was expected: {}",
        summary(&view)
    );
    ensure!(
        only_copy(cluster, job)?.agent != task.agent,
        "runs on a dead node"
    );
    end(cluster, client, job).await?;
    nothing_held(client, ground.within(HEAL)).await?;
    Ok(())
}
