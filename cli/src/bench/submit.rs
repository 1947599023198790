//! `berth bench submit`: accepted submissions a second, how long each took, and what they cost the masters.

use std::path::Path;
use std::time::{Duration, Instant};

use berth_types::{JobFilter, JobId};
use serde_json::{Value, json};

use super::load::{self, Load, Until, trivial_job};
use super::{Target, cpu_ms_each, cpu_text, millis};
use crate::args::BenchSubmit;
use crate::client::Client;
use crate::commands::{Context, Outcome, user_name};
use crate::failure::Failure;
use crate::local::cluster::{Plan, master_processes};
use crate::local::daemons::{AgentSettings, MasterSettings};
use crate::local::process::ProcessId;
use crate::show::{View, facts};

/// Submissions before this has passed do not count: connections are made, caches filled.
const WARM_UP: Duration = Duration::from_secs(1);

/// A cluster without agents: every job stays in the queue.
pub(super) fn own_cluster(args: &BenchSubmit) -> Plan {
    Plan {
        masters: args.masters,
        first_port: 0,
        agents: 0,
        master: MasterSettings {
            policy: None,
            storage: args.storage.clone(),
        },
        agent: AgentSettings {
            gpus: 0,
            gpu_model: "sim".into(),
            gpu_memory: "16GiB".into(),
            cpus: None,
            memory: None,
        },
    }
}

/// Runs the measurement and prints it.
pub(super) async fn measure(context: &Context, args: &BenchSubmit) -> Outcome {
    if args.clients == 0 || args.seconds == 0 {
        return Err(Failure::usage(
            "nothing to measure",
            "at least 1 client and 1 second",
        ));
    }
    let target = Target::new(context, &own_cluster(args)).await?;
    let client = Client::new(target.masters.clone(), context.global.timeout);
    let drained = hold(&client, args, target.own).await?;
    let result = under_load(args, &client, target.dir.as_deref()).await;
    for name in drained {
        client.undrain(&name).await?;
    }
    let (view, jobs) = result?;
    if !target.own {
        cancel_all(&client, jobs).await?;
    }
    context.screen.print(&view)?;
    Ok(0)
}

/// Sees to it that nothing starts: takes every node out of service, if the user allows that. Returns their names.
pub(super) async fn hold(
    client: &Client,
    args: &BenchSubmit,
    own: bool,
) -> Result<Vec<String>, Failure> {
    if own {
        return Ok(Vec::new());
    }
    let nodes = client.nodes().await?;
    let in_service = nodes
        .iter()
        .filter(|n| n.state == berth_types::NodeState::Ready);
    let names: Vec<String> = in_service.map(|n| n.spec.name.clone()).collect();
    if !names.is_empty() && !args.held {
        return Err(Failure::usage(
            format!(
                "the cluster has {} nodes in service, which would run the jobs",
                names.len()
            ),
            "--held takes them out of service meanwhile; or name no cluster, and one without nodes is brought up",
        ));
    }
    for name in &names {
        client.drain(name, "berth bench submit", false).await?;
    }
    Ok(names)
}

/// Address of the leader, or of some follower.
pub(super) async fn pick_master(client: &Client, follower: bool) -> Result<String, Failure> {
    let masters = client.masters().await?;
    let picked = masters
        .iter()
        .find(|m| m.leader != follower && m.voter && m.reachable);
    picked.map(|m| m.info.address.clone()).ok_or_else(|| {
        let what = if follower {
            "no follower is reachable"
        } else {
            "there is no leader"
        };
        Failure::local(what, "look at `berth masters`")
    })
}

async fn under_load(
    args: &BenchSubmit,
    client: &Client,
    dir: Option<&Path>,
) -> Result<(View, (u64, u64)), Failure> {
    let master = pick_master(client, args.follower).await?;
    let processes = dir.map(master_processes).unwrap_or_default();
    let own = ProcessId::of(i32::try_from(std::process::id()).unwrap_or(0));
    let count_from = Instant::now() + WARM_UP;
    let window = Duration::from_secs(args.seconds);
    let load = Load {
        master,
        connections: args.connections,
        clients: args.clients,
        spec: trivial_job(0),
        count_from,
        until: Until::Time(count_from + window),
    };
    let cpu_at = |processes: &[(u64, ProcessId)]| -> Option<u64> {
        let all: Option<Vec<u64>> = processes
            .iter()
            .map(|(_, p)| p.cpu().map(|c| c.own))
            .collect();
        all.filter(|list| !list.is_empty())
            .map(|list| list.iter().sum())
    };
    let meter = async {
        tokio::time::sleep_until(count_from.into()).await;
        let before = (cpu_at(&processes), own.and_then(ProcessId::cpu));
        tokio::time::sleep_until((count_from + window).into()).await;
        let after = (cpu_at(&processes), own.and_then(ProcessId::cpu));
        let masters = after.0.zip(before.0).map(|(a, b)| a - b);
        let client = after.1.zip(before.1).map(|(a, b)| a.own - b.own);
        (masters, client)
    };
    let (result, (masters_cpu, client_cpu)) = tokio::join!(load::run(&load), meter);
    let result = result?;
    let figures = Figures {
        accepted: result.latency_us.len(),
        retries: result.retries,
        masters: processes.len(),
        masters_cpu,
        client_cpu,
    };
    Ok((report(args, &result.latency_us, &figures), result.jobs))
}

struct Figures {
    accepted: u64,
    retries: u64,
    masters: usize,
    masters_cpu: Option<u64>,
    client_cpu: Option<u64>,
}

fn report(
    args: &BenchSubmit,
    latency_us: &hdrhistogram::Histogram<u64>,
    figures: &Figures,
) -> View {
    let n = figures.accepted;
    let rate = n as f64 / args.seconds as f64;
    let quantile = |q| latency_us.value_at_quantile(q);
    let each = cpu_ms_each(figures.masters_cpu, n);
    let client_each = cpu_ms_each(figures.client_cpu, n);
    let through = if args.follower {
        "a follower"
    } else {
        "the leader"
    };
    let text = facts(&[
        ("clients", format!("{} through {through}", args.clients)),
        ("accepted", format!("{n} in {} s", args.seconds)),
        ("rate", format!("{rate:.0} a second")),
        ("p50", millis(quantile(0.5))),
        ("p99", millis(quantile(0.99))),
        ("max", millis(latency_us.max())),
        (
            "cpu",
            format!(
                "{} per submission over {} masters",
                cpu_text(each),
                figures.masters
            ),
        ),
        (
            "client cpu",
            format!("{} per submission", cpu_text(client_each)),
        ),
        ("retries", figures.retries.to_string()),
    ]);
    View {
        text,
        value: json!({
            "clients": args.clients,
            "connections": args.connections,
            "seconds": args.seconds,
            "through": if args.follower { "follower" } else { "leader" },
            "accepted": n,
            "rate": rate,
            "p50_ms": quantile(0.5) as f64 / 1000.0,
            "p99_ms": quantile(0.99) as f64 / 1000.0,
            "max_ms": latency_us.max() as f64 / 1000.0,
            "masters": figures.masters,
            "cpu_ms_per_submission": each,
            "client_cpu_ms_per_submission": client_each,
            "retries": figures.retries,
        }),
        names: vec![format!("{rate:.0}")],
    }
}

/// Cancels what the measurement left in the queue of a cluster that is not its own.
pub(super) async fn cancel_all(client: &Client, jobs: (u64, u64)) -> Result<(), Failure> {
    let user = user_name();
    let mut filter = JobFilter {
        user: Some(user.clone()),
        limit: berth_types::api::MAX_PAGE,
        ..JobFilter::default()
    };
    loop {
        let (page, next) = client.list(&filter).await?;
        let ours = page.iter().filter(|j| (jobs.0..=jobs.1).contains(&j.id.0));
        let ours: Vec<JobId> = ours
            .filter(|j| j.spec.labels.contains_key(load::LABEL.0))
            .map(|j| j.id)
            .collect();
        for id in ours {
            client.cancel(id, &user).await?;
        }
        if next.is_none() {
            return Ok(());
        }
        filter.page_token = next;
    }
}

/// For whom only wants the numbers.
pub(super) fn bytes_each(bytes: u64, before: u64, jobs: u64) -> Value {
    json!(bytes.saturating_sub(before) / jobs.max(1))
}
