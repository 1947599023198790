//! Short jobs whose ends fall around a failover. Elsewhere an agent forgets such a report after a few tries, and the job
//! runs for ever.

use std::time::Instant;

use anyhow::ensure;
use berth_proto::v1::JobState;

use super::{Ground, HEAL, Measured, SOON, nothing_held, wait_for};
use crate::cluster::{Cluster, Plan};
use crate::ledger::Ledger;
use crate::spec;

const JOBS: usize = 80;

pub(super) async fn run(ground: &Ground) -> anyhow::Result<Measured> {
    let plan = Plan {
        agents: 2,
        dir: ground.dir.clone(),
        ..Plan::default()
    };
    let mut cluster = Cluster::start(plan).await?;
    let outcome = around(&mut cluster, ground).await;
    cluster.explain(outcome)
}

async fn around(cluster: &mut Cluster, ground: &Ground) -> anyhow::Result<Measured> {
    let mut measured = Measured::default();
    let client = cluster.client()?;
    let ledger = Ledger::new(cluster.dir(), "ledger");
    let mut jobs = Vec::new();
    for at in 0..JOBS {
        // The ends are spread over the two seconds around the kill.
        let work = format!("sleep {}.{}", 1 + at / 40, (at % 40) / 4);
        let job = spec::shell(&format!("short-{at}"), &ledger.script(&work));
        jobs.push(client.submit(&job).await?);
    }
    wait_for("a few jobs have ended", SOON, || {
        ledger.counts("end").len() >= JOBS / 8
    })
    .await?;
    let leader = client.leader().await?;
    let before = ledger.counts("end").len();
    cluster.kill_master(leader);
    let killed = Instant::now();
    measured.say("ended before the kill", format!("{before} of {JOBS}"));
    client.leader().await?;
    measured.time("new leader known after", killed.elapsed());
    wait_for("every task has come to its end", SOON, || {
        ledger.counts("end").len() >= JOBS
    })
    .await?;
    let ended = Instant::now();
    for job in &jobs {
        let left = ground.within(HEAL).saturating_sub(ended.elapsed());
        let (view, _) = client.wait_state(*job, JobState::Completed, left).await?;
        ensure!(
            view.past.len() == 1,
            "job {job} had {} attempts",
            view.past.len()
        );
    }
    measured.time("all known as completed after their end", ended.elapsed());
    let twice = ledger.counts("end").into_iter().filter(|(_, n)| *n > 1);
    ensure!(twice.count() == 0, "a task ended twice");
    ensure!(ledger.counts("start").len() == JOBS, "a task ran twice");
    nothing_held(&client, ground.within(HEAL)).await?;
    // The one that was killed is a follower like any other when it is back.
    cluster.start_master(leader)?;
    let back = crate::Client::new(&[cluster.master(leader)?.address.clone()])?;
    let (_, caught_up) = back
        .wait_state(jobs[JOBS - 1], JobState::Completed, ground.within(HEAL))
        .await?;
    measured.time("killed master answers again after", caught_up);
    Ok(measured)
}
