//! From calls to commands, from results to answers, and reads answered from the state.

use berth_types::api::{
    ApiError, ErrorKind, JobFilter, JobView, MAX_PAGE, MasterView, Request, Response, StatusView,
    WhyView,
};
use berth_types::{Epoch, JobId, JobState, MasterId, NodeId, NodeState, Rank};

use super::agents::by_operator;
use super::calls::Origin;
use super::proposals::Waiter;
use super::{Effect, HistoryLookup, Replica};
use crate::apply::{CommandResult, Rejection};
use crate::command::Command;
use crate::planner;
use crate::query;
use crate::state::{FinishedJob, Job};

/// Page size where a client names none.
const DEFAULT_PAGE: u32 = 100;
/// Set in page tokens that point into the history; the rest is a sequence number there.
const HISTORY_PAGE: u64 = 1 << 63;

fn not_found(reason: &str, message: String, hint: impl Into<String>) -> ApiError {
    ApiError::new(ErrorKind::NotFound, reason, message, hint)
}

fn no_such_job(job: JobId) -> ApiError {
    not_found(
        "JOB_NOT_FOUND",
        format!("job {job} does not exist"),
        "list jobs with `berth jobs`",
    )
}

/// The answer to a caller whose command was carried out or refused.
pub(super) fn response_to(request: &Request, result: &CommandResult) -> Response {
    match result {
        CommandResult::Submitted { job, duplicate } => Response::Submitted {
            job: *job,
            duplicate: *duplicate,
        },
        CommandResult::Rejected(Rejection::AlreadyFinished(job)) => {
            Response::Done(format!("job {job} had ended already"))
        }
        CommandResult::Rejected(rejection) => {
            let mut error = rejection.to_api();
            // Who named a node should not be told its number.
            if let (Request::FenceNode { name }, Rejection::NodeNotLost(_)) = (request, rejection) {
                error.message = format!("node {name} is in contact");
            }
            Response::Error(error)
        }
        CommandResult::CertificateIssued {
            serial,
            issued_ms,
            expires_ms,
        } => Response::CertificateIssued {
            serial: *serial,
            issued_ms: *issued_ms,
            expires_ms: *expires_ms,
        },
        CommandResult::Done | CommandResult::Bundles(_) => Response::Done(done_text(request)),
    }
}

fn done_text(request: &Request) -> String {
    match request {
        Request::Cancel { job, .. } => format!("job {job} is cancelled"),
        Request::SetDrain {
            name,
            drain: Some(drain),
        } if drain.evict => {
            format!("node {name} takes no new work and its jobs move where they fit")
        }
        Request::SetDrain {
            name,
            drain: Some(_),
        } => format!("node {name} takes no new work; what runs may finish"),
        Request::SetDrain { name, drain: None } => format!("node {name} is back in service"),
        Request::FenceNode { name } => {
            format!("node {name} is fenced; its jobs may start elsewhere")
        }
        Request::SetHealth { name, gpu, order } => {
            super::orders::done_text(name, gpu.as_deref(), order)
        }
        Request::AddMaster {
            id,
            replaces: Some(old),
            ..
        } => {
            format!(
                "master {id} joins as a learner, votes once it has caught up, and then replaces master {old}"
            )
        }
        Request::AddMaster { id, .. } => {
            format!("master {id} joins as a learner and votes once it has caught up")
        }
        Request::RemoveMaster { id } => format!("master {id} is removed"),
        Request::RevokeCertificates { identity } => format!(
            "every certificate of {identity} is revoked, and its connections end; a new join token for this name lets it in again"
        ),
        _ => "done".to_owned(),
    }
}

impl Replica {
    /// The command that a call asks for; `None` for a read.
    pub(super) fn command_of(&self, request: &Request) -> Option<Result<Command, ApiError>> {
        Some(match request {
            Request::Submit { key, spec } => self.submission(*key, spec),
            Request::Cancel { job, user } => {
                let exists = job.0 > 0 && job.0 < self.state.next_job;
                let cancel = || Command::CancelJob {
                    job: *job,
                    user: user.clone(),
                };
                exists.then(cancel).ok_or_else(|| no_such_job(*job))
            }
            Request::SetDrain { name, drain } => self.node_id(name).map(|node| Command::SetDrain {
                node,
                drain: drain.as_ref().map(by_operator),
            }),
            Request::FenceNode { name } => self.node_id(name).map(|node| Command::FenceNode {
                node,
                by_operator: true,
            }),
            Request::IssueCertificate {
                identity,
                lifetime_ms,
                grant,
            } => Ok(Command::IssueCertificate {
                identity: identity.clone(),
                lifetime_ms: *lifetime_ms,
                grant: *grant,
            }),
            Request::RevokeCertificates { identity } => Ok(Command::RevokeCertificates {
                identity: identity.clone(),
            }),
            Request::SetHealth { name, gpu, order } => {
                self.health_order(name, gpu.as_deref(), order)
            }
            _ => return None,
        })
    }

    fn submission(
        &self,
        key: u128,
        spec: &std::sync::Arc<berth_types::JobSpec>,
    ) -> Result<Command, ApiError> {
        let faults = spec.faults();
        if !faults.is_empty() {
            return Err(ApiError::faults("JOB_INVALID", faults));
        }
        // A repeated submission is answered as before, even if the cluster has shrunk since.
        if !self.state.submissions.contains_key(&key) {
            query::can_ever_fit(&self.state, spec)
                .map_err(|faults| ApiError::faults("JOB_NEVER_FITS", faults))?;
        }
        Ok(Command::SubmitJob {
            key,
            hash: crate::codec::spec_hash(spec),
            spec: spec.clone(),
        })
    }

    pub(super) fn node_id(&self, name: &str) -> Result<NodeId, ApiError> {
        let found = self.state.node_ids.get(name).copied();
        found.ok_or_else(|| {
            not_found(
                "NODE_NOT_FOUND",
                format!("node `{name}` does not exist"),
                "list nodes with `berth nodes`",
            )
        })
    }

    /// Answers a confirmed read.
    pub(super) fn answer(&mut self, call: Waiter, out: &mut Vec<Effect>) {
        let Waiter {
            origin, request, ..
        } = call;
        let response = match &request {
            Request::GetJob { job } => match self.state.job(*job).cloned() {
                Some(record) => Response::Job(Box::new(self.view_of(&record))),
                None => return self.look_up_job(*job, origin, request, out),
            },
            Request::Why { job } => match self.state.job(*job).cloned() {
                Some(record) => Response::Why(self.why(&record)),
                None => return self.look_up_job(*job, origin, request, out),
            },
            Request::LocateLogs { job, epoch, rank } => match self.state.job(*job).cloned() {
                Some(record) => self.locate(&record, *epoch, *rank),
                None => return self.look_up_job(*job, origin, request, out),
            },
            Request::ListJobs(filter) => match self.list(filter, out, origin, &request) {
                Some(response) => response,
                None => return,
            },
            Request::Snapshot => {
                let index = self.applied;
                self.calls.copies.entry(index).or_default().push(origin);
                out.push(Effect::TakeSnapshot {
                    index,
                    state: Box::new(self.state.clone()),
                });
                return;
            }
            other => self.answer_cluster(other),
        };
        self.respond(origin, response, out);
    }

    /// Reads about nodes, masters and events.
    fn answer_cluster(&self, request: &Request) -> Response {
        match request {
            Request::ListNodes => Response::Nodes(
                self.state
                    .nodes
                    .values()
                    .map(|node| self.node_view(node))
                    .collect(),
            ),
            Request::GetNode { name } => match self.state.node_named(name) {
                Some(node) => Response::Nodes(vec![self.node_view(node)]),
                None => Response::Error(
                    self.node_id(name)
                        .err()
                        .unwrap_or_else(|| no_such_job(JobId(0))),
                ),
            },
            Request::Status => Response::Status(Box::new(self.status_view())),
            Request::ListCertificates => {
                Response::Certificates(self.state.certificates.views(self.state.time_ms))
            }
            Request::Events { since_seq, limit } => {
                let limit = if *limit == 0 {
                    DEFAULT_PAGE
                } else {
                    (*limit).min(MAX_PAGE)
                };
                let oldest = self
                    .state
                    .events
                    .front()
                    .map_or(self.state.next_event, |e| e.seq);
                let skip = since_seq.saturating_sub(oldest) as usize;
                let events: Vec<_> = self
                    .state
                    .events
                    .iter()
                    .skip(skip)
                    .take(limit as usize)
                    .map(|e| e.as_ref().clone())
                    .collect();
                let next_seq = events
                    .last()
                    .map_or((*since_seq).max(oldest), |e| e.seq + 1);
                Response::Events { events, next_seq }
            }
            _ => {
                let text = "this call cannot be answered as a read";
                Response::Error(ApiError::new(
                    ErrorKind::Internal,
                    "NO_SUCH_READ",
                    text,
                    "report this",
                ))
            }
        }
    }

    fn node_view(&self, node: &crate::state::Node) -> berth_types::api::NodeView {
        let agents = self.lead.as_ref().map(|lead| &lead.agents);
        let connected = agents.is_some_and(|agents| agents.is_connected(node.id));
        let none = crate::health::Telemetry::new();
        let telemetry = agents.map_or(&none, |agents| agents.telemetry());
        let mut view = query::node_view(&self.state, node, connected, telemetry);
        if let Some(isolation) = agents.and_then(|agents| agents.isolation(node.id)) {
            view.isolation = isolation.clone();
        }
        view
    }

    fn view_of(&self, job: &Job) -> JobView {
        let lead = self.lead.as_ref();
        let reason = lead.and_then(|lead| lead.rounds.waiting.get(&job.id));
        let reason = reason.map(|r| (r.code.as_str(), &*r.text));
        let mut view = query::job_view(&self.state, job, reason);
        if let Some(progress) = lead.and_then(|lead| lead.agents.progress(job.id, job.epoch)) {
            view.progress = Some(progress);
        }
        view
    }

    fn list(
        &mut self,
        filter: &JobFilter,
        out: &mut Vec<Effect>,
        origin: Origin,
        request: &Request,
    ) -> Option<Response> {
        let limit = if filter.limit == 0 {
            DEFAULT_PAGE
        } else {
            filter.limit.min(MAX_PAGE)
        };
        let finished_wanted = filter.finished || filter.states.iter().any(|s| s.is_final());
        if let Some(token) = filter.page_token.filter(|token| token & HISTORY_PAGE != 0) {
            self.look_up_list(filter, token & !HISTORY_PAGE, limit, origin, request, out);
            return None;
        }
        let before = filter.page_token.map(JobId);
        let (page, more) = query::list_jobs(&self.state, filter, before, limit as usize);
        let jobs: Vec<JobView> = page.iter().map(|job| self.view_of(job)).collect();
        let next = match (more, jobs.last()) {
            (true, Some(last)) => Some(last.id.0),
            _ if finished_wanted && self.state.finished > 0 => {
                if jobs.is_empty() {
                    self.look_up_list(filter, self.state.finished + 1, limit, origin, request, out);
                    return None;
                }
                Some(HISTORY_PAGE | (self.state.finished + 1))
            }
            _ => None,
        };
        Some(Response::Jobs { jobs, next })
    }

    fn look_up_list(
        &mut self,
        filter: &JobFilter,
        before: u64,
        limit: u32,
        origin: Origin,
        request: &Request,
        out: &mut Vec<Effect>,
    ) {
        let token = self.calls.token();
        self.calls.lookups.insert(token, (origin, request.clone()));
        let lookup = HistoryLookup::List {
            filter: filter.clone(),
            before,
            limit,
        };
        out.push(Effect::LookUpHistory { token, lookup });
    }

    fn look_up_job(&mut self, job: JobId, origin: Origin, request: Request, out: &mut Vec<Effect>) {
        if job.0 == 0 || job.0 >= self.state.next_job {
            self.respond(origin, Response::Error(no_such_job(job)), out);
            return;
        }
        let token = self.calls.token();
        self.calls.lookups.insert(token, (origin, request));
        out.push(Effect::LookUpHistory {
            token,
            lookup: HistoryLookup::Job(job),
        });
    }

    pub(super) fn on_history_found(
        &mut self,
        token: u64,
        jobs: Vec<FinishedJob>,
        out: &mut Vec<Effect>,
    ) {
        let Some((origin, request)) = self.calls.lookups.remove(&token) else {
            return;
        };
        let response = match (&request, jobs.first()) {
            (Request::ListJobs(filter), last) => {
                let limit = if filter.limit == 0 {
                    DEFAULT_PAGE
                } else {
                    filter.limit.min(MAX_PAGE)
                };
                let oldest = jobs.last().or(last).map_or(0, |job| job.seq);
                let full = jobs.len() >= limit as usize && oldest > 1;
                let next = full.then_some(HISTORY_PAGE | oldest);
                Response::Jobs {
                    jobs: jobs.iter().map(query::finished_view).collect(),
                    next,
                }
            }
            (Request::GetJob { .. }, Some(found)) => {
                Response::Job(Box::new(query::finished_view(found)))
            }
            (Request::Why { .. }, Some(found)) => Response::Why(why_finished(found)),
            (Request::LocateLogs { epoch, rank, .. }, Some(found)) => {
                self.locate(&found.job, *epoch, *rank)
            }
            (
                Request::GetJob { job } | Request::Why { job } | Request::LocateLogs { job, .. },
                None,
            ) => {
                let text = format!("job {job} is over and its record is not on this master (yet)");
                let hint = "a master that joined lately is still fetching the history; try again in a while";
                Response::Error(ApiError::new(
                    ErrorKind::Unavailable,
                    "HISTORY_INCOMPLETE",
                    text,
                    hint,
                ))
            }
            _ => return,
        };
        self.respond(origin, response, out);
    }

    /// Which node has the log files of a task.
    fn locate(&self, job: &Job, epoch: Option<Epoch>, rank: Rank) -> Response {
        let newest = job
            .attempt
            .as_ref()
            .map(|a| a.epoch)
            .or(job.past.last().map(|p| p.epoch));
        let Some(epoch) = epoch.or(newest) else {
            let text = format!("job {} has not started yet", job.id);
            let hint = format!("`berth why {}` tells what it waits for", job.id);
            return Response::Error(ApiError::new(
                ErrorKind::FailedPrecondition,
                "NOT_STARTED",
                text,
                hint,
            ));
        };
        let current = job.attempt.as_ref().filter(|a| a.epoch == epoch);
        let nodes: Vec<NodeId> = match (current, job.past.iter().find(|p| p.epoch == epoch)) {
            (Some(attempt), _) => attempt.tasks.iter().map(|t| t.placement.node).collect(),
            (None, Some(past)) => past.nodes.clone(),
            (None, None) => {
                let text = format!("job {} has no attempt {epoch} on record", job.id);
                return Response::Error(not_found(
                    "ATTEMPT_NOT_FOUND",
                    text,
                    "`berth job ID` lists its attempts",
                ));
            }
        };
        let Some(node) = nodes.get(rank.0 as usize).copied() else {
            let text = format!(
                "attempt {epoch} of job {} has {} ranks, from 0",
                job.id,
                nodes.len()
            );
            return Response::Error(not_found("RANK_NOT_FOUND", text, "choose a smaller rank"));
        };
        let node_name = self
            .state
            .nodes
            .get(&node)
            .map(|n| n.spec.name.clone())
            .unwrap_or_default();
        Response::Logs {
            node,
            node_name,
            epoch,
            live: current.is_some(),
        }
    }

    fn why(&self, job: &Job) -> WhyView {
        let policy_reason = self
            .lead
            .as_ref()
            .and_then(|lead| lead.rounds.waiting.get(&job.id));
        let parts = planner::why(
            &self.state,
            job,
            policy_reason,
            self.now_ms.max(self.state.time_ms),
        );
        WhyView {
            job: job.id,
            state: job.state(),
            reason: parts.reason,
            text: parts.text,
            unblock: parts.unblock,
            ahead: parts.ahead,
            evidence: parts.evidence,
        }
    }

    fn status_view(&self) -> StatusView {
        let raft = self.raft.status();
        let masters = self
            .state
            .masters
            .iter()
            .map(|(id, info)| self.master_view(&raft, *id, info.clone()))
            .collect();
        let (mut ready, mut draining, mut lost) = (0, 0, 0);
        let (mut used, mut usable) = (0u64, 0u64);
        for node in self.state.nodes.values() {
            match node.state() {
                NodeState::Ready => ready += 1,
                NodeState::Draining => draining += 1,
                NodeState::Lost => lost += 1,
            }
            used += node
                .gpus
                .iter()
                .map(|gpu| u64::from(gpu.milligpu))
                .sum::<u64>();
            if node.state() != NodeState::Lost {
                usable += node.usable_gpus() as u64 * u64::from(berth_types::MILLI);
            }
        }
        let lead = self.lead.as_ref();
        let rounds = lead.map_or((0, 0), |lead| {
            (lead.rounds.count, lead.rounds.last_took_ms * 1000)
        });
        StatusView {
            cluster_id: self.state.cluster_id,
            cluster_version: self.state.cluster_version,
            term: raft.term,
            applied: self.applied,
            masters,
            jobs: query::jobs_by_state(&self.state),
            nodes: (ready, draining, lost),
            milligpu: (used, usable),
            policy: self.config.policy.clone(),
            rounds,
            time_ms: self.state.time_ms,
            alarm: self
                .state
                .alarm
                .clone()
                .or_else(|| self.alarm.clone())
                .unwrap_or_default(),
        }
    }

    fn master_view(
        &self,
        raft: &berth_raft::Status,
        id: MasterId,
        info: berth_types::api::MasterInfo,
    ) -> MasterView {
        let peer = raft.peers.iter().find(|p| p.id == id.0);
        let own = id == self.config.id;
        MasterView {
            id,
            info,
            leader: own && self.lead.is_some(),
            voter: raft.membership.voters.contains(&id.0),
            matched: if own {
                raft.last_index
            } else {
                peer.map_or(0, |p| p.matched)
            },
            reachable: own || peer.is_some_and(|p| p.recent_active),
        }
    }
}

fn why_finished(found: &FinishedJob) -> WhyView {
    let view = query::finished_view(found);
    let state: JobState = view.state;
    WhyView {
        job: found.job.id,
        state,
        // As for a job that runs: nothing holds it back.
        reason: if view.reason.is_empty() {
            "None".to_owned()
        } else {
            view.reason
        },
        text: found.reason.clone(),
        unblock: String::new(),
        ahead: None,
        evidence: Vec::new(),
    }
}
