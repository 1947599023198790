//! Request shapes: jobs that ask for the same are looked at once.
//!
//! Within a round nothing is freed, so a shape that did not fit cannot fit later in the round. Ten thousand pending
//! jobs of a dozen shapes cost a dozen searches.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_types::{GroupSpec, JobSpec, Resources};

use super::class::Class;
pub(super) use crate::state::Request;

/// Number of a shape in its [`Shapes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShapeId(pub(super) u32);

impl ShapeId {
    /// Counted from 0 per [`Shapes`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a job asks for, and which classes of nodes can give it.
#[derive(Clone, Debug)]
pub struct Shape<'a> {
    /// The groups, in the spec's order.
    pub groups: &'a [GroupSpec],
    /// By group, then by class.
    pub(super) matches: Arc<Matches>,
}

/// Which GPUs suit, by group, then by class.
pub(super) type Matches = Vec<Vec<GpuMatch>>;

/// Which GPUs of a class's nodes suit a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum GpuMatch {
    /// The class does not suit at all.
    No,
    /// Every one.
    All,
    /// Those marked, by index.
    Some(Vec<bool>),
}

impl GpuMatch {
    pub(super) fn suits(&self, gpu: usize) -> bool {
        match self {
            GpuMatch::No => false,
            GpuMatch::All => true,
            GpuMatch::Some(marks) => marks.get(gpu).copied().unwrap_or(false),
        }
    }

    /// Of these groups on these classes.
    pub(super) fn all(groups: &[GroupSpec], classes: &[Class<'_>]) -> Matches {
        let by_class = |group| classes.iter().map(|class| Self::of(group, class)).collect();
        groups.iter().map(by_class).collect()
    }

    pub(super) fn of(group: &GroupSpec, class: &Class<'_>) -> Self {
        let labels_hold =
            (group.node_labels.iter()).all(|(name, value)| class.labels.get(name) == Some(value));
        if !labels_hold {
            return GpuMatch::No;
        }
        if group.resources.milligpu == 0 {
            return GpuMatch::All;
        }
        let marks: Vec<bool> = class
            .gpus
            .iter()
            .map(|gpu| gpu_suits(&group.resources, &gpu.model, gpu.mem_bytes))
            .collect();
        let suiting = marks.iter().filter(|&&suits| suits).count();
        if suiting < group.resources.devices() as usize {
            GpuMatch::No
        } else if suiting == marks.len() {
            GpuMatch::All
        } else {
            GpuMatch::Some(marks)
        }
    }
}

/// True if a GPU of this model and memory is one that the request accepts.
pub(super) fn gpu_suits(resources: &Resources, model: &str, mem_bytes: u64) -> bool {
    let types = &resources.gpu_types;
    mem_bytes >= resources.gpu_mem_bytes
        && (types.is_empty() || types.iter().any(|t| t.eq_ignore_ascii_case(model)))
}

impl Shape<'_> {
    /// True if every group can run on nodes of this class.
    pub(super) fn suits_class(&self, class: u32) -> bool {
        (self.matches.iter()).all(|by_class| by_class[class as usize] != GpuMatch::No)
    }

    /// Classes that at least one group can use.
    pub(super) fn classes(&self) -> impl Iterator<Item = u32> + '_ {
        let count = self.matches.first().map_or(0, Vec::len);
        (0u32..).take(count).filter(|&class| {
            (self.matches.iter()).any(|by_class| by_class[class as usize] != GpuMatch::No)
        })
    }

    /// Fewest workers by group.
    pub fn least(&self) -> Vec<u32> {
        self.groups.iter().map(|group| group.min_workers).collect()
    }
}

/// The shapes met in a round.
#[derive(Debug, Default)]
pub struct Shapes<'a> {
    by_request: BTreeMap<Request<'a>, ShapeId>,
    shapes: Vec<Shape<'a>>,
}

impl<'a> Shapes<'a> {
    /// No shapes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The shape of a spec, against the classes of `capacity`.
    pub fn intern(&mut self, spec: &'a JobSpec, capacity: &super::Capacity<'a>) -> ShapeId {
        self.intern_with(spec, || {
            Arc::new(GpuMatch::all(&spec.groups, &capacity.classes))
        })
    }

    /// The shape of a spec, which suits what `matches` says.
    pub(super) fn intern_with(
        &mut self,
        spec: &'a JobSpec,
        matches: impl FnOnce() -> Arc<Matches>,
    ) -> ShapeId {
        let request = Request(&spec.groups);
        if let Some(id) = self.by_request.get(&request) {
            return *id;
        }
        let id = ShapeId(u32::try_from(self.shapes.len()).unwrap_or(u32::MAX));
        self.by_request.insert(request, id);
        self.shapes.push(Shape {
            groups: &spec.groups,
            matches: matches(),
        });
        id
    }

    /// A shape by its number.
    pub fn get(&self, id: ShapeId) -> &Shape<'a> {
        &self.shapes[id.0 as usize]
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.shapes.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.shapes.is_empty()
    }
}
