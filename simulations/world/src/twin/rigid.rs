//! Rigid jobs: a recorded amount of work, done at the speed of the slowest GPU.

use std::sync::Arc;

use berth_core::insight::{Insight, Prediction};

use super::behaviour::{Behaviour, Ended, Held, Spent, Stop};
use super::setting::{Foresight, Setting};
use super::toil::Toil;
use super::trace::{Rigid, TraceJob};

/// A job with a recorded duration.
#[derive(Debug)]
pub(super) struct RigidJob {
    toil: Toil,
    insight: Option<Arc<Insight>>,
}

impl RigidJob {
    pub(super) fn new(rigid: Rigid, job: &TraceJob, setting: &Setting) -> Self {
        let overhead = setting.overheads.of(&job.spec);
        let duration = match setting.foresight {
            Foresight::True if rigid.run_ms < u64::MAX => Some(Prediction {
                median_ms: rigid.run_ms,
                log_sd: 0.0,
            }),
            Foresight::True | Foresight::Blind => None,
        };
        let is_known = duration.is_some() || overhead.restart_ms > 0;
        Self {
            toil: Toil::new(rigid.run_ms, rigid.end, overhead),
            insight: is_known.then(|| {
                Arc::new(Insight {
                    duration,
                    restart_ms: overhead.restart_ms,
                    ..Insight::default()
                })
            }),
        }
    }
}

impl Behaviour for RigidJob {
    fn on_start(&mut self, held: &Held, now_ms: u64) {
        self.toil.start(held.speed(), now_ms);
    }

    fn due_ms(&self) -> Option<u64> {
        self.toil.due_ms()
    }

    fn advance(&mut self, now_ms: u64) -> Option<Ended> {
        self.toil.advance(now_ms)
    }

    fn on_stop(&mut self, _now_ms: u64, why: Stop) -> Spent {
        self.toil.stop(why)
    }

    fn on_speed(&mut self, share: f64, _now_ms: u64) {
        self.toil.set_share(share);
    }

    fn insight(&mut self) -> Option<Arc<Insight>> {
        self.insight.take()
    }
}
