//! Failures with real processes, and tables of what was measured: `cargo xtask nemesis --rounds 30`.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a command line tool talks to its user

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use berth_tests::figures::{Spread, seconds, table};
use berth_tests::kills;
use berth_tests::rounds::{self, Round, Rounds, Verdict};
use berth_tests::scenario::{self, Ground, Scenario};
use clap::Parser;
use serde_json::{Value, json};

/// A node's loss is noticed within this time, by default.
const DETECTION: Duration = Duration::from_secs(5);
/// The next write after a leader's death is accepted within this time, 99 times of 100.
const NEXT_WRITE: Duration = Duration::from_secs(1);

/// Kills, freezes, cuts off and tears masters and agents on this machine, and says what held.
///
/// Without a flag it runs everything in a short version.
#[derive(Debug, Parser)]
#[command(name = "nemesis")]
struct Args {
    /// Rounds of kill -9 of a random master, agent or node under submission load
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Kills of the leader: how long until the next write is accepted
    #[arg(long, value_name = "N")]
    leader_kills: Option<usize>,
    /// Kills of a node under a gang: how long until it is lost, and until the gang runs elsewhere [default with
    /// --leader-kills: 10]
    #[arg(long, value_name = "N")]
    node_kills: Option<usize>,
    /// Named scenarios; all of them without a name
    #[arg(long, value_name = "NAME", num_args = 0..)]
    scenarios: Option<Vec<String>>,
    /// List the scenarios and end
    #[arg(long)]
    list: bool,
    /// Chooses victims and moments; printed, so that a run can be repeated
    #[arg(long)]
    seed: Option<u64>,
    /// Where to make the clusters' directories [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How to write the result: `table` or `json`; progress goes to standard error
    #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
    output: String,
}

/// What to do, after the defaults.
struct Work {
    rounds: usize,
    leader_kills: usize,
    node_kills: usize,
    scenarios: Vec<&'static Scenario>,
}

impl Work {
    fn of(args: &Args) -> anyhow::Result<Self> {
        let nothing = args.rounds.is_none()
            && args.leader_kills.is_none()
            && args.node_kills.is_none()
            && args.scenarios.is_none();
        if nothing {
            return Ok(Self {
                rounds: 3,
                leader_kills: 5,
                node_kills: 2,
                scenarios: scenario::ALL.iter().collect(),
            });
        }
        let with_leaders = if args.leader_kills.is_some() { 10 } else { 0 };
        let scenarios = match &args.scenarios {
            None => Vec::new(),
            Some(names) if names.is_empty() => scenario::ALL.iter().collect(),
            Some(names) => names
                .iter()
                .map(|name| scenario::named(name))
                .collect::<anyhow::Result<_>>()?,
        };
        Ok(Self {
            rounds: args.rounds.unwrap_or(0),
            leader_kills: args.leader_kills.unwrap_or(0),
            node_kills: args.node_kills.unwrap_or(with_leaders),
            scenarios,
        })
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<bool> {
    if args.list {
        for scenario in scenario::ALL {
            println!("{:<28} {}", scenario.name, scenario.about);
        }
        return Ok(true);
    }
    let work = Work::of(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        tokio::select! {
            held = all(args, &work) => held,
            // Leaving the future drops the cluster, which ends its processes.
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        }
    })
}

async fn all(args: &Args, work: &Work) -> anyhow::Result<bool> {
    let mut held = true;
    let mut report = serde_json::Map::new();
    let json = args.output == "json";
    if work.rounds > 0 {
        let (ok, value) = rounds_of_kills(args, work.rounds, json).await?;
        held &= ok;
        report.insert("rounds".to_owned(), value);
    }
    if work.leader_kills > 0 || work.node_kills > 0 {
        let (ok, value) = times_of_kills(args, work, json).await?;
        held &= ok;
        report.insert("kills".to_owned(), value);
    }
    if !work.scenarios.is_empty() {
        let (ok, value) = scenarios(args, &work.scenarios, json).await;
        held &= ok;
        report.insert("scenarios".to_owned(), value);
    }
    report.insert("held".to_owned(), held.into());
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{}", if held { "PASS" } else { "FAIL" });
    }
    Ok(held)
}

async fn rounds_of_kills(args: &Args, count: usize, json: bool) -> anyhow::Result<(bool, Value)> {
    let drawn = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let rounds = Rounds {
        rounds: count,
        seed: args.seed.unwrap_or(drawn.as_secs()),
        dir: args.dir.clone(),
    };
    eprintln!(
        "{count} rounds of kill -9 under submission load, seed {}",
        rounds.seed
    );
    let mut done: Vec<Round> = Vec::new();
    let started = Instant::now();
    let verdict = rounds::run(&rounds, &mut |round| {
        done.push(round.clone());
        let left = left(started, done.len(), count);
        eprintln!(
            "round {} of {count}: killed {}; about {left} left",
            round.number, round.killed
        );
    })
    .await?;
    if !json {
        print_rounds(&done, &verdict);
    }
    let value = json!({"seed": rounds.seed, "rounds": done, "verdict": verdict});
    Ok((verdict.holds(), value))
}

fn print_rounds(done: &[Round], verdict: &Verdict) {
    let heading = [
        "round",
        "killed",
        "accepted",
        "longest gap ms",
        "healed after ms",
    ];
    let rows: Vec<Vec<String>> = done
        .iter()
        .map(|round| {
            vec![
                round.number.to_string(),
                round.killed.clone(),
                round.accepted.to_string(),
                round.longest_gap_ms.to_string(),
                round.healed_ms.to_string(),
            ]
        })
        .collect();
    println!("{}", table(&heading, &rows));
    let named = |jobs: &[u64]| {
        let mut text = jobs.len().to_string();
        if !jobs.is_empty() {
            text.push_str(&format!(": jobs {jobs:?}"));
        }
        text
    };
    let rows = [
        ("acknowledged submissions", verdict.acknowledged.to_string()),
        ("completed", verdict.completed.to_string()),
        ("lost", named(&verdict.lost)),
        ("failed", named(&verdict.failed)),
        ("counted twice", named(&verdict.twice)),
        (
            "counted without having come to the end",
            named(&verdict.unfounded),
        ),
        ("second jobs from one key", verdict.repeated.to_string()),
        (
            "ends that died with their node and ran again",
            verdict.ran_again.to_string(),
        ),
    ];
    let rows: Vec<Vec<String>> = rows.map(|(what, n)| vec![what.to_owned(), n]).into();
    println!("{}", table(&["after the last round", "jobs"], &rows));
}

async fn times_of_kills(args: &Args, work: &Work, json: bool) -> anyhow::Result<(bool, Value)> {
    let mut rows: Vec<(&str, Spread, Option<Duration>)> = Vec::new();
    if work.leader_kills > 0 {
        eprintln!("{} kills of the leader", work.leader_kills);
        let mut tell = progress("kill");
        let times = kills::leaders(args.dir.clone(), work.leader_kills, &mut tell).await?;
        rows.push((
            "leader killed: next accepted write",
            times.next_write.spread(),
            Some(NEXT_WRITE),
        ));
        rows.push((
            "leader killed: a waiting call is answered, at each other master",
            times.patient.spread(),
            Some(NEXT_WRITE),
        ));
    }
    if work.node_kills > 0 {
        eprintln!("{} kills of a node under a gang of 4", work.node_kills);
        let mut tell = progress("kill");
        let times = kills::nodes(args.dir.clone(), work.node_kills, &mut tell).await?;
        rows.push((
            "node killed: known as lost",
            times.detected.spread(),
            Some(DETECTION),
        ));
        rows.push((
            "node killed: gang runs elsewhere",
            times.restarted.spread(),
            None,
        ));
    }
    let fits = |spread: &Spread, limit: &Option<Duration>| {
        limit.is_none_or(|limit| spread.p99_ms < limit.as_secs_f64() * 1000.0)
    };
    let held = rows.iter().all(|(_, spread, limit)| fits(spread, limit));
    if !json {
        let heading = [
            "what",
            "times",
            "p50 ms",
            "p99 ms",
            "max ms",
            "p99 must be under",
        ];
        let cells: Vec<Vec<String>> = rows
            .iter()
            .map(|(what, spread, limit)| {
                vec![
                    (*what).to_owned(),
                    spread.count.to_string(),
                    spread.p50_ms.to_string(),
                    spread.p99_ms.to_string(),
                    spread.max_ms.to_string(),
                    limit.map_or_else(|| "-".to_owned(), seconds),
                ]
            })
            .collect();
        println!("{}", table(&heading, &cells));
    }
    let value = rows
        .iter()
        .map(|(what, spread, _)| json!({"what": what, "times": spread}))
        .collect();
    Ok((held, value))
}

async fn scenarios(args: &Args, chosen: &[&Scenario], json: bool) -> (bool, Value) {
    let ground = Ground {
        dir: args.dir.clone(),
        slack: 1,
    };
    let mut held = true;
    let mut values = Vec::new();
    for scenario in chosen {
        eprintln!("{}: {}", scenario.name, scenario.about);
        let started = Instant::now();
        let outcome = scenario.run(&ground).await;
        let took = seconds(started.elapsed());
        held &= outcome.is_ok();
        let verdict = if outcome.is_ok() { "PASS" } else { "FAIL" };
        let (figures, error) = match outcome {
            Ok(measured) => (measured.figures, None),
            Err(error) => (Vec::new(), Some(format!("{error:#}"))),
        };
        if !json {
            println!("{verdict} {} ({took})", scenario.name);
            figures
                .iter()
                .for_each(|(what, value)| println!("     {what}: {value}"));
            error.iter().for_each(|error| println!("     {error}"));
        }
        values.push(json!({
            "name": scenario.name, "held": error.is_none(), "took": took, "figures": figures, "error": error,
        }));
    }
    (held, values.into())
}

/// Tells about one of many, and how long the rest will take.
fn progress(what: &'static str) -> impl FnMut(usize, usize, Duration) + Send {
    let started = Instant::now();
    move |done, of, time| {
        let left = left(started, done, of);
        eprintln!(
            "{what} {done} of {of}: {:.0} ms; about {left} left",
            time.as_secs_f64() * 1000.0
        );
    }
}

fn left(started: Instant, done: usize, of: usize) -> String {
    let each = started.elapsed().as_secs_f64() / done.max(1) as f64;
    format!("{:.0} s", each * of.saturating_sub(done) as f64)
}
