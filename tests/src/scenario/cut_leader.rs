//! The leader is cut off from the other masters, but neither from agents nor from clients. It must not answer for the
//! cluster any more, and follow when it is back.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use berth_proto::v1::JobState;

use super::{Ground, HEAL, Measured, SOON, end, endless, only_copy};
use crate::client::{self, Client};
use crate::cluster::{Cluster, Plan};
use crate::ledger::Ledger;
use crate::{spec, wait};

pub(super) async fn run(ground: &Ground) -> anyhow::Result<Measured> {
    let plan = Plan {
        agents: 1,
        proxied: true,
        dir: ground.dir.clone(),
        ..Plan::default()
    };
    let mut cluster = Cluster::start(plan).await?;
    let outcome = cut_off(&mut cluster, ground).await;
    cluster.explain(outcome)
}

async fn cut_off(cluster: &mut Cluster, ground: &Ground) -> anyhow::Result<Measured> {
    let mut measured = Measured::default();
    let everyone = cluster.client()?;
    let ledger = Ledger::new(cluster.dir(), "ledger");
    let (job, task) = endless(cluster, &everyone, &ledger, |job| job).await?;
    let old = everyone.leader().await?;
    let old_only = Client::new(&[cluster.master(old)?.address.clone()])?;
    let others = cluster.masters.values().filter(|master| master.id != old);
    let others: Vec<String> = others.map(|master| master.address.clone()).collect();
    let others = Client::new(&others)?;

    cluster.cut_master(old);
    let cut = Instant::now();
    let written = others.submit(&spec::shell("other-side", "true")).await?;
    measured.time("next accepted write after the cut", cut.elapsed());
    // What the old leader accepts now could only be lost.
    let spec = spec::shell("wrong-side", "true");
    let lone = client::submit_once(old_only.channel(0), &client::key(), &spec, SECOND).await;
    ensure!(
        lone.is_err(),
        "the leader that was cut off accepted a job: {lone:?}"
    );
    let (_, done) = others
        .wait_state(written, JobState::Completed, SOON)
        .await?;
    measured.time("a new job is done on the other side after", done);

    cluster.heal();
    let heal = Instant::now();
    wait::until("the old leader follows", ground.within(HEAL), async || {
        let view = old_only.job(written).await.map_err(|e| format!("{e:#}"))?;
        let status = old_only.status().await.map_err(|e| format!("{e:#}"))?;
        let leader = status.masters.iter().find(|master| master.leader);
        match leader.context("no leader") {
            Ok(_) if view.state() == JobState::Completed => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    measured.time(
        "the old leader answers rightly after the heal",
        heal.elapsed(),
    );
    ensure!(only_copy(cluster, job)? == task, "the task noticed");
    end(cluster, &everyone, job).await?;
    Ok(measured)
}

const SECOND: Duration = Duration::from_secs(1);
