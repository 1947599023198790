//! The cluster at a glance, its masters, its events, and why a job waits.

use std::collections::BTreeMap;

use berth_types::{Event, MasterView, NodeId, StatusView, WhyView};
use serde_json::{Value, json};

use super::job::state_word;
use super::time::{milli, rfc3339};
use super::{Screen, View, facts, printable};

/// The cluster at a glance.
pub(crate) fn status(screen: &Screen, s: &StatusView) -> View {
    let jobs: Vec<String> = s
        .jobs
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(state, n)| format!("{n} {}", state_word(*state)))
        .collect();
    let mut text = facts(&[
        (
            "cluster",
            format!("{:016x} (format {})", s.cluster_id, s.cluster_version),
        ),
        ("alarm", s.alarm.clone()),
        ("term", format!("{}, applied {}", s.term, s.applied)),
        ("policy", planning(s)),
        (
            "jobs",
            if jobs.is_empty() {
                "none".into()
            } else {
                jobs.join(", ")
            },
        ),
        (
            "nodes",
            format!(
                "{} ready, {} draining, {} lost",
                s.nodes.0, s.nodes.1, s.nodes.2
            ),
        ),
        (
            "gpus",
            format!("{} of {} in use", milli(s.milligpu.0), milli(s.milligpu.1)),
        ),
        ("time", rfc3339(s.time_ms)),
    ]);
    text.push('\n');
    let masters = masters(screen, &s.masters);
    text.push_str(&masters.text);
    let counts: BTreeMap<&str, u64> = s.jobs.iter().map(|(k, n)| (state_word(*k), *n)).collect();
    View {
        text,
        value: json!({
            "cluster_id": s.cluster_id.to_string(),
            "cluster_version": s.cluster_version,
            "alarm": s.alarm,
            "term": s.term,
            "applied": s.applied,
            "policy": s.policy,
            "rounds": s.rounds.0,
            "last_round_seconds": s.rounds.1 as f64 / 1e6,
            "jobs": counts,
            "nodes": { "ready": s.nodes.0, "draining": s.nodes.1, "lost": s.nodes.2 },
            "gpus": s.milligpu.1 as f64 / 1000.0,
            "gpus_used": s.milligpu.0 as f64 / 1000.0,
            "time": rfc3339(s.time_ms),
            "masters": masters.value["masters"],
        }),
        names: vec![s.cluster_id.to_string()],
    }
}

fn planning(s: &StatusView) -> String {
    let policy = match s.policy.is_empty() {
        true => String::new(),
        false => format!("{}, ", s.policy),
    };
    let last_ms = s.rounds.1 as f64 / 1000.0;
    format!(
        "{policy}{} rounds, the last took {last_ms:.1} ms",
        s.rounds.0
    )
}

/// All masters.
pub(crate) fn masters(screen: &Screen, masters: &[MasterView]) -> View {
    let rows = masters.iter().map(|m| {
        vec![
            m.id.to_string(),
            m.info.address.clone(),
            role(m).into(),
            if m.reachable { "yes" } else { "no" }.into(),
            m.matched.to_string(),
        ]
    });
    let values: Vec<Value> = masters
        .iter()
        .map(|m| {
            json!({
                "id": m.id.to_string(),
                "address": m.info.address,
                "role": role(m),
                "leader": m.leader,
                "voter": m.voter,
                "reachable": m.reachable,
                "matched": m.matched,
            })
        })
        .collect();
    View {
        text: screen.table(
            &["MASTER", "ADDRESS", "ROLE", "REACHABLE", "MATCHED"],
            rows,
            &["MASTER", "MATCHED"],
        ),
        value: json!({ "masters": values }),
        names: masters.iter().map(|m| m.id.to_string()).collect(),
    }
}

fn role(m: &MasterView) -> &'static str {
    match (m.leader, m.voter) {
        (true, _) => "leader",
        (false, true) => "follower",
        (false, false) => "learner",
    }
}

/// One event. `nodes` are the names that are known.
pub(crate) fn event(e: &Event, nodes: &BTreeMap<NodeId, String>) -> View {
    let node = e.node.map(|n| {
        nodes
            .get(&n)
            .cloned()
            .unwrap_or_else(|| format!("node-{n}"))
    });
    let subject = match (e.job, &node) {
        (Some(job), Some(node)) => format!("job {job} on {node}"),
        (Some(job), None) => format!("job {job}"),
        (None, Some(node)) => node.clone(),
        (None, None) => String::new(),
    };
    let line = format!(
        "{}  {:<20}  {subject:<16}  {}",
        rfc3339(e.at_ms),
        e.kind,
        printable(&e.text)
    );
    View {
        text: format!("{}\n", line.trim_end()),
        value: json!({
            "seq": e.seq.to_string(),
            "at": rfc3339(e.at_ms),
            "kind": e.kind,
            "job": e.job.map(|j| j.to_string()),
            "node": node,
            "text": e.text,
        }),
        names: vec![e.seq.to_string()],
    }
}

/// Why a job waits, or sits where it sits.
pub(crate) fn why(w: &WhyView) -> View {
    let ahead = w.ahead.map(|n| match n {
        0 => "none: it is the next one".into(),
        n => n.to_string(),
    });
    let mut text = facts(&[
        ("job", format!("{} ({})", w.job, state_word(w.state))),
        (
            "because",
            match w.reason.is_empty() {
                true => w.text.clone(),
                false => format!("{}: {}", w.reason, w.text),
            },
        ),
        ("would start", w.unblock.clone()),
        ("ahead", ahead.unwrap_or_default()),
    ]);
    for line in &w.evidence {
        text.push_str(&format!("  {}\n", printable(line)));
    }
    View {
        text,
        value: json!({
            "job": w.job.to_string(),
            "state": state_word(w.state),
            "reason": w.reason,
            "text": w.text,
            "unblock": w.unblock,
            "ahead": w.ahead,
            "evidence": w.evidence,
        }),
        names: vec![w.reason.clone()],
    }
}

/// Why a running job sits where it sits: the placement of its newest attempt.
pub(crate) fn placed(job: &berth_types::JobView) -> Option<View> {
    let attempt = job.attempt.as_ref()?;
    let names: Vec<&str> = attempt
        .tasks
        .iter()
        .filter_map(|t| job.node_names.get(&t.placement.node))
        .map(String::as_str)
        .collect();
    let nodes = super::nodelist::fold(names);
    let text = facts(&[
        ("job", format!("{} ({})", job.id, state_word(job.state))),
        ("attempt", attempt.epoch.to_string()),
        ("nodes", nodes.clone()),
        ("because", attempt.placed_because.clone()),
    ]);
    Some(View {
        text,
        value: json!({
            "job": job.id.to_string(),
            "state": state_word(job.state),
            "attempt": attempt.epoch.0,
            "nodelist": nodes,
            "placed_because": attempt.placed_because,
        }),
        names: vec![nodes],
    })
}
