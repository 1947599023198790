//! Made-up workloads that are like real ones: no trace is needed, and one seed gives the same jobs on every machine.
//!
//! What they are like, and from where:
//!
//! - **Sizes, durations, ends**: per published trace, the mean and median duration, the mean number of GPUs (the median
//!   is one), and the shares of completed, cancelled and failed jobs by count and by GPU time, from the five-trace
//!   summary that came with Acme (Hu et al., NSDI 2024, `cluster_summary.csv`): [`Likeness`]. Durations are a mixture of
//!   three log-normals, one per end, that meets both the mean and the median.
//! - **Arrivals**: waves over the day and the week as in Helios' cluster Venus (Hu et al., SC 2021), and bursts: users
//!   submit in sessions, a geometric number of like jobs within minutes, which is what makes the variance of hourly
//!   counts many times their mean there.
//! - **Users who repeat themselves**: few users are most of the load; each has families of jobs of the same size and
//!   similar duration, and mostly goes on with the last one. Most of a duration's variance is between families, which is
//!   what predictors by user and name live on (Helios' QSSF, SC 2021, section 4).
//! - **What users say**: round numbers, mostly several times too long (Mu'alem and Feitelson, TPDS 2001).

mod likeness;
mod number;

use crate::dice::Dice;
use likeness::Calibration;
pub use likeness::{Likeness, Published};
use number::{exponential, ln, normal};

use super::trace::End;

/// Arrivals by hour of the day, relative to the mean: Helios' Venus, all of its jobs from 2020-03-18 to 2020-08-31.
const BY_HOUR: [u32; 24] = [
    92, 63, 58, 33, 26, 19, 17, 22, 38, 83, 137, 152, 115, 131, 155, 165, 173, 173, 124, 130, 133,
    134, 118, 110,
];
/// Arrivals by day of the week from Monday, relative to the mean: the same.
const BY_DAY: [u32; 7] = [103, 109, 120, 119, 98, 76, 76];
/// Milliseconds in an hour.
const HOUR_MS: u64 = 3_600_000;
/// Hours in a week.
const WEEK_HOURS: u64 = 168;
/// Jobs of a session, in the mean.
const SESSION_JOBS: f64 = 5.0;
/// Mean time between two jobs of a session.
const SESSION_GAP_MS: f64 = 30_000.0;
/// Jobs per user, in the mean.
const JOBS_PER_USER: u64 = 120;
/// Jobs per family, in the mean.
const JOBS_PER_FAMILY: u64 = 25;
/// In how many of 1000 sessions a user goes on with the family of the one before.
const REPEATS_PER_MILLE: u32 = 700;
/// Part of the variance of a duration's logarithm that lies between families.
const BETWEEN_FAMILIES: f64 = 0.7;
/// What users ask for, in minutes.
const ROUND_MINUTES: [u64; 14] = [
    5, 10, 30, 60, 120, 240, 480, 720, 1_440, 2_880, 5_760, 10_080, 20_160, 43_200,
];
/// In how many of 1000 jobs a user says nothing about the duration.
const SILENT_PER_MILLE: u32 = 300;

/// What to make.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    /// How many jobs.
    pub jobs: u64,
    /// Where all randomness comes from.
    pub seed: u64,
    /// Over how many days they arrive, more or less; more than 0.
    pub days: f64,
    /// Which published trace they are like.
    pub like: Published,
    /// Largest job, in thousandths of GPUs.
    pub max_milligpu: u32,
    /// Longest run.
    pub max_run_ms: u64,
}

/// A made-up job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedJob {
    /// When it is submitted, from midnight before a Monday.
    pub submit_ms: u64,
    /// Number of its user.
    pub user: u64,
    /// Number of its family, unique over all users.
    pub family: u64,
    /// GPUs, in thousandths.
    pub milligpu: u32,
    /// How long it runs.
    pub run_ms: u64,
    /// How it ends.
    pub end: End,
    /// What its user said; 0 if nothing.
    pub expected_ms: u64,
}

/// Jobs that one user submits again and again.
#[derive(Clone, Copy, Debug)]
struct Family {
    id: u64,
    milligpu: u32,
    /// Deviation of its durations from the typical one, in standard deviations.
    tendency: f64,
}

#[derive(Clone, Debug, Default)]
struct User {
    families: Vec<Family>,
    last: usize,
}

/// Makes jobs, in the order of their submission.
pub fn generate(recipe: &Recipe) -> Vec<GeneratedJob> {
    let mut maker = Maker::new(recipe);
    let mut jobs = Vec::new();
    let sessions_per_ms = recipe.jobs as f64 / SESSION_JOBS / (recipe.days * 24.0 * HOUR_MS as f64);
    let mut waves = Waves::default();
    while (jobs.len() as u64) < recipe.jobs {
        let wait_ms = exponential(&mut maker.arrivals) / sessions_per_ms.max(1e-12);
        let at_ms = waves.after(wait_ms);
        let left = recipe.jobs - jobs.len() as u64;
        maker.session(at_ms, left, &mut jobs);
    }
    jobs.sort_by_key(|job| job.submit_ms);
    jobs
}

/// Independent streams, so that a longer workload begins like a shorter one.
struct Maker {
    calibration: Calibration,
    max_run_ms: u64,
    arrivals: Dice,
    people: Dice,
    jobs: Dice,
    users: Vec<User>,
    next_family: u64,
}

impl Maker {
    fn new(recipe: &Recipe) -> Self {
        let users = (recipe.jobs / JOBS_PER_USER).max(1);
        Self {
            calibration: Calibration::of(recipe.like.likeness(), recipe.max_milligpu),
            max_run_ms: recipe.max_run_ms,
            arrivals: Dice::new(recipe.seed, 0x20),
            people: Dice::new(recipe.seed, 0x21),
            jobs: Dice::new(recipe.seed, 0x22),
            users: vec![User::default(); usize::try_from(users).unwrap_or(usize::MAX)],
            next_family: 0,
        }
    }

    /// One user submits some like jobs.
    fn session(&mut self, mut at_ms: f64, most: u64, jobs: &mut Vec<GeneratedJob>) {
        let user = self.user();
        let family = self.family(user);
        let on_per_mille = (1_000.0 - 1_000.0 / SESSION_JOBS) as u32;
        for _ in 0..most {
            let job = self.job(at_ms.round() as u64, user as u64, &family);
            jobs.push(job);
            at_ms += exponential(&mut self.arrivals) * SESSION_GAP_MS;
            if !self.arrivals.chance(on_per_mille) {
                break;
            }
        }
    }

    /// Few users are most of the load: the index is spread evenly on a logarithmic scale.
    fn user(&mut self) -> usize {
        let count = self.users.len() as f64;
        let index = number::exp(number::unit(&mut self.people) * ln(count + 1.0)) - 1.0;
        (index as usize).min(self.users.len() - 1)
    }

    fn family(&mut self, user: usize) -> Family {
        let goes_on = self.people.chance(REPEATS_PER_MILLE);
        // What is no repetition is a new family or an old one, so that there are JOBS_PER_FAMILY to one in the end.
        let sessions_per_family = JOBS_PER_FAMILY as f64 / SESSION_JOBS;
        let others = 1.0 - f64::from(REPEATS_PER_MILLE) / 1_000.0;
        let fresh_per_mille = (1_000.0 / sessions_per_family / others).min(1_000.0) as u32;
        let fresh = self.people.chance(fresh_per_mille);
        let known = self.users[user].families.len();
        let index = if known == 0 || (!goes_on && fresh) {
            let family = Family {
                id: self.next_family,
                milligpu: self.calibration.size(&mut self.people),
                tendency: normal(&mut self.people),
            };
            self.next_family += 1;
            self.users[user].families.push(family);
            known
        } else if goes_on {
            self.users[user].last
        } else {
            self.people.index(known)
        };
        self.users[user].last = index;
        self.users[user].families[index]
    }

    fn job(&mut self, submit_ms: u64, user: u64, family: &Family) -> GeneratedJob {
        let end = self.calibration.end(&mut self.jobs);
        let own = normal(&mut self.jobs);
        let between = number::sqrt(BETWEEN_FAMILIES) * family.tendency;
        let deviation = between + number::sqrt(1.0 - BETWEEN_FAMILIES) * own;
        let run_ms = self.calibration.run_ms(end, deviation);
        let usual_ms = self.calibration.run_ms(end, between);
        GeneratedJob {
            submit_ms,
            user,
            family: family.id,
            milligpu: family.milligpu,
            run_ms: (run_ms as u64).clamp(1_000, self.max_run_ms.max(1_000)),
            end,
            expected_ms: said_ms(&mut self.jobs, usual_ms.max(run_ms)),
        }
    }
}

/// The next round number above some multiple of it, or nothing.
fn said_ms(dice: &mut Dice, run_ms: f64) -> u64 {
    let factor = number::exp(number::unit(dice) * ln(10.0));
    if dice.chance(SILENT_PER_MILLE) {
        return 0;
    }
    let minutes = run_ms * factor / 60_000.0;
    let round = (ROUND_MINUTES.iter()).find(|round| **round as f64 >= minutes);
    round.or(ROUND_MINUTES.last()).copied().unwrap_or(0) * 60_000
}

/// Time that passes faster when more arrives.
#[derive(Debug, Default)]
struct Waves {
    at_ms: f64,
}

impl Waves {
    /// The moment at which the intensity has summed up to `wait_ms` of mean intensity since the last one.
    fn after(&mut self, mut wait_ms: f64) -> f64 {
        loop {
            let hour = (self.at_ms / HOUR_MS as f64) as u64;
            let left_ms = (hour + 1) as f64 * HOUR_MS as f64 - self.at_ms;
            let rate = intensity(hour);
            if wait_ms <= left_ms * rate {
                self.at_ms += wait_ms / rate;
                return self.at_ms;
            }
            wait_ms -= left_ms * rate;
            self.at_ms += left_ms;
        }
    }
}

/// Arrivals in this hour since a Monday's midnight, relative to the mean.
fn intensity(hour: u64) -> f64 {
    let of_week = hour % WEEK_HOURS;
    let by_hour = BY_HOUR[usize::try_from(of_week % 24).unwrap_or(0)];
    let by_day = BY_DAY[usize::try_from(of_week / 24).unwrap_or(0)];
    f64::from(by_hour * by_day) / 10_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(like: Published, seed: u64) -> Vec<GeneratedJob> {
        generate(&Recipe {
            jobs: 40_000,
            seed,
            days: 60.0,
            like,
            max_milligpu: 2_048_000,
            max_run_ms: 50 * 86_400_000,
        })
    }

    #[test]
    fn the_same_seed_makes_the_same_jobs_and_another_one_others() {
        let short = |seed| {
            generate(&Recipe {
                jobs: 500,
                seed,
                days: 3.0,
                like: Published::Helios,
                max_milligpu: 64_000,
                max_run_ms: 86_400_000,
            })
        };
        assert_eq!(short(7), short(7));
        assert_ne!(short(7), short(8));
        assert_eq!(short(7).len(), 500);
        assert!(short(7).is_sorted_by_key(|job| job.submit_ms));
    }

    #[test]
    fn durations_sizes_and_ends_are_like_the_published_ones() {
        for like in Published::ALL {
            let jobs = made(like, 1);
            let wanted = like.likeness();
            let count = jobs.len() as f64;
            let mut runs: Vec<u64> = jobs.iter().map(|job| job.run_ms / 1_000).collect();
            runs.sort_unstable();
            let median = runs[runs.len() / 2] as f64;
            let gpus = jobs
                .iter()
                .map(|job| f64::from(job.milligpu) / 1_000.0)
                .sum::<f64>()
                / count;
            let completed = jobs.iter().filter(|job| job.end == End::Completed).count() as f64;
            let near = |found: f64, wanted: f64, factor: f64| {
                assert!(
                    found < wanted * factor && wanted < found * factor,
                    "{like:?}: {found} where {wanted} is published"
                );
            };
            near(median, wanted.median_run_s, 1.5);
            near(gpus, wanted.mean_gpus, 1.5);
            near(completed / count, wanted.count_shares[0], 1.05);
        }
    }

    #[test]
    fn arrivals_have_waves_and_bursts() {
        let jobs = made(Published::Helios, 2);
        let mut by_hour = [0u64; 24];
        let mut hourly = vec![0f64; 24 * 60];
        for job in &jobs {
            let hour = usize::try_from(job.submit_ms / HOUR_MS).expect("in range");
            by_hour[hour % 24] += 1;
            if let Some(count) = hourly.get_mut(hour) {
                *count += 1.0;
            }
        }
        assert!(by_hour[16] > 5 * by_hour[6], "{by_hour:?}");
        let mean = hourly.iter().sum::<f64>() / hourly.len() as f64;
        let variance = hourly.iter().map(|n| (n - mean).powi(2)).sum::<f64>() / hourly.len() as f64;
        assert!(
            variance > 10.0 * mean,
            "variance {variance:.0}, mean {mean:.1}"
        );
    }

    #[test]
    fn users_repeat_themselves() {
        let jobs = made(Published::Philly, 3);
        let families = 1 + jobs
            .iter()
            .map(|job| job.family)
            .max()
            .expect("there are jobs");
        let per_family = jobs.len() as u64 / families;
        assert!(
            (10..60).contains(&per_family),
            "{per_family} jobs per family"
        );
        let mut last: std::collections::BTreeMap<u64, u64> = Default::default();
        let again = jobs
            .iter()
            .filter(|job| last.insert(job.user, job.family) == Some(job.family));
        let share = again.count() as f64 / jobs.len() as f64;
        assert!(share > 0.8, "{share:.2} follow a job of their family");
    }
}
