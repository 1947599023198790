//! The keys of a cluster file.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use berth_core::policy::POOL_LABEL;
use berth_types::{GpuInfo, MILLI, NodeSpec};
use berth_world::twin::{Cluster, Faults, GpuModel, NodeFaults, PoolRules};

use super::listing::Listing;
use super::section::{Document, Section};
use super::wiring::Wiring;
use crate::input::{InputError, Place, Source, nearest};

/// Longest cluster file.
const MAX_BYTES: u64 = 1 << 20;
/// Most nodes of one pool.
const MAX_NODES: u64 = 1_000_000;
/// Most GPUs of a node, as Berth accepts them.
const MAX_GPUS: u64 = 256;
/// A node that was denied is asked for again after so long.
const DENIED_RETRY_MS: u64 = 60_000;
/// Most CPUs of a node.
const MAX_CPUS: f64 = 100_000.0;

/// A cluster with all that its file says.
#[derive(Clone, Debug)]
pub struct ClusterFile {
    /// The nodes that are there from the beginning, and the GPU models.
    pub cluster: Cluster,
    /// The pools, in the file's order.
    pub pools: Vec<Pool>,
    /// How nodes are wired.
    pub wiring: Wiring,
}

/// Nodes of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Name, unique in the file.
    pub name: String,
    /// Its nodes in [`Cluster::nodes`].
    pub nodes: Range<usize>,
    /// Fewest nodes that it can be shrunk to; as many as there are if it cannot.
    pub min_nodes: u64,
    /// Most nodes that it can be grown to; as many as there are if it cannot.
    pub max_nodes: u64,
    /// Most nodes that the provider grants; as many as are asked for if nothing is said.
    pub quota_nodes: Option<u64>,
    /// A node of it, without a name.
    pub node: NodeSpec,
    /// From asking for a node to its registration, in milliseconds.
    pub boot_delay_ms: u64,
    /// Share of the requests for a node that are denied for lack of quota or stock.
    pub boot_denied: f64,
    /// What a node costs for an hour, in whatever currency.
    pub price_per_hour: f64,
    /// Mean time between failures of one node, in milliseconds; 0 if they never fail.
    pub mtbf_ms: u64,
    /// From a node's failure to its return, in milliseconds.
    pub repair_ms: u64,
}

#[derive(Clone, Copy)]
struct Model {
    mem_bytes: u64,
    speed: f64,
}

impl ClusterFile {
    /// Reads a file.
    ///
    /// # Errors
    /// With file, line and key, for anything that is not as documented; unknown keys come with the nearest known one.
    pub fn read(source: Source) -> Result<Self, InputError> {
        let file = Arc::clone(source.name());
        let stem = source.stem();
        let text = source.text(MAX_BYTES)?;
        let mut top = Document::new(&file, &text).parse(&text)?;
        let name = top.text("name")?.unwrap_or(stem);
        top.text("description")?;
        let models = read_models(&mut top)?;
        let wiring = top.table("wiring")?.map(Wiring::read).transpose()?;
        let pools = top.tables("pools")?;
        let listings = top.tables("listings")?;
        let nothing = top.missing("pools", "add [[pools]] with nodes and gpus_per_node");
        top.finish()?;
        let mut built = Self {
            cluster: Cluster {
                name,
                nodes: Vec::new(),
                later: Vec::new(),
                pools: Vec::new(),
                gpu_models: (models.iter())
                    .map(|(name, model)| (name.clone(), GpuModel { speed: model.speed }))
                    .collect(),
            },
            pools: Vec::new(),
            wiring: wiring.unwrap_or_default(),
        };
        for section in pools {
            built.add_pool(section, &models)?;
        }
        for section in listings {
            built.add_listing(section, &models)?;
        }
        built.add_later();
        let Cluster { nodes, later, .. } = &mut built.cluster;
        for (index, node) in (0..).zip(nodes.iter_mut().chain(later)) {
            built.wiring.place(index, node);
        }
        built.check(&Place::file(&file), nothing)?;
        Ok(built)
    }

    /// What goes wrong with its nodes: those of pools that fail, with their repair and boot.
    pub fn faults(&self) -> Faults {
        let mut faults = Faults::default();
        for pool in self.pools.iter().filter(|pool| pool.mtbf_ms > 0) {
            let of_pool = NodeFaults {
                fails_every_ms: pool.mtbf_ms,
                repair_ms: pool.repair_ms,
                boot_ms: pool.boot_delay_ms,
                denied_per_mille: pool.denied_per_mille(),
                retry_ms: DENIED_RETRY_MS,
                ..NodeFaults::default()
            };
            let nodes = &self.cluster.nodes[pool.nodes.clone()];
            let named = nodes.iter().map(|node| (node.name.clone(), of_pool));
            faults.by_node.extend(named);
        }
        faults
    }

    /// Nodes that pools can grow by, and the rules by which they come and go.
    fn add_later(&mut self) {
        for pool in &self.pools {
            let there = pool.nodes.len() as u64;
            for number in there..pool.max_nodes {
                let node = named(&pool.node, format!("{}-{number:04}", pool.name));
                self.cluster.later.push(node);
            }
            let count = |nodes: u64| u32::try_from(nodes).unwrap_or(u32::MAX);
            self.cluster.pools.push(PoolRules {
                name: pool.name.clone(),
                min_nodes: count(pool.min_nodes),
                quota_nodes: pool.quota_nodes.map(count),
                boot_ms: pool.boot_delay_ms,
                denied_per_mille: pool.denied_per_mille(),
                retry_ms: DENIED_RETRY_MS,
                price_per_hour: pool.price_per_hour,
            });
        }
    }

    fn add_pool(
        &mut self,
        section: Section<'_>,
        models: &BTreeMap<String, Model>,
    ) -> Result<(), InputError> {
        let place = section.place();
        let (mut pool, count) = Pool::read(section, models)?;
        if self.pools.iter().any(|other| other.name == pool.name) {
            let what = format!("pool `{}` is there twice", pool.name);
            return Err(place.error(what, "each pool has its own name"));
        }
        let first = self.cluster.nodes.len();
        for number in 0..count {
            let node = named(&pool.node, format!("{}-{number:04}", pool.name));
            self.cluster.nodes.push(node);
        }
        pool.nodes = first..self.cluster.nodes.len();
        self.pools.push(pool);
        Ok(())
    }

    /// Nodes that a file of a trace lists join the pool that they are like.
    fn add_listing(
        &mut self,
        section: Section<'_>,
        models: &BTreeMap<String, Model>,
    ) -> Result<(), InputError> {
        let place = section.place();
        let listing = Listing::read(section)?;
        let known: Vec<&str> = self.pools.iter().map(|pool| pool.name.as_str()).collect();
        let Some(index) = known.iter().position(|name| *name == listing.pool) else {
            let what = format!("no pool is called `{}`", listing.pool);
            let hint = match nearest(&listing.pool, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "add [[pools]] with what all these nodes have in common".into(),
            };
            return Err(place.error(what, hint));
        };
        if !self.pools[index].nodes.is_empty() || index + 1 != self.pools.len() {
            let hint = "a listing fills the last pool, which has `nodes = 0`";
            return Err(place.error("the pool has nodes of its own", hint));
        }
        let first = self.cluster.nodes.len();
        let template = self.pools[index].node.clone();
        for listed in listing.nodes(&template)? {
            let mut node = named(&template, listed.name);
            if let Some(model) = listed.gpu_model {
                let mem_bytes = models.get(&model).map_or(0, |model| model.mem_bytes);
                node.gpus = gpus(&model, mem_bytes, listed.gpus, listed.gpus);
            }
            if listed.millicpu > 0 {
                node.millicpu = listed.millicpu;
            }
            if listed.mem_bytes > 0 {
                node.mem_bytes = listed.mem_bytes;
            }
            node.rack = listed.rack;
            node.labels.extend(listed.labels);
            for (number, gpu) in node.gpus.iter_mut().enumerate() {
                gpu.uuid = format!("{}/{number}", node.name);
            }
            self.cluster.nodes.push(node);
        }
        self.pools[index].nodes = first..self.cluster.nodes.len();
        let listed = self.pools[index].nodes.len() as u64;
        let pool = &mut self.pools[index];
        (pool.min_nodes, pool.max_nodes) = (listed, listed);
        Ok(())
    }

    fn check(&self, place: &Place, nothing: InputError) -> Result<(), InputError> {
        if self.cluster.all_nodes().next().is_none() {
            return Err(nothing);
        }
        let mut names = BTreeSet::new();
        for node in self.cluster.all_nodes() {
            if !names.insert(node.name.as_str()) {
                let what = format!("node `{}` is there twice", node.name);
                return Err(place.clone().error(what, "each node has its own name"));
            }
            if let Some(fault) = node.faults().first() {
                let what = format!("node `{}`: {}: {}", node.name, fault.field, fault.what);
                return Err(place.clone().error(what, fault.hint.clone()));
            }
        }
        Ok(())
    }
}

impl Pool {
    fn read(
        mut section: Section<'_>,
        models: &BTreeMap<String, Model>,
    ) -> Result<(Self, u64), InputError> {
        let Some(name) = section.text("name")? else {
            return Err(section.missing("name", "give the pool a name"));
        };
        let Some(count) = section.count("nodes", 0..=MAX_NODES)? else {
            return Err(section.missing("nodes", "how many nodes the pool has"));
        };
        let most_gpus = MAX_GPUS;
        let each = section.count("gpus_per_node", 0..=most_gpus)?.unwrap_or(0);
        let joined = section.count("nvlink_gpus", 1..=most_gpus)?;
        let model = section.text("gpu")?;
        if each > 0 && model.is_none() {
            return Err(section.missing("gpu", "the model of the GPUs, as in [gpu_models]"));
        }
        let model = model.unwrap_or_default();
        let Some(kind) = models
            .get(&model)
            .copied()
            .or((each == 0).then_some(Model::NONE))
        else {
            let hint = match nearest(&model, models.keys().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("add [gpu_models.{model}]"),
            };
            let what = format!("no GPU model is called `{model}`");
            return Err(section.place().error(what, hint));
        };
        let cpus = section.number("cpus", 0.0..=MAX_CPUS)?.unwrap_or(0.0);
        let mem_bytes = section.bytes("memory")?.unwrap_or(0);
        let mut labels: BTreeMap<String, String> = section.texts("labels")?.into_iter().collect();
        if let Some(partition) = section.text("partition")? {
            labels.insert("partition".into(), partition);
        }
        labels.insert(POOL_LABEL.into(), name.clone());
        let pool = Self {
            nodes: 0..0,
            min_nodes: section.count("min_nodes", 0..=count)?.unwrap_or(count),
            max_nodes: section
                .count("max_nodes", count..=MAX_NODES)?
                .unwrap_or(count),
            quota_nodes: section.count("quota_nodes", 0..=MAX_NODES)?,
            node: NodeSpec {
                labels,
                millicpu: (cpus * f64::from(MILLI)).round() as u32,
                mem_bytes,
                gpus: gpus(&model, kind.mem_bytes, each, joined.unwrap_or(1)),
                simulated_gpus: true,
                ..NodeSpec::default()
            },
            boot_delay_ms: section.duration_ms("boot_delay")?.unwrap_or(0),
            boot_denied: section.number("boot_denied", 0.0..=1.0)?.unwrap_or(0.0),
            price_per_hour: section.number("price_per_hour", 0.0..=1e9)?.unwrap_or(0.0),
            mtbf_ms: section
                .duration_ms("mean_time_between_failures")?
                .unwrap_or(0),
            repair_ms: section.duration_ms("repair_time")?.unwrap_or(0),
            name,
        };
        section.finish()?;
        Ok((pool, count))
    }

    fn denied_per_mille(&self) -> u32 {
        (self.boot_denied * 1_000.0).round() as u32
    }
}

impl Model {
    const NONE: Self = Self {
        mem_bytes: 0,
        speed: 1.0,
    };
}

fn read_models(top: &mut Section<'_>) -> Result<BTreeMap<String, Model>, InputError> {
    let mut models = BTreeMap::new();
    for (name, mut section) in top.named_tables("gpu_models")? {
        let mem_bytes = section.bytes("memory")?.unwrap_or(0);
        let speed = section.number("speed", 0.001..=1_000.0)?.unwrap_or(1.0);
        section.text("description")?;
        section.finish()?;
        models.insert(name, Model { mem_bytes, speed });
    }
    Ok(models)
}

fn gpus(model: &str, mem_bytes: u64, count: u64, joined: u64) -> Vec<GpuInfo> {
    let gpu = |number: u64| GpuInfo {
        uuid: String::new(),
        model: model.to_owned(),
        mem_bytes,
        nvlink_group: u16::try_from(number / joined.max(1)).unwrap_or(u16::MAX),
        numa: 0,
    };
    (0..count).map(gpu).collect()
}

fn named(template: &NodeSpec, name: String) -> NodeSpec {
    let mut node = template.clone();
    for (number, gpu) in node.gpus.iter_mut().enumerate() {
        gpu.uuid = format!("{name}/{number}");
    }
    node.address.clone_from(&name);
    node.name = name;
    node
}
