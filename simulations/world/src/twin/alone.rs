//! A bound that no scheduler can beat: each job as if no other were there, on whatever makes it end first.
//!
//! A job gets the best of the shapes that schedulers hand out (1, 2, 4, .. workers up to a node, whole nodes, and the
//! fewest and most that it asks for, on nodes of one kind), from its submission to its end. Jobs that can change their
//! shape and their batch as they go do so for nothing ([`Model::alone`](super::Model::alone)); all pay one start. That the cluster cannot hold
//! all jobs at once is left out, as are faults.

use std::sync::Arc;

use berth_types::{JobSpec, MILLI, NodeId, NodeSpec};

use super::behaviour::{Held, HeldNode, Stop};
use super::outcome::{JobOutcome, Ledger, Outcome};
use super::setting::Setting;
use super::trace::{End, TraceJob, Truth};

/// News of one job that are followed before it is taken to go on for ever.
const MAX_NEWS: usize = 1_000_000;

/// A job that ran alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Alone {
    /// From its submission to its end, in milliseconds.
    pub run_ms: u64,
    /// How it ended.
    pub end: End,
    /// What it held.
    pub ledger: Ledger,
    /// On which GPU models, in the order of first use.
    pub gpu_models: Vec<Arc<str>>,
}

/// Each job of the setting alone on its cluster. Jobs that never end, or fit nowhere, are unfinished.
pub fn alone(setting: &Setting) -> Outcome {
    let kinds = kinds(setting);
    let jobs = setting.trace.jobs.iter();
    let jobs: Vec<JobOutcome> = jobs.map(|job| one(job, setting, &kinds)).collect();
    let first_ms = jobs.iter().map(|job| job.submit_ms).min().unwrap_or(0);
    let last_ms = jobs.iter().filter_map(|job| job.end_ms).max().unwrap_or(0);
    let span_ms = last_ms.saturating_sub(first_ms);
    Outcome {
        unfinished: jobs.iter().filter(|job| job.end_ms.is_none()).count() as u64,
        starts: jobs.len() as u64,
        end_ms: last_ms,
        capacity: setting.cluster.milligpu().saturating_mul(span_ms),
        jobs,
        ..Outcome::default()
    }
}

fn one(job: &TraceJob, setting: &Setting, kinds: &[Kind<'_>]) -> JobOutcome {
    let choices = choices(&job.spec, kinds);
    let by_itself = match &job.truth {
        Truth::Rigid(_) => None,
        Truth::Model(model) => model.alone(job, &choices),
    };
    let played = || choices.iter().filter_map(|held| play(job, setting, held));
    let best = by_itself.or_else(|| played().min_by_key(|alone| alone.run_ms));
    let mut outcome = JobOutcome {
        key: job.key.clone(),
        submit_ms: job.submit_ms,
        ..JobOutcome::default()
    };
    if let Some(best) = best {
        outcome.first_start_ms = Some(job.submit_ms);
        outcome.end_ms = Some(job.submit_ms.saturating_add(best.run_ms));
        outcome.placed_ms = best.run_ms;
        outcome.outcome = Some(match best.end {
            End::Completed => berth_types::Outcome::Completed,
            End::Failed => berth_types::Outcome::Failed { code: 1 },
            End::Cancelled => berth_types::Outcome::Cancelled,
        });
        outcome.ledger = best.ledger;
        outcome.gpu_models = best.gpu_models;
    }
    outcome
}

/// What the job does with this and nothing else.
fn play(job: &TraceJob, setting: &Setting, held: &Held) -> Option<Alone> {
    let mut behaviour = job.begin(setting);
    behaviour.on_start(held, 0);
    for _ in 0..MAX_NEWS {
        let due_ms = behaviour.due_ms()?;
        let Some(ended) = behaviour.advance(due_ms) else {
            continue;
        };
        let mut gpu_models: Vec<Arc<str>> = Vec::new();
        for node in held.nodes.iter().filter(|node| node.gpus > 0) {
            if !gpu_models.contains(&node.gpu_model) {
                gpu_models.push(Arc::clone(&node.gpu_model));
            }
        }
        return Some(Alone {
            run_ms: ended.at_ms,
            end: ended.end,
            ledger: Ledger::of(held.milligpu, &behaviour.on_stop(due_ms, Stop::Ended)),
            gpu_models,
        });
    }
    None
}

/// Nodes that are alike.
struct Kind<'c> {
    gpu_model: Arc<str>,
    speed: f64,
    gpus_per_node: u32,
    nodes: Vec<(NodeId, &'c NodeSpec)>,
}

fn kinds(setting: &Setting) -> Vec<Kind<'_>> {
    let mut kinds: Vec<Kind<'_>> = Vec::new();
    for (id, node) in (1u32..).zip(&setting.cluster.nodes) {
        let model = node.gpus.first().map_or("", |gpu| gpu.model.as_str());
        let gpus = node.gpus.iter().filter(|gpu| gpu.model == model).count() as u32;
        let alike = |kind: &Kind<'_>| &*kind.gpu_model == model && kind.gpus_per_node == gpus;
        let at = kinds.iter().position(alike).unwrap_or_else(|| {
            let known = setting.cluster.gpu_models.get(model);
            kinds.push(Kind {
                gpu_model: model.into(),
                speed: known.map_or(1.0, |known| known.speed),
                gpus_per_node: gpus,
                nodes: Vec::new(),
            });
            kinds.len() - 1
        });
        kinds[at].nodes.push((NodeId(id), node));
    }
    kinds
}

/// What a job could have on nodes of one kind.
fn choices(spec: &JobSpec, kinds: &[Kind<'_>]) -> Vec<Held> {
    let mut choices = Vec::new();
    for kind in kinds {
        let suits = spec.groups.iter().all(|group| {
            let resources = &group.resources;
            let types = &resources.gpu_types;
            let model = |asked: &String| asked.eq_ignore_ascii_case(&kind.gpu_model);
            resources.milligpu == 0
                || (kind.gpus_per_node > 0 && (types.is_empty() || types.iter().any(model)))
        });
        if !suits {
            continue;
        }
        let labels = spec.groups.iter().flat_map(|group| &group.node_labels);
        let labels: Vec<(&String, &String)> = labels.collect();
        let has = |node: &NodeSpec| {
            (labels.iter()).all(|(name, value)| node.labels.get(*name) == Some(*value))
        };
        let nodes = kind.nodes.iter().filter(|(_, node)| has(node));
        let nodes: Vec<NodeId> = nodes.map(|(id, _)| *id).collect();
        choices.extend(sizes(spec, kind).filter_map(|size| packed(spec, kind, &nodes, size)));
    }
    choices
}

/// Workers of a job of one group; of any other, its least size.
fn sizes(spec: &JobSpec, kind: &Kind<'_>) -> impl Iterator<Item = Option<u32>> {
    let (least, most, each) = match spec.groups.as_slice() {
        [group] if group.max_workers > group.min_workers => {
            let gpus = group.resources.milligpu / MILLI;
            let each = kind.gpus_per_node.checked_div(gpus).unwrap_or(1).max(1);
            (group.min_workers, group.max_workers, each)
        }
        _ => (0, 0, 1),
    };
    let within = (0..31)
        .map(|power| 1u32 << power)
        .take_while(move |size| *size < each);
    let whole = (1..=kind.nodes.len() as u32).map(move |nodes| nodes.saturating_mul(each));
    let sizes = within.chain(whole).chain([least, most]);
    let sizes = sizes.filter(move |size| *size > 0 && (least..=most).contains(size));
    sizes.map(Some).chain((most == 0).then_some(None))
}

/// So many workers on as few of these nodes as hold their GPUs; `None` if they do not.
fn packed(spec: &JobSpec, kind: &Kind<'_>, nodes: &[NodeId], size: Option<u32>) -> Option<Held> {
    let counts = spec
        .groups
        .iter()
        .map(|group| size.unwrap_or(group.min_workers));
    let workers: Vec<u32> = counts.collect();
    let groups = || spec.groups.iter().zip(&workers);
    let milligpu: u64 = groups()
        .map(|(group, count)| u64::from(group.resources.milligpu) * u64::from(*count))
        .sum();
    let per_node = u64::from(kind.gpus_per_node) * u64::from(MILLI);
    let needed = milligpu.checked_div(per_node).unwrap_or(0);
    let needed = needed + u64::from(needed * per_node < milligpu);
    let needed = usize::try_from(needed.max(1)).ok()?;
    let all: u32 = workers.iter().sum();
    let (mut workers_left, mut gpus_left) = (all, milligpu.div_ceil(u64::from(MILLI)) as u32);
    let held = nodes.get(..needed)?.iter().enumerate().map(|(at, node)| {
        let gpus = gpus_left.min(kind.gpus_per_node);
        gpus_left -= gpus;
        let here = workers_left.div_ceil((needed - at) as u32);
        workers_left -= here;
        HeldNode {
            node: *node,
            gpu_model: if gpus > 0 {
                Arc::clone(&kind.gpu_model)
            } else {
                "".into()
            },
            speed: kind.speed,
            workers: here,
            gpus,
        }
    });
    let nodes = held.collect();
    Some(Held {
        nodes,
        workers,
        milligpu,
    })
}
