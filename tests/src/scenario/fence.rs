//! Rule `fence`: the cut-off node ends its copy when its lease has run out, and only then a new copy starts.

use std::time::Instant;

use anyhow::ensure;
use berth_proto::v1::{JobState, LostNodeRule, NodeState};

use super::{Ground, HEAL, Measured, SOON, end, endless, epoch, nothing_held, only_copy};
use crate::client::summary;
use crate::cluster::{Cluster, Plan};
use crate::config::Settings;
use crate::ledger::Ledger;
use crate::spec::Shape;
use crate::{procfs, wait};

pub(super) async fn run(ground: &Ground) -> anyhow::Result<Measured> {
    let plan = Plan {
        agents: 2,
        proxied: true,
        settings: Settings {
            timeouts: vec![("node", "2s"), ("lease", "4s"), ("fence_margin", "2s")],
            ..Settings::default()
        },
        dir: ground.dir.clone(),
        ..Plan::default()
    };
    let mut cluster = Cluster::start(plan).await?;
    let outcome = fenced(&mut cluster, ground).await;
    cluster.explain(outcome)
}

async fn fenced(cluster: &mut Cluster, ground: &Ground) -> anyhow::Result<Measured> {
    let mut measured = Measured::default();
    let client = cluster.client()?;
    let ledger = Ledger::new(cluster.dir(), "ledger");
    let (job, old) = endless(cluster, &client, &ledger, |job| {
        job.gpus(1).on_lost_node(LostNodeRule::Fence)
    })
    .await?;
    let name = cluster.agents[old.agent].name.clone();

    cluster.cut_agent(old.agent);
    let cut = Instant::now();
    client.wait_state(job, JobState::Fencing, SOON).await?;
    measured.time("waits for the fence after the cut", cut.elapsed());
    let mut gone = None;
    // At every look the two never live at once; a copy that is just starting counts.
    wait::until("the new copy runs", SOON, async || {
        let copies = cluster.tasks_of(job);
        if gone.is_none() && !procfs::alive(old.pid) {
            gone = Some(cut.elapsed());
        }
        match copies.as_slice() {
            [one] if one.epoch == 2 => Ok(Ok(())),
            [_, _, ..] => Ok(Err(anyhow::anyhow!("two copies live: {copies:?}"))),
            other => Err(format!("{other:?}")),
        }
    })
    .await?
    .0?;
    let gone = gone.ok_or_else(|| anyhow::anyhow!("the old copy was never seen to end"))?;
    measured.time("old copy ended by its lease after the cut", gone);
    measured.time("new copy runs after the cut", cut.elapsed());
    ensure!(
        gone < cut.elapsed(),
        "the new copy started before the old one was gone"
    );

    cluster.heal();
    client
        .wait_node(&name, NodeState::Ready, true, ground.within(HEAL))
        .await?;
    let (view, _) = client
        .wait_state(job, JobState::Running, ground.within(HEAL))
        .await?;
    ensure!(
        epoch(&view) == 2,
        "attempt 2 was expected: {}",
        summary(&view)
    );
    let copy = only_copy(cluster, job)?;
    ensure!(
        copy.epoch == 2 && copy.agent != old.agent,
        "the heal changed something: {copy:?}"
    );
    end(cluster, &client, job).await?;
    nothing_held(&client, ground.within(HEAL)).await?;
    Ok(measured)
}
