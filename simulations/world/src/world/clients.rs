//! Clients: calls to any master, repeated with the same key until the answer is known, and an oracle that compares.

use std::sync::Arc;

use berth_types::api::{Drain, ErrorKind, JobFilter, Request, Response};
use berth_types::{JobId, JobSpec};

use super::{EPOCH_MS, Event, World};
use crate::chronicle::Actor;
use crate::client::{Call, Operation, Purpose};
use crate::host::{Caller, Realm};
use crate::network::Place;
use crate::report::Violation;

/// A client waits so long before it asks another master.
const CALL_TIMEOUT_MS: u64 = 2_500;
/// An id that no run reaches.
const NO_JOB: JobId = JobId(1_000_000);

impl World<'_> {
    pub(crate) fn on_client_acts(&mut self, number: usize) {
        if self.clients[number].call.is_some() {
            return;
        }
        match self.choose(number) {
            Some((purpose, request)) => self.call(number, purpose, request),
            None => self.think(number),
        }
    }

    /// The client does the next thing after a while.
    fn think(&mut self, number: usize) {
        if self.clients[number].prompt {
            return;
        }
        let mut most = self.clients[number].think_ms;
        if self.healing.is_some() {
            most = most.min(200);
        }
        let pause = self.fates.client.between(1, 2 * most);
        self.calendar.after(pause, Event::ClientActs(number));
    }

    fn choose(&mut self, number: usize) -> Option<(Purpose, Request)> {
        if self.clients[number].operator {
            let operation = self.clients[number].operations.pop_front()?;
            let request = request_of(&operation);
            return Some((Purpose::Operate(operation), request));
        }
        if self.clients[number].prompt {
            let planned = self.clients[number].queue.pop_front()?;
            return Some(self.submission(number, planned));
        }
        let healed = self.healing.is_some();
        let submit = healed || self.fates.client.chance(500);
        if submit && let Some(planned) = self.clients[number].queue.pop_front() {
            return Some(self.submission(number, planned));
        }
        if healed {
            return None;
        }
        Some(self.idle_call(number))
    }

    fn submission(&mut self, number: usize, planned: usize) -> (Purpose, Request) {
        let key = self.draw_key();
        let spec = self.load.jobs[planned].spec.clone();
        self.clients[number].last_key = Some((key, spec.clone()));
        (
            Purpose::Submit { planned, key },
            Request::Submit { key, spec },
        )
    }

    /// A UUIDv7 of now.
    fn draw_key(&mut self) -> u128 {
        let at_ms = u128::from(EPOCH_MS + self.now());
        let high = u128::from(self.fates.client.bits() & 0xfff);
        let low = u128::from(self.fates.client.bits() >> 2);
        (at_ms << 80) | (7 << 76) | (high << 64) | (0b10 << 62) | low
    }

    fn idle_call(&mut self, number: usize) -> (Purpose, Request) {
        let dice = &mut self.fates.client;
        let job = dice.pick(&self.clients[number].jobs);
        let roll = dice.between(0, 99);
        match (roll, job) {
            (0..=49, Some(job)) => {
                let floor = self.checkers.submissions.floor(job);
                (Purpose::Read(job, floor), Request::GetJob { job })
            }
            (50..=56, Some(job)) => {
                self.checkers.submissions.on_cancel_asked(job);
                let user = "tester".to_owned();
                (Purpose::Cancel(job), Request::Cancel { job, user })
            }
            (57..=62, Some(job)) => (Purpose::Look, Request::Why { job }),
            (63..=66, _) => self.reused_key(number),
            (67..=69, _) => {
                let key = self.draw_key();
                let spec = Arc::new(JobSpec::default());
                (Purpose::Nonsense, Request::Submit { key, spec })
            }
            (70..=72, _) => (Purpose::Missing, Request::GetJob { job: NO_JOB }),
            (73..=80, _) => (Purpose::Look, Request::Status),
            (81..=86, _) => (Purpose::Look, Request::ListNodes),
            (87..=90, _) => {
                let (since_seq, limit) = (0, 100);
                (Purpose::Look, Request::Events { since_seq, limit })
            }
            (91..=92, _) => (Purpose::Look, Request::Snapshot),
            _ => {
                let finished = roll.is_multiple_of(2);
                let filter = JobFilter {
                    finished,
                    limit: 5,
                    ..JobFilter::default()
                };
                (Purpose::List, Request::ListJobs(filter))
            }
        }
    }

    fn reused_key(&mut self, number: usize) -> (Purpose, Request) {
        let acknowledged = |key: &u128| {
            let mut known = self.checkers.submissions.jobs.values();
            known.any(|k| k.key == *key)
        };
        let last = self.clients[number].last_key.clone();
        let Some((key, spec)) = last.filter(|(key, _)| acknowledged(key)) else {
            return (Purpose::Look, Request::Status);
        };
        let mut other = (*spec).clone();
        other.name.push_str("-again");
        let spec = Arc::new(other);
        (Purpose::ReuseKey, Request::Submit { key, spec })
    }

    fn call(&mut self, number: usize, purpose: Purpose, request: Request) {
        self.clients[number].call = Some(Call {
            number: 0,
            purpose,
            request,
            host: 0,
        });
        self.send_call(number);
    }

    /// Sends the call under way, for the first time or again, to a master of chance.
    fn send_call(&mut self, number: usize) {
        let hosts: Vec<usize> = self
            .hosts
            .iter()
            .filter(|h| h.realm == Realm::Real && !h.removed)
            .map(|h| h.number)
            .collect();
        let host = self.fates.client.pick(&hosts).unwrap_or(0);
        self.counts.calls += 1;
        let call_number = self.counts.calls;
        let Some(call) = self.clients[number].call.as_mut() else {
            return;
        };
        call.number = call_number;
        call.host = host;
        let request = Box::new(call.request.clone());
        let caller = Caller {
            client: number,
            call: call_number,
        };
        let ways = (Place::Client(number), Place::Master(host));
        let arrivals = self.network.send(ways.0, ways.1, &mut self.fates.network);
        self.calendar
            .after(CALL_TIMEOUT_MS, Event::CallTimesOut(caller));
        if let Some(delay) = arrivals[0] {
            self.calendar.after(
                delay,
                Event::CallArrives {
                    host,
                    caller,
                    request,
                },
            );
        }
    }

    pub(crate) fn on_call_arrives(&mut self, number: usize, caller: Caller, request: Request) {
        let host = &mut self.hosts[number];
        if !host.is_up() {
            return;
        }
        host.next_request += 1;
        let id = host.next_request;
        host.calls.insert(id, caller);
        self.step_master(number, berth_core::Input::Request { id, request });
    }

    /// A replica answers a call.
    pub(crate) fn reply(&mut self, number: usize, id: u64, response: Response) {
        let caller = self.hosts[number].calls.remove(&id);
        let verdict = Violation::unless(caller.is_some(), "a call is answered once", || {
            format!("host {number} answered request {id} again: {response:?}")
        });
        self.judge(verdict);
        let Some(caller) = caller else { return };
        let ways = (Place::Master(number), Place::Client(caller.client));
        let arrivals = self.network.send(ways.0, ways.1, &mut self.fates.network);
        if let Some(delay) = arrivals[0] {
            let response = Box::new(response);
            self.calendar
                .after(delay, Event::ReplyArrives { caller, response });
        }
    }

    pub(crate) fn on_call_times_out(&mut self, caller: Caller) {
        if self.is_waiting(caller) {
            self.send_call(caller.client);
        }
    }

    fn is_waiting(&self, caller: Caller) -> bool {
        let call = self.clients[caller.client].call.as_ref();
        call.is_some_and(|call| call.number == caller.call)
    }

    pub(crate) fn on_reply_arrives(&mut self, caller: Caller, response: Response) {
        if !self.is_waiting(caller) {
            return;
        }
        let again = match &response {
            Response::Error(error) => match error.kind {
                ErrorKind::Unavailable | ErrorKind::ResourceExhausted => true,
                // Not every node has registered yet, perhaps.
                _ => error.reason == "JOB_NEVER_FITS" && self.should_fit(caller.client),
            },
            _ => false,
        };
        if again {
            let call = self.counts.calls + 1;
            self.counts.calls = call;
            let client = caller.client;
            if let Some(open) = self.clients[client].call.as_mut() {
                open.number = call;
            }
            let pause = self.fates.client.between(50, 500);
            self.calendar
                .after(pause, Event::CallTimesOut(Caller { client, call }));
            return;
        }
        let Some(call) = self.clients[caller.client].call.take() else {
            return;
        };
        let verdict = self.on_answer(caller.client, call, response);
        self.judge(verdict);
        self.think(caller.client);
    }

    fn should_fit(&self, client: usize) -> bool {
        match self.clients[client].call.as_ref().map(|c| &c.purpose) {
            Some(Purpose::Submit { planned, .. }) => self.load.jobs[*planned].fits,
            _ => false,
        }
    }

    fn on_answer(&mut self, client: usize, call: Call, answer: Response) -> Result<(), Violation> {
        let wrong = |text: &str, answer: &Response| {
            let detail = format!("{:?} was answered {text}: {answer:?}", call.purpose);
            Err(Violation::new(
                "calls get the answer that they deserve",
                detail,
            ))
        };
        match (&call.purpose, &answer) {
            (Purpose::Submit { planned, key }, Response::Submitted { job, duplicate }) => {
                self.on_acknowledged(client, *planned, *key, *job, *duplicate)
            }
            (Purpose::Submit { planned, .. }, Response::Error(error)) => {
                let misfit = !self.load.jobs[*planned].fits && error.reason == "JOB_NEVER_FITS";
                if misfit {
                    self.counts.refused += 1;
                    return Ok(());
                }
                wrong("with an error", &answer)
            }
            (Purpose::ReuseKey | Purpose::Nonsense | Purpose::Missing, Response::Error(error)) => {
                match error.kind {
                    ErrorKind::Internal => wrong("as an internal error", &answer),
                    _ => Ok(()),
                }
            }
            (Purpose::ReuseKey | Purpose::Nonsense | Purpose::Missing, _) => {
                wrong("as if it were right", &answer)
            }
            (Purpose::Cancel(job), Response::Done(text)) => {
                if !text.contains("had ended already") {
                    self.note(
                        Actor::Client(client),
                        "knows that job {} is cancelled",
                        [job.0, 0, 0, 0],
                    );
                    self.checkers.submissions.on_cancelled(*job);
                    self.checkers.epochs.on_cancelled(*job);
                }
                Ok(())
            }
            (Purpose::Read(job, floor), Response::Job(view)) => {
                self.checkers.submissions.on_read(*job, *floor, view)
            }
            (Purpose::List, Response::Jobs { jobs, .. }) => {
                let mut ids: Vec<JobId> = jobs.iter().map(|view| view.id).collect();
                ids.sort_unstable();
                ids.dedup();
                if ids.len() == jobs.len() {
                    Ok(())
                } else {
                    wrong("with a job twice", &answer)
                }
            }
            (Purpose::Operate(operation), _) => self.on_operated(operation.clone(), &answer),
            (Purpose::Look, Response::Error(error)) if error.kind == ErrorKind::Internal => {
                wrong("as an internal error", &answer)
            }
            (Purpose::Look, _) => Ok(()),
            (Purpose::Cancel(_) | Purpose::Read(..), Response::Error(error))
                if error.kind == ErrorKind::NotFound =>
            {
                let detail = format!("{:?} was answered {answer:?}", call.purpose);
                Err(Violation::new("an acknowledged job is never lost", detail))
            }
            (_, _) => wrong("wrongly", &answer),
        }
    }

    fn on_acknowledged(
        &mut self,
        client: usize,
        planned: usize,
        key: u128,
        job: JobId,
        duplicate: bool,
    ) -> Result<(), Violation> {
        self.note(
            Actor::Client(client),
            "knows that its job {} is job {}, duplicate {}",
            [planned as u64, job.0, u64::from(duplicate), 0],
        );
        self.counts.acknowledged += 1;
        self.clients[client].jobs.push(job);
        self.checkers
            .submissions
            .on_acknowledged(key, planned, job)?;
        let known = self.newest.1.next_job > job.0;
        Violation::unless(known, "a job is acknowledged when it is committed", || {
            format!("job {job} is acknowledged, but no master has applied it")
        })
    }
}

/// The call that makes an operator's change.
fn request_of(operation: &Operation) -> Request {
    match operation.clone() {
        Operation::Drain { name, drain, evict } => {
            let reason = "a test".to_owned();
            let drain = drain.then_some(Drain { reason, evict });
            Request::SetDrain { name, drain }
        }
        Operation::Fence { name, .. } => Request::FenceNode { name },
        Operation::Add { id, info, replaces } => Request::AddMaster {
            id,
            info,
            replaces: Some(replaces),
        },
        Operation::Remove { id } => Request::RemoveMaster { id },
        Operation::Cancel { job } => Request::Cancel {
            job,
            user: "operator".into(),
        },
        Operation::Why { job } => Request::Why { job },
    }
}
