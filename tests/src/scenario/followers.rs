//! Any master takes any call, and nobody reads a state older than its own write.

use anyhow::ensure;
use berth_proto::v1::JobState;

use super::{Ground, Measured, SOON};
use crate::client::Client;
use crate::cluster::{Cluster, Plan};
use crate::spec;

/// Write at one master, read at the next, so often.
const TIMES: usize = 100;

pub(super) async fn run(ground: &Ground) -> anyhow::Result<Measured> {
    let plan = Plan {
        agents: 1,
        dir: ground.dir.clone(),
        ..Plan::default()
    };
    let mut cluster = Cluster::start(plan).await?;
    let outcome = around(&cluster).await;
    cluster.explain(outcome)
}

async fn around(cluster: &Cluster) -> anyhow::Result<Measured> {
    let mut measured = Measured::default();
    let clients: Result<Vec<Client>, _> = cluster
        .addresses()
        .into_iter()
        .map(|address| Client::new(&[address]))
        .collect();
    let clients = clients?;
    let mut jobs = Vec::new();
    for time in 0..TIMES {
        let (writer, reader) = (&clients[time % 3], &clients[(time + 1) % 3]);
        let job = writer.submit(&spec::shell("follower", "true")).await?;
        let seen = reader.job(job).await?;
        ensure!(seen.id == job, "asked for {job}, got {}", seen.id);
        jobs.push(job);
    }
    measured.say("written at one master and read at the next", TIMES);
    for (at, job) in jobs.iter().enumerate() {
        let client = &clients[at % 3];
        client.wait_state(*job, JobState::Completed, SOON).await?;
    }
    let endless = clients[0]
        .submit(&spec::shell("endless", "sleep 3600"))
        .await?;
    clients[1]
        .wait_state(endless, JobState::Running, SOON)
        .await?;
    clients[2].cancel(endless).await?;
    clients[0]
        .wait_state(endless, JobState::Cancelled, SOON)
        .await?;
    for client in &clients {
        let listed = client.jobs(true).await?;
        ensure!(
            listed.len() == TIMES + 1,
            "{} jobs listed instead of {}",
            listed.len(),
            TIMES + 1
        );
    }
    measured.say("listed by each master", TIMES + 1);
    Ok(measured)
}
