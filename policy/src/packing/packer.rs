//! The walk that all packing policies share: jobs in the order of the queue, each worker on the node with the highest
//! score.
//!
//! A job of several workers is seated all or none, an elastic one as large as fits; as many of its workers with whole
//! GPUs as any node holds go to one node together, so that gangs stay close. A job that finds no place is left to the
//! planner, which promises it one and lets others pass only where they do not delay it, so that large jobs do not
//! starve; a job that asked to start now or never is turned away.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use berth_core::policy::{Action, Backfill, Policy, Proposal, ProposedBundle, View};
use berth_core::state::Job;
use berth_types::{Epoch, GpuShare, JobId, MILLI, Rank, Resources, TaskPlacement};
use rand_chacha::ChaCha8Rng;

use super::ask::Ask;
use super::fleet::{Fleet, Scale};
use super::seat::Seat;

/// Most jobs seated in one round: as many as a plan starts.
const MAX_SEATED: usize = 512;
/// Most jobs of several groups that find no place, per round; each is a search of its own.
const MAX_TRIED: usize = 512;
/// Most different requests remembered, so that memory stays bounded whatever users submit.
const MAX_ASKS: usize = 512;
/// Most workers of a job that are tried on one node together.
const MAX_TOGETHER: u32 = 16;

/// A score for places, and the choice of GPUs.
pub trait Rule: Send {
    /// Name, as configured and shown.
    fn name(&self) -> &'static str;

    /// Looks at the workload before a round. True if scores given before no longer hold.
    fn observe(&mut self, _view: &View, _fleet: &Fleet) -> bool {
        false
    }

    /// True if all jobs that start in a round get their places again, the largest first, where that seats them all.
    fn repacks(&self) -> bool {
        false
    }

    /// How good a seat is for a worker that fits there; higher is better.
    fn score(&self, seat: &Seat, ask: &Ask, scale: Scale) -> i32;

    /// Which of the seat's GPUs the worker gets, ascending.
    fn gpus(&self, seat: &Seat, ask: &Ask, _rng: &mut ChaCha8Rng) -> Vec<u16> {
        seat.tightest(ask)
    }

    /// Which seat gets the worker. By default the highest score, ties to the node that registered first.
    fn pick(&self, scores: &[Scored], _rng: &mut ChaCha8Rng) -> Option<usize> {
        let mut best: Option<(i32, usize)> = None;
        for (index, scored) in scores.iter().enumerate() {
            if let Some(score) = scored.score()
                && best.is_none_or(|(top, _)| score > top)
            {
                best = Some((score, index));
            }
        }
        best.map(|(_, index)| index)
    }
}

/// A remembered score of one seat.
#[derive(Clone, Copy, Debug)]
pub struct Scored {
    stamp: u64,
    score: i32,
}

/// In place of a score: the worker does not fit.
const NO_ROOM: i32 = i32::MIN;

impl Scored {
    /// The score, if the worker fits there.
    pub fn score(&self) -> Option<i32> {
        (self.score != NO_ROOM).then_some(self.score)
    }
}

/// A request with its scores.
#[derive(Debug)]
struct Row {
    ask: Ask,
    scores: Vec<Scored>,
    /// So many workers or more find no place in this round.
    too_many: Option<u32>,
}

/// A packing policy: the walk, with a rule.
#[derive(Debug)]
pub struct Packer<R> {
    rule: R,
    fleet: Fleet,
    rows: Vec<Row>,
    by_ask: BTreeMap<Ask, usize>,
}

/// Where a job's workers sit.
struct Seated {
    tasks: Vec<TaskPlacement>,
    /// Workers by group.
    sizes: Vec<u32>,
    /// Score of the last place.
    score: i32,
}

impl<R: Rule> Packer<R> {
    /// Packs by this rule.
    pub fn new(rule: R) -> Self {
        Self {
            rule,
            fleet: Fleet::default(),
            rows: Vec::new(),
            by_ask: BTreeMap::new(),
        }
    }

    fn refresh(&mut self, view: &View) {
        let renumbered = self.fleet.refresh(&view.state);
        let rescored = self.rule.observe(view, &self.fleet);
        if self.rows.len() > MAX_ASKS {
            self.rows.clear();
            self.by_ask.clear();
        }
        for row in &mut self.rows {
            row.too_many = None;
            if renumbered || rescored {
                row.scores.clear();
            }
        }
    }

    fn row(&mut self, ask: &Ask) -> usize {
        if let Some(&row) = self.by_ask.get(ask) {
            return row;
        }
        self.rows.push(Row {
            ask: ask.clone(),
            scores: Vec::new(),
            too_many: None,
        });
        self.by_ask.insert(ask.clone(), self.rows.len() - 1);
        self.rows.len() - 1
    }

    /// Places for a job at the largest size that fits, or at these sizes; or nothing.
    fn seat_job(
        &mut self,
        job: &Job,
        sizes: Option<&[u32]>,
        rng: &mut ChaCha8Rng,
    ) -> Option<Seated> {
        let groups = &job.spec.groups;
        let asks: Vec<Ask> = groups.iter().map(Ask::of).collect();
        if (asks.iter().zip(groups)).any(|(ask, group)| self.is_hopeless(ask, group.min_workers)) {
            return None;
        }
        let is_gang = groups.len() > 1 || groups.iter().any(|group| group.max_workers > 1);
        let mark = self.fleet.mark();
        let mut seated = Seated {
            tasks: Vec::new(),
            sizes: Vec::new(),
            score: 0,
        };
        for (index, (group, ask)) in groups.iter().zip(&asks).enumerate() {
            let most = sizes.map_or(group.max_workers, |sizes| sizes[index]);
            let least = sizes.map_or(group.min_workers, |sizes| sizes[index]);
            let size = self.seat_group(index, ask, most, is_gang, &mut seated, rng);
            if size < least {
                self.fleet.roll_back(mark);
                if groups.len() == 1 && (!is_gang || self.fleet.seats().iter().all(Seat::has_port))
                {
                    let row = self.row(ask);
                    self.rows[row].too_many = Some(size + 1);
                }
                return None;
            }
            seated.sizes.push(size);
        }
        Some(seated)
    }

    /// True if so many workers have found no place in this round already: nothing is freed within one.
    fn is_hopeless(&self, ask: &Ask, least: u32) -> bool {
        let row = self.by_ask.get(ask).map(|&row| &self.rows[row]);
        row.and_then(|row| row.too_many)
            .is_some_and(|too_many| least >= too_many)
    }

    /// Seats workers of a group, at most `most`, as many together as a node holds. Answers with how many it seated.
    fn seat_group(
        &mut self,
        group: usize,
        ask: &Ask,
        most: u32,
        is_gang: bool,
        seated: &mut Seated,
        rng: &mut ChaCha8Rng,
    ) -> u32 {
        let mut size = 0;
        let largest = self.fleet.scale().milligpu / MILLI;
        let mut together = match ask.is_fraction() {
            true => 1,
            false => largest
                .checked_div(ask.gpus)
                .unwrap_or(1)
                .clamp(1, MAX_TOGETHER),
        };
        while size < most {
            together = together.min(most - size);
            let of_all = ask.times(together);
            let row = self.row(&of_all);
            let Some(seat) = self.pick(row, is_gang, rng) else {
                if together == 1 {
                    break;
                }
                together -= 1;
                continue;
            };
            let here = &self.fleet.seats()[seat];
            let gpus = self.rule.gpus(here, &of_all, rng);
            seated.score = self.rows[row].scores[seat].score;
            let mut shares = gpus.chunks((ask.gpus as usize).max(1));
            for _ in 0..together {
                let share = |&gpu: &u16| GpuShare {
                    gpu,
                    milligpu: ask.share,
                };
                seated.tasks.push(TaskPlacement {
                    rank: Rank(u32::try_from(seated.tasks.len()).unwrap_or(u32::MAX)),
                    group: u16::try_from(group).unwrap_or(u16::MAX),
                    node: here.node,
                    gpus: shares
                        .next()
                        .unwrap_or_default()
                        .iter()
                        .map(share)
                        .collect(),
                });
            }
            self.fleet.take(seat, &of_all, &gpus);
            size += together;
        }
        size
    }

    /// Gives all that were seated in this round their places again, the largest first. If that does not seat them all,
    /// the first places stand.
    fn repack(&mut self, jobs: &mut [(&Job, Seated)], rng: &mut ChaCha8Rng) {
        self.fleet.roll_back(0);
        for row in &mut self.rows {
            row.too_many = None;
        }
        let mut order: Vec<usize> = (0..jobs.len()).collect();
        order.sort_by_key(|&index| Reverse(demand(jobs[index].0, &jobs[index].1.sizes)));
        let mut again: Vec<Option<Seated>> = jobs.iter().map(|_| None).collect();
        for index in order {
            let (job, seated) = &jobs[index];
            let sizes = seated.sizes.clone();
            again[index] = self.seat_job(job, Some(&sizes), rng);
            if again[index].is_none() {
                return;
            }
        }
        for ((_, places), better) in jobs.iter_mut().zip(again.into_iter().flatten()) {
            *places = better;
        }
    }

    /// The best seat for workers that go together. Seats that have not changed keep the score that they had.
    fn pick(&mut self, row: usize, is_gang: bool, rng: &mut ChaCha8Rng) -> Option<usize> {
        let row = &mut self.rows[row];
        let seats = self.fleet.seats();
        let unknown = Scored { stamp: 0, score: 0 };
        row.scores.resize(seats.len(), unknown);
        for (index, (scored, &stamp)) in
            (row.scores.iter_mut().zip(self.fleet.stamps())).enumerate()
        {
            if scored.stamp == stamp {
                continue;
            }
            let seat = &seats[index];
            let fits = seat.fits(&row.ask);
            let score = if fits {
                self.rule.score(seat, &row.ask, self.fleet.scale())
            } else {
                NO_ROOM
            };
            *scored = Scored { stamp, score };
        }
        if !is_gang || seats.iter().all(Seat::has_port) {
            return self.rule.pick(&row.scores, rng);
        }
        let mut with_ports = row.scores.clone();
        for (scored, _) in (with_ports.iter_mut().zip(seats)).filter(|(_, seat)| !seat.has_port()) {
            scored.score = NO_ROOM;
        }
        self.rule.pick(&with_ports, rng)
    }
}

impl<R: Rule> Policy for Packer<R> {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn propose(&mut self, view: &View, rng: &mut ChaCha8Rng) -> Proposal {
        self.refresh(view);
        let mut admitted: Vec<(&Job, Seated)> = Vec::new();
        let mut tried = 0;
        for key in &view.state.pending {
            if admitted.len() >= MAX_SEATED || tried >= MAX_TRIED {
                break;
            }
            let Some(job) = view
                .state
                .jobs
                .get(&key.job)
                .filter(|job| is_idle(job, view))
            else {
                continue;
            };
            match self.seat_job(job, None, rng) {
                Some(seated) => admitted.push((job, seated)),
                None => tried += usize::from(job.spec.groups.len() > 1),
            }
        }
        if self.rule.repacks() && admitted.len() > 1 {
            self.repack(&mut admitted, rng);
        }
        let is_complete = admitted.len() < MAX_SEATED && tried < MAX_TRIED;
        let mut admitted = admitted.into_iter().peekable();
        let bundle = |job: &Arc<Job>| match admitted.next_if(|(next, _)| next.id == job.id) {
            Some((_, seated)) => start_at(job.id, seated, self.rule.name()),
            None if is_complete && is_idle(job, view) => without_room(job),
            None => ProposedBundle::start(job.id),
        };
        let pending = view.state.pending.iter();
        Proposal {
            bundles: (pending.filter_map(|key| view.state.jobs.get(&key.job)))
                .map(bundle)
                .collect(),
            backfill: Backfill::BehindReservation,
            ..Proposal::default()
        }
    }
}

/// True if it could start now, as far as it is up to the job.
fn is_idle(job: &Job, view: &View) -> bool {
    job.not_before_ms <= view.now_ms && !view.state.reservations.contains_key(&job.id)
}

/// GPUs of all workers, then of one worker, then CPUs.
fn demand(job: &Job, sizes: &[u32]) -> (u64, u32, u64) {
    let groups = &job.spec.groups;
    let total = |each: fn(&Resources) -> u32| -> u64 {
        (groups.iter().zip(sizes))
            .map(|(group, &size)| u64::from(each(&group.resources)) * u64::from(size))
            .sum()
    };
    let largest_worker = groups.iter().map(|group| group.resources.milligpu).max();
    (
        total(|r| r.milligpu),
        largest_worker.unwrap_or(0),
        total(|r| r.millicpu),
    )
}

fn start_at(job: JobId, seated: Seated, rule: &str) -> ProposedBundle {
    ProposedBundle {
        actions: vec![Action::Start {
            job,
            workers: None,
            slots: Some(seated.tasks),
        }],
        score: f64::from(seated.score),
        reason: format!("{rule}, score {}", seated.score),
    }
}

/// A job for now or never is turned away; the planner decides about any other.
fn without_room(job: &Job) -> ProposedBundle {
    if job.spec.start_now && job.epoch == Epoch(0) {
        return ProposedBundle {
            actions: vec![Action::Wait(job.id)],
            score: 0.0,
            reason: "no node has room for it now".to_owned(),
        };
    }
    ProposedBundle::start(job.id)
}
