//! The leader is frozen (a long pause of its machine) and wakes up in the belief that it still leads.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use berth_proto::v1::JobState;

use super::{Ground, HEAL, Measured, SOON, end, endless, only_copy};
use crate::client::{self, Client};
use crate::cluster::{Cluster, Plan};
use crate::ledger::Ledger;
use crate::process::{self, Daemon};
use crate::spec;

pub(super) async fn run(ground: &Ground) -> anyhow::Result<Measured> {
    let plan = Plan {
        agents: 1,
        dir: ground.dir.clone(),
        ..Plan::default()
    };
    let mut cluster = Cluster::start(plan).await?;
    let outcome = frozen(&cluster, ground).await;
    cluster.explain(outcome)
}

async fn frozen(cluster: &Cluster, ground: &Ground) -> anyhow::Result<Measured> {
    let mut measured = Measured::default();
    let everyone = cluster.client()?;
    let ledger = Ledger::new(cluster.dir(), "ledger");
    let (job, task) = endless(cluster, &everyone, &ledger, |job| job).await?;
    let old = everyone.leader().await?;
    let master = cluster.master(old)?;
    let old_only = Client::new(std::slice::from_ref(&master.address))?;
    let others = cluster.masters.values().filter(|master| master.id != old);
    let others: Vec<String> = others.map(|master| master.address.clone()).collect();
    let others = Client::new(&others)?;
    let pid = master
        .daemon
        .as_ref()
        .map(Daemon::pid)
        .context("the leader runs")?;
    // A submission that the old leader may take from its socket the moment it wakes.
    let key = client::key();
    let spec = spec::shell("in-the-pause", "true");

    process::freeze(pid);
    let frozen = Instant::now();
    let waiting = client::submit_once(old_only.channel(0), &key, &spec, Duration::from_secs(20));
    let waiting = async { waiting.await.map(|answer| answer.job) };
    let elsewhere = async {
        let written = others.submit(&spec::shell("elsewhere", "true")).await?;
        let next_write = frozen.elapsed();
        // The agent goes over to the new leader, which takes it a little longer.
        others
            .wait_state(written, JobState::Completed, SOON)
            .await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        process::thaw(pid);
        anyhow::Ok((written, next_write))
    };
    let (in_the_pause, elsewhere) = tokio::join!(waiting, elsewhere);
    let (written, next_write) = elsewhere?;
    measured.time("next accepted write after the freeze", next_write);
    let thawed = Instant::now();
    let (seen, _) = old_only
        .wait_state(written, JobState::Completed, ground.within(HEAL))
        .await
        .context("the old leader answers with what happened while it was frozen")?;
    ensure!(seen.id == written, "another job");
    measured.time(
        "the old leader answers rightly after the thaw",
        thawed.elapsed(),
    );
    if let Ok(accepted) = in_the_pause {
        // Whatever was acknowledged counts, whoever acknowledged it.
        others
            .wait_state(accepted, JobState::Completed, SOON)
            .await?;
    }
    let again = others.submit_with(&key, &spec).await?;
    others.wait_state(again, JobState::Completed, SOON).await?;
    let jobs = others.jobs(true).await?;
    let made = jobs
        .iter()
        .filter(|job| job.spec.as_ref().is_some_and(|s| s.name == spec.name));
    ensure!(made.count() == 1, "one key made several jobs");
    ensure!(only_copy(cluster, job)? == task, "the task noticed");
    end(cluster, &everyone, job).await?;
    Ok(measured)
}
