//! `autoscale+NAME`: any policy, with pools that grow when jobs wait and shrink when nodes are idle.
//!
//! Every `scan` seconds, jobs that wait and do not fit are placed on nodes that there could be, by the planner itself:
//! cheapest pool first, nodes that are on their way counted as there. What they sit on is asked for. A pool that was
//! denied a node is left out until it may be asked again. A node on which nothing has run for `idle` seconds is given
//! back, down to the pool's least size.
//!
//! `autoscale:scan=10,idle=600+NAME` are the defaults. Source: the Kubernetes cluster-autoscaler's documentation
//! (`--scan-interval` 10 s, `--scale-down-unneeded-time` 10 min, the `price` expander). Deviations: gangs are placed
//! whole; nodes that are busy are never emptied to make them idle; nothing waits after a node was added before another
//! one is removed, since a node counts as idle only from its own start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_core::apply::apply;
use berth_core::command::{Bundle, Command, LogEntry, ProposalTag};
use berth_core::planner::{self, PlanLimits};
use berth_core::policy::{
    Action, Backfill, POOL_LABEL, Policy, Pool, Proposal, ProposedBundle, Rest, View,
};
use berth_core::state::{Node, State};
use berth_types::NodeId;
use rand_chacha::ChaCha8Rng;

use crate::options::{NameError, Options};

/// Sizes of pools around a policy.
pub struct Autoscale {
    inner: Box<dyn Policy>,
    name: String,
    scan_ms: u64,
    idle_ms: u64,
    /// When to scan again.
    next_scan_ms: u64,
    /// Idle nodes of pools, since when, and their records then: one that has changed was in use meanwhile.
    idle: BTreeMap<NodeId, (u64, Arc<Node>)>,
    targets: BTreeMap<String, u32>,
    /// True if the newest scan found something to ask for, which may be denied.
    is_wanting: bool,
}

impl Autoscale {
    /// Around a policy, with settings: `scan`, `idle`.
    ///
    /// # Errors
    /// If one does not hold.
    pub fn with(
        inner: Box<dyn Policy>,
        name: &str,
        options: &mut Options,
    ) -> Result<Self, NameError> {
        Ok(Self {
            inner,
            name: name.to_owned(),
            scan_ms: options.number("scan", 10, 1..=86_400u64)? * 1_000,
            idle_ms: options.number("idle", 600, 0..=604_800u64)? * 1_000,
            next_scan_ms: 0,
            idle: BTreeMap::new(),
            targets: BTreeMap::new(),
            is_wanting: false,
        })
    }

    /// Notes which nodes of pools are idle, and since when.
    fn watch(&mut self, view: &View) {
        let kept = |id: &NodeId| {
            let reservations = view.state.reservations.values();
            let mut places = reservations.flat_map(|kept| &kept.placements);
            places.any(|place| place.node == *id)
        };
        let before = std::mem::take(&mut self.idle);
        for (id, node) in &view.state.nodes {
            let is_idle = node.is_schedulable() && node.jobs.is_empty() && !kept(id);
            if is_idle && node.spec.labels.contains_key(POOL_LABEL) {
                let same = before.get(id).filter(|(_, then)| Arc::ptr_eq(then, node));
                let since_ms = same.map_or(view.now_ms, |(since_ms, _)| *since_ms);
                self.idle.insert(*id, (since_ms, Arc::clone(node)));
            }
        }
    }

    fn idle_of<'s>(&'s self, view: &'s View, pool: &'s Pool) -> impl Iterator<Item = u64> + 's {
        let of_pool = |id: &NodeId| {
            let node = view.state.nodes.get(id);
            node.is_some_and(|node| is_of(node, pool))
        };
        let idle = self.idle.iter().filter(move |(id, _)| of_pool(id));
        idle.map(|(_, (since_ms, _))| *since_ms)
    }

    fn scan(&mut self, view: &View, proposal: &Proposal) {
        let Wanted { more: wanted, used } = wanted(view, proposal);
        // Whoever will get a job once others are there does not idle.
        for (id, (since_ms, _)) in &mut self.idle {
            if used.contains(id) {
                *since_ms = view.now_ms;
            }
        }
        self.is_wanting = !wanted.is_empty();
        for pool in view.pools.iter() {
            let held = pool.nodes + pool.coming;
            let target = match wanted.get(&pool.name) {
                Some(more) => held.saturating_add(*more).min(pool.max_nodes),
                None => {
                    let idle = self.idle_of(view, pool);
                    let over = idle.filter(|since_ms| since_ms + self.idle_ms <= view.now_ms);
                    let over = u32::try_from(over.count()).unwrap_or(u32::MAX);
                    // Nodes that are on their way were wanted a moment ago.
                    held.saturating_sub(over).max(pool.min_nodes)
                }
            };
            self.targets.insert(pool.name.clone(), target);
        }
        self.next_scan_ms = view.now_ms.saturating_add(self.scan_ms);
    }

    /// When something may have to be done though nothing happens: a scan that is due, a node that has been idle for long
    /// enough.
    fn wake_ms(&self, view: &View, has_scanned: bool) -> Option<u64> {
        let is_open = !has_scanned || self.is_wanting;
        let scan = (is_open && !view.state.pending.is_empty()).then_some(self.next_scan_ms);
        let shrinking = view.pools.iter().filter(|pool| pool.nodes > pool.min_nodes);
        let idle = shrinking.flat_map(|pool| self.idle_of(view, pool));
        let idle = idle.map(|since_ms| since_ms + self.idle_ms);
        let idle = idle.filter(|&at_ms| at_ms > view.now_ms).min();
        let idle = idle.map(|at_ms| at_ms.max(self.next_scan_ms));
        let denied = view.pools.iter().map(|pool| pool.denied_until_ms);
        let denied = denied.filter(|&at_ms| at_ms > view.now_ms).min();
        scan.into_iter().chain(idle).chain(denied).min()
    }
}

impl Policy for Autoscale {
    fn name(&self) -> &str {
        &self.name
    }

    fn propose(&mut self, view: &View, rng: &mut ChaCha8Rng) -> Proposal {
        let mut proposal = self.inner.propose(view, rng);
        if view.pools.is_empty() {
            return proposal;
        }
        self.watch(view);
        let is_due = self.next_scan_ms <= view.now_ms;
        if is_due {
            self.scan(view, &proposal);
        }
        let wake_ms = self.wake_ms(view, is_due);
        for (pool, target) in &self.targets {
            proposal.pools.entry(pool.clone()).or_insert(*target);
        }
        proposal.wake_ms = proposal.wake_ms.into_iter().chain(wake_ms).min();
        proposal
    }
}

fn is_of(node: &Node, pool: &Pool) -> bool {
    node.spec.labels.get(POOL_LABEL) == Some(&pool.name)
}

/// What jobs that wait would start on.
struct Wanted {
    /// Nodes that there are not and that do not come, by pool.
    more: BTreeMap<String, u32>,
    /// Nodes that there are.
    used: BTreeSet<NodeId>,
}

/// What jobs would start on that cannot start on what there is.
fn wanted(view: &View, proposal: &Proposal) -> Wanted {
    let mut dream = Dream {
        view: view.clone(),
        log: 0,
        names: 0,
    };
    for pool in view.pools.iter().filter(|pool| pool.coming > 0) {
        dream.add(pool, pool.coming);
    }
    dream.start(proposal);
    let mut pools: Vec<&Pool> = view.pools.iter().collect();
    pools.sort_by(|a, b| {
        let by_price = a.price_per_hour.total_cmp(&b.price_per_hour);
        by_price.then_with(|| a.name.cmp(&b.name))
    });
    let mut more = BTreeSet::new();
    for pool in pools {
        let room = pool.max_nodes.saturating_sub(pool.nodes + pool.coming);
        let most = room.min(dream.waiting_workers());
        if most > 0 && pool.denied_until_ms <= view.now_ms {
            more.extend(dream.add(pool, most));
            dream.start(proposal);
        }
    }
    let used = (dream.view.state.nodes.values()).filter(|node| !node.jobs.is_empty());
    let used = used.map(|node| node.id).collect();
    let mut wanted = BTreeMap::new();
    let more = more.iter().filter_map(|id| dream.view.state.nodes.get(id));
    for node in more {
        if !node.jobs.is_empty()
            && let Some(pool) = node.spec.labels.get(POOL_LABEL)
        {
            *wanted.entry(pool.clone()).or_insert(0) += 1;
        }
    }
    Wanted { more: wanted, used }
}

/// A cluster with nodes that there are not.
struct Dream {
    view: View,
    log: u64,
    /// Names given so far.
    names: u64,
}

impl Dream {
    fn commit(&mut self, command: Command) {
        self.log += 1;
        let entry = LogEntry {
            tag: ProposalTag::default(),
            stamp_ms: self.view.now_ms,
            commands: vec![command],
        };
        // What is refused is not there, and nobody sits on it.
        apply(&mut self.view.state, self.log, &entry);
    }

    /// Adds empty nodes. Their ids.
    fn add(&mut self, pool: &Pool, count: u32) -> BTreeSet<NodeId> {
        let mut added = BTreeSet::new();
        for _ in 0..count {
            let name = self.free_name();
            let mut spec = (*pool.node).clone();
            spec.name.clone_from(&name);
            spec.address.clone_from(&name);
            for (index, gpu) in spec.gpus.iter_mut().enumerate() {
                gpu.uuid = format!("{name}/{index}");
            }
            self.commit(Command::RegisterNode {
                spec: Arc::new(spec),
                incarnation: 1,
            });
            added.extend(self.view.state.node_named(&name).map(|node| node.id));
        }
        added
    }

    fn free_name(&mut self) -> String {
        loop {
            self.names += 1;
            let name = format!("imagined-{}", self.names);
            if self.view.state.node_named(&name).is_none() {
                return name;
            }
        }
    }

    /// Starts what fits, in the order of the proposal, then in the order of the queue.
    fn start(&mut self, proposal: &Proposal) {
        let is_start =
            |bundle: &&ProposedBundle| matches!(bundle.actions[..], [Action::Start { .. }]);
        let greedy = Proposal {
            bundles: (proposal.bundles.iter())
                .filter(is_start)
                .cloned()
                .collect(),
            rest: Rest::InTurn,
            backfill: Backfill::Greedy,
            ..Proposal::default()
        };
        let limits = PlanLimits {
            max_starts: usize::MAX,
            explain: false,
            ..PlanLimits::default()
        };
        let bundles: Vec<Bundle> = planner::plan(&self.view, &greedy, &limits).bundles;
        if !bundles.is_empty() {
            self.commit(Command::ApplyPlan { plan: 0, bundles });
        }
    }

    /// Workers of all jobs that wait: no more nodes than these can be of use.
    fn waiting_workers(&self) -> u32 {
        let State { pending, jobs, .. } = &self.view.state;
        let waiting = pending.iter().filter_map(|key| jobs.get(&key.job));
        let groups = waiting.flat_map(|job| &job.spec.groups);
        groups.fold(0, |sum, group| sum.saturating_add(group.min_workers))
    }
}
