//! Which of its options each job gets, so that the sum of costs is least and no kind of GPUs is exceeded.
//!
//! An exact method for the integer program of Sia (Jayaram Subramanya et al., SOSP 2023, section 3.4): a Lagrangian bound
//! with a price for each kind of GPUs (Fisher, "The Lagrangian relaxation method for solving integer programming
//! problems", Management Science 27, 1981), options struck out by their reduced costs, and depth-first branch and bound
//! over what is left. Costs are whole numbers, so a bound within 1 of a solution proves it.

/// An option of a job: so many GPUs of a kind at a cost below 0, which is what the job costs without any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Index of the kind.
    pub kind: usize,
    /// GPUs.
    pub gpus: u32,
    /// Cost; lower is better.
    pub cost: i64,
}

/// A choice for each job: index among its candidates.
pub type Choice = Vec<Option<usize>>;

/// Steps along the prices.
const PRICE_STEPS: usize = 200;
/// Most nodes of the search, after which the best found counts: about a quarter of a second. Seen only where several
/// hundred jobs compete.
const MAX_VISITS: u64 = 2_000_000;

/// The least total cost within these capacities. Where there is room for all, a job gets the first of its cheapest
/// candidates; where there is not, which of several equally good solutions is found is left to the search.
pub fn assign(jobs: &[Vec<Candidate>], capacity: &[u32]) -> Choice {
    let greedy = cheapest_each(jobs);
    if fits(jobs, &greedy, capacity) {
        return greedy;
    }
    let mut search = Search::new(jobs, capacity);
    search.price();
    search.branch();
    search.best
}

/// Without those that cost no less than others of the same kind with fewer GPUs, or than going without.
pub fn undominated(candidates: &[Candidate]) -> Vec<Candidate> {
    let better =
        |a: &Candidate, b: &Candidate| a.kind == b.kind && a.gpus < b.gpus && a.cost <= b.cost;
    let worth = candidates.iter().enumerate().filter(|(index, candidate)| {
        // What the job has stays in the running: it comes first.
        let rivals = candidates.iter().filter(|other| better(other, candidate));
        candidate.cost < 0
            && match index {
                0 => rivals.clone().all(|rival| rival.cost == candidate.cost),
                _ => rivals.count() == 0,
            }
    });
    worth.map(|(_, candidate)| *candidate).collect()
}

/// The sum of costs.
fn cost(jobs: &[Vec<Candidate>], choice: &Choice) -> i64 {
    let chosen = jobs
        .iter()
        .zip(choice)
        .filter_map(|(job, choice)| Some(job[(*choice)?].cost));
    chosen.sum()
}

fn cheapest_each(jobs: &[Vec<Candidate>]) -> Choice {
    let cheapest = |job: &Vec<Candidate>| {
        let below = job
            .iter()
            .enumerate()
            .filter(|(_, candidate)| candidate.cost < 0);
        below
            .min_by_key(|(index, candidate)| (candidate.cost, *index))
            .map(|(index, _)| index)
    };
    jobs.iter().map(cheapest).collect()
}

fn used(jobs: &[Vec<Candidate>], choice: &Choice, kinds: usize) -> Vec<u32> {
    let mut used = vec![0; kinds];
    for (job, choice) in jobs.iter().zip(choice) {
        if let Some(index) = choice {
            used[job[*index].kind] += job[*index].gpus;
        }
    }
    used
}

fn fits(jobs: &[Vec<Candidate>], choice: &Choice, capacity: &[u32]) -> bool {
    let used = used(jobs, choice, capacity.len());
    used.iter()
        .zip(capacity)
        .all(|(used, capacity)| used <= capacity)
}

struct Search<'a> {
    jobs: &'a [Vec<Candidate>],
    capacity: &'a [u32],
    prices: Vec<f64>,
    best: Choice,
    best_cost: i64,
    visits: u64,
}

/// A job's options that may still be part of a better solution, by reduced cost.
struct Open {
    job: usize,
    /// Reduced cost, and index; `None` is going without.
    options: Vec<(f64, Option<usize>)>,
}

impl<'a> Search<'a> {
    fn new(jobs: &'a [Vec<Candidate>], capacity: &'a [u32]) -> Self {
        Self {
            jobs,
            capacity,
            prices: vec![0.0; capacity.len()],
            best: vec![None; jobs.len()],
            best_cost: 0,
            visits: 0,
        }
    }

    fn reduced(&self, candidate: &Candidate, prices: &[f64]) -> f64 {
        candidate.cost as f64 + prices[candidate.kind] * f64::from(candidate.gpus)
    }

    /// Best option of each job at these prices; the bound; what it uses.
    fn relaxed(&self, prices: &[f64]) -> (Choice, f64, Vec<f64>) {
        let mut use_of: Vec<f64> = vec![0.0; self.capacity.len()];
        let mut bound = 0.0;
        let mut choice = Vec::with_capacity(self.jobs.len());
        for job in self.jobs {
            let mut least = (0.0, None);
            for (index, candidate) in job.iter().enumerate() {
                let reduced = self.reduced(candidate, prices);
                if reduced < least.0 {
                    least = (reduced, Some(index));
                }
            }
            bound += least.0;
            if let Some(index) = least.1 {
                use_of[job[index].kind] += f64::from(job[index].gpus);
            }
            choice.push(least.1);
        }
        let paid = prices
            .iter()
            .zip(self.capacity)
            .map(|(p, c)| p * f64::from(*c));
        (choice, bound - paid.sum::<f64>(), use_of)
    }

    /// Finds prices with a high bound, and good solutions on the way.
    fn price(&mut self) {
        let mut prices = self.prices.clone();
        let mut highest = f64::NEG_INFINITY;
        let (mut scale, mut stuck) = (1.0, 0);
        for _ in 0..PRICE_STEPS {
            let (choice, bound, use_of) = self.relaxed(&prices);
            self.complete(choice, &prices);
            if bound > highest {
                stuck = usize::from(bound - highest < 1e-6);
                highest = bound;
                self.prices.clone_from(&prices);
            } else {
                stuck += 1;
            }
            if self.is_proven(highest) {
                break;
            }
            if stuck >= 8 {
                (scale, stuck) = (scale / 2.0, 0);
                prices.clone_from(&self.prices);
            }
            let over = use_of
                .iter()
                .zip(self.capacity)
                .map(|(u, c)| u - f64::from(*c));
            let over: Vec<f64> = over.collect();
            let open = |(over, price): (&f64, &f64)| *over > 0.0 || *price > 0.0;
            let moved = over
                .iter()
                .zip(&prices)
                .filter(|pair| open((pair.0, pair.1)));
            let norm: f64 = moved.map(|(over, _)| over * over).sum();
            if norm == 0.0 || scale < 1e-4 {
                break;
            }
            let step = scale * (self.best_cost as f64 + 0.5 - bound).max(0.1) / norm;
            for (price, over) in prices.iter_mut().zip(&over) {
                *price = (*price + step * over).max(0.0);
            }
        }
    }

    /// True if nothing better than the best is possible above this bound.
    fn is_proven(&self, bound: f64) -> bool {
        (bound - 1e-6).ceil() as i64 >= self.best_cost
    }

    /// Makes a solution of a choice that may use too much: gives up where the least is lost for what is freed, then
    /// takes what fits.
    fn complete(&mut self, mut choice: Choice, prices: &[f64]) {
        let mut used = used(self.jobs, &choice, self.capacity.len());
        while let Some(full) = (0..used.len()).find(|&kind| used[kind] > self.capacity[kind]) {
            let Some((job, next)) = self.least_loss(&choice, full, &used, prices) else {
                return;
            };
            if let Some(index) = choice[job] {
                used[self.jobs[job][index].kind] -= self.jobs[job][index].gpus;
            }
            if let Some(index) = next {
                used[self.jobs[job][index].kind] += self.jobs[job][index].gpus;
            }
            choice[job] = next;
        }
        self.improve(&mut choice, &mut used);
        let total = cost(self.jobs, &choice);
        if total < self.best_cost {
            (self.best_cost, self.best) = (total, choice);
        }
    }

    /// The change of one job that frees GPUs of the kind and costs least for each, without overfilling another kind.
    fn least_loss(
        &self,
        choice: &Choice,
        full: usize,
        used: &[u32],
        prices: &[f64],
    ) -> Option<(usize, Option<usize>)> {
        let mut least: Option<(f64, usize, Option<usize>)> = None;
        for (job, index) in choice.iter().enumerate() {
            let Some(now) = index.map(|index| self.jobs[job][index]) else {
                continue;
            };
            if now.kind != full {
                continue;
            }
            let options = self.jobs[job]
                .iter()
                .enumerate()
                .map(|(i, c)| (Some(i), Some(c)));
            for (next, candidate) in options.chain([(None, None)]) {
                let (freed, cost) = match candidate {
                    None => (now.gpus, 0.0),
                    Some(c) if c.kind == full && c.gpus < now.gpus => {
                        (now.gpus - c.gpus, c.cost as f64)
                    }
                    Some(c) if c.kind != full && used[c.kind] + c.gpus <= self.capacity[c.kind] => {
                        (now.gpus, self.reduced(c, prices))
                    }
                    Some(_) => continue,
                };
                let needed = f64::from(freed.min(used[full] - self.capacity[full]));
                let loss = (cost - now.cost as f64) / needed;
                if least.is_none_or(|(known, ..)| loss < known) {
                    least = Some((loss, job, next));
                }
            }
        }
        least.map(|(_, job, next)| (job, next))
    }

    /// Takes better candidates while they fit.
    fn improve(&self, choice: &mut Choice, used: &mut [u32]) {
        loop {
            let mut gain: Option<(i64, usize, usize)> = None;
            for (job, index) in choice.iter().enumerate() {
                let now = index.map(|index| self.jobs[job][index]);
                for (next, candidate) in self.jobs[job].iter().enumerate() {
                    let back = now
                        .filter(|now| now.kind == candidate.kind)
                        .map_or(0, |n| n.gpus);
                    let room = self.capacity[candidate.kind] + back - used[candidate.kind];
                    let gained = candidate.cost - now.map_or(0, |now| now.cost);
                    if candidate.gpus <= room && gained < gain.map_or(0, |(known, ..)| known) {
                        gain = Some((gained, job, next));
                    }
                }
            }
            let Some((_, job, next)) = gain else {
                return;
            };
            if let Some(index) = choice[job] {
                used[self.jobs[job][index].kind] -= self.jobs[job][index].gpus;
            }
            used[self.jobs[job][next].kind] += self.jobs[job][next].gpus;
            choice[job] = Some(next);
        }
    }

    /// Depth-first over the options that the prices leave open.
    fn branch(&mut self) {
        let (_, bound, _) = self.relaxed(&self.prices);
        if self.is_proven(bound) {
            return;
        }
        let slack = self.best_cost as f64 - 1.0 - bound + 1e-6;
        let mut open: Vec<Open> = Vec::with_capacity(self.jobs.len());
        for (job, candidates) in self.jobs.iter().enumerate() {
            let reduced = candidates.iter().enumerate();
            let reduced = reduced.map(|(i, c)| (self.reduced(c, &self.prices), Some(i)));
            let mut options: Vec<(f64, Option<usize>)> = reduced.chain([(0.0, None)]).collect();
            options.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            let least = options[0].0;
            options.retain(|(reduced, _)| reduced - least <= slack);
            for (reduced, _) in &mut options {
                *reduced -= least;
            }
            open.push(Open { job, options });
        }
        // What is settled first, then the jobs whose options differ most.
        open.sort_by(|a, b| {
            let second = |open: &Open| open.options.get(1).map_or(f64::INFINITY, |o| o.0);
            second(b).total_cmp(&second(a)).then(a.job.cmp(&b.job))
        });
        let mut room: Vec<u32> = self.capacity.to_vec();
        let mut choice: Choice = vec![None; self.jobs.len()];
        self.descend(&open, 0, bound, &mut room, &mut choice, 0);
    }

    fn descend(
        &mut self,
        open: &[Open],
        depth: usize,
        bound: f64,
        room: &mut [u32],
        choice: &mut Choice,
        cost: i64,
    ) {
        self.visits += 1;
        let Some(next) = open.get(depth) else {
            if cost < self.best_cost {
                self.best_cost = cost;
                self.best.clone_from(choice);
            }
            return;
        };
        for &(above, index) in &next.options {
            if self.is_proven(bound + above) || self.visits > MAX_VISITS {
                return;
            }
            match index.map(|index| self.jobs[next.job][index]) {
                None => {
                    choice[next.job] = None;
                    self.descend(open, depth + 1, bound + above, room, choice, cost);
                }
                Some(candidate) if candidate.gpus <= room[candidate.kind] => {
                    room[candidate.kind] -= candidate.gpus;
                    choice[next.job] = index;
                    let cost = cost + candidate.cost;
                    self.descend(open, depth + 1, bound + above, room, choice, cost);
                    choice[next.job] = None;
                    room[candidate.kind] += candidate.gpus;
                }
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(kind: usize, gpus: u32, cost: i64) -> Candidate {
        Candidate { kind, gpus, cost }
    }

    /// Tries everything.
    fn least(jobs: &[Vec<Candidate>], room: &mut [u32]) -> i64 {
        let Some((job, rest)) = jobs.split_first() else {
            return 0;
        };
        let mut best = least(rest, room);
        for candidate in job {
            if candidate.gpus <= room[candidate.kind] {
                room[candidate.kind] -= candidate.gpus;
                best = best.min(candidate.cost + least(rest, room));
                room[candidate.kind] += candidate.gpus;
            }
        }
        best
    }

    fn jobs() -> impl Strategy<Value = Vec<Vec<Candidate>>> {
        let size = prop::sample::select(vec![1u32, 2, 4, 8, 16]);
        let one = (0..3usize, size, -100..-1i64).prop_map(|(k, g, c)| candidate(k, g, c));
        prop::collection::vec(prop::collection::vec(one, 0..6), 0..7)
    }

    proptest! {
        #[test]
        fn nothing_is_cheaper_and_it_fits(jobs in jobs(), capacity in [0..24u32, 0..24u32, 0..24u32]) {
            let choice = assign(&jobs, &capacity);
            prop_assert!(fits(&jobs, &choice, &capacity));
            prop_assert_eq!(cost(&jobs, &choice), least(&jobs, &mut capacity.clone()));
        }
    }

    #[test]
    fn equal_costs_go_to_the_first() {
        let jobs = vec![
            vec![candidate(0, 4, -10), candidate(1, 4, -10)],
            vec![candidate(0, 4, -10), candidate(1, 4, -10)],
        ];
        assert_eq!(assign(&jobs, &[8, 8]), vec![Some(0), Some(0)]);
        let choice = assign(&jobs, &[4, 8]);
        assert_eq!(cost(&jobs, &choice), -20);
    }

    #[test]
    fn a_large_job_waits_for_many_small_ones() {
        let mut jobs = vec![vec![candidate(0, 16, -50)]];
        jobs.extend(std::iter::repeat_n(vec![candidate(0, 1, -10)], 16));
        let choice = assign(&jobs, &[16]);
        assert_eq!((choice[0], cost(&jobs, &choice)), (None, -160));
    }
}
