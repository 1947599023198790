//! `berth bench submit --report-memory`: what pending jobs cost each master.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Target;
use super::load::{self, Load, Until, trivial_job};
use super::submit::{bytes_each, cancel_all, hold, own_cluster, pick_master};
use crate::args::BenchSubmit;
use crate::client::Client;
use crate::commands::{Context, Outcome};
use crate::failure::Failure;
use crate::local::cluster::master_processes;
use crate::show::View;
use crate::show::time::bytes;

/// Pending jobs at which memory is read.
const STEPS: [u64; 3] = [0, 10_000, 100_000];
/// Followers apply a little later, and allocators give back what the burst took.
const SETTLE: Duration = Duration::from_secs(2);

/// Submits and prints each master's memory.
pub(super) async fn report(context: &Context, args: &BenchSubmit) -> Outcome {
    let target = Target::new(context, &own_cluster(args)).await?;
    let Some(dir) = &target.dir else {
        return Err(Failure::usage(
            "the masters' processes are not known",
            "name the local cluster by --dir, or name none and one is brought up",
        ));
    };
    let client = Client::new(target.masters.clone(), context.global.timeout);
    let drained = hold(&client, args, target.own).await?;
    let mut jobs = (u64::MAX, 0);
    let mut pending = 0;
    let mut readings: Vec<Vec<(u64, u64)>> = Vec::new();
    for step in STEPS {
        if step > pending {
            let load = Load {
                master: pick_master(&client, false).await?,
                connections: args.connections,
                clients: args.clients.min(64),
                spec: trivial_job(0),
                count_from: Instant::now(),
                until: Until::Accepted(step - pending),
            };
            let result = load::run(&load).await?;
            jobs = (jobs.0.min(result.jobs.0), jobs.1.max(result.jobs.1));
            pending = step;
        }
        tokio::time::sleep(SETTLE).await;
        let processes = master_processes(dir);
        let reading = processes
            .iter()
            .filter_map(|(id, p)| Some((*id, p.memory_bytes()?)));
        readings.push(reading.collect());
    }
    for name in drained {
        client.undrain(&name).await?;
    }
    if !target.own {
        cancel_all(&client, jobs).await?;
    }
    context.screen.print(&view(context, &readings))?;
    Ok(0)
}

fn view(context: &Context, readings: &[Vec<(u64, u64)>]) -> View {
    let at = |step: usize, id: u64| {
        let reading = readings.get(step)?.iter().find(|(i, _)| *i == id);
        reading.map(|(_, bytes)| *bytes)
    };
    let ids: Vec<u64> = readings
        .first()
        .into_iter()
        .flatten()
        .map(|(id, _)| *id)
        .collect();
    let mut rows = Vec::new();
    let mut values: Vec<Value> = Vec::new();
    for id in ids {
        let (Some(idle), Some(some), Some(many)) = (at(0, id), at(1, id), at(2, id)) else {
            continue;
        };
        let each = |bytes: u64, jobs: u64| bytes.saturating_sub(idle) / jobs;
        rows.push(vec![
            id.to_string(),
            bytes(idle),
            bytes(some),
            format!("{} B", each(some, STEPS[1])),
            bytes(many),
            format!("{} B", each(many, STEPS[2])),
        ]);
        values.push(json!({
            "master": id.to_string(),
            "idle_bytes": idle,
            "bytes_at_10000": some,
            "bytes_per_job_at_10000": bytes_each(some, idle, STEPS[1]),
            "bytes_at_100000": many,
            "bytes_per_job_at_100000": bytes_each(many, idle, STEPS[2]),
        }));
    }
    let headings = [
        "MASTER",
        "IDLE",
        "10,000 JOBS",
        "PER JOB",
        "100,000 JOBS",
        "PER JOB",
    ];
    View {
        text: context.screen.table(&headings, rows, &headings),
        value: json!({ "masters": values }),
        names: Vec::new(),
    }
}
