//! How long it takes: leaders killed again and again until the next write is accepted, nodes killed until their gang runs
//! elsewhere.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use berth_proto::v1::{self, JobState, NodeState};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::client::{self, Client};
use crate::cluster::{Cluster, Plan};
use crate::figures::Times;
use crate::ledger::Ledger;
use crate::process;
use crate::spec::{self, Shape};
use crate::wait;

/// How long one try of a write may take. A client that waited longer would measure its own patience.
const TRY: Duration = Duration::from_millis(250);
/// Pause after a refused try.
const RETRY: Duration = Duration::from_millis(5);
/// Pause after an accepted write, so that the load is a client's and not a benchmark's.
const BETWEEN_WRITES: Duration = Duration::from_millis(20);
/// How long writers run before the kill.
const WARM_UP: Duration = Duration::from_millis(300);
/// A cluster without a leader for this long has failed.
const LEADERLESS: Duration = Duration::from_secs(30);
/// For what is not measured.
const SOON: Duration = Duration::from_secs(60);

/// What is told after each repetition: how many are done, of how many.
pub type Tell<'a> = &'a mut (dyn FnMut(usize, usize, Duration) + Send);

/// Kills the leader `kills` times. Each time is from the kill to the moment when a write is acknowledged that was
/// sent after the kill, at whichever master answers first; one client per master writes all the time.
///
/// # Errors
/// If nothing is accepted for half a minute, or the killed master does not come back.
pub async fn leaders(dir: Option<PathBuf>, kills: usize, tell: Tell<'_>) -> anyhow::Result<Times> {
    let plan = Plan {
        agents: 1,
        gpus: 1,
        dir,
        ..Plan::default()
    };
    let mut cluster = Cluster::start(plan).await?;
    let outcome = kill_leaders(&mut cluster, kills, tell).await;
    cluster.explain(outcome)
}

async fn kill_leaders(
    cluster: &mut Cluster,
    kills: usize,
    tell: Tell<'_>,
) -> anyhow::Result<Times> {
    let client = cluster.client()?;
    // Holds the only GPU, so that what is written stays in the queue: writes are measured, not runs.
    let holder = client
        .submit(&spec::shell("holder", "sleep 36000").gpus(1))
        .await?;
    client.wait_state(holder, JobState::Running, SOON).await?;
    let mut times = Times::default();
    for done in 0..kills {
        let leader = client.leader().await?;
        let write = spec::shell("write", "true").gpus(1);
        let (time, jobs) = kill_leader(cluster, leader, &write).await?;
        times.add(time);
        tell(done + 1, kills, time);
        for job in jobs {
            client.cancel(job).await?;
        }
        cluster.start_master(leader)?;
        caught_up(&client, leader).await?;
    }
    Ok(times)
}

/// Kills the leader while a client of each master submits `spec` again and again. Returns how long until the next one was
/// accepted, and all that were.
///
/// # Errors
/// If nothing is accepted for half a minute.
pub async fn kill_leader(
    cluster: &mut Cluster,
    leader: u64,
    spec: &v1::JobSpec,
) -> anyhow::Result<(Duration, Vec<u64>)> {
    let client = Arc::new(cluster.client()?);
    let (stop, stopped) = watch::channel(false);
    let (accepted, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let mut writers = JoinSet::new();
    for at in 0..cluster.masters.len() {
        let channel = client.channel(at);
        writers.spawn(write(
            channel,
            spec.clone(),
            accepted.clone(),
            stopped.clone(),
        ));
    }
    drop(accepted);
    tokio::time::sleep(WARM_UP).await;
    let pid = cluster
        .master(leader)?
        .daemon
        .as_ref()
        .map(process::Daemon::pid);
    let killed = Instant::now();
    process::kill_9(pid.context("the leader runs")?);
    let mut jobs = Vec::new();
    let first = tokio::time::timeout(LEADERLESS, async {
        while let Some(write) = seen.recv().await {
            let Write {
                job,
                sent,
                acknowledged,
            } = write;
            jobs.push(job);
            if sent >= killed {
                return Some(acknowledged - killed);
            }
        }
        None
    })
    .await;
    let _ = stop.send(true);
    cluster.kill_master(leader);
    while writers.join_next().await.is_some() {}
    while let Some(write) = seen.recv().await {
        jobs.push(write.job);
    }
    let first = first.ok().flatten();
    let time = first.with_context(|| format!("no write was accepted within {LEADERLESS:?}"))?;
    Ok((time, jobs))
}

struct Write {
    job: u64,
    sent: Instant,
    acknowledged: Instant,
}

/// A client of one master: submits until told to stop, repeating an unanswered submission with its key.
async fn write(
    channel: Channel,
    spec: v1::JobSpec,
    accepted: tokio::sync::mpsc::UnboundedSender<Write>,
    stopped: watch::Receiver<bool>,
) {
    let mut key = client::key();
    while !*stopped.borrow() {
        let sent = Instant::now();
        match client::submit_once(channel.clone(), &key, &spec, TRY).await {
            Ok(answer) => {
                let acknowledged = Instant::now();
                let job = answer.job;
                let _ = accepted.send(Write {
                    job,
                    sent,
                    acknowledged,
                });
                key = client::key();
                tokio::time::sleep(BETWEEN_WRITES).await;
            }
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

/// Waits until every master votes and has what the leader has, so that the next kill meets a whole cluster.
async fn caught_up(client: &Client, restarted: u64) -> anyhow::Result<()> {
    let what = format!("master {restarted} has caught up");
    wait::until(&what, SOON, async || {
        let status = client.status().await.map_err(|e| format!("{e:#}"))?;
        let behind = status
            .masters
            .iter()
            .find(|m| !m.leader && (!m.reachable || m.matched < status.applied));
        match behind {
            None => Ok(()),
            Some(master) => Err(format!("{master:?}, applied {}", status.applied)),
        }
    })
    .await?;
    Ok(())
}

/// What killing nodes measured.
#[derive(Clone, Debug, Default)]
pub struct NodeTimes {
    /// From the kill until the cluster says that the node is lost.
    pub detected: Times,
    /// From the kill until every rank of its gang runs elsewhere.
    pub restarted: Times,
}

/// Kills a node (agent, keeper and tasks) under a gang of four, `kills` times.
///
/// # Errors
/// If the loss is not noticed or the gang does not start elsewhere.
pub async fn nodes(
    dir: Option<PathBuf>,
    kills: usize,
    tell: Tell<'_>,
) -> anyhow::Result<NodeTimes> {
    let plan = Plan {
        dir,
        ..Plan::default()
    };
    let mut cluster = Cluster::start(plan).await?;
    let outcome = kill_nodes(&mut cluster, kills, tell).await;
    cluster.explain(outcome)
}

async fn kill_nodes(
    cluster: &mut Cluster,
    kills: usize,
    tell: Tell<'_>,
) -> anyhow::Result<NodeTimes> {
    let mut times = NodeTimes::default();
    let client = cluster.client()?;
    let ledger = Ledger::new(cluster.dir(), "ledger");
    let gang = spec::shell("gang", &ledger.endless()).gpus(1).workers(4);
    let job = client.submit(&gang).await?;
    client.wait_state(job, JobState::Running, SOON).await?;
    for done in 0..kills {
        let view = client.job(job).await?;
        let attempt = view.attempt.context("it runs")?;
        let epoch = attempt.epoch;
        let victim = cluster.tasks_of(job).first().context("it runs")?.agent;
        let name = cluster.agents[victim].name.clone();
        let killed = Instant::now();
        cluster.kill_node(victim);
        client
            .wait_node(&name, NodeState::Lost, false, SOON)
            .await?;
        times.detected.add(killed.elapsed());
        wait::until("the gang runs elsewhere", SOON, async || {
            let lines = ledger.of(job, "start");
            let new = lines.iter().filter(|line| line.copy.epoch > epoch).count();
            if new >= 4 {
                Ok(())
            } else {
                Err(format!("{new} of 4 ranks"))
            }
        })
        .await?;
        times.restarted.add(killed.elapsed());
        tell(done + 1, kills, killed.elapsed());
        let (view, _) = client.wait_state(job, JobState::Running, SOON).await?;
        ensure!(
            placed(&view).iter().all(|node| *node != name),
            "the gang was placed on a node that is dead"
        );
        cluster.start_agent(victim)?;
        client
            .wait_node(&name, NodeState::Ready, true, SOON)
            .await?;
    }
    Ok(times)
}

/// Names of the nodes that a job's current attempt sits on.
fn placed(job: &v1::Job) -> Vec<String> {
    let tasks = job.attempt.iter().flat_map(|attempt| &attempt.tasks);
    tasks
        .filter_map(|task| job.node_names.get(&task.placement.as_ref()?.node).cloned())
        .collect()
}
