//! A node is cut off long enough to be lost, and comes back. Elsewhere two copies of its job then live for ever.

use std::time::Instant;

use anyhow::ensure;
use berth_proto::v1::{JobState, NodeState};

use super::{Ground, HEAL, Measured, SOON, end, endless, epoch, nothing_held, wait_for};
use crate::client::summary;
use crate::cluster::{Cluster, Plan};
use crate::ledger::Ledger;
use crate::procfs;
use crate::spec::Shape;

pub(super) async fn run(ground: &Ground) -> anyhow::Result<Measured> {
    let plan = Plan {
        agents: 2,
        proxied: true,
        dir: ground.dir.clone(),
        ..Plan::default()
    };
    let mut cluster = Cluster::start(plan).await?;
    let outcome = away(&mut cluster, ground).await;
    cluster.explain(outcome)
}

async fn away(cluster: &mut Cluster, ground: &Ground) -> anyhow::Result<Measured> {
    let mut measured = Measured::default();
    let client = cluster.client()?;
    let ledger = Ledger::new(cluster.dir(), "ledger");
    let (job, old) = endless(cluster, &client, &ledger, |job| job.gpus(1)).await?;
    let name = cluster.agents[old.agent].name.clone();

    cluster.cut_agent(old.agent);
    let cut = Instant::now();
    client
        .wait_node(&name, NodeState::Lost, false, ground.within(HEAL))
        .await?;
    measured.time("lost after the cut", cut.elapsed());
    let started = || ledger.of(job, "start").len() == 2;
    wait_for("a new copy runs elsewhere", ground.within(HEAL), started).await?;
    measured.time("new copy runs after the cut", cut.elapsed());
    ensure!(
        procfs::alive(old.pid),
        "rule restart: an isolated copy lives until contact"
    );
    let copies = cluster.tasks_of(job);
    let connected = copies.iter().filter(|t| t.agent != old.agent).count();
    ensure!(
        connected == 1 && copies.len() == 2,
        "one copy on each side of the cut, but: {copies:?}"
    );

    cluster.heal();
    let gone = || !procfs::alive(old.pid);
    let gone = wait_for("the old copy ends", ground.within(HEAL), gone).await?;
    measured.time("old copy gone after the heal", gone);
    client
        .wait_node(&name, NodeState::Ready, true, ground.within(HEAL))
        .await?;
    let (view, _) = client.wait_state(job, JobState::Running, SOON).await?;
    ensure!(
        epoch(&view) == 2,
        "attempt 2 was expected: {}",
        summary(&view)
    );
    let copies = cluster.tasks_of(job);
    ensure!(
        copies.len() == 1 && copies[0].epoch == 2,
        "one copy of attempt 2, but: {copies:?}"
    );
    let node = client.node(&name).await?;
    ensure!(
        node.used_milligpu.iter().all(|used| *used == 0),
        "the old copy still holds GPUs: {:?}",
        node.used_milligpu
    );
    end(cluster, &client, job).await?;
    nothing_held(&client, ground.within(HEAL)).await?;
    Ok(measured)
}
