//! Whether a job could start on this cluster if it were empty.
//!
//! Looks at every node ever known, lost and draining ones too, because they may come back. Works on shapes of nodes, of
//! which there are few, and stops at the first that suffices: asked once per submission.

use berth_types::{Fault, GroupSpec, JobSpec, MILLI, Resources};

use crate::state::{NodeShape, State};

/// Every reason why the job can never start here; also fine if no node is known yet.
///
/// Necessary, not sufficient: each group's workers must fit some nodes, and all groups together the cluster's totals.
pub fn can_ever_fit(state: &State, spec: &JobSpec) -> Result<(), Vec<Fault>> {
    if state.shapes.is_empty() {
        return Ok(());
    }
    let mut faults = Vec::new();
    for (i, group) in spec.groups.iter().enumerate() {
        let most = workers_that_fit(state, group, u64::from(group.min_workers));
        if most == 0 {
            faults.push(too_large(state, i, group));
        } else if most < u64::from(group.min_workers) {
            let what = format!(
                "{} workers at least, but the cluster has room for {most} of them",
                group.min_workers
            );
            let hint = "ask for fewer workers, or for less per worker";
            let field = format!("groups[{i}].min_workers");
            faults.push(Fault::new(field, what, hint));
        }
    }
    if faults.is_empty() && spec.groups.len() > 1 {
        faults.extend(totals(state, spec));
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults)
    }
}

/// Workers of a group that fit on empty nodes, counted up to `enough`.
fn workers_that_fit(state: &State, group: &GroupSpec, enough: u64) -> u64 {
    let mut workers = 0u64;
    for (shape, count) in &state.shapes {
        let each = workers_on(shape, group);
        workers = workers.saturating_add(each.saturating_mul(u64::from(*count)));
        if workers >= enough.max(1) {
            break;
        }
    }
    workers
}

/// Workers of a group that fit on one empty node.
fn workers_on(shape: &NodeShape, group: &GroupSpec) -> u64 {
    let mut labels = group.node_labels.iter();
    if !labels.all(|(key, value)| shape.labels.get(key) == Some(value)) {
        return 0;
    }
    let needs = &group.resources;
    let by = |offered: u64, needed: u64| offered.checked_div(needed).unwrap_or(u64::MAX);
    by(u64::from(shape.millicpu), u64::from(needs.millicpu))
        .min(by(shape.mem_bytes, needs.mem_bytes))
        .min(by_gpus(shape, needs))
}

fn by_gpus(shape: &NodeShape, needs: &Resources) -> u64 {
    let suitable = u64::from(suitable_gpus(shape, needs));
    match needs.milligpu {
        0 => u64::MAX,
        share if share < MILLI => suitable.saturating_mul(u64::from(MILLI / share)),
        _ => suitable / u64::from(needs.devices()),
    }
}

fn suitable_gpus(shape: &NodeShape, needs: &Resources) -> u32 {
    let types = &needs.gpu_types;
    let suits = |model: &str, mem_bytes: u64| {
        let model = types.is_empty() || types.iter().any(|t| t.eq_ignore_ascii_case(model));
        model && mem_bytes >= needs.gpu_mem_bytes
    };
    let suitable = shape.gpus.iter();
    suitable
        .filter(|((model, mem_bytes), _)| suits(model, *mem_bytes))
        .fold(0u32, |n, (_, count)| n.saturating_add(*count))
}

/// What about a worker is too much for every node: the first thing, in the order in which people think of them.
fn too_large(state: &State, index: usize, group: &GroupSpec) -> Fault {
    let needs = &group.resources;
    let field = |name: &str| format!("groups[{index}].{name}");
    let shapes = || state.shapes.keys();
    let nodes: u64 = state.shapes.values().map(|n| u64::from(*n)).sum();
    let labelled = |s: &NodeShape| {
        let mut labels = group.node_labels.iter();
        labels.all(|(key, value)| s.labels.get(key) == Some(value))
    };
    if !shapes().any(|s| labelled(s)) {
        let what = format!("none of the {nodes} nodes has all of these labels");
        return Fault::new(
            field("node_labels"),
            what,
            "see the labels in `berth nodes`",
        );
    }
    let most_gpus = shapes().map(|s| s.gpu_count()).max().unwrap_or(0);
    if needs.devices() > most_gpus {
        let what = format!(
            "{} GPUs for one worker, but no node has more than {most_gpus}",
            needs.devices()
        );
        let hint = "spread the job over more workers with fewer GPUs each";
        return Fault::new(field("resources.gpus"), what, hint);
    }
    let most = shapes().map(|s| suitable_gpus(s, needs)).max().unwrap_or(0);
    if needs.devices() > most {
        let (name, what) = if needs.gpu_types.is_empty() {
            let gib = needs.gpu_mem_bytes.div_ceil(1 << 30);
            ("resources.gpu_memory", format!("{gib} GiB of memory"))
        } else {
            let types = needs.gpu_types.join(" or ");
            (
                "resources.gpu_types",
                format!("type {types} (and the memory asked for)"),
            )
        };
        let what = format!(
            "{} GPUs of {what} for one worker, but no node has more than {most}",
            needs.devices()
        );
        return Fault::new(field(name), what, "see the GPUs in `berth nodes`");
    }
    let most_cpus = shapes().map(|s| s.millicpu).max().unwrap_or(0);
    if needs.millicpu > most_cpus {
        let what = format!(
            "{} CPUs for one worker, but no node has more than {}",
            f64::from(needs.millicpu) / f64::from(MILLI),
            f64::from(most_cpus) / f64::from(MILLI)
        );
        return Fault::new(field("resources.cpus"), what, "ask for fewer");
    }
    let most_mem = shapes().map(|s| s.mem_bytes).max().unwrap_or(0);
    if needs.mem_bytes > most_mem {
        let what = format!(
            "{} MiB for one worker, but no node has more than {}",
            needs.mem_bytes.div_ceil(1 << 20),
            most_mem >> 20
        );
        return Fault::new(field("resources.memory"), what, "ask for less");
    }
    let what = format!("one worker needs more than any one of the {nodes} nodes has together");
    let hint = "each of its wishes is met by some node, but no node meets all: drop or lower one";
    Fault::new(field("resources"), what, hint)
}

/// Several groups at their smallest against everything that there is.
fn totals(state: &State, spec: &JobSpec) -> Vec<Fault> {
    let mut faults = Vec::new();
    let sum = |of: &dyn Fn(&GroupSpec) -> u64| {
        spec.groups.iter().fold(0u64, |n, g| {
            n.saturating_add(of(g).saturating_mul(u64::from(g.min_workers)))
        })
    };
    let all = |of: &dyn Fn(&NodeShape) -> u64| {
        state.shapes.iter().fold(0u64, |n, (shape, count)| {
            n.saturating_add(of(shape).saturating_mul(u64::from(*count)))
        })
    };
    let mut compare = |what: &str, needed: u64, there: u64| {
        if needed > there {
            let text = format!("the groups together need {needed} {what}, the cluster has {there}");
            faults.push(Fault::new("groups", text, "ask for fewer workers"));
        }
    };
    compare(
        "thousandths of GPUs",
        sum(&|g| u64::from(g.resources.milligpu)),
        all(&|s| u64::from(s.gpu_count()) * u64::from(MILLI)),
    );
    compare(
        "thousandths of CPUs",
        sum(&|g| u64::from(g.resources.millicpu)),
        all(&|s| u64::from(s.millicpu)),
    );
    compare(
        "bytes of memory",
        sum(&|g| g.resources.mem_bytes),
        all(&|s| s.mem_bytes),
    );
    faults
}
