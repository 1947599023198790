//! Jobs that end while no master is reachable. Elsewhere they stay "running" and their slots leak.

use std::time::Duration;

use anyhow::ensure;
use berth_proto::v1::{JobState, OutcomeKind};

use super::{Ground, HEAL, Measured, SOON, nothing_held, wait_for};
use crate::cluster::{Cluster, Plan};
use crate::ledger::Ledger;
use crate::spec::{self, Shape};

pub(super) async fn run(ground: &Ground) -> anyhow::Result<Measured> {
    let plan = Plan {
        agents: 1,
        dir: ground.dir.clone(),
        ..Plan::default()
    };
    let mut cluster = Cluster::start(plan).await?;
    let outcome = alone(&mut cluster, ground).await;
    cluster.explain(outcome)
}

async fn alone(cluster: &mut Cluster, ground: &Ground) -> anyhow::Result<Measured> {
    let mut measured = Measured::default();
    let client = cluster.client()?;
    let ledger = Ledger::new(cluster.dir(), "ledger");
    let gate = cluster.dir().join("gate");
    let wait = format!("until [ -e '{}' ]; do sleep 0.1; done", gate.display());
    let well = client
        .submit(&spec::shell("well", &ledger.script(&wait)).gpus(1))
        .await?;
    let badly = spec::shell("badly", &format!("{}; exit 3", ledger.script(&wait)));
    let badly = client.submit(&badly.gpus(1).max_restarts(0)).await?;
    for job in [well, badly] {
        client.wait_state(job, JobState::Running, SOON).await?;
    }
    for id in 1..=3 {
        cluster.kill_master(id);
    }
    std::fs::write(&gate, "")?;
    wait_for("both tasks have ended", SOON, || {
        ledger.counts("end").len() == 2 && cluster.tasks().is_empty()
    })
    .await?;
    // Long enough for a report that is tried only a few times to be given up.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for id in 1..=3 {
        cluster.start_master(id)?;
    }
    client.leader().await?;
    let (_, well_known) = client
        .wait_state(well, JobState::Completed, ground.within(HEAL))
        .await?;
    let (view, badly_known) = client
        .wait_state(badly, JobState::Failed, ground.within(HEAL))
        .await?;
    measured.time(
        "end known after a leader was there",
        well_known + badly_known,
    );
    let outcome = view.outcome.unwrap_or_default();
    ensure!(
        outcome.kind() == OutcomeKind::Failed && outcome.code == 3,
        "exit code 3 became {outcome:?}"
    );
    ensure!(ledger.counts("start").len() == 2, "a task ran twice");
    let free = nothing_held(&client, ground.within(HEAL)).await?;
    measured.time("every slot free after that", free);
    Ok(measured)
}
