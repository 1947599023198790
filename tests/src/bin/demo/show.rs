//! The play: an uninterrupted run, then the same run with two deaths, then the comparison.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use berth_proto::v1::{JobState, NodeState};
use berth_tests::{Client, Cluster, Plan, kills, procfs, spec, wait};

use crate::training::Outcome;
use crate::{Args, Timeline, Training};

/// The least accuracy on images that were never trained on.
const ACCURACY: f64 = 0.95;
/// For what is measured and not bounded here.
const SOON: Duration = Duration::from_secs(60);

pub(crate) async fn show(args: &Args) -> anyhow::Result<()> {
    ensure!(
        args.job.is_file(),
        "{} is missing. hint: run this in the repository, or name the file with --job",
        args.job.display()
    );
    needs_numpy()?;
    let mut timeline = Timeline::new();
    let mut cluster = Cluster::start(Plan {
        dir: args.dir.clone(),
        ..Plan::default()
    })
    .await?;
    timeline.say(&format!(
        "3 masters and 3 agents with 2 simulated GPUs each are up in {}",
        cluster.dir().display()
    ));
    if args.keep {
        cluster.keep();
    }
    let outcome = play(&mut cluster, args, &mut timeline).await;
    cluster.explain(outcome)?;
    drop(cluster);
    timeline.time("total", timeline.elapsed());
    println!(
        "\n{}\n\nPASS: the same weights, to the bit",
        timeline.table()
    );
    Ok(())
}

fn needs_numpy() -> anyhow::Result<()> {
    let check = Command::new("python3")
        .args(["-c", "import numpy, sklearn"])
        .stderr(std::process::Stdio::null())
        .status();
    if !check.is_ok_and(|status| status.success()) {
        bail!(
            "python3 has no numpy or scikit-learn. hint: `make demo` installs them into .deps/venv"
        );
    }
    Ok(())
}

async fn play(cluster: &mut Cluster, args: &Args, timeline: &mut Timeline) -> anyhow::Result<()> {
    let client = cluster.client()?;
    let reference = reference(cluster, &client, args, timeline).await?;
    let training = Training::submit(cluster, &args.job, "digits", args.steps).await?;
    timeline.say(&format!(
        "job {} submitted: the same file again",
        training.job
    ));
    let submitted = Instant::now();
    let step = training.reaches(cluster, &client, 0.3).await?;
    timeline.say(&format!("step {step} of {}", args.steps));

    leader_dies(cluster, &training, timeline).await?;
    let client = survivors(cluster)?;
    training.reaches(cluster, &client, 0.6).await?;
    node_dies(cluster, &client, &training, timeline).await?;

    let (view, outcome) = training.finishes(&client).await?;
    timeline.say(&format!(
        "job {} is done after {} attempts: accuracy {:.4}",
        training.job,
        view.past.len(),
        outcome.accuracy
    ));
    timeline.time("uninterrupted run", reference.took);
    timeline.time("run with two deaths", submitted.elapsed());
    timeline.figure(
        "accuracy on unseen images",
        format!("{:.4}", outcome.accuracy),
    );
    let id = training.job.to_string();
    let shown = cluster.berth(&["job", &id]).await?.ok()?;
    println!("\n$ berth job {id}\n{shown}");
    compare(&reference.outcome, &outcome, timeline)
}

struct Reference {
    outcome: Outcome,
    took: Duration,
}

async fn reference(
    cluster: &Cluster,
    client: &Client,
    args: &Args,
    timeline: &Timeline,
) -> anyhow::Result<Reference> {
    if let Some(path) = &args.reference {
        let outcome = Outcome::read(path)?;
        timeline.say(&format!("uninterrupted run taken from {}", path.display()));
        return Ok(Reference {
            outcome,
            took: Duration::ZERO,
        });
    }
    let started = Instant::now();
    let training = Training::submit(cluster, &args.job, "reference", args.steps).await?;
    timeline.say(&format!(
        "job {} submitted: {} steps on 4 ranks, uninterrupted, to compare with",
        training.job, args.steps
    ));
    let (view, outcome) = training.finishes(client).await?;
    ensure!(
        view.past.len() == 1,
        "the reference was interrupted: {} attempts",
        view.past.len()
    );
    timeline.say(&format!(
        "uninterrupted run is done: accuracy {:.4}",
        outcome.accuracy
    ));
    Ok(Reference {
        outcome,
        took: started.elapsed(),
    })
}

async fn leader_dies(
    cluster: &mut Cluster,
    training: &Training,
    timeline: &mut Timeline,
) -> anyhow::Result<()> {
    let leader = cluster.client()?.leader().await?;
    let before: Vec<i32> = cluster
        .tasks_of(training.job)
        .iter()
        .map(|t| t.pid)
        .collect();
    ensure!(before.len() == 4, "{} ranks run instead of 4", before.len());
    timeline.say(&format!("kill -9 of master {leader}, the leader"));
    let write = spec::shell("write", "true");
    let kill = kills::kill_leader(cluster, leader, &write).await?;
    let (leaderless, writes) = (kill.next_write, kill.jobs);
    timeline.say(&format!(
        "the next write is accepted after {:.2} s; {} writes around it, all by clients that never stopped",
        leaderless.as_secs_f64(),
        writes.len()
    ));
    timeline.time("without a leader, as a writing client sees it", leaderless);
    let client = survivors(cluster)?;
    for job in &writes {
        client.wait_state(*job, JobState::Completed, SOON).await?;
    }
    ensure!(
        before.iter().all(|pid| procfs::alive(*pid)),
        "a rank died with the leader"
    );
    timeline.say("all 4 ranks train on, as the same processes");
    Ok(())
}

async fn node_dies(
    cluster: &mut Cluster,
    client: &Client,
    training: &Training,
    timeline: &mut Timeline,
) -> anyhow::Result<()> {
    let view = client.job(training.job).await?;
    let epoch = view.attempt.context("it runs")?.epoch;
    let tasks = cluster.tasks_of(training.job);
    // The worst one: rank 0 writes the checkpoints, and everybody is connected to it.
    let victim = tasks
        .iter()
        .find(|task| task.rank == 0)
        .context("rank 0 runs")?
        .agent;
    let name = cluster.agents[victim].name.clone();
    let ranks: BTreeMap<u32, i32> = tasks
        .iter()
        .filter(|task| task.agent == victim)
        .map(|task| (task.rank, task.pid))
        .collect();
    let killed = Instant::now();
    cluster.kill_node(victim);
    let reached = training.last_step(cluster, epoch);
    let ranks: Vec<u32> = ranks.into_keys().collect();
    timeline.say(&format!(
        "kill -9 of agent {name} with its keeper and its tasks (ranks {ranks:?}), at step {reached}"
    ));
    client
        .wait_node(&name, NodeState::Lost, false, SOON)
        .await?;
    let detected = killed.elapsed();
    timeline.say(&format!("{name} is known as lost"));
    let new_step = || training.last_step(cluster, epoch + 1);
    wait::until("the job trains again", SOON, async || {
        if new_step() > 0 {
            Ok(())
        } else {
            Err("no step yet".to_owned())
        }
    })
    .await?;
    let again = killed.elapsed();
    let view = client.job(training.job).await?;
    let resumed = view
        .attempt
        .context("it runs again")?
        .resumed_step
        .unwrap_or(0);
    let nodes = nodes_of(cluster, training.job);
    timeline.say(&format!(
        "it trains again on {nodes}, from the checkpoint of step {resumed}"
    ));
    timeline.time("death of a node until it is known as lost", detected);
    timeline.time("death of a node until the first new step", again);
    timeline.figure(
        "steps done again",
        format!(
            "{} ({reached} reached, {resumed} saved)",
            reached.saturating_sub(resumed)
        ),
    );
    Ok(())
}

fn nodes_of(cluster: &Cluster, job: u64) -> String {
    let mut names: Vec<&str> = cluster
        .tasks_of(job)
        .iter()
        .map(|task| cluster.agents[task.agent].name.as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    names.join(" and ")
}

fn compare(reference: &Outcome, outcome: &Outcome, timeline: &mut Timeline) -> anyhow::Result<()> {
    let short = |hash: &str| hash.chars().take(16).collect::<String>();
    timeline.figure(
        "weights of the uninterrupted run",
        short(&reference.weights_sha256),
    );
    timeline.figure("weights after two deaths", short(&outcome.weights_sha256));
    if reference.weights_sha256 != outcome.weights_sha256 {
        println!("{}", timeline.table());
        bail!("the weights differ from those of the uninterrupted run");
    }
    ensure!(
        outcome.accuracy >= ACCURACY,
        "accuracy {} is below {ACCURACY}",
        outcome.accuracy
    );
    Ok(())
}

/// A client of the masters that run.
fn survivors(cluster: &Cluster) -> anyhow::Result<Client> {
    let running = cluster
        .masters
        .values()
        .filter(|master| master.daemon.is_some());
    Client::new(
        &running
            .map(|master| master.address.clone())
            .collect::<Vec<_>>(),
    )
}
