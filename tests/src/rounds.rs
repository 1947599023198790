//! Rounds of kill -9 under submission load: no acknowledged job may be lost, and none may count twice.
//!
//! Three witnesses are compared: what clients were told, what the cluster says now (jobs and events), and what the tasks
//! themselves wrote into a file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use berth_proto::v1::{self, JobState, attempt_end};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::cluster::{Cluster, Plan};
use crate::dice::Dice;
use crate::ledger::{Copy, Ledger};
use crate::spec::{self, Shape};
use crate::wait;

/// Clients that submit at the same time.
const CLIENTS: usize = 4;
/// Pause of each between two submissions.
const BETWEEN: Duration = Duration::from_millis(150);
/// The whole cluster is back this long after a round's restart, or something is wrong.
const HEALED: Duration = Duration::from_secs(60);
/// Every job has ended this long after the last round, or it is lost.
const SETTLED: Duration = Duration::from_secs(120);

/// How to run.
#[derive(Clone, Debug)]
pub struct Rounds {
    /// How many rounds.
    pub rounds: usize,
    /// Chooses victims and moments.
    pub seed: u64,
    /// Where to make the cluster; the system's temporary directory if `None`.
    pub dir: Option<PathBuf>,
}

/// What one round did.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// From 1.
    pub number: usize,
    /// Who was killed.
    pub killed: String,
    /// Submissions acknowledged during the round.
    pub accepted: usize,
    /// Longest time in which no submission was acknowledged.
    pub longest_gap_ms: u128,
    /// From the restart of the victim until the whole cluster was there again.
    pub healed_ms: u128,
}

/// What held in the end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Submissions that were acknowledged.
    pub acknowledged: usize,
    /// Of these, jobs that ended well.
    pub completed: usize,
    /// Acknowledged jobs that nobody knows, or that never end.
    pub lost: Vec<u64>,
    /// Jobs that ended otherwise than well, though every task that comes to its end ends well.
    pub failed: Vec<u64>,
    /// Jobs whose completion was counted more than once.
    pub twice: Vec<u64>,
    /// Jobs that were counted although the counted attempt did not come to its end.
    pub unfounded: Vec<u64>,
    /// Submissions that made a second job: their key was used before.
    pub repeated: usize,
    /// Attempts that came to their end and do not count, because their node died before that was recorded.
    pub ran_again: usize,
}

impl Verdict {
    /// True if every promise was kept.
    pub fn holds(&self) -> bool {
        let broken = [&self.lost, &self.failed, &self.twice, &self.unfounded];
        broken.iter().all(|jobs| jobs.is_empty()) && self.completed == self.acknowledged
    }
}

/// Runs all rounds, telling about each when it is over.
///
/// # Errors
/// If the cluster does not heal. Broken promises are in the verdict.
pub async fn run(
    rounds: &Rounds,
    tell: &mut (dyn FnMut(&Round) + Send),
) -> anyhow::Result<Verdict> {
    let plan = Plan {
        dir: rounds.dir.clone(),
        ..Plan::default()
    };
    let mut cluster = Cluster::start(plan).await?;
    let outcome = all_rounds(&mut cluster, rounds, tell).await;
    if outcome.as_ref().is_ok_and(|verdict| !verdict.holds()) {
        // Whoever asked judges the verdict; the files say how it came about.
        cluster.keep();
    }
    cluster.explain(outcome)
}

/// When which submission was acknowledged.
type Acknowledged = Arc<Mutex<Vec<(u64, Instant)>>>;

async fn all_rounds(
    cluster: &mut Cluster,
    rounds: &Rounds,
    tell: &mut (dyn FnMut(&Round) + Send),
) -> anyhow::Result<Verdict> {
    let ledger = Ledger::new(cluster.dir(), "ledger");
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Acknowledged::default();
    let mut load = JoinSet::new();
    for number in 0..CLIENTS {
        let client = cluster.client()?;
        let load_of_one = submit_all(
            client,
            number,
            ledger.clone(),
            acknowledged.clone(),
            stop.clone(),
        );
        load.spawn(load_of_one);
    }
    let follower = tokio::spawn(follow(cluster.client()?, stop.clone()));
    let mut dice = Dice::new(rounds.seed);
    for number in 1..=rounds.rounds {
        let round = one_round(cluster, number, &mut dice, &acknowledged).await?;
        tell(&round);
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = load.join_next().await {
        ended??;
    }
    let counted = follower.await??;
    let jobs = acknowledged
        .lock()
        .map_or_else(|held| held.into_inner().clone(), |jobs| jobs.clone());
    let jobs: Vec<u64> = jobs.into_iter().map(|(job, _)| job).collect();
    judge(&cluster.client()?, &jobs, &ledger, counted).await
}

async fn submit_all(
    client: Client,
    number: usize,
    ledger: Ledger,
    acknowledged: Acknowledged,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let mut count = 0_usize;
    while !stop.load(Ordering::Relaxed) {
        let work = format!("sleep 0.{}", (count * 7 + number) % 10);
        // A node that dies three times under one job is no fault of the job.
        let spec = spec::shell(&format!("load-{number}-{count}"), &ledger.script(&work));
        let job = client.submit(&spec.max_restarts(20)).await?;
        note(&acknowledged, job);
        count += 1;
        tokio::time::sleep(BETWEEN).await;
    }
    Ok(())
}

fn note(acknowledged: &Acknowledged, job: u64) {
    let mut list = acknowledged.lock().unwrap_or_else(|held| held.into_inner());
    list.push((job, Instant::now()));
}

/// Follows the events and counts how often each job's end was counted. Ends when told to and nothing new comes.
async fn follow(
    client: Client,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<(BTreeMap<u64, u32>, Client, u64)> {
    let mut counted = BTreeMap::new();
    let mut next = 1;
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        next = count(&client, next, &mut counted).await?;
        if stopping {
            return Ok((counted, client, next));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Counts the ends among the events from `next` on, and returns where to go on.
async fn count(
    client: &Client,
    mut next: u64,
    counted: &mut BTreeMap<u64, u32>,
) -> anyhow::Result<u64> {
    loop {
        let (events, after) = client.events_from(next).await?;
        if let Some(first) = events.first() {
            ensure!(
                first.seq == next,
                "events {next} to {} are gone before they were read",
                first.seq
            );
        }
        for event in &events {
            if let (Some(job), "job.finished") = (event.job, event.kind.as_str()) {
                *counted.entry(job).or_insert(0) += 1;
            }
        }
        if events.is_empty() {
            return Ok(next);
        }
        next = after;
    }
}

enum Victim {
    Master(u64),
    Agent(usize),
    Node(usize),
}

async fn one_round(
    cluster: &mut Cluster,
    number: usize,
    dice: &mut Dice,
    acknowledged: &Acknowledged,
) -> anyhow::Result<Round> {
    let started = Instant::now();
    tokio::time::sleep(Duration::from_millis(dice.below(1_000))).await;
    let (victim, killed) = choose(cluster, dice).await?;
    match victim {
        Victim::Master(id) => cluster.kill_master(id),
        Victim::Agent(agent) => cluster.kill_agent(agent),
        Victim::Node(agent) => cluster.kill_node(agent),
    }
    tokio::time::sleep(Duration::from_millis(300 + dice.below(1_200))).await;
    match victim {
        Victim::Master(id) => cluster.start_master(id)?,
        Victim::Agent(agent) | Victim::Node(agent) => cluster.start_agent(agent)?,
    }
    let restarted = Instant::now();
    tokio::time::timeout(HEALED, cluster.ready())
        .await
        .with_context(|| format!("round {number}: not healed within {HEALED:?}"))??;
    let healed = restarted.elapsed();
    // So that the gap that this kill caused is over, too.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (accepted, longest_gap) = since(acknowledged, started);
    Ok(Round {
        number,
        killed,
        accepted,
        longest_gap_ms: longest_gap.as_millis(),
        healed_ms: healed.as_millis(),
    })
}

async fn choose(cluster: &Cluster, dice: &mut Dice) -> anyhow::Result<(Victim, String)> {
    let agents: Vec<usize> = (0..cluster.agents.len()).collect();
    let agent = *dice.choose(&agents).context("there are agents")?;
    let name = &cluster.agents[agent].name;
    Ok(match dice.below(4) {
        0 => (Victim::Agent(agent), format!("agent {name}")),
        1 => (
            Victim::Node(agent),
            format!("agent {name}, keeper and tasks"),
        ),
        side => {
            let leader = cluster.client()?.leader().await?;
            let others: Vec<u64> = cluster
                .masters
                .keys()
                .copied()
                .filter(|id| *id != leader)
                .collect();
            if side == 2 {
                (
                    Victim::Master(leader),
                    format!("master {leader}, the leader"),
                )
            } else {
                let id = *dice.choose(&others).context("there are followers")?;
                (Victim::Master(id), format!("master {id}"))
            }
        }
    })
}

fn since(acknowledged: &Acknowledged, started: Instant) -> (usize, Duration) {
    let list = acknowledged.lock().unwrap_or_else(|held| held.into_inner());
    let mut times: Vec<Instant> = list
        .iter()
        .map(|(_, at)| *at)
        .filter(|at| *at >= started)
        .collect();
    drop(list);
    let accepted = times.len();
    times.insert(0, started);
    times.push(Instant::now());
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
    (accepted, gaps.max().unwrap_or_default())
}

async fn judge(
    client: &Client,
    jobs: &[u64],
    ledger: &Ledger,
    counted: (BTreeMap<u64, u32>, Client, u64),
) -> anyhow::Result<Verdict> {
    let ended = settle(client, jobs).await;
    let (mut counts, follower, next) = counted;
    count(&follower, next, &mut counts).await?;
    let ends = ledger.counts("end");
    let distinct: BTreeSet<u64> = jobs.iter().copied().collect();
    let mut verdict = Verdict {
        acknowledged: distinct.len(),
        repeated: jobs.len() - distinct.len(),
        ..Verdict::default()
    };
    for job in &distinct {
        let Some(view) = ended.get(job) else {
            verdict.lost.push(*job);
            continue;
        };
        if view.state() != JobState::Completed {
            verdict.failed.push(*job);
            continue;
        }
        verdict.completed += 1;
        let completed = completed_epochs(view);
        if completed.len() != 1 || counts.get(job) != Some(&1) {
            verdict.twice.push(*job);
        }
        let copy = |epoch| Copy {
            job: *job,
            epoch,
            rank: 0,
        };
        if completed
            .iter()
            .any(|epoch| ends.get(&copy(*epoch)) != Some(&1))
        {
            verdict.unfounded.push(*job);
        }
        let others = ends
            .keys()
            .filter(|c| c.job == *job && !completed.contains(&c.epoch));
        verdict.ran_again += others.count();
    }
    Ok(verdict)
}

/// Every job that has ended, once all have or the time is over.
async fn settle(client: &Client, jobs: &[u64]) -> BTreeMap<u64, v1::Job> {
    let mut ended = BTreeMap::new();
    let _ = wait::until("every job has ended", SETTLED, async || {
        for job in jobs {
            if ended.contains_key(job) {
                continue;
            }
            let view = client.job(*job).await.map_err(|e| format!("{e:#}"))?;
            if view.ended_ms.is_none() {
                return Err(crate::client::summary(&view));
            }
            ended.insert(*job, view);
        }
        Ok(())
    })
    .await;
    ended
}

/// Attempts of a job that count as completed: exactly one, if all is well.
fn completed_epochs(job: &v1::Job) -> Vec<u32> {
    let completed = |past: &&v1::PastAttempt| {
        let kind = past.end.as_ref().and_then(|end| end.kind.as_ref());
        matches!(kind, Some(attempt_end::Kind::Completed(_)))
    };
    job.past
        .iter()
        .filter(completed)
        .map(|past| past.epoch)
        .collect()
}
