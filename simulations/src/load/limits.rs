//! What a cluster could ever hold, so that a job that can never run is noticed when it is read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;

use berth_types::{GroupSpec, JobSpec, MILLI, NodeSpec, Resources};
use berth_world::twin::Cluster;

/// GPUs of a node where no cluster says otherwise: the commonest size in the published traces.
const GPUS_PER_NODE: u32 = 8;

/// What loaders know of the cluster that the workload is meant for.
#[derive(Debug)]
pub struct Limits {
    nodes: Option<Vec<(NodeSpec, u64)>>,
    labels: BTreeSet<String>,
    gpus_per_node: u32,
    most: Mutex<HashMap<Shape, u64>>,
    /// Leave jobs out that can never run, instead of refusing the trace.
    pub skip_oversized: bool,
}

/// What decides where a worker fits: GPUs, CPUs, memory, models, memory per GPU, labels.
type Shape = (u32, u32, u64, Vec<String>, u64, BTreeMap<String, String>);

impl Limits {
    /// No cluster: nothing is too large.
    pub fn none() -> Self {
        Self {
            nodes: None,
            labels: BTreeSet::new(),
            gpus_per_node: GPUS_PER_NODE,
            most: Mutex::default(),
            skip_oversized: false,
        }
    }

    /// Those of a cluster, with all nodes that its pools can grow by.
    pub fn of(cluster: &Cluster) -> Self {
        let mut kinds: Vec<(NodeSpec, u64)> = Vec::new();
        let mut known: HashMap<(Vec<String>, u32, u64, Vec<String>), usize> = HashMap::new();
        let mut sizes: BTreeMap<u32, u64> = BTreeMap::new();
        for node in cluster.all_nodes() {
            *sizes.entry(node.gpus.len() as u32).or_default() += node.gpus.len() as u64;
            let gpus = node
                .gpus
                .iter()
                .map(|g| format!("{}/{}", g.model, g.mem_bytes));
            let labels = node.labels.iter().map(|(k, v)| format!("{k}={v}"));
            let kind = (
                gpus.collect(),
                node.millicpu,
                node.mem_bytes,
                labels.collect(),
            );
            let next = kinds.len();
            match *known.entry(kind).or_insert(next) {
                index if index < next => kinds[index].1 += 1,
                _ => kinds.push((node.clone(), 1)),
            }
        }
        let usual = sizes.into_iter().max_by_key(|(size, gpus)| (*gpus, *size));
        let labels = cluster
            .all_nodes()
            .flat_map(|node| node.labels.keys().cloned());
        Self {
            labels: labels.collect(),
            nodes: Some(kinds),
            gpus_per_node: usual.map_or(GPUS_PER_NODE, |(size, _)| size.max(1)),
            ..Self::none()
        }
    }

    /// Whether nodes say how many CPUs they have; otherwise CPUs are left out of account.
    pub fn has_cpus(&self) -> bool {
        let some = |nodes: &Vec<(NodeSpec, u64)>| nodes.iter().any(|(node, _)| node.millicpu > 0);
        self.nodes.as_ref().is_none_or(some)
    }

    /// Whether nodes say how much memory they have; otherwise memory is left out of account.
    pub fn has_memory(&self) -> bool {
        let some = |nodes: &Vec<(NodeSpec, u64)>| nodes.iter().any(|(node, _)| node.mem_bytes > 0);
        self.nodes.as_ref().is_none_or(some)
    }

    /// Whether some node has GPUs of this model; if not, a job that names it is taken for one of any model.
    pub fn has_model(&self, model: &str) -> bool {
        let mut nodes = self.nodes.iter().flatten();
        nodes.any(|(node, _)| (node.gpus.iter()).any(|gpu| gpu.model.eq_ignore_ascii_case(model)))
    }

    /// Processors, which are GPUs where there are any, and CPUs otherwise.
    pub fn processors(&self, count: u32) -> (u32, Resources) {
        let nodes = self.nodes.iter().flatten();
        let cpus = nodes.map(|(node, _)| (node.gpus.len(), node.millicpu / MILLI));
        match cpus.max() {
            Some((0, cpus @ 1..)) => {
                let each = if count <= cpus {
                    count
                } else {
                    common_divisor(count, cpus)
                };
                let resources = Resources {
                    millicpu: each.saturating_mul(MILLI),
                    ..Resources::default()
                };
                (count.checked_div(each).unwrap_or(1), resources)
            }
            _ => self.workers(count),
        }
    }

    /// Whether some node has this label.
    pub fn has_label(&self, key: &str) -> bool {
        self.labels.contains(key)
    }

    /// Splits whole GPUs into workers: one worker within a node, whole nodes above, and where that does not come out
    /// even the largest equal workers that do. Placement below a node is thereby consolidated, as the clusters that
    /// recorded these traces did it.
    pub fn workers(&self, gpus: u32) -> (u32, Resources) {
        let each = match gpus {
            0 => 0,
            within if within <= self.gpus_per_node => within,
            above => common_divisor(above, self.gpus_per_node),
        };
        let resources = Resources {
            milligpu: each.saturating_mul(MILLI),
            ..Resources::default()
        };
        (gpus.checked_div(each).unwrap_or(1), resources)
    }

    /// Why this job could not run even on the empty cluster; `None` if it could.
    pub fn never_fits(&self, spec: &JobSpec) -> Option<String> {
        let nodes = self.nodes.as_ref()?;
        for group in &spec.groups {
            let most = self.most_workers(nodes, group);
            let wanted = u64::from(group.min_workers);
            if most < wanted {
                let each = describe(&group.resources);
                return Some(match most {
                    0 => format!("no node has {each}{}", labels(group)),
                    most => format!("{wanted} x {each}{} where {most} fit", labels(group)),
                });
            }
        }
        None
    }

    fn most_workers(&self, nodes: &[(NodeSpec, u64)], group: &GroupSpec) -> u64 {
        let count = || {
            let fits = |(node, count): &(NodeSpec, u64)| workers_on(node, group) * count;
            nodes.iter().map(fits).sum()
        };
        let wants = &group.resources;
        let shape = (
            wants.milligpu,
            wants.millicpu,
            wants.mem_bytes,
            wants.gpu_types.clone(),
            wants.gpu_mem_bytes,
            group.node_labels.clone(),
        );
        match self.most.lock() {
            Ok(mut known) => *known.entry(shape).or_insert_with(count),
            Err(_) => count(),
        }
    }
}

/// How many workers of a group an empty node holds.
fn workers_on(node: &NodeSpec, group: &GroupSpec) -> u64 {
    let wants = &group.resources;
    let labelled = (group.node_labels.iter()).all(|(k, v)| node.labels.get(k) == Some(v));
    if !labelled {
        return 0;
    }
    let suits = |model: &str, mem_bytes: u64| {
        let typed = wants
            .gpu_types
            .iter()
            .any(|t| t.eq_ignore_ascii_case(model));
        mem_bytes >= wants.gpu_mem_bytes && (wants.gpu_types.is_empty() || typed)
    };
    let gpus = (node.gpus.iter()).filter(|gpu| suits(&gpu.model, gpu.mem_bytes));
    let gpus = gpus.count() as u64;
    let by_gpu = match wants.milligpu {
        0 => u64::MAX,
        share if share < MILLI => gpus * u64::from(MILLI / share),
        whole => gpus / u64::from(whole / MILLI),
    };
    let by_cpu = u64::from(node.millicpu).checked_div(wants.millicpu.into());
    let by_mem = node.mem_bytes.checked_div(wants.mem_bytes);
    let most = by_gpu
        .min(by_cpu.unwrap_or(u64::MAX))
        .min(by_mem.unwrap_or(u64::MAX));
    most.min(u64::from(u32::MAX))
}

fn describe(resources: &Resources) -> String {
    let mut parts = Vec::new();
    match resources.milligpu {
        0 => {}
        share if share < MILLI => parts.push(format!("{share}/1000 GPU")),
        whole => parts.push(format!("{} GPUs", whole / MILLI)),
    }
    if !resources.gpu_types.is_empty() {
        parts.push(format!("of {}", resources.gpu_types.join("|")));
    }
    if resources.millicpu > 0 {
        parts.push(format!("{} CPUs", f64::from(resources.millicpu) / 1000.0));
    }
    if resources.mem_bytes > 0 {
        parts.push(format!("{} MiB", resources.mem_bytes >> 20));
    }
    parts.join(", ")
}

fn labels(group: &GroupSpec) -> String {
    let labels: Vec<String> = (group.node_labels.iter())
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    match labels.as_slice() {
        [] => String::new(),
        labels => format!(" with {}", labels.join(", ")),
    }
}

fn common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}
