//! What was looked at: a line per class of equal nodes, and what no node offers.

use std::collections::BTreeMap;

use berth_types::{GpuInfo, GroupSpec, NodeState, Resources};

use super::capacity::{Capacity, Leeway};
use super::class::{Class, links};
use super::gpu_pick::{Bench, slots};
use super::reason::{self, plural};
use super::room::Look;
use super::shape::{GpuMatch, gpu_suits};
use crate::state::{Node, State};

/// Most lines of evidence.
const MAX_LINES: usize = 16;

/// Counts over equal nodes in one state.
#[derive(Default)]
struct Tally {
    nodes: u32,
    gpus: u32,
    free: u32,
    most_free: u32,
    workers: u32,
    short_of_host: u32,
    out: u32,
}

/// A line per class of equal nodes and state, such as `12 nodes a100x8: 3 GPUs free of 96, needs 4 on one node`.
pub(super) fn lines(state: &State, groups: &[GroupSpec]) -> Vec<String> {
    let Some(group) = groups.iter().max_by_key(|group| group.resources.milligpu) else {
        return Vec::new();
    };
    let capacity = Capacity::of_nodes(state.nodes.values().map(|node| &**node), Look::Now);
    let mut tallies: BTreeMap<(u32, u8), Tally> = BTreeMap::new();
    for (index, seat) in (0u32..).zip(&capacity.seats) {
        let state = match seat.node.state() {
            NodeState::Ready if seat.node.resting => 3,
            NodeState::Ready => 0,
            NodeState::Draining => 1,
            NodeState::Lost => 2,
        };
        let class = &capacity.classes[seat.class as usize];
        let bench = Bench::of(&capacity, index, Leeway::ALL);
        tallies.entry((seat.class, state)).or_default().add(
            class,
            group,
            &bench,
            capacity.now.whole[index as usize],
            seat.node,
        );
    }
    let mut lines: Vec<String> = (tallies.iter())
        .map(|(&(class, state), tally)| {
            line(&capacity.classes[class as usize], state, group, tally)
        })
        .collect();
    let hidden = lines.len().saturating_sub(MAX_LINES);
    if hidden > 0 {
        lines.truncate(MAX_LINES);
        lines.push(format!("{hidden} more classes of nodes"));
    }
    lines
}

impl Tally {
    fn add(
        &mut self,
        class: &Class<'_>,
        group: &GroupSpec,
        bench: &Bench,
        whole: u16,
        node: &Node,
    ) {
        let suits = GpuMatch::of(group, class);
        let r = &group.resources;
        self.nodes += 1;
        let out = node.gpus.iter().filter(|gpu| gpu.blocked).count();
        self.out += u32::try_from(out).unwrap_or(0);
        self.gpus += u32::try_from(class.gpus.len()).unwrap_or(0);
        self.free += u32::from(whole);
        self.most_free = self.most_free.max(u32::from(whole));
        let here = bench.slots(r, &suits, group.max_workers);
        self.workers = self.workers.saturating_add(here);
        let gpus_alone = Resources {
            millicpu: 0,
            mem_bytes: 0,
            ..r.clone()
        };
        let without_host = slots(&bench.gpus, 0, 0, &gpus_alone, &suits, 1);
        self.short_of_host += u32::from(here == 0 && without_host > 0);
    }
}

fn line(class: &Class<'_>, state: u8, group: &GroupSpec, tally: &Tally) -> String {
    let mut head = format!(
        "{} {} {}",
        tally.nodes,
        plural("node", tally.nodes),
        class.name()
    );
    if !class.labels.is_empty() && !group.node_labels.is_empty() {
        let labels: Vec<String> = class
            .labels
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        head = format!("{head} ({})", labels.join(", "));
    }
    if let Some(mismatch) = mismatch(class, group) {
        return format!("{head}: {mismatch}");
    }
    match state {
        1 => return format!("{head}: out of service, draining"),
        2 => return format!("{head}: out of service, lost"),
        3 => return format!("{head}: out of service for its health"),
        _ => {}
    }
    let mut text = if tally.gpus > 0 {
        format!(
            "{head}: {} {} free of {}",
            tally.free,
            plural("GPU", tally.free),
            tally.gpus
        )
    } else {
        head
    };
    if tally.out > 0 {
        text = format!("{text}, {} out of service for their health", tally.out);
    }
    let devices = group.resources.devices();
    if devices > 1 {
        text = format!(
            "{text}, at most {} on one node, needs {devices} on one node",
            tally.most_free
        );
    }
    if tally.short_of_host > 0 {
        let nodes = tally.short_of_host;
        text = format!(
            "{text}; {nodes} {} short of CPUs or memory",
            plural("node", nodes)
        );
    }
    format!(
        "{text}; room for {} of {} {}",
        tally.workers,
        group.min_workers,
        plural("worker", group.min_workers)
    )
}

/// Why a class does not suit a group at all.
fn mismatch(class: &Class<'_>, group: &GroupSpec) -> Option<String> {
    if GpuMatch::of(group, class) != GpuMatch::No {
        return None;
    }
    let label = group
        .node_labels
        .iter()
        .find(|(name, value)| class.labels.get(*name) != Some(value));
    if let Some((name, value)) = label {
        return Some(format!("no label {name}={value}"));
    }
    let suiting = class
        .gpus
        .iter()
        .filter(|gpu| gpu_suits(&group.resources, &gpu.model, gpu.mem_bytes))
        .count();
    if suiting == 0 {
        return Some(format!("no {}", reason::gpus_wanted(group)));
    }
    Some(format!(
        "{suiting} such {} per node, needs {} on one node",
        plural("GPU", suiting as u64),
        group.resources.devices()
    ))
}

/// True if a node could run at least one worker of some group if it were empty and in service.
pub(super) fn suits_some(node: &Node, groups: &[GroupSpec]) -> bool {
    let class = Class::of(&node.spec, links(&node.spec));
    groups.iter().any(|group| holds_one(node, &class, group))
}

fn holds_one(node: &Node, class: &Class<'_>, group: &GroupSpec) -> bool {
    let suits = GpuMatch::of(group, class);
    suits != GpuMatch::No
        && node.spec.millicpu >= group.resources.millicpu
        && node.spec.mem_bytes >= group.resources.mem_bytes
}

/// What no set of known nodes offers, and what would change that.
pub(super) fn unmet(state: &State, groups: &[GroupSpec]) -> (String, String) {
    if state.nodes.is_empty() {
        return (
            "no node has registered yet".to_owned(),
            "an agent that registers".to_owned(),
        );
    }
    for group in groups {
        if let Some(found) = unmet_by_group(state, group) {
            return found;
        }
    }
    let what = match groups.len() {
        0 | 1 => "all known nodes together do not have that many",
        _ => "all known nodes together cannot seat all groups at once",
    };
    (what.to_owned(), "fewer workers, or more nodes".to_owned())
}

fn unmet_by_group(state: &State, group: &GroupSpec) -> Option<(String, String)> {
    let nodes = || state.nodes.values().map(|node| &**node);
    if nodes().any(|node| holds_one(node, &Class::of(&node.spec, links(&node.spec)), group)) {
        return None;
    }
    let labelled: Vec<&Node> = nodes().filter(|node| has_labels(node, group)).collect();
    if labelled.is_empty() {
        let labels = (group.node_labels.iter()).map(|(k, v)| format!("{k}={v}"));
        let labels = labels.collect::<Vec<_>>().join(", ");
        let change = format!("other node labels, or a node with {labels}");
        return Some((format!("no node has {labels}"), change));
    }
    let found = unmet_gpus(state, group, &labelled).or_else(|| unmet_host(group, &labelled));
    Some(found.unwrap_or_else(|| {
        let what = "no single node has its GPUs, CPUs and memory together".to_owned();
        (what, "less of one of them per worker".to_owned())
    }))
}

fn has_labels(node: &Node, group: &GroupSpec) -> bool {
    let mut labels = group.node_labels.iter();
    labels.all(|(name, value)| node.spec.labels.get(name) == Some(value))
}

/// No node has so many GPUs of the kind.
fn unmet_gpus(state: &State, group: &GroupSpec, nodes: &[&Node]) -> Option<(String, String)> {
    let r = &group.resources;
    let suiting = |node: &&Node| {
        let suits = |gpu: &&GpuInfo| gpu_suits(r, &gpu.model, gpu.mem_bytes);
        node.spec.gpus.iter().filter(suits).count()
    };
    let most = nodes.iter().map(suiting).max().unwrap_or(0);
    if most >= r.devices() as usize {
        return None;
    }
    if most > 0 {
        let what = format!(
            "no node has more than {most} such {}",
            plural("GPU", most as u64)
        );
        return Some((
            what,
            format!("at most {most} GPUs per worker, with more workers"),
        ));
    }
    let gpus = state.nodes.values().flat_map(|node| &node.spec.gpus);
    let mut models: Vec<&str> = gpus.map(|gpu| gpu.model.as_str()).collect();
    models.sort_unstable();
    models.dedup();
    let known = match models.is_empty() {
        true => "none".to_owned(),
        false => reason::names(models.into_iter()),
    };
    let what = format!(
        "no node has a {} (known models: {known})",
        reason::gpus_wanted(group)
    );
    Some((
        what,
        "another gpu_types or gpu_memory, or a node that has it".to_owned(),
    ))
}

/// No node has so many CPUs or so much memory.
fn unmet_host(group: &GroupSpec, nodes: &[&Node]) -> Option<(String, String)> {
    let r = &group.resources;
    let cpus = nodes
        .iter()
        .map(|node| node.spec.millicpu)
        .max()
        .unwrap_or(0);
    if cpus < r.millicpu {
        let cpus = reason::milli(u64::from(cpus));
        let change = format!("at most {cpus} CPUs per worker");
        return Some((format!("no node has more than {cpus} CPUs"), change));
    }
    let mem = nodes
        .iter()
        .map(|node| node.spec.mem_bytes)
        .max()
        .unwrap_or(0);
    if mem < r.mem_bytes {
        let mem = reason::size(mem);
        let change = format!("at most {mem} per worker");
        return Some((format!("no node has more than {mem} of memory"), change));
    }
    None
}
