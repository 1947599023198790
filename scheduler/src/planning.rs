//! The policy thread: asks the policy and makes a plan of its answer, off the event loop.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use berth_core::Input;
use berth_core::planner::{self, Plan, PlanLimits};
use berth_core::policy::{Policy, View};
use tracing::{debug, error, warn};

use crate::inbox::{Inbox, Message};

struct Question {
    round: u64,
    view: Box<View>,
}

/// The event loop's side: one question at a time, each with a deadline.
pub(crate) struct Planning {
    sender: Option<SyncSender<Question>>,
    thread: Option<JoinHandle<()>>,
    deadline: Duration,
    asked: Option<(u64, Instant)>,
}

impl Planning {
    /// Starts the thread. `fallback` answers a round in which `policy` panicked.
    pub(crate) fn start(
        policy: Box<dyn Policy>,
        fallback: Box<dyn Policy>,
        limits: PlanLimits,
        deadline: Duration,
        inbox: Inbox,
    ) -> std::io::Result<Self> {
        let (sender, questions) = sync_channel(1);
        let mut planner = Planner {
            policy,
            fallback,
            limits,
            planner: planner::Planner::new(),
            inbox,
        };
        let thread = std::thread::Builder::new()
            .name("berth-policy".into())
            .spawn(move || planner.run(&questions))?;
        Ok(Self {
            sender: Some(sender),
            thread: Some(thread),
            deadline,
            asked: None,
        })
    }

    /// Asks. False if the thread is still busy with a question that it was too late for.
    pub(crate) fn ask(&mut self, round: u64, view: Box<View>, now: Instant) -> bool {
        let Some(sender) = &self.sender else {
            return false;
        };
        if sender.try_send(Question { round, view }).is_err() {
            warn!(round, "the policy is still busy with an earlier round");
            return false;
        }
        self.asked = Some((round, now));
        true
    }

    /// The policy has answered this round.
    pub(crate) fn answered(&mut self, round: u64) {
        self.asked.take_if(|(asked, _)| *asked == round);
    }

    /// The round that has waited for too long, once.
    pub(crate) fn overdue(&mut self, now: Instant) -> Option<u64> {
        let deadline = self.deadline;
        let (round, _) = self
            .asked
            .take_if(|(_, since)| now.duration_since(*since) > deadline)?;
        warn!(round, ?deadline, "the policy did not answer in time");
        Some(round)
    }

    /// Ends the thread once it is idle. One that hangs in a policy is left to the end of the process.
    pub(crate) fn stop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take_if(|t| t.is_finished()) {
            let _ = thread.join();
        }
    }
}

struct Planner {
    policy: Box<dyn Policy>,
    fallback: Box<dyn Policy>,
    limits: PlanLimits,
    planner: planner::Planner,
    inbox: Inbox,
}

impl Planner {
    fn run(&mut self, questions: &Receiver<Question>) {
        while let Ok(Question { round, view }) = questions.recv() {
            let started = Instant::now();
            let plan = self.plan(&view);
            debug!(round, plan_us = started.elapsed().as_micros(), "planned");
            let plan = plan.map(Box::new);
            // The view shares records with the state: let go of them before the next change would copy them.
            drop(view);
            if !self
                .inbox
                .send_blocking(Message::Input(Input::PolicyAnswer { round, plan }))
            {
                return;
            }
        }
    }

    fn plan(&mut self, view: &View) -> Option<Plan> {
        let name = self.policy.name().to_owned();
        let (planner, limits) = (&mut self.planner, &self.limits);
        attempt(planner, &name, self.policy.as_mut(), view, limits).or_else(|| {
            let fallback = self.fallback.as_mut();
            attempt(planner, "the fallback", fallback, view, limits)
        })
    }
}

fn attempt(
    planner: &mut planner::Planner,
    name: &str,
    policy: &mut dyn Policy,
    view: &View,
    limits: &PlanLimits,
) -> Option<Plan> {
    // A policy that panicked is asked again next round; it remembers nothing that the view does not hold. A planner that
    // was interrupted begins anew.
    catch_unwind(AssertUnwindSafe(|| planner.decide(policy, view, limits)))
        .map_err(|_| error!(policy = name, round = view.round, "the policy panicked"))
        .ok()
}
