//! Alibaba GenAI (cluster-trace-v2026-GenAI): requests to image-generation services, one per row.
//!
//! Each request is a short job on one GPU for as long as it was executed, of the user group that sent it. Requests to
//! the same base model share a name, so that they are of one family.

use std::sync::Arc;

use berth_types::{GroupSpec, JobSpec, MILLI, Resources, RestartSpec};
use berth_world::twin::{End, Rigid, TraceJob, Truth};

use super::philly::date_ms;
use super::{Builder, Limits, Loaded, Origin};
use crate::input::{Dialect, InputError, Source, Table};

/// Reads the requests.
///
/// # Errors
/// With file, line and column, for anything that is not as described above.
pub fn load(source: Source, limits: &Limits) -> Result<Loaded, InputError> {
    let name = source.title();
    let mut table = Table::open(source, Dialect::CSV)?;
    let [created, status, duration, user, model] = [
        "gmt_create",
        "predict_status",
        "exec_time_seconds",
        "groupId",
        "checkpoint_model_version_id",
    ]
    .map(|name| table.column(name));
    let (created, status, duration) = (created?, status?, duration?);
    let (user, model) = (user?, model?);
    let mut builder = Builder::new(limits);
    while let Some(row) = table.next_row()? {
        let place = row.place();
        let Some(run_ms) = row.optional_seconds(&duration)? else {
            builder.skip("it never ran");
            continue;
        };
        let known = |column| {
            row.text(column).map(|text| match text {
                "" => "unknown".to_owned(),
                text => text.to_owned(),
            })
        };
        let spec = JobSpec {
            name: known(&model)?,
            user: known(&user)?,
            groups: vec![GroupSpec {
                name: "request".into(),
                command: vec!["replayed".into()],
                min_workers: 1,
                max_workers: 1,
                gang: true,
                resources: Resources {
                    milligpu: MILLI,
                    ..Resources::default()
                },
                node_labels: Default::default(),
            }],
            restart: RestartSpec {
                max_restarts: 0,
                ..RestartSpec::default()
            },
            ..JobSpec::default()
        };
        let end = match row.text(&status)? {
            "SUCCEED" => End::Completed,
            _ => End::Failed,
        };
        let job = TraceJob {
            key: format!("request-{}", place.line - 1),
            submit_ms: date_ms(&row, &created)?,
            spec: Arc::new(spec),
            truth: Truth::Rigid(Rigid { run_ms, end }),
        };
        builder.push(place, job)?;
    }
    Ok(builder.finish(&name, Origin::FirstSubmission, Some(0)))
}
