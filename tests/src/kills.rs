//! How long it takes: leaders killed again and again until the next write is accepted, nodes killed until their gang runs
//! elsewhere.

use std::collections::BTreeMap;
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

/// How long a try of a quick client may take: it shows when the cluster takes writes again, and not its own patience.
const QUICK: Duration = Duration::from_millis(250);
/// How long a patient client waits for the answer to its call: it shows what becomes of calls that were under way.
const PATIENT: Duration = Duration::from_secs(10);
/// Nobody is elected so soon: what is acknowledged within this time of the kill is still the old leader's.
const AFTERGLOW: Duration = Duration::from_millis(100);
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

/// What killing leaders measured.
#[derive(Clone, Debug, Default)]
pub struct LeaderTimes {
    /// From the kill until a write was acknowledged that was sent after the kill, at whichever master answered first.
    pub next_write: Times,
    /// From the kill until each surviving master answered the call that a client was waiting for there.
    pub patient: Times,
}

/// Kills the leader `kills` times, while clients write at every master.
///
/// # Errors
/// If nothing is accepted for half a minute, or the killed master does not come back.
pub async fn leaders(
    dir: Option<PathBuf>,
    kills: usize,
    tell: Tell<'_>,
) -> anyhow::Result<LeaderTimes> {
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
) -> anyhow::Result<LeaderTimes> {
    let client = cluster.client()?;
    // Holds the only GPU, so that what is written stays in the queue: writes are measured, not runs.
    let holder = client
        .submit(&spec::shell("holder", "sleep 36000").gpus(1))
        .await?;
    client.wait_state(holder, JobState::Running, SOON).await?;
    let mut times = LeaderTimes::default();
    for done in 0..kills {
        let leader = client.leader().await?;
        let write = spec::shell("write", "true").gpus(1);
        let kill = kill_leader(cluster, leader, &write).await?;
        times.next_write.add(kill.next_write);
        kill.patient
            .into_iter()
            .for_each(|time| times.patient.add(time));
        tell(done + 1, kills, kill.next_write);
        for job in kill.jobs {
            client.cancel(job).await?;
        }
        cluster.start_master(leader)?;
        caught_up(&client, leader).await?;
    }
    Ok(times)
}

/// What one kill of a leader showed.
#[derive(Clone, Debug)]
pub struct LeaderKill {
    /// Until the next accepted write.
    pub next_write: Duration,
    /// Until each surviving master answered the call that a client was waiting for there.
    pub patient: Vec<Duration>,
    /// Everything that was written around it.
    pub jobs: Vec<u64>,
}

/// Kills the leader while two clients of each master, a quick and a patient one, submit `spec` again and again.
///
/// # Errors
/// If nothing is accepted for half a minute.
pub async fn kill_leader(
    cluster: &mut Cluster,
    leader: u64,
    spec: &v1::JobSpec,
) -> anyhow::Result<LeaderKill> {
    let client = Arc::new(cluster.client()?);
    let (stop, stopped) = watch::channel(false);
    let (accepted, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let mut writers = JoinSet::new();
    for (at, master) in cluster.masters.keys().copied().enumerate() {
        for patience in [QUICK, PATIENT] {
            let writer = Writer {
                channel: client.channel(at),
                master,
                patience,
                spec: spec.clone(),
                accepted: accepted.clone(),
            };
            writers.spawn(writer.run(stopped.clone()));
        }
    }
    drop(accepted);
    tokio::time::sleep(WARM_UP).await;
    let daemon = cluster.master(leader)?.daemon.as_ref();
    let pid = daemon
        .map(process::Daemon::pid)
        .context("the leader runs")?;
    let killed = Instant::now();
    process::kill_9(pid);
    let mut jobs = Vec::new();
    let survivors = cluster.masters.len() - 1;
    let (mut next_write, mut patient) = (None, BTreeMap::new());
    let _ = tokio::time::timeout(LEADERLESS, async {
        while next_write.is_none() || patient.len() < survivors {
            let Some(write) = seen.recv().await else {
                return;
            };
            jobs.push(write.job);
            let time = write.acknowledged.saturating_duration_since(killed);
            if write.sent >= killed {
                next_write.get_or_insert(time);
            }
            if write.patience == PATIENT && write.master != leader && time > AFTERGLOW {
                patient.entry(write.master).or_insert(time);
            }
        }
    })
    .await;
    let _ = stop.send(true);
    cluster.kill_master(leader);
    while writers.join_next().await.is_some() {}
    while let Some(write) = seen.recv().await {
        jobs.push(write.job);
    }
    ensure!(
        patient.len() == survivors,
        "no answer from every surviving master within {LEADERLESS:?}"
    );
    let next_write = next_write.context("no write was accepted")?;
    Ok(LeaderKill {
        next_write,
        patient: patient.into_values().collect(),
        jobs,
    })
}

struct Write {
    job: u64,
    master: u64,
    patience: Duration,
    sent: Instant,
    acknowledged: Instant,
}

/// A client of one master.
struct Writer {
    channel: Channel,
    master: u64,
    patience: Duration,
    spec: v1::JobSpec,
    accepted: tokio::sync::mpsc::UnboundedSender<Write>,
}

impl Writer {
    /// Submits until told to stop, repeating an unanswered submission with its key.
    async fn run(self, stopped: watch::Receiver<bool>) {
        let mut key = client::key();
        while !*stopped.borrow() {
            let sent = Instant::now();
            let channel = self.channel.clone();
            match client::submit_once(channel, &key, &self.spec, self.patience).await {
                Ok(answer) => {
                    let _ = self.accepted.send(Write {
                        job: answer.job,
                        master: self.master,
                        patience: self.patience,
                        sent,
                        acknowledged: Instant::now(),
                    });
                    key = client::key();
                    tokio::time::sleep(BETWEEN_WRITES).await;
                }
                Err(_) => tokio::time::sleep(RETRY).await,
            }
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
