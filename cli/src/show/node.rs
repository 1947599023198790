//! Nodes: a line per node as `sinfo -N` has it, one node in full, and the stable keys of both for scripts.

use std::collections::BTreeMap;

use berth_types::{NodeState, NodeView};
use serde_json::{Value, json};

use super::time::{bytes, milli, rfc3339};
use super::{Screen, View, facts, health};

fn state_word(node: &NodeView) -> &'static str {
    match node.state {
        NodeState::Ready => match health::of_node(node).map(|h| h.stage) {
            Some(stage) if !stage.is_usable() => stage.as_str(),
            _ => "ready",
        },
        NodeState::Draining => "draining",
        NodeState::Lost => "lost",
    }
}

/// Models of the GPUs with their number: `4 a100`.
fn models(node: &NodeView) -> String {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for gpu in &node.spec.gpus {
        *counts.entry(gpu.model.as_str()).or_default() += 1;
    }
    let models: Vec<String> = counts.iter().map(|(m, n)| format!("{n} {m}")).collect();
    let simulated = if node.spec.simulated_gpus && !node.spec.gpus.is_empty() {
        " (simulated)"
    } else {
        ""
    };
    format!("{}{simulated}", models.join(", "))
}

fn used_milligpu(node: &NodeView) -> u64 {
    node.used_milligpu.iter().map(|&m| u64::from(m)).sum()
}

/// Used and there, such as `4/8`, or `4/7+1` with one out of service.
fn gpus(node: &NodeView) -> String {
    let used = milli(used_milligpu(node));
    match health::out(node) {
        0 => format!("{used}/{}", node.spec.gpus.len()),
        out => format!("{used}/{}+{out}", node.spec.gpus.len().saturating_sub(out)),
    }
}

/// Why a node is out of service, or its GPUs.
fn reason(node: &NodeView) -> String {
    match node.reason.as_str() {
        "" => health::reason(node),
        reason => reason.to_owned(),
    }
}

/// All nodes.
pub(crate) fn list(screen: &Screen, nodes: &[NodeView]) -> View {
    let mut headings = vec!["NODE", "STATE", "GPUS", "MODEL", "CPUS", "MEMORY", "TASKS"];
    headings.push("ISOLATION");
    if screen.wide() {
        headings.extend(["ADDRESS", "RACK", "SINCE", "VERSION"]);
    }
    headings.push("REASON");
    let rows = nodes.iter().map(|n| {
        let mut row = vec![
            n.spec.name.clone(),
            state_word(n).into(),
            gpus(n),
            models(n),
            format!(
                "{}/{}",
                milli(n.used_millicpu.into()),
                milli(n.spec.millicpu.into())
            ),
            format!("{}/{}", bytes(n.used_mem_bytes), bytes(n.spec.mem_bytes)),
            n.tasks.to_string(),
            n.isolation.word().into(),
        ];
        if screen.wide() {
            row.extend([
                n.spec.address.clone(),
                n.spec.rack.clone(),
                rfc3339(n.since_ms),
                n.spec.agent_version.clone(),
            ]);
        }
        row.push(reason(n));
        row
    });
    View {
        text: screen.table(&headings, rows, &["TASKS"]),
        value: json!({ "nodes": nodes.iter().map(value).collect::<Vec<_>>() }),
        names: nodes.iter().map(|n| n.spec.name.clone()).collect(),
    }
}

/// One node in full.
pub(crate) fn detail(screen: &Screen, node: &NodeView) -> View {
    let spec = &node.spec;
    let labels: Vec<String> = spec
        .labels
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    let jobs: Vec<String> = node.jobs.iter().map(ToString::to_string).collect();
    let ports = u32::from(spec.port_first) + u32::from(spec.port_count.saturating_sub(1));
    let mut text = facts(&[
        ("node", spec.name.clone()),
        ("id", node.id.to_string()),
        (
            "state",
            format!("{} since {}", state_word(node), rfc3339(node.since_ms)),
        ),
        ("reason", reason(node)),
        (
            "health",
            health::of_node(node).map(health::line).unwrap_or_default(),
        ),
        (
            "connected",
            if node.connected { "yes" } else { "no" }.into(),
        ),
        ("address", spec.address.clone()),
        ("rack", spec.rack.clone()),
        ("labels", labels.join(" ")),
        (
            "cpus",
            format!(
                "{} of {} in use",
                milli(node.used_millicpu.into()),
                milli(spec.millicpu.into())
            ),
        ),
        (
            "memory",
            format!(
                "{} of {} in use",
                bytes(node.used_mem_bytes),
                bytes(spec.mem_bytes)
            ),
        ),
        ("ports", format!("{}-{ports}", spec.port_first)),
        ("agent", spec.agent_version.clone()),
        ("isolation", node.isolation.to_string()),
        ("tasks", node.tasks.to_string()),
        ("jobs", jobs.join(" ")),
    ]);
    text.push_str(&gpu_table(screen, node));
    text.push_str(&health::telemetry(screen, node));
    text.push_str(&health::detail(node));
    View {
        text,
        value: value(node),
        names: vec![spec.name.clone()],
    }
}

/// The GPUs of a node, if it has any.
fn gpu_table(screen: &Screen, node: &NodeView) -> String {
    let spec = &node.spec;
    if spec.gpus.is_empty() {
        return String::new();
    }
    let rows = spec.gpus.iter().enumerate().map(|(i, g)| {
        let used = node.used_milligpu.get(i).copied().unwrap_or(0);
        vec![
            i.to_string(),
            g.model.clone(),
            bytes(g.mem_bytes),
            milli(used.into()),
            health::of_gpu(node, i)
                .map_or("healthy", |h| h.stage.as_str())
                .into(),
            g.nvlink_group.to_string(),
            g.numa.to_string(),
            g.uuid.clone(),
        ]
    });
    let headings = [
        "GPU", "MODEL", "MEMORY", "USED", "HEALTH", "NVLINK", "NUMA", "UUID",
    ];
    let simulated = if spec.simulated_gpus {
        " (simulated)"
    } else {
        ""
    };
    let table = screen.table(&headings, rows, &["GPU", "MEMORY", "USED"]);
    format!("\ngpus{simulated}\n{table}")
}

fn value(node: &NodeView) -> Value {
    let spec = &node.spec;
    let gpus: Vec<Value> = spec
        .gpus
        .iter()
        .enumerate()
        .map(|(i, g)| {
            let used = node.used_milligpu.get(i).copied().unwrap_or(0);
            json!({
                "index": i,
                "uuid": g.uuid,
                "model": g.model,
                "memory_bytes": g.mem_bytes,
                "nvlink_group": g.nvlink_group,
                "numa": g.numa,
                "used": f64::from(used) / 1000.0,
                "health": health::value(health::of_gpu(node, i)),
                "readings": health::readings(node, i),
            })
        })
        .collect();
    json!({
        "id": node.id.to_string(),
        "name": spec.name,
        "state": state_word(node),
        "reason": node.reason,
        "health": health::value(health::of_node(node)),
        "gpus_out_of_service": health::out(node),
        "since": rfc3339(node.since_ms),
        "connected": node.connected,
        "address": spec.address,
        "rack": spec.rack,
        "labels": spec.labels,
        "gpus": gpus,
        "simulated_gpus": spec.simulated_gpus,
        "gpus_used": used_milligpu(node) as f64 / 1000.0,
        "cpus": f64::from(spec.millicpu) / 1000.0,
        "cpus_used": f64::from(node.used_millicpu) / 1000.0,
        "memory_bytes": spec.mem_bytes,
        "memory_used_bytes": node.used_mem_bytes,
        "tasks": node.tasks,
        "jobs": node.jobs.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "agent_version": spec.agent_version,
        "isolation": {
            "kind": node.isolation.word(),
            "enforced": node.isolation.enforced,
            "note": node.isolation.note,
        },
    })
}
