//! Alibaba DLRM (cluster-trace-gpu-v2025, NSDI 2025): instances of autoscaled inference services.
//!
//! Each instance is a job that runs from its creation to its deletion. Those without a creation time were there from
//! the beginning; those without a deletion time never end. Requests are per instance: CPUs, memory in GiB, GPUs.
//! RDMA shares, disks and `max_instance_per_node` have no counterpart in a job and are left out.

use berth_types::{MILLI, Resources};
use berth_world::twin::{End, Rigid};

use super::{Builder, Limits, Loaded, Origin, Recorded};
use crate::input::{Dialect, InputError, Source, Table};

/// Most GPUs of one instance.
const MAX_GPUS: u32 = 256;
/// Most CPUs, or GiB, of one instance.
const MOST: f64 = 1e6;

/// Reads the instances.
///
/// # Errors
/// With file, line and column, for anything that is not as described above.
pub fn load(source: Source, limits: &Limits) -> Result<Loaded, InputError> {
    let name = source.title();
    let mut table = Table::open(source, Dialect::CSV)?;
    let [id, app, cpus, gpus, memory, created, deleted] = [
        "instance_sn",
        "app_name",
        "cpu_request",
        "gpu_request",
        "memory_request",
        "creation_time",
        "deletion_time",
    ]
    .map(|name| table.column(name));
    let (id, app, cpus, gpus, memory) = (id?, app?, cpus?, gpus?, memory?);
    let (created, deleted) = (created?, deleted?);
    let mut builder = Builder::new(limits);
    while let Some(row) = table.next_row()? {
        let submit_ms = row.optional_seconds(&created)?.unwrap_or(0);
        let run_ms = match row.optional_seconds(&deleted)? {
            None => u64::MAX,
            Some(end_ms) => end_ms.checked_sub(submit_ms).ok_or_else(|| {
                let what = format!(
                    "`{}` is before creation_time",
                    row.text(&deleted).unwrap_or("")
                );
                row.error(&deleted, what, "an instance is deleted after it is created")
            })?,
        };
        let amount = |column| {
            let amount = row.number(column)?;
            if (0.0..=MOST).contains(&amount) {
                return Ok(amount);
            }
            let what = format!("`{amount}` is not possible");
            Err(row.error(column, what, "a number from 0 to 1,000,000"))
        };
        let mut resources = Resources {
            milligpu: row.count(&gpus, MAX_GPUS)? * MILLI,
            ..Resources::default()
        };
        if limits.has_cpus() {
            resources.millicpu = (amount(&cpus)? * f64::from(MILLI)).round() as u32;
        }
        if limits.has_memory() {
            resources.mem_bytes = (amount(&memory)? * (1u64 << 30) as f64).round() as u64;
        }
        let service = row.text(&app)?;
        let job = Recorded {
            key: row.text(&id)?.to_owned(),
            submit_ms,
            user: service.to_owned(),
            queue: "default".into(),
            workers: (1, resources),
            node_labels: Vec::new(),
            family: String::new(),
            expected_ms: 0,
            truth: Rigid {
                run_ms,
                end: End::Completed,
            },
        };
        builder.push_recorded(row.place(), job)?;
    }
    Ok(builder.finish(&name, Origin::Kept, None))
}
