//! Health of a node and its GPUs, for people and scripts.

use berth_types::{HealthStage, HealthView, NodeView};
use serde_json::{Value, json};

use super::Screen;
use super::time::{bytes, rfc3339};

/// The record of one GPU; none if it was never unwell.
pub(super) fn of_gpu(node: &NodeView, gpu: usize) -> Option<&HealthView> {
    let gpu = u16::try_from(gpu).ok();
    node.health.iter().find(|h| h.gpu.is_some() && h.gpu == gpu)
}

/// The record of the node as a whole.
pub(super) fn of_node(node: &NodeView) -> Option<&HealthView> {
    node.health.iter().find(|h| h.gpu.is_none())
}

/// GPUs out of service.
pub(super) fn out(node: &NodeView) -> usize {
    let gpus = node.health.iter().filter(|h| h.gpu.is_some());
    gpus.filter(|h| !h.stage.is_usable()).count()
}

/// Such as `GPU 3 quarantined: XID 79 (fell off the bus)`, for the column of reasons.
pub(super) fn reason(node: &NodeView) -> String {
    let unusable = |h: &&HealthView| h.gpu.is_some() && !h.stage.is_usable();
    let mut gpus = node.health.iter().filter(unusable);
    let Some(first) = gpus.next() else {
        return String::new();
    };
    let why = first.history.first().map_or("", |note| note.text.as_str());
    let gpu = first.gpu.unwrap_or_default();
    match gpus.count() {
        0 => format!("GPU {gpu} {why}"),
        more => format!("GPU {gpu} {why}; and {more} more"),
    }
}

/// Stage, score, and until when.
pub(super) fn line(health: &HealthView) -> String {
    let mut text = health.stage.as_str().to_owned();
    if health.score > 0 {
        text.push_str(&format!(", score {} of 1000", health.score));
    }
    if health.strikes > 0 {
        text.push_str(&format!(", strikes {}", health.strikes));
    }
    if health.by_hand {
        text.push_str(", until it is returned by hand");
    } else if health.until_ms > 0 {
        let until = rfc3339(health.until_ms);
        let what = match health.stage {
            HealthStage::Testing => "asked again",
            _ => "tested",
        };
        text.push_str(&format!(", {what} at {until}"));
    }
    text
}

/// Evidence and history of everything that was ever unwell.
pub(super) fn detail(node: &NodeView) -> String {
    let mut text = String::new();
    for health in &node.health {
        let what = match health.gpu {
            Some(gpu) => format!("GPU {gpu}"),
            None => "the node".to_owned(),
        };
        text.push_str(&format!("\nhealth of {what}: {}\n", line(health)));
        for (name, notes) in [("evidence", &health.evidence), ("history", &health.history)] {
            for note in notes {
                text.push_str(&format!(
                    "  {name:<9} {}  {}\n",
                    rfc3339(note.at_ms),
                    note.text
                ));
            }
        }
    }
    text
}

/// Newest readings of the GPUs.
pub(super) fn telemetry(screen: &Screen, node: &NodeView) -> String {
    if node.telemetry.is_empty() {
        return String::new();
    }
    let number = |n: Option<u64>, unit: &str| n.map_or(String::new(), |n| format!("{n}{unit}"));
    let rows = node.telemetry.iter().map(|d| {
        let memory = match (d.mem_used_bytes, d.mem_total_bytes) {
            (Some(used), Some(total)) => format!("{}/{}", bytes(used), bytes(total)),
            _ => String::new(),
        };
        vec![
            d.gpu.to_string(),
            condition(d.condition).to_owned(),
            number(d.util_pct, " %"),
            memory,
            number(d.temp_c, " °C"),
            number(d.power_mw.map(|mw| mw / 1_000), " W"),
            number(d.sm_mhz, " MHz"),
            number(d.ecc_uncorrected, ""),
            number(d.pcie_replays, ""),
            number(d.xids, ""),
        ]
    });
    let headings = [
        "GPU", "DRIVER", "UTIL", "MEMORY", "TEMP", "POWER", "CLOCK", "ECC", "REPLAYS", "XIDS",
    ];
    let table = screen.table(&headings, rows, &["GPU", "UTIL", "TEMP", "POWER", "CLOCK"]);
    format!("\nreadings\n{table}")
}

fn condition(condition: berth_types::GpuCondition) -> &'static str {
    use berth_types::GpuCondition;
    match condition {
        GpuCondition::Unknown => "unknown",
        GpuCondition::Answering => "answering",
        GpuCondition::Unresponsive => "unresponsive",
        GpuCondition::Lost => "lost",
        GpuCondition::ResetRequired => "reset_required",
    }
}

/// Stable keys for scripts.
pub(super) fn value(health: Option<&HealthView>) -> Value {
    let notes = |notes: &[berth_types::HealthNote]| -> Vec<Value> {
        let note = |n: &berth_types::HealthNote| json!({ "at": rfc3339(n.at_ms), "text": n.text });
        notes.iter().map(note).collect()
    };
    let health = health.cloned().unwrap_or_default();
    let until = (health.until_ms > 0).then(|| rfc3339(health.until_ms));
    json!({
        "stage": health.stage.as_str(),
        "usable": health.stage.is_usable(),
        "score": health.score,
        "strikes": health.strikes,
        "until": until,
        "by_hand": health.by_hand,
        "evidence": notes(&health.evidence),
        "history": notes(&health.history),
    })
}

/// One GPU's newest readings; absent ones have no key.
pub(super) fn readings(node: &NodeView, gpu: usize) -> Value {
    let digest = node.telemetry.iter().find(|d| usize::from(d.gpu) == gpu);
    let Some(d) = digest else {
        return Value::Null;
    };
    let numbers = [
        ("utilisation_percent", d.util_pct),
        ("memory_used_bytes", d.mem_used_bytes),
        ("temperature_celsius", d.temp_c),
        ("memory_temperature_celsius", d.mem_temp_c),
        ("power_milliwatts", d.power_mw),
        ("sm_mhz", d.sm_mhz),
        ("throttle_bits", d.throttle),
        ("ecc_corrected", d.ecc_corrected),
        ("ecc_uncorrected", d.ecc_uncorrected),
        ("rows_replaced", d.rows_replaced),
        ("pcie_replays", d.pcie_replays),
        ("nvlink_errors", d.nvlink_errors),
        ("xids", d.xids),
    ];
    let mut map = serde_json::Map::new();
    map.insert("driver".into(), condition(d.condition).into());
    for (key, number) in numbers {
        if let Some(number) = number {
            map.insert(key.into(), number.into());
        }
    }
    Value::Object(map)
}
