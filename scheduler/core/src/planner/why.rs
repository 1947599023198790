//! Why one job is where it is: the one reason, and the nearest change that would start it.

use berth_types::{Attempt, JobId, JobState, NodeState};

use super::capacity::{Capacity, Leeway};
use super::evidence;
use super::place::place;
use super::reason::{self, WaitCode, WaitReason};
use super::release::Trust;
use super::room::Look;
use super::shape::{Shape, Shapes};
use super::{HeadReservation, promise, release};
use crate::state::{Job, Node, State};

/// The answer to `why`, but for the job's id and state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WhyParts {
    /// The one reason, machine-readable; see [`WaitCode::as_str`]. `None` for a placed job.
    pub reason: String,
    /// The one reason, for people.
    pub text: String,
    /// The nearest change that would start it; empty if it is placed.
    pub unblock: String,
    /// Jobs ahead of it in the queue, if it waits.
    pub ahead: Option<u32>,
    /// A line per class of equal nodes.
    pub evidence: Vec<String>,
}

/// Explains an unfinished job. `told` is what the newest plan says of it, if it does.
pub fn why(state: &State, job: &Job, told: Option<&WaitReason>, now_ms: u64) -> WhyParts {
    match (job.state(), &job.attempt) {
        (JobState::Fencing, _) => fencing(state, job),
        (job_state, Some(attempt)) => placed(state, job_state, attempt),
        (_, None) => Pending {
            state,
            now_ms,
            told,
            job,
        }
        .explain(),
    }
}

fn placed(state: &State, job_state: JobState, attempt: &Attempt) -> WhyParts {
    let mut nodes: Vec<&str> = (attempt.tasks.iter())
        .filter_map(|task| state.nodes.get(&task.placement.node))
        .map(|node| node.spec.name.as_str())
        .collect();
    nodes.dedup();
    let does = match job_state {
        JobState::Starting => "starts on",
        JobState::Stopping => "is being stopped on",
        _ => "runs on",
    };
    let mut text = format!("{does} {}", reason::names(nodes.into_iter()));
    if !attempt.placed_because.is_empty() {
        text = format!("{text}; {}", attempt.placed_because);
    }
    WhyParts {
        reason: "None".to_owned(),
        text,
        ..WhyParts::default()
    }
}

fn fencing(state: &State, job: &Job) -> WhyParts {
    let fencing = job.fencing.as_ref();
    let nodes: Vec<&str> = (fencing.iter().flat_map(|fencing| &fencing.nodes))
        .filter_map(|id| state.nodes.get(id))
        .map(|node| node.spec.name.as_str())
        .collect();
    let names = reason::names(nodes.iter().copied());
    let unblock = if fencing.is_some_and(|fencing| fencing.operator_only) {
        format!("the return of {names}, or an operator who says that nothing runs there any more")
    } else {
        format!("the return of {names}, or the end of its lease")
    };
    WhyParts {
        reason: WaitCode::NodeDown.as_str().to_owned(),
        text: format!("{names} is lost and may still run it"),
        unblock,
        ..WhyParts::default()
    }
}

/// A pending job under examination.
struct Pending<'a> {
    state: &'a State,
    now_ms: u64,
    told: Option<&'a WaitReason>,
    job: &'a Job,
}

impl<'a> Pending<'a> {
    fn explain(&self) -> WhyParts {
        let ahead = self.state.pending.range(..self.job.pending_key()).count();
        let (code, text, unblock) = self.reason();
        let groups = &self.job.spec.groups;
        WhyParts {
            reason: code.as_str().to_owned(),
            text,
            unblock,
            ahead: Some(u32::try_from(ahead).unwrap_or(u32::MAX)),
            evidence: evidence::lines(self.state, groups),
        }
    }

    fn reason(&self) -> (WaitCode, String, String) {
        if let Some(alarm) = &self.state.alarm {
            let text = format!("scheduling is stopped: {alarm}");
            return (
                WaitCode::Alarm,
                text,
                "an operator who looks into the alarm".to_owned(),
            );
        }
        if let Some(reservation) = self.state.reservations.get(&self.job.id) {
            let ids: Vec<JobId> = reservation.waits_for.iter().map(|(job, _)| *job).collect();
            return match ids.as_slice() {
                [] => starts_next_round("its place is kept and free"),
                ids => {
                    let jobs = reason::jobs(ids);
                    let text = format!("its place is being vacated by {jobs}");
                    (WaitCode::Resources, text, format!("the end of {jobs}"))
                }
            };
        }
        if self.job.not_before_ms > self.now_ms {
            let wait = reason::about(self.job.not_before_ms - self.now_ms);
            let text = format!("its back-off after its last attempt ends in {wait}");
            return (
                WaitCode::BeginTime,
                text,
                "nothing but that time".to_owned(),
            );
        }
        self.unavailable().unwrap_or_else(|| self.unplaced())
    }

    /// The reason, if it does not fit the nodes in service even if they were empty.
    fn unavailable(&self) -> Option<(WaitCode, String, String)> {
        let nodes = || self.state.nodes.values().map(|node| &**node);
        let fits = |nodes: &mut dyn Iterator<Item = &'a Node>, look: Look| {
            let capacity = Capacity::of_nodes(nodes, look);
            let mut shapes = Shapes::new();
            let shape = shapes.intern(&self.job.spec, &capacity);
            let shape = shapes.get(shape);
            place(&capacity, shape, &shape.least(), Leeway::ALL, &mut 0).is_some()
        };
        if fits(
            &mut nodes().filter(|node| node.is_schedulable()),
            Look::Emptied,
        ) {
            return None;
        }
        let needs = format!("needs {}", reason::requests(&self.job.spec.groups));
        if !fits(&mut nodes(), Look::Mended) {
            let (what, change) = evidence::unmet(self.state, &self.job.spec.groups);
            return Some((WaitCode::BadConstraints, format!("{needs}; {what}"), change));
        }
        let away: Vec<String> = nodes()
            .filter(|node| {
                let is_out = !node.is_schedulable() || node.gpus.iter().any(|gpu| gpu.blocked);
                is_out && evidence::suits_some(node, &self.job.spec.groups)
            })
            .map(|node| self.why_away(node))
            .collect();
        let away = reason::names(away.iter().map(String::as_str));
        let text = format!("{needs}; that takes nodes that are out of service: {away}");
        Some((
            WaitCode::ReqNodeNotAvail,
            text,
            format!("the return of {away}"),
        ))
    }

    /// Such as `n3 (GPU 2 quarantined: XID 79 (fell off the bus))`.
    fn why_away(&self, node: &Node) -> String {
        let name = &node.spec.name;
        match node.state() {
            NodeState::Lost => return format!("{name} (lost)"),
            NodeState::Draining => return format!("{name} (drains)"),
            NodeState::Ready => {}
        }
        let Some(health) = self.state.health.get(&node.id) else {
            return name.clone();
        };
        if health.is_resting() {
            return format!("{name} ({})", health.machine.why());
        }
        let mut out = health.gpus.iter().filter(|(_, h)| !h.stage.is_usable());
        match out.next() {
            Some((gpu, record)) => match out.count() {
                0 => format!("{name} (GPU {gpu} {})", record.why()),
                more => format!("{name} (GPU {gpu} {}, and {more} more)", record.why()),
            },
            None => name.clone(),
        }
    }

    fn unplaced(&self) -> (WaitCode, String, String) {
        let capacity = Capacity::of(self.state);
        let mut shapes = Shapes::new();
        let shape = shapes.intern(&self.job.spec, &capacity);
        let shape = shapes.get(shape);
        if place(&capacity, shape, &shape.least(), Leeway::ALL, &mut 0).is_some() {
            return self.held_back();
        }
        let text = reason::does_not_fit(&capacity, shape);
        let mut releases = release::releases(self.state, self.now_ms, Trust::Expected);
        releases.sort_unstable_by_key(|release| (release.when, release.job));
        let soonest = promise::promise(&capacity, &releases, shape, self.job.id, &mut 0);
        let unblock = soonest.map_or_else(
            || "other jobs that end".to_owned(),
            |(told, _)| self.unblock(&capacity, shape, &told),
        );
        (WaitCode::Resources, text, unblock)
    }

    /// Fits, and yet waits.
    fn held_back(&self) -> (WaitCode, String, String) {
        match self.told.map(|told| (told.code, told.text.to_string())) {
            Some((WaitCode::Policy, text)) => (
                WaitCode::Policy,
                text,
                "another decision of the policy".to_owned(),
            ),
            Some((WaitCode::Priority, text)) => {
                let unblock =
                    "the start of the job ahead, or an enforced time limit that ends before it";
                (WaitCode::Priority, text, unblock.to_owned())
            }
            _ => starts_next_round("it fits and has not had its turn yet"),
        }
    }

    /// Such as `the end of job 17, expected in about 5 min; or 2 more free GPUs on n3`.
    fn unblock(
        &self,
        capacity: &Capacity<'_>,
        shape: &Shape<'_>,
        told: &HeadReservation,
    ) -> String {
        let mut text = match told.waits_for.as_slice() {
            [] => "nothing but its turn".to_owned(),
            jobs => format!("the end of {}", reason::jobs(jobs)),
        };
        if let Some(start_ms) = told.start_ms {
            let wait = reason::about(start_ms.saturating_sub(self.now_ms));
            text = format!("{text}, expected in {wait}");
        }
        if let [group] = shape.groups
            && group.min_workers == 1
            && let Some((seat, free)) = reason::best_seat(capacity, shape)
            && let Some(missing @ 1..) = group.resources.devices().checked_sub(u32::from(free))
        {
            text = format!(
                "{text}; or {missing} more free {} on {}",
                reason::plural("GPU", missing),
                seat.name()
            );
        }
        text
    }
}

fn starts_next_round(what: &str) -> (WaitCode, String, String) {
    (
        WaitCode::Priority,
        what.to_owned(),
        "nothing but the next round".to_owned(),
    )
}
