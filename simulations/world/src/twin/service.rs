//! Services: they run for a while, whoever waits, and serve a load of requests that changes over time.
//!
//! A service is over when its time is over, counted from its submission. What it asks of the scheduler is told as the
//! number of workers that the load needs; what it could not serve is counted.

use std::sync::Arc;

use berth_core::insight::{Configuration, Insight, Speed};

use super::behaviour::{Behaviour, Ended, Held, Model, Served, Spent, Stop};
use super::trace::{End, TraceJob};

/// A service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// How long it lives from its submission on.
    pub life_ms: u64,
    /// Requests per second from these times on, counted from the submission, ascending; 0 before the first.
    pub load: Vec<(u64, f64)>,
    /// Requests per second that one worker serves on a GPU of speed 1.
    pub each: f64,
    /// From a start until it serves.
    pub warm_up_ms: u64,
}

impl Service {
    /// Requests per second at a time after the submission.
    pub fn load_at(&self, since_submit_ms: u64) -> f64 {
        let known = self
            .load
            .partition_point(|&(from, _)| from <= since_submit_ms);
        known.checked_sub(1).map_or(0.0, |index| self.load[index].1)
    }

    /// When the load changes next.
    fn next_change_ms(&self, since_submit_ms: u64) -> Option<u64> {
        let known = self
            .load
            .partition_point(|&(from, _)| from <= since_submit_ms);
        self.load.get(known).map(|&(from, _)| from)
    }

    /// Requests within a span of time after the submission, of which at most `limit` per second are served: all of
    /// them, and those served.
    fn requests(&self, from_ms: u64, to_ms: u64, limit: f64) -> Served {
        let mut sum = Served::default();
        let mut at_ms = from_ms;
        while at_ms < to_ms {
            let until_ms = self.next_change_ms(at_ms).unwrap_or(to_ms).min(to_ms);
            let (seconds, load) = ((until_ms - at_ms) as f64 / 1_000.0, self.load_at(at_ms));
            sum.asked += load * seconds;
            sum.served += load.min(limit) * seconds;
            at_ms = until_ms;
        }
        sum
    }
}

/// A [`Service`] that is shared by runs.
#[derive(Clone, Debug)]
pub struct ServiceModel(pub Arc<Service>);

impl Model for ServiceModel {
    fn begin(&self, job: &TraceJob) -> Box<dyn Behaviour> {
        let mut running = ServiceJob {
            service: Arc::clone(&self.0),
            submit_ms: job.submit_ms,
            at_ms: job.submit_ms,
            since_ms: 0,
            warm_ms: 0,
            serves: 0.0,
            share: 1.0,
            spent: Spent::default(),
            served: Served::default(),
            is_running: false,
            insight: None,
        };
        running.publish();
        Box::new(running)
    }
}

/// A service of a run.
#[derive(Debug)]
struct ServiceJob {
    service: Arc<Service>,
    submit_ms: u64,
    /// Requests are counted up to here.
    at_ms: u64,
    since_ms: u64,
    /// When it begins to serve.
    warm_ms: u64,
    /// Requests per second that its workers serve undisturbed.
    serves: f64,
    share: f64,
    spent: Spent,
    served: Served,
    is_running: bool,
    insight: Option<Arc<Insight>>,
}

/// What the scheduler sees: how much of the load so many workers serve.
#[derive(Debug)]
struct Demand {
    load: f64,
    each: f64,
}

impl Speed for Demand {
    fn goodput(&self, configuration: &Configuration<'_>) -> Option<f64> {
        Some((self.each * f64::from(configuration.workers)).min(self.load))
    }

    fn steps_per_s(&self, configuration: &Configuration<'_>) -> Option<f64> {
        Some(self.each * f64::from(configuration.workers))
    }
}

impl ServiceJob {
    fn over_ms(&self) -> u64 {
        self.submit_ms.saturating_add(self.service.life_ms)
    }

    fn publish(&mut self) {
        let load = self.service.load_at(self.at_ms - self.submit_ms);
        let each = self.service.each;
        let workers = (load / each).ceil().max(1.0);
        self.insight = Some(Arc::new(Insight {
            speed: Some(Arc::new(Demand { load, each })),
            restart_ms: self.service.warm_up_ms,
            max_workers: workers.min(f64::from(u32::MAX)) as u32,
            ..Insight::default()
        }));
    }

    /// Counts requests up to `now_ms`, or to the end of its life.
    fn count(&mut self, now_ms: u64) {
        let now_ms = now_ms.min(self.over_ms()).max(self.at_ms);
        let before = self.service.load_at(self.at_ms - self.submit_ms);
        let cold_until_ms = match self.is_running {
            true => self.warm_ms.clamp(self.at_ms, now_ms),
            false => now_ms,
        };
        let limit = self.serves * self.share;
        for (from_ms, to_ms, limit) in [
            (self.at_ms, cold_until_ms, 0.0),
            (cold_until_ms, now_ms, limit),
        ] {
            let (from_ms, to_ms) = (from_ms - self.submit_ms, to_ms - self.submit_ms);
            let part = self.service.requests(from_ms, to_ms, limit);
            self.served.asked += part.asked;
            self.served.served += part.served;
        }
        self.at_ms = now_ms;
        if self.service.load_at(now_ms - self.submit_ms) != before {
            self.publish();
        }
    }
}

impl Behaviour for ServiceJob {
    fn on_start(&mut self, held: &Held, now_ms: u64) {
        self.count(now_ms);
        let workers: u32 = held.workers.iter().sum();
        self.serves = self.service.each * f64::from(workers) * held.speed();
        self.share = 1.0;
        self.since_ms = now_ms;
        self.warm_ms = now_ms.saturating_add(self.service.warm_up_ms);
        self.is_running = true;
    }

    fn due_ms(&self) -> Option<u64> {
        let since_submit_ms = self.at_ms - self.submit_ms;
        let change_ms = self.service.next_change_ms(since_submit_ms);
        let change_ms = change_ms.map_or(u64::MAX, |ms| self.submit_ms.saturating_add(ms));
        Some(change_ms.min(self.over_ms()).max(self.since_ms))
    }

    fn advance(&mut self, now_ms: u64) -> Option<Ended> {
        self.count(now_ms);
        let over_ms = self.over_ms().max(self.since_ms);
        let until_ms = over_ms.min(now_ms);
        let warm_ms = self.warm_ms.min(until_ms);
        self.spent = Spent {
            restart_ms: warm_ms - self.since_ms,
            useful_ms: until_ms - warm_ms,
            idle_ms: now_ms - until_ms,
            ..Spent::default()
        };
        (over_ms <= now_ms).then_some(Ended {
            at_ms: over_ms,
            end: End::Completed,
        })
    }

    fn on_stop(&mut self, _now_ms: u64, _why: Stop) -> Spent {
        self.is_running = false;
        self.spent
    }

    fn on_speed(&mut self, share: f64, _now_ms: u64) {
        self.share = share;
    }

    fn insight(&mut self) -> Option<Arc<Insight>> {
        self.insight.take()
    }

    fn served(&mut self, now_ms: u64) -> Option<Served> {
        self.count(now_ms);
        Some(self.served)
    }
}
