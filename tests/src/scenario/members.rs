//! Masters are added, removed and replaced while jobs are submitted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use berth_proto::v1::JobState;

use super::torn::voters;
use super::{Ground, Measured, SOON};
use crate::client::Client;
use crate::cluster::{Cluster, Plan};
use crate::spec;

pub(super) async fn run(ground: &Ground) -> anyhow::Result<Measured> {
    let plan = Plan {
        agents: 1,
        dir: ground.dir.clone(),
        ..Plan::default()
    };
    let mut cluster = Cluster::start(plan).await?;
    let outcome = changed(&mut cluster).await;
    cluster.explain(outcome)
}

async fn changed(cluster: &mut Cluster) -> anyhow::Result<Measured> {
    let mut measured = Measured::default();
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(submitting(cluster.client()?, stop.clone()));
    let outcome = change_all(cluster, &mut measured).await;
    stop.store(true, Ordering::Relaxed);
    let jobs = load.await?;
    outcome?;
    let jobs = jobs?;
    let client = cluster.client()?;
    for job in &jobs {
        client.wait_state(*job, JobState::Completed, SOON).await?;
    }
    measured.say("jobs accepted meanwhile, all completed", jobs.len());
    Ok(measured)
}

async fn submitting(client: Client, stop: Arc<AtomicBool>) -> anyhow::Result<Vec<u64>> {
    let mut jobs = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        jobs.push(client.submit(&spec::shell("load", "true")).await?);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(jobs)
}

async fn change_all(cluster: &mut Cluster, measured: &mut Measured) -> anyhow::Result<()> {
    let client = cluster.client()?;
    for new in [4, 5] {
        let address = cluster.start_joining_master(new).await?;
        let id = new.to_string();
        cluster
            .berth(&["masters", "add", &id, &address])
            .await?
            .ok()?;
        let took = voters(&client, &(1..=new).collect::<Vec<_>>()).await?;
        measured.time(&format!("master {new} votes after"), took);
    }
    let leader = client.leader().await?;
    let removed = leader.to_string();
    cluster
        .berth(&["masters", "remove", &removed])
        .await?
        .ok()?;
    let left: Vec<u64> = (1..=5).filter(|id| *id != leader).collect();
    // The load's client still knows the one that goes; its process stays until it does no harm.
    let took = voters(&cluster.client()?, &left).await?;
    measured.time(&format!("the leader ({leader}) is removed after"), took);
    cluster.forget_master(leader);

    let leader = cluster.client()?.leader().await?;
    let follower = *left
        .iter()
        .find(|id| **id != leader)
        .context("four masters")?;
    let address = cluster.start_joining_master(6).await?;
    let old = follower.to_string();
    let replace = [
        "masters",
        "replace",
        &old,
        "--with",
        "6",
        "--address",
        &address,
    ];
    cluster.berth(&replace).await?.ok()?;
    let mut left: Vec<u64> = left.into_iter().filter(|id| *id != follower).collect();
    left.push(6);
    let took = voters(&cluster.client()?, &left).await?;
    measured.time(&format!("a follower ({follower}) is replaced after"), took);
    cluster.forget_master(follower);

    // An id is never used twice: its votes of old could count again.
    let again = cluster.berth(&["masters", "add", &old, &address]).await?;
    ensure!(
        again.code != Some(0),
        "id {old} was taken twice: {}",
        again.out
    );
    let newest = Client::new(&[cluster.master(6)?.address.clone()])?;
    let job = newest.submit(&spec::shell("through-6", "true")).await?;
    newest.wait_state(job, JobState::Completed, SOON).await?;
    Ok(())
}
