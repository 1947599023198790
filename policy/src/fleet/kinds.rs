//! GPUs by kind, and the jobs that are moved around on them.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_core::insight::Insight;
use berth_core::policy::View;
use berth_core::state::{Job, Node};
use berth_types::{AttemptPhase, GpuShare, JobId, MILLI, NodeId};

/// Nodes with GPUs of the same model and count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// GPU model, as nodes report it.
    pub gpu_model: String,
    /// GPUs of each node.
    pub gpus_per_node: u32,
    /// The nodes.
    pub nodes: Vec<KindNode>,
}

/// A node with the GPUs that may be given to jobs here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindNode {
    /// The node.
    pub node: NodeId,
    /// Indices of its GPUs that no other job holds.
    pub gpus: Vec<u16>,
}

/// A job that may get any number of whole GPUs of one kind.
#[derive(Clone, Debug)]
pub struct Managed<'a> {
    /// Its record.
    pub job: &'a Arc<Job>,
    /// What is known of it.
    pub insight: Option<&'a Arc<Insight>>,
    /// Fewest and most GPUs.
    pub bounds: (u32, u32),
    /// What it holds now: index of the kind, and GPUs by node.
    pub held: Option<Held>,
    /// True if it must stay as it is: it is being launched or stopped, waits for its reserved place, or backs off.
    pub pinned: bool,
}

/// GPUs that a job holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Index of the kind.
    pub kind: usize,
    /// Ascending by node and GPU.
    pub gpus: Vec<(NodeId, u16)>,
}

/// What there is.
#[derive(Clone, Debug)]
pub struct Fleet<'a> {
    /// In the order in which nodes of them first registered.
    pub kinds: Vec<Kind>,
    /// In the order of submission.
    pub jobs: Vec<Managed<'a>>,
    /// Pending jobs of other shapes, in the order of their turn.
    pub others: Vec<JobId>,
}

impl<'a> Fleet<'a> {
    /// Sorts nodes and jobs out.
    pub fn of(view: &'a View) -> Self {
        let mut kinds: Vec<Kind> = Vec::new();
        let mut kind_of: BTreeMap<NodeId, usize> = BTreeMap::new();
        for node in view
            .state
            .nodes
            .values()
            .filter(|node| node.is_schedulable())
        {
            let Some(gpu_model) = single_model(node) else {
                continue;
            };
            let gpus_per_node = node.spec.gpus.len() as u32;
            let same =
                |kind: &Kind| (&*kind.gpu_model, kind.gpus_per_node) == (gpu_model, gpus_per_node);
            let index = kinds.iter().position(same).unwrap_or_else(|| {
                kinds.push(Kind {
                    gpu_model: gpu_model.to_owned(),
                    gpus_per_node,
                    nodes: Vec::new(),
                });
                kinds.len() - 1
            });
            kind_of.insert(node.id, index);
            kinds[index].nodes.push(KindNode {
                node: node.id,
                gpus: (0..node.spec.gpus.len() as u16).collect(),
            });
        }
        let mut fleet = Self {
            kinds,
            jobs: Vec::new(),
            others: Vec::new(),
        };
        let mut taken: Vec<(NodeId, u16)> = Vec::new();
        for job in view.state.jobs.values() {
            match managed(job, view, &kind_of) {
                Some(managed) => fleet.jobs.push(managed),
                None => taken.extend(places(job, view)),
            }
        }
        fleet.others = (view.state.pending.iter().map(|key| key.job))
            .filter(|id| fleet.position(*id).is_none())
            .collect();
        for (node, gpu) in taken {
            fleet.withdraw(node, gpu);
        }
        fleet
    }

    /// The same, with running jobs pinned of which nobody knows how fast they would be elsewhere: no change would have a
    /// known gain.
    pub fn keeping_unknown(mut self) -> Self {
        for job in &mut self.jobs {
            let is_known = job.insight.is_some_and(|insight| insight.speed.is_some());
            job.pinned |= job.held.is_some() && !is_known;
        }
        self
    }

    /// Index of a job.
    pub fn position(&self, job: JobId) -> Option<usize> {
        self.jobs
            .binary_search_by_key(&job, |managed| managed.job.id)
            .ok()
    }

    fn withdraw(&mut self, node: NodeId, gpu: u16) {
        let mut nodes = self.kinds.iter_mut().flat_map(|kind| &mut kind.nodes);
        if let Some(found) = nodes.find(|found| found.node == node) {
            found.gpus.retain(|&known| known != gpu);
        }
    }
}

impl Kind {
    /// GPUs that can be given to jobs.
    pub fn gpus(&self) -> u32 {
        self.nodes.iter().map(|node| node.gpus.len() as u32).sum()
    }

    /// Nodes of which all GPUs can be given to jobs.
    pub fn whole_nodes(&self) -> u32 {
        let whole = self
            .nodes
            .iter()
            .filter(|node| node.gpus.len() as u32 == self.gpus_per_node);
        whole.count() as u32
    }

    /// Nodes that so many GPUs span if they are packed.
    pub fn span(&self, gpus: u32) -> u32 {
        gpus.div_ceil(self.gpus_per_node.max(1))
    }

    /// Sizes worth trying: powers of two up to a node, a node, and whole nodes.
    pub fn sizes(&self) -> impl Iterator<Item = u32> + use<> {
        let (each, whole) = (self.gpus_per_node, self.whole_nodes());
        let within = (0..31)
            .map(|power| 1u32 << power)
            .take_while(move |size| *size < each);
        let nodes = self.nodes.iter().map(|node| node.gpus.len() as u32);
        let most = nodes.max().unwrap_or(0);
        within
            .filter(move |size| *size <= most)
            .chain((1..=whole).map(move |nodes| nodes * each))
    }

    /// True if the job accepts this GPU model.
    pub fn suits(&self, job: &Job) -> bool {
        job.spec.groups.iter().all(|group| {
            let types = &group.resources.gpu_types;
            types.is_empty()
                || types
                    .iter()
                    .any(|t| t.eq_ignore_ascii_case(&self.gpu_model))
        })
    }
}

impl Managed<'_> {
    /// GPUs held now, and their kind.
    pub fn share(&self) -> Option<(usize, u32)> {
        self.held
            .as_ref()
            .map(|held| (held.kind, held.gpus.len() as u32))
    }
}

/// The model of all of a node's GPUs, if it has some and they are alike.
fn single_model(node: &Node) -> Option<&str> {
    let first = node.spec.gpus.first()?;
    let alike = node.spec.gpus.iter().all(|gpu| gpu.model == first.model);
    alike.then_some(&*first.model)
}

/// A job of one gang of workers with a whole GPU each, on one kind or on none.
fn managed<'a>(
    job: &'a Arc<Job>,
    view: &'a View,
    kind_of: &BTreeMap<NodeId, usize>,
) -> Option<Managed<'a>> {
    let [group] = job.spec.groups.as_slice() else {
        return None;
    };
    let plain = group.resources.milligpu == MILLI && (group.gang || group.max_workers == 1);
    if !plain || job.fencing.is_some() || job.spec.start_now {
        return None;
    }
    let gpus: Vec<(NodeId, u16)> = places(job, view).collect();
    let held = match gpus.first() {
        None => None,
        Some((node, _)) => {
            let kind = *kind_of.get(node)?;
            let same = gpus
                .iter()
                .all(|(node, _)| kind_of.get(node) == Some(&kind));
            let mut gpus = gpus;
            gpus.sort_unstable();
            // What runs on GPUs of several kinds stays as it is.
            Some(Held {
                kind: same.then_some(kind)?,
                gpus,
            })
        }
    };
    let insight = view.insights.get(&job.id);
    let pinned = view.state.reservations.contains_key(&job.id)
        || job.not_before_ms > view.now_ms
        || (job.attempt.as_ref())
            .is_some_and(|attempt| !matches!(attempt.phase, AttemptPhase::Running));
    Some(Managed {
        job,
        insight,
        bounds: (group.min_workers.max(1), group.max_workers),
        held,
        pinned,
    })
}

/// GPUs that a job's tasks hold, or that are reserved for it.
fn places<'a>(job: &'a Job, view: &'a View) -> impl Iterator<Item = (NodeId, u16)> + 'a {
    let tasks = job.attempt.iter().flat_map(|attempt| &attempt.tasks);
    let held = tasks.map(|task| &task.placement);
    let reserved = view.state.reservations.get(&job.id);
    // A job that moves to a reserved place holds both until it is gone from the first.
    let reserved = reserved
        .into_iter()
        .flat_map(|reservation| &reservation.placements);
    held.chain(reserved).flat_map(|placement| {
        let gpu = |share: &GpuShare| (placement.node, share.gpu);
        placement.gpus.iter().map(gpu)
    })
}
