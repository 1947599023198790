//! Alibaba GenAI (cluster-trace-v2026-GenAI): requests to image-generation services, one per row.
//!
//! All requests to one base model are the load of one service: it lives from its first request to an hour after its
//! last, its load is told in steps of five minutes, and a worker of one GPU serves as many requests as fit into their
//! mean execution time one after the other. A start takes the median of the trace's base-model cold starts, 22.7 s.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_types::{GroupSpec, JobSpec, MILLI, Resources};
use berth_world::twin::{Service, ServiceModel, TraceJob, Truth};

use super::philly::date_ms;
use super::{Builder, Limits, Loaded, Origin};
use crate::input::{Dialect, InputError, Place, Source, Table};

/// Width of a step of the load.
const STEP_MS: u64 = 300_000;
/// How long a service lives on after its last request.
const LINGERS_MS: u64 = 3_600_000;
/// Median cold start of a base model in the trace's `basemodel_update_latency_anon`.
const WARM_UP_MS: u64 = 22_700;
/// Most workers of a service.
const MAX_WORKERS: f64 = 4_096.0;

/// The requests to one base model.
#[derive(Debug, Default)]
struct Requests {
    /// By step of time.
    steps: BTreeMap<u64, u64>,
    first_ms: u64,
    last_ms: u64,
    count: u64,
    executed_ms: u64,
}

/// Reads the requests.
///
/// # Errors
/// With file, line and column, for anything that is not as described above.
pub fn load(source: Source, limits: &Limits) -> Result<Loaded, InputError> {
    let name = source.title();
    let mut table = Table::open(source, Dialect::CSV)?;
    let [created, duration, model] = [
        "gmt_create",
        "exec_time_seconds",
        "checkpoint_model_version_id",
    ]
    .map(|name| table.column(name));
    let (created, duration, model) = (created?, duration?, model?);
    let mut builder = Builder::new(limits);
    let mut services: BTreeMap<String, Requests> = BTreeMap::new();
    while let Some(row) = table.next_row()? {
        let at_ms = date_ms(&row, &created)?;
        let Some(run_ms) = row.optional_seconds(&duration)? else {
            builder.skip("a request that was never executed");
            continue;
        };
        let model = match row.text(&model)? {
            "" => "unknown",
            model => model,
        };
        match services.get_mut(model) {
            Some(requests) => requests.add(at_ms, run_ms),
            None => {
                let mut requests = Requests {
                    first_ms: u64::MAX,
                    ..Requests::default()
                };
                requests.add(at_ms, run_ms);
                services.insert(model.to_owned(), requests);
            }
        }
    }
    let place = Place::file(table.file());
    for (model, requests) in services {
        builder.push(place.clone(), requests.into_job(model))?;
    }
    Ok(builder.finish(&name, Origin::FirstSubmission, Some(0)))
}

impl Requests {
    fn add(&mut self, at_ms: u64, run_ms: u64) {
        *self.steps.entry(at_ms / STEP_MS).or_default() += 1;
        self.first_ms = self.first_ms.min(at_ms);
        self.last_ms = self.last_ms.max(at_ms);
        self.count += 1;
        self.executed_ms = self.executed_ms.saturating_add(run_ms);
    }

    fn into_job(self, model: String) -> TraceJob {
        let each = self.count as f64 * 1_000.0 / self.executed_ms.max(1) as f64;
        let mut load: Vec<(u64, f64)> = Vec::new();
        for (step, count) in &self.steps {
            let from_ms = (step * STEP_MS).saturating_sub(self.first_ms);
            let per_s = *count as f64 * 1_000.0 / STEP_MS as f64;
            match load.last_mut() {
                // The step before ended here, or there was a pause.
                Some(last) if last.0 == from_ms => last.1 = per_s,
                _ => load.push((from_ms, per_s)),
            }
            load.push(((step + 1) * STEP_MS - self.first_ms, 0.0));
        }
        let peak = load.iter().map(|(_, per_s)| *per_s).fold(0.0, f64::max);
        let most = (peak / each).ceil().clamp(1.0, MAX_WORKERS) as u32;
        let service = Service {
            life_ms: self.last_ms - self.first_ms + LINGERS_MS,
            load,
            each,
            warm_up_ms: WARM_UP_MS,
        };
        let group = GroupSpec {
            name: "server".into(),
            command: vec!["replayed".into()],
            min_workers: 1,
            max_workers: most,
            gang: false,
            resources: Resources {
                milligpu: MILLI,
                ..Resources::default()
            },
            node_labels: BTreeMap::new(),
        };
        let spec = JobSpec {
            name: model.clone(),
            user: "services".into(),
            groups: vec![group],
            ..JobSpec::default()
        };
        TraceJob {
            key: model,
            submit_ms: self.first_ms,
            spec: Arc::new(spec),
            truth: Truth::Model(Arc::new(ServiceModel(Arc::new(service)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_become_load_in_steps() {
        let mut requests = Requests {
            first_ms: u64::MAX,
            ..Requests::default()
        };
        // Two in one step, one in the next, a pause, one more.
        for at_ms in [600_000, 700_000, 900_000, 1_800_000] {
            requests.add(at_ms, 30_000);
        }
        let job = requests.into_job("m".into());
        let Truth::Model(model) = &job.truth else {
            panic!("it is a service")
        };
        let told = format!("{model:?}");
        assert!(told.contains("life_ms: 4800000"), "{told}");
        assert!(told.contains("each: 0.0333"), "{told}");
        let steps = "load: [(0, 0.006666666666666667), (300000, 0.0033333333333333335), (600000, 0.0), \
            (1200000, 0.0033333333333333335), (1500000, 0.0)]";
        assert!(told.contains(steps), "{told}");
        assert_eq!(job.spec.groups[0].max_workers, 1);
    }
}
