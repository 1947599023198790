//! What is asked about.

use std::collections::BTreeSet;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, bail, ensure};
use berth_core::State;
use berth_core::state::{Node, NodeShape};
use berth_types::{JobSpec, NodeSpec};

use super::WhatIfOptions;

/// Most nodes that one question may add.
const MAX_ADDED: u32 = 10_000;
/// The label by which nodes belong to a pool.
const POOL: &str = "pool";

/// So many nodes of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddNodes {
    /// The pool, class or node that they are like.
    pub like: String,
    /// How many.
    pub count: u32,
}

impl FromStr for AddNodes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("`{text}` is not POOL=COUNT; hint: such as a100x8=4");
        let (like, count) = text.rsplit_once('=').ok_or_else(fault)?;
        let count = count.parse().map_err(|_| fault())?;
        if like.is_empty() || !(1..=MAX_ADDED).contains(&count) {
            return Err(format!("{}, 1 to {MAX_ADDED} of them", fault()));
        }
        let like = like.to_owned();
        Ok(Self { like, count })
    }
}

/// A change to the cluster. The default changes nothing.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Nodes that come.
    pub added: Vec<NodeSpec>,
    /// Names of nodes that take nothing new.
    pub drained: BTreeSet<String>,
    /// Jobs that are submitted.
    pub submitted: Vec<JobSpec>,
}

impl Change {
    /// What the command line asks about, on this cluster.
    ///
    /// # Errors
    /// If something is named that there is not, or a job is not sound.
    pub fn of(options: &WhatIfOptions, state: &State) -> anyhow::Result<Self> {
        let mut change = Self::default();
        for add in &options.add_nodes {
            let like = nodes_like(state, &add.like)?[0];
            let taken = change.added.len() as u32;
            for number in taken..taken + add.count {
                let mut spec = NodeSpec::clone(&like.spec);
                spec.name = format!("added-{}", number + 1);
                ensure!(
                    state.node_named(&spec.name).is_none(),
                    "--add-nodes: a node is called `{}` already",
                    spec.name
                );
                change.added.push(spec);
            }
        }
        for name in &options.drain {
            let nodes = match state.node_named(name) {
                Some(node) => vec![&**node],
                None => nodes_like(state, name)?,
            };
            let names = nodes.iter().map(|node| node.spec.name.clone());
            change.drained.extend(names);
        }
        for path in &options.submit_spec {
            change.submitted.push(read_spec(path)?);
        }
        Ok(change)
    }
}

/// Nodes of this pool, rack, class, or name.
fn nodes_like<'s>(state: &'s State, name: &str) -> anyhow::Result<Vec<&'s Node>> {
    let nodes = || state.nodes.values().map(|node| &**node);
    let is_meant: [&dyn Fn(&Node) -> bool; 4] = [
        &|node| node.spec.name == name,
        &|node| node.spec.labels.get(POOL).is_some_and(|pool| pool == name),
        &|node| !node.spec.rack.is_empty() && node.spec.rack == name,
        &|node| class(&node.spec) == name.to_lowercase(),
    ];
    for is_meant in is_meant {
        let found: Vec<&Node> = nodes().filter(|node| is_meant(node)).collect();
        if !found.is_empty() {
            return Ok(found);
        }
    }
    let classes: BTreeSet<String> = nodes().map(|node| class(&node.spec)).collect();
    let pools = nodes().filter_map(|node| node.spec.labels.get(POOL).cloned());
    let racks = nodes()
        .map(|node| node.spec.rack.clone())
        .filter(|r| !r.is_empty());
    let known: BTreeSet<String> = classes.into_iter().chain(pools).chain(racks).collect();
    if known.is_empty() {
        bail!("`{name}`: the cluster has no node yet");
    }
    let known: Vec<String> = known.into_iter().take(20).collect();
    bail!(
        "no node, rack, pool or class is called `{name}`; hint: a node's name, or one of: {}",
        known.join(", ")
    )
}

/// Such as `a100x8`; `cpu` for nodes without GPUs.
pub(super) fn class(spec: &NodeSpec) -> String {
    let shape = NodeShape::of(spec);
    let parts: Vec<String> = (shape.gpus.iter())
        .map(|((model, _), count)| format!("{model}x{count}"))
        .collect();
    if parts.is_empty() {
        "cpu".to_owned()
    } else {
        parts.join("+")
    }
}

fn read_spec(path: &Path) -> anyhow::Result<JobSpec> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("{shown}: cannot be read"))?;
    let spec: JobSpec = serde_json::from_str(&text)
        .with_context(|| format!("{shown}: not a job's specification as JSON"))?;
    let faults: Vec<String> = spec.faults().iter().map(ToString::to_string).collect();
    ensure!(faults.is_empty(), "{shown}: {}", faults.join("; "));
    Ok(spec)
}
