//! `berth bench run`: trivial jobs end to end, and the time from submission to the first line of output.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use berth_types::JobState;
use hdrhistogram::Histogram;
use serde_json::json;

use super::load::{self, Load, Until, trivial_job};
use super::submit::pick_master;
use super::{Target, cpu_ms_each, cpu_text, millis};
use crate::args::BenchRun;
use crate::client::Client;
use crate::commands::{Context, Outcome};
use crate::failure::Failure;
use crate::local::cluster::{Plan, keeper_process, running};
use crate::local::daemons::{AgentSettings, MasterSettings};
use crate::local::layout::{Cluster, agent};
use crate::local::process::ProcessId;
use crate::show::{View, facts};

/// Tasks that the agent of its own cluster runs at once.
const SLOTS: u32 = 64;
/// How often finished jobs are counted.
const COUNT_EVERY: Duration = Duration::from_millis(20);
/// A measurement in which nothing finishes for so long has failed.
const STUCK_AFTER: Duration = Duration::from_secs(60);
/// Pause between two runs, so that each finds an idle cluster.
const IDLE: Duration = Duration::from_millis(150);

/// Runs both measurements and prints them.
pub(super) async fn measure(context: &Context, args: &BenchRun) -> Outcome {
    let plan = Plan {
        masters: args.masters,
        first_port: 0,
        agents: 1,
        master: MasterSettings::default(),
        agent: AgentSettings {
            gpus: 0,
            gpu_model: "sim".into(),
            gpu_memory: "16GiB".into(),
            cpus: Some(SLOTS.to_string()),
            memory: None,
        },
    };
    let target = Target::new(context, &plan).await?;
    let client = Client::new(target.masters.clone(), context.global.timeout);
    // On a cluster of others nobody knows what fits, so the jobs ask for nothing.
    let millicpu = if target.own { berth_types::MILLI } else { 0 };
    let trivial = throughput(args, &client, &target, millicpu).await?;
    let latency = first_line(args, &target)?;
    context.screen.print(&view(args, &trivial, &latency))?;
    Ok(0)
}

struct Trivial {
    seconds: f64,
    cpu: Option<u64>,
    parts: Vec<(&'static str, u64)>,
}

/// Processes by kind: masters, agents and keepers of the cluster, and this one.
fn processes(dir: &Path) -> Vec<(&'static str, ProcessId)> {
    let mut all = Vec::new();
    for (name, id) in running(dir).unwrap_or_default() {
        let kind = if name.starts_with("master") {
            "masters"
        } else {
            "agents"
        };
        all.push((kind, id));
    }
    if let Ok(cluster) = Cluster::load(dir) {
        let keepers = cluster
            .agents
            .iter()
            .filter_map(|a| keeper_process(&agent(dir, &a.name)));
        all.extend(keepers.map(|k| ("keepers and tasks", k)));
    }
    let own = i32::try_from(std::process::id())
        .ok()
        .and_then(ProcessId::of);
    all.extend(own.map(|p| ("client", p)));
    all
}

/// CPU used so far, with that of children that were waited for: a keeper's tasks.
fn cpu_of(processes: &[(&'static str, ProcessId)]) -> Option<Vec<(&'static str, u64)>> {
    let ticks = processes.iter().map(|(kind, p)| {
        let cpu = p.cpu()?;
        Some((*kind, cpu.own + cpu.children))
    });
    ticks.collect()
}

async fn completed(client: &Client) -> Result<u64, Failure> {
    let status = client.status().await?;
    Ok(status.jobs.get(&JobState::Completed).copied().unwrap_or(0))
}

async fn throughput(
    args: &BenchRun,
    client: &Client,
    target: &Target,
    millicpu: u32,
) -> Result<Trivial, Failure> {
    let jobs = args.jobs as u64;
    let load = |n: u64, master: String| Load {
        master,
        connections: 2,
        clients: args.clients,
        spec: trivial_job(millicpu),
        count_from: Instant::now(),
        until: Until::Accepted(n),
    };
    // The first task of an agent starts its keeper; that is not what is measured.
    let before = completed(client).await?;
    load::run(&load(1, pick_master(client, false).await?)).await?;
    wait_for(client, before + 1).await?;

    let measured = target.dir.as_deref().map(processes).unwrap_or_default();
    let cpu_before = cpu_of(&measured).filter(|_| target.dir.is_some());
    let start = Instant::now();
    load::run(&load(jobs, pick_master(client, false).await?)).await?;
    wait_for(client, before + 1 + jobs).await?;
    let seconds = start.elapsed().as_secs_f64();
    let cpu_after = cpu_of(&measured).filter(|_| target.dir.is_some());
    let mut parts: Vec<(&'static str, u64)> = Vec::new();
    for ((kind, after), (_, before)) in cpu_after.iter().flatten().zip(cpu_before.iter().flatten())
    {
        match parts.iter_mut().find(|(k, _)| k == kind) {
            Some((_, sum)) => *sum += after - before,
            None => parts.push((kind, after - before)),
        }
    }
    let cpu = (!parts.is_empty()).then(|| parts.iter().map(|(_, t)| t).sum());
    Ok(Trivial {
        seconds,
        cpu,
        parts,
    })
}

async fn wait_for(client: &Client, wanted: u64) -> Result<(), Failure> {
    let mut last = (completed(client).await?, Instant::now());
    while last.0 < wanted {
        tokio::time::sleep(COUNT_EVERY).await;
        let now = completed(client).await?;
        if now > last.0 {
            last = (now, Instant::now());
        } else if last.1.elapsed() > STUCK_AFTER {
            return Err(Failure::local(
                format!(
                    "{} of {wanted} jobs completed, and none for {} s",
                    last.0,
                    STUCK_AFTER.as_secs()
                ),
                "look at `berth jobs` and `berth why`",
            ));
        }
    }
    Ok(())
}

/// Runs `berth submit --logs` again and again and takes the time to the first line of output.
fn first_line(args: &BenchRun, target: &Target) -> Result<Histogram<u64>, Failure> {
    let scratch = tempfile::tempdir()?;
    let job = scratch.path().join("hello.toml");
    let text = "command = [\"echo\", \"hello\"]\ncpus = 0\nlabels = { berth-bench = \"1\" }\n";
    std::fs::write(&job, text).map_err(|e| Failure::file(&job, e))?;
    let berth: PathBuf = std::env::current_exe()?;
    let failed = |e: hdrhistogram::CreationError| Failure::local(e.to_string(), "");
    let mut latency_us = Histogram::new_with_max(120_000_000, 3).map_err(failed)?;
    for _ in 0..args.latency_runs {
        std::thread::sleep(IDLE);
        let start = Instant::now();
        let mut child = Command::new(&berth)
            .args(["--addr", &target.masters.join(","), "submit", "--logs"])
            .arg(&job)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| Failure::file(&berth, e))?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        let us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let output = child.wait_with_output()?;
        if line.trim() != "hello" || !output.status.success() {
            return Err(Failure::local(
                format!(
                    "`berth submit --logs` failed: {}",
                    String::from_utf8_lossy(&output.stderr).trim()
                ),
                "look into the daemons' logs",
            ));
        }
        latency_us.saturating_record(us);
    }
    Ok(latency_us)
}

fn view(args: &BenchRun, trivial: &Trivial, latency_us: &Histogram<u64>) -> View {
    let jobs = args.jobs as u64;
    let rate = jobs as f64 / trivial.seconds;
    let each = cpu_ms_each(trivial.cpu, jobs);
    let parts: Vec<String> = trivial
        .parts
        .iter()
        .map(|(kind, ticks)| format!("{kind} {}", cpu_text(cpu_ms_each(Some(*ticks), jobs))))
        .collect();
    let quantile = |q| latency_us.value_at_quantile(q);
    let first_line = if latency_us.is_empty() {
        "not measured".into()
    } else {
        format!(
            "p50 {}, p99 {} over {} runs",
            millis(quantile(0.5)),
            millis(quantile(0.99)),
            latency_us.len()
        )
    };
    let by_kind: serde_json::Map<String, serde_json::Value> = trivial
        .parts
        .iter()
        .map(|(kind, ticks)| {
            (
                (*kind).replace(' ', "_"),
                json!(cpu_ms_each(Some(*ticks), jobs)),
            )
        })
        .collect();
    View {
        text: facts(&[
            ("jobs", format!("{jobs} in {:.2} s", trivial.seconds)),
            ("rate", format!("{rate:.0} a second")),
            ("cpu", format!("{} per job", cpu_text(each))),
            ("of it", parts.join(", ")),
            ("first line", first_line),
        ]),
        value: json!({
            "jobs": jobs,
            "seconds": trivial.seconds,
            "rate": rate,
            "cpu_ms_per_job": each,
            "cpu_ms_per_job_by_kind": by_kind,
            "first_line_p50_ms": quantile(0.5) as f64 / 1000.0,
            "first_line_p99_ms": quantile(0.99) as f64 / 1000.0,
            "first_line_runs": latency_us.len(),
        }),
        names: vec![format!("{rate:.0}")],
    }
}
