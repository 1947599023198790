//! Why jobs wait and why they sit where they sit, in words and codes.

use std::fmt::Write;
use std::sync::Arc;

use berth_types::{GroupSpec, JobId, MILLI, NodeId};

use super::capacity::{Capacity, Leeway};
use super::place::{Placed, Spread, workers_that_fit};
use super::seat::Seat;
use super::shape::Shape;

/// Most nodes or jobs named in one sentence.
const MAX_NAMED: usize = 4;

/// Machine-readable reason why a job waits. Slurm's name where the meaning is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WaitCode {
    /// Does not fit into what is free.
    Resources,
    /// Jobs ahead of it go first.
    Priority,
    /// Not before a time: its back-off.
    BeginTime,
    /// Needs nodes that are lost or out of service.
    ReqNodeNotAvail,
    /// No node that the cluster ever saw can run it.
    BadConstraints,
    /// A lost node may still run it.
    NodeDown,
    /// The policy lets it wait.
    Policy,
    /// Scheduling is stopped by an alarm.
    Alarm,
}

impl WaitCode {
    /// As shown and matched by scripts.
    pub fn as_str(self) -> &'static str {
        match self {
            WaitCode::Resources => "Resources",
            WaitCode::Priority => "Priority",
            WaitCode::BeginTime => "BeginTime",
            WaitCode::ReqNodeNotAvail => "ReqNodeNotAvail",
            WaitCode::BadConstraints => "BadConstraints",
            WaitCode::NodeDown => "NodeDown",
            WaitCode::Policy => "Policy",
            WaitCode::Alarm => "Alarm",
        }
    }
}

impl std::fmt::Display for WaitCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a job waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitReason {
    /// For scripts.
    pub code: WaitCode,
    /// For people. Shared by jobs that wait for the same.
    pub text: Arc<str>,
}

impl WaitReason {
    pub(super) fn new(code: WaitCode, text: impl Into<Arc<str>>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }
}

/// What one group asks for, such as `4 workers of 2 GPUs (a100 or h100) and 8 CPUs`.
pub(super) fn request(group: &GroupSpec) -> String {
    let r = &group.resources;
    let mut parts = Vec::new();
    if r.milligpu > 0 {
        parts.push(gpus(group));
    }
    if r.millicpu > 0 {
        parts.push(format!("{} CPUs", milli(u64::from(r.millicpu))));
    }
    if r.mem_bytes > 0 {
        parts.push(format!("{} memory", size(r.mem_bytes)));
    }
    let mut text = if parts.is_empty() {
        "a slot".to_owned()
    } else {
        parts.join(", ")
    };
    if group.min_workers > 1 {
        text = format!("{} workers of {text}", group.min_workers);
    }
    let labels: Vec<String> = (group.node_labels.iter())
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    if !labels.is_empty() {
        let _ = write!(text, " on nodes with {}", labels.join(", "));
    }
    text
}

/// The GPUs of one worker, such as `2 a100 GPUs of at least 40 GiB`.
pub(super) fn gpus(group: &GroupSpec) -> String {
    let count = milli(u64::from(group.resources.milligpu));
    let mut text = gpus_wanted(group);
    if group.resources.milligpu > MILLI {
        text = text.replacen("GPU", "GPUs", 1);
    }
    format!("{count} {text}")
}

/// The kind of GPU, such as `a100 GPU of at least 40 GiB`.
pub(super) fn gpus_wanted(group: &GroupSpec) -> String {
    let r = &group.resources;
    let mut text = r.gpu_types.join(" or ");
    if !text.is_empty() {
        text.push(' ');
    }
    text.push_str("GPU");
    if r.gpu_mem_bytes > 0 {
        let _ = write!(text, " of at least {}", size(r.gpu_mem_bytes));
    }
    text
}

/// What a job asks for.
pub(super) fn requests(groups: &[GroupSpec]) -> String {
    let parts: Vec<String> = groups.iter().map(request).collect();
    parts.join(" and ")
}

/// Why a shape does not fit now, such as `needs 4 a100 GPUs; best node n3 has 2 GPUs free`.
pub(super) fn does_not_fit(capacity: &Capacity<'_>, shape: &Shape<'_>) -> String {
    let mut text = format!("needs {}", requests(shape.groups));
    if let [group] = shape.groups
        && group.min_workers > 1
    {
        let fit = workers_that_fit(capacity, shape, 0, Leeway::ALL);
        if fit > 0 {
            let _ = write!(text, "; {fit} of {} workers would fit", group.min_workers);
            return text;
        }
    }
    let most = shape
        .groups
        .iter()
        .map(|group| group.resources.milligpu)
        .max()
        .unwrap_or(0);
    match best_seat(capacity, shape).filter(|_| most > 0) {
        Some((seat, free)) if u32::from(free) * MILLI >= most => {
            let short = if seat.ports_left > 0 {
                "not the CPUs or memory"
            } else {
                "no port"
            };
            let gpus = plural("GPU", free);
            let _ = write!(
                text,
                "; best node {} has {free} {gpus} free, but {short}",
                seat.name()
            );
        }
        Some((_, 0)) if most < MILLI => text.push_str("; no GPU has that much free"),
        Some((_, 0)) => text.push_str("; no GPU that suits is wholly free"),
        Some((seat, free)) => {
            let gpus = plural("GPU", free);
            let _ = write!(text, "; best node {} has {free} {gpus} free", seat.name());
        }
        None => text.push_str("; no node that suits has room"),
    }
    text
}

/// The node with most free GPUs among those that suit the largest workers, and how many.
pub(super) fn best_seat<'c, 'a>(
    capacity: &'c Capacity<'a>,
    shape: &Shape<'_>,
) -> Option<(&'c Seat<'a>, u16)> {
    let best = (shape.classes())
        .filter(|&class| shape.suits_class(class))
        .filter_map(|class| {
            let by_whole = &capacity.now.by_whole[class as usize];
            let most = by_whole.last()?.0;
            by_whole.range((most, 0)..).next().copied()
        })
        .max_by_key(|&(whole, seat)| (whole, std::cmp::Reverse(seat)))?;
    Some((&capacity.seats[best.1 as usize], best.0))
}

/// Why a job was put where it is, such as `best fit: 2 GPUs on n1, whole gang on one node`.
pub(super) fn because(capacity: &Capacity<'_>, groups: &[GroupSpec], placed: &Placed) -> String {
    let mut seats: Vec<u32> = (placed.tasks.iter())
        .filter_map(|t| capacity.seat_of(t.node))
        .collect();
    seats.dedup();
    seats.sort_unstable();
    seats.dedup();
    let milligpu: u64 = (placed.tasks.iter())
        .flat_map(|task| task.gpus.iter())
        .map(|share| u64::from(share.milligpu))
        .sum();
    let what = match milligpu {
        0 => format!(
            "{} {}",
            placed.tasks.len(),
            plural("task", placed.tasks.len() as u64)
        ),
        MILLI_1..=MILLI_MAX => format!("{} GPU", milli(milligpu)),
        _ => format!("{} GPUs", milli(milligpu)),
    };
    let names = names(
        seats
            .iter()
            .map(|&seat| capacity.seats[seat as usize].name()),
    );
    let mut text = match placed.spread {
        Spread::Node => one_node(capacity, placed, &what, &names),
        Spread::Rack => {
            let rack = seats
                .first()
                .and_then(|&seat| capacity.seats[seat as usize].rack);
            let rack = rack.map_or("", |rack| capacity.rack_names[rack as usize]);
            format!(
                "best fit: {what} over {} nodes of rack {rack} ({names})",
                seats.len()
            )
        }
        Spread::Wide => {
            let count = seats.len();
            format!("best fit: {what} over {count} nodes ({names}), the fewest with room")
        }
    };
    for (group, size) in groups.iter().zip(&placed.sizes) {
        if *size < group.max_workers {
            let _ = write!(text, "; {size} of at most {} workers", group.max_workers);
        }
    }
    text
}

const MILLI_1: u64 = 1;
const MILLI_MAX: u64 = MILLI as u64;

fn one_node(capacity: &Capacity<'_>, placed: &Placed, what: &str, name: &str) -> String {
    let seat = placed
        .tasks
        .first()
        .and_then(|task| capacity.seat_of(task.node));
    let free = seat.map_or(0, |seat| capacity.now.whole[seat as usize]);
    let gang = if placed.tasks.len() > 1 {
        ", whole gang on one node"
    } else {
        ""
    };
    let shared =
        (placed.tasks.iter()).any(|task| task.gpus.iter().any(|share| share.milligpu < MILLI));
    let none = placed.tasks.iter().all(|task| task.gpus.is_empty());
    if none {
        format!("best fit: {what} on {name}{gang}")
    } else if shared {
        format!("best fit: {what} on {name}, beside others{gang}")
    } else {
        let what = what.split(' ').next().unwrap_or(what);
        format!(
            "best fit: {what} of {free} free {} on {name}{gang}",
            plural("GPU", free)
        )
    }
}

/// A list of names, shortened.
pub(super) fn names<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let mut text = String::new();
    let mut count = 0;
    for name in names {
        count += 1;
        if count <= MAX_NAMED {
            if count > 1 {
                text.push_str(", ");
            }
            text.push_str(name);
        }
    }
    if count > MAX_NAMED {
        let _ = write!(text, " and {} more", count - MAX_NAMED);
    }
    text
}

/// `job 17` or `jobs 17, 18 and 3 more`.
pub(super) fn jobs(jobs: &[JobId]) -> String {
    let ids: Vec<String> = jobs
        .iter()
        .take(MAX_NAMED + 1)
        .map(ToString::to_string)
        .collect();
    let list = names(ids.iter().map(String::as_str));
    let hidden = jobs.len().saturating_sub(MAX_NAMED);
    match jobs.len() {
        1 => format!("job {list}"),
        n if n > MAX_NAMED + 1 => {
            let shown = ids[..MAX_NAMED].join(", ");
            format!("jobs {shown} and {hidden} more")
        }
        _ => format!("jobs {list}"),
    }
}

/// Names of nodes, shortened.
pub(super) fn node_names(capacity: &Capacity<'_>, nodes: &[NodeId]) -> String {
    names((nodes.iter()).map(|&node| {
        let seat = capacity.seat_of(node);
        seat.map_or("?", |seat| capacity.seats[seat as usize].name())
    }))
}

/// Thousandths as a decimal number: `2`, `0.25`.
pub(super) fn milli(milli: u64) -> String {
    let one = u64::from(MILLI);
    match milli % one {
        0 => (milli / one).to_string(),
        rest => format!(
            "{}.{}",
            milli / one,
            format!("{rest:03}").trim_end_matches('0')
        ),
    }
}

/// Bytes with a unit, rounded down: `40 GiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (unit, one) in UNITS {
        if bytes >= one {
            return format!("{} {unit}", bytes / one);
        }
    }
    format!("{bytes} bytes")
}

/// A duration for people: `about 5 min`.
pub(super) fn about(ms: u64) -> String {
    match ms / 1000 {
        0..=1 => "about a second".to_owned(),
        s @ 2..=119 => format!("about {s} s"),
        s @ 120..=7_199 => format!("about {} min", s / 60),
        s @ 7_200..=172_799 => format!("about {} h", s / 3_600),
        s => format!("about {} days", s / 86_400),
    }
}

pub(super) fn plural<N: Into<u64>>(word: &str, count: N) -> String {
    if count.into() == 1 {
        word.to_owned()
    } else {
        format!("{word}s")
    }
}
