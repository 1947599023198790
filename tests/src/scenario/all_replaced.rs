//! Every master is replaced while an agent stays connected. Nobody changes the agent's configuration: it must find whoever
//! leads when the last leader that it was connected to dies, and when it is started again.

use std::time::{Duration, Instant};

use anyhow::Context;
use berth_proto::v1::JobState;

use super::torn::voters;
use super::{Ground, Measured, SOON};
use crate::cluster::{Cluster, Plan};
use crate::spec;

/// The masters that the agent's configuration names.
const FIRST: [u64; 3] = [1, 2, 3];

pub(super) async fn run(ground: &Ground) -> anyhow::Result<Measured> {
    let plan = Plan {
        masters: FIRST.len() as u64,
        agents: 1,
        dir: ground.dir.clone(),
        ..Plan::default()
    };
    let mut cluster = Cluster::start(plan).await?;
    let outcome = replace_all(&mut cluster).await;
    cluster.explain(outcome)
}

async fn replace_all(cluster: &mut Cluster) -> anyhow::Result<Measured> {
    let mut measured = Measured::default();
    runs_a_job(cluster, "before").await?;
    let mut members = FIRST.to_vec();
    for old in FIRST {
        let new = old + 3;
        let address = cluster.start_joining_master(new).await?;
        let id = new.to_string();
        let add = ["masters", "add", &id, &address];
        cluster.berth(&add).await?.ok()?;
        members.push(new);
        voters(&cluster.client()?, &members).await?;
        let removing = Instant::now();
        let remove = ["masters", "remove", &old.to_string()];
        // A leader that goes may take its answer with it, and the second try finds it gone: the end is what counts.
        let said = cluster.berth(&remove).await?;
        members.retain(|member| *member != old);
        let gone = voters(&cluster.client()?, &members).await;
        gone.with_context(|| format!("after `masters remove {old}`: {}", said.err))?;
        let what = format!("{new} is there instead of {old}; removing took");
        measured.time(&what, removing.elapsed());
        cluster.forget_master(old);
    }
    runs_a_job(cluster, "replaced").await?;

    let leader = cluster.client()?.leader().await?;
    cluster.kill_master(leader);
    let took = runs_a_job(cluster, "leader-dead")
        .await
        .context("the agent does not find the new leader")?;
    measured.time("a job is done after the leader's death after", took);
    cluster.start_master(leader)?;

    cluster.kill_agent(0);
    cluster.start_agent(0)?;
    let took = runs_a_job(cluster, "agent-restarted")
        .await
        .context("the restarted agent does not find any master")?;
    measured.time("a job is done after the agent's start after", took);
    Ok(measured)
}

/// A job needs the agent, in contact with whoever leads.
async fn runs_a_job(cluster: &Cluster, name: &str) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let client = cluster.client()?;
    let job = client.submit(&spec::shell(name, "true")).await?;
    client.wait_state(job, JobState::Completed, SOON).await?;
    Ok(start.elapsed())
}
