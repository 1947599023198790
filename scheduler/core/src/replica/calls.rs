//! Clients' calls: passed on to the leader, turned into commands, or answered as confirmed reads.
//!
//! ```text
//! local client --> route --leader here--> command queue or read queue --> reply
//!                       \--leader known-> forwarded (again after a while) --answer--> reply
//!                        `-no leader----> parked until there is one, or the deadline
//! ```
//! A call is only ever answered by the master that its client spoke to. When leadership moves, every open call is routed
//! anew: submissions carry a key, and the other calls say the same when repeated.

use std::collections::{BTreeMap, VecDeque};

use berth_types::MasterId;
use berth_types::api::{ApiError, ErrorKind, Request, Response};

use super::proposals::{MAX_COMMAND_BYTES, Waiter};
use super::{Effect, PeerMessage, Replica};
use crate::codec;

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A client of this master.
    Local(u64),
    /// A client of another master.
    Peer { from: MasterId, id: u64 },
}

struct Forwarded {
    request: Request,
    client: u64,
    to: MasterId,
    sent_ms: u64,
    deadline_ms: u64,
}

/// Reads that one confirmation of leadership answers.
type ReadBatch = Vec<Waiter>;

#[derive(Default)]
pub(super) struct Calls {
    parked: VecDeque<Waiter>,
    forwarded: BTreeMap<u64, Forwarded>,
    next_id: u64,
    reads: ReadBatch,
    asked: BTreeMap<u64, ReadBatch>,
    confirmed: Vec<(u64, ReadBatch)>,
    /// Calls that wait for the history.
    pub(super) lookups: BTreeMap<u64, (Origin, Request)>,
    /// Callers of `Snapshot`, by the index that is being encoded.
    pub(super) copies: BTreeMap<u64, Vec<Origin>>,
}

/// Confirmations under way at once; further reads share the next one.
const MAX_CONFIRMATIONS: usize = 4;

impl Calls {
    /// Numbers begin at a place of this start's own: an answer to a call that an earlier start of this master passed on
    /// must not find a caller of this one.
    pub(super) fn new(proposer: u64) -> Self {
        Calls {
            next_id: (proposer >> 1) & !u64::from(u32::MAX),
            ..Calls::default()
        }
    }

    fn waiting(&self) -> usize {
        self.parked.len() + self.forwarded.len() + self.reads.len()
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A number for a question to the history.
    pub(super) fn token(&mut self) -> u64 {
        self.id()
    }
}

fn unavailable(reason: &str, message: &str) -> Response {
    let hint = "try again; a submission with the same key is never counted twice";
    Response::Error(ApiError::new(ErrorKind::Unavailable, reason, message, hint))
}

impl Replica {
    /// A client of this master calls.
    pub(super) fn on_request(&mut self, id: u64, request: Request, out: &mut Vec<Effect>) {
        let deadline_ms = self.now_ms + self.config.call_timeout_ms;
        if self.calls.waiting() + self.proposals.waiting() >= self.config.max_waiting_calls {
            let error = ApiError::new(
                ErrorKind::ResourceExhausted,
                "TOO_MANY_CALLS",
                "too many calls wait here",
                "slow down",
            );
            out.push(Effect::Reply {
                id,
                response: Response::Error(error),
            });
            return;
        }
        self.route(
            Waiter {
                origin: Origin::Local(id),
                request,
                deadline_ms,
            },
            out,
        );
    }

    /// Another master passes on a call.
    pub(super) fn on_forward(
        &mut self,
        from: MasterId,
        id: u64,
        request: Request,
        out: &mut Vec<Effect>,
    ) {
        let call = Waiter {
            origin: Origin::Peer { from, id },
            request,
            deadline_ms: self.now_ms + self.config.call_timeout_ms,
        };
        if self.lead.is_some() {
            self.route(call, out);
            return;
        }
        // Elected, but not serving yet: the sender has heard of it, and would ask again only much later. Any other
        // sender learns of the leader by itself and asks there.
        let elected = self.raft.leader() == Some(self.config.id.0);
        if elected && self.calls.waiting() < self.config.max_waiting_calls {
            self.calls.parked.push_back(call);
        }
    }

    /// The leader answered a call that was passed on.
    pub(super) fn on_answer(&mut self, id: u64, response: Response, out: &mut Vec<Effect>) {
        // A second answer, to a call that was passed on twice, finds nobody.
        if let Some(call) = self.calls.forwarded.remove(&id) {
            out.push(Effect::Reply {
                id: call.client,
                response,
            });
        }
    }

    pub(super) fn respond(&mut self, origin: Origin, response: Response, out: &mut Vec<Effect>) {
        match origin {
            Origin::Local(id) => out.push(Effect::Reply { id, response }),
            Origin::Peer { from, id } => {
                out.push(Effect::SendPeer {
                    to: from,
                    message: PeerMessage::Answer { id, response },
                });
            }
        }
    }

    fn route(&mut self, call: Waiter, out: &mut Vec<Effect>) {
        if self.lead.is_some() {
            self.serve(call, out);
            return;
        }
        let Origin::Local(client) = call.origin else {
            return;
        };
        match self
            .raft
            .leader()
            .map(MasterId)
            .filter(|leader| *leader != self.config.id)
        {
            Some(to) => self.forward(call.request, client, to, call.deadline_ms, out),
            None => self.calls.parked.push_back(call),
        }
    }

    fn forward(
        &mut self,
        request: Request,
        client: u64,
        to: MasterId,
        deadline_ms: u64,
        out: &mut Vec<Effect>,
    ) {
        if matches!(request, Request::Snapshot) {
            let error = ApiError::new(
                ErrorKind::Unavailable,
                "NOT_LEADER",
                "only the leader copies the state",
                "ask it",
            );
            out.push(Effect::Reply {
                id: client,
                response: Response::Error(error),
            });
            return;
        }
        let id = self.calls.id();
        let message = PeerMessage::Forward {
            id,
            request: request.clone(),
        };
        out.push(Effect::SendPeer { to, message });
        self.calls.forwarded.insert(
            id,
            Forwarded {
                request,
                client,
                to,
                sent_ms: self.now_ms,
                deadline_ms,
            },
        );
    }

    /// At the leader: a command, or a read.
    fn serve(&mut self, call: Waiter, out: &mut Vec<Effect>) {
        if matches!(
            call.request,
            Request::AddMaster { .. } | Request::RemoveMaster { .. }
        ) {
            self.change_members(call, out);
            return;
        }
        match self.command_of(&call.request) {
            Some(Ok(command)) if codec::command_bytes(&command) > MAX_COMMAND_BYTES => {
                let error = ApiError::new(
                    ErrorKind::InvalidArgument,
                    "REQUEST_TOO_LARGE",
                    format!("the request takes more than {MAX_COMMAND_BYTES} bytes"),
                    "shorten its texts",
                );
                self.respond(call.origin, Response::Error(error), out);
            }
            Some(Ok(command)) => self.proposals.push(command, Some(call)),
            Some(Err(error)) => self.respond(call.origin, Response::Error(error), out),
            None => self.calls.reads.push(call),
        }
    }

    /// Asks for confirmation of leadership on behalf of the reads that wait. True if something left.
    pub(super) fn ask_reads(&mut self) -> bool {
        if self.calls.reads.is_empty() || self.calls.asked.len() >= MAX_CONFIRMATIONS {
            return false;
        }
        let context = self.calls.id();
        if self.raft.read_index(context).is_err() {
            return false;
        }
        let batch = std::mem::take(&mut self.calls.reads);
        self.calls.asked.insert(context, batch);
        true
    }

    pub(super) fn on_read_ready(&mut self, context: u64, index: u64) {
        // One confirmation covers everything asked before it.
        while let Some(entry) = self
            .calls
            .asked
            .first_entry()
            .filter(|e| *e.key() <= context)
        {
            let batch = entry.remove();
            self.calls.confirmed.push((index, batch));
        }
    }

    /// Answers the confirmed reads that the state has caught up with.
    pub(super) fn answer_reads(&mut self, out: &mut Vec<Effect>) {
        if self.lead.is_none() || self.calls.confirmed.is_empty() {
            return;
        }
        let applied = self.applied;
        let (due, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.calls.confirmed)
            .into_iter()
            .partition(|(index, _)| *index <= applied);
        self.calls.confirmed = rest;
        for call in due.into_iter().flat_map(|(_, batch)| batch) {
            self.answer(call, out);
        }
    }

    /// Leadership or the known leader has changed: routes every open call anew.
    pub(super) fn reroute(&mut self, out: &mut Vec<Effect>) {
        let mut open: Vec<Waiter> = self.calls.parked.drain(..).collect();
        if self.lead.is_none() {
            open.extend(self.proposals.drain());
            open.append(&mut self.calls.reads);
            open.extend(
                std::mem::take(&mut self.calls.asked)
                    .into_values()
                    .flatten(),
            );
            open.extend(
                std::mem::take(&mut self.calls.confirmed)
                    .into_iter()
                    .flat_map(|(_, batch)| batch),
            );
        }
        let moved = std::mem::take(&mut self.calls.forwarded);
        open.extend(moved.into_values().map(|f| Waiter {
            origin: Origin::Local(f.client),
            request: f.request,
            deadline_ms: f.deadline_ms,
        }));
        for call in open {
            self.route(call, out);
        }
    }

    /// Gives up on calls past their deadline and repeats those that were passed on without an answer.
    pub(super) fn tick_calls(&mut self, out: &mut Vec<Effect>) {
        let now = self.now_ms;
        while let Some(call) = self
            .calls
            .parked
            .pop_front_if(|call| call.deadline_ms <= now)
        {
            let text = "no leader could be reached in time";
            self.respond(call.origin, unavailable("NO_LEADER", text), out);
        }
        let retry = self.config.forward_retry_ms;
        let stale = |f: &Forwarded| f.deadline_ms <= now || f.sent_ms + retry <= now;
        let due: Vec<u64> = self
            .calls
            .forwarded
            .iter()
            .filter(|(_, f)| stale(f))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let Some(call) = self.calls.forwarded.get_mut(&id) else {
                continue;
            };
            if call.deadline_ms <= now {
                let client = call.client;
                self.calls.forwarded.remove(&id);
                let response = unavailable("TIMEOUT", "the leader did not answer in time");
                out.push(Effect::Reply {
                    id: client,
                    response,
                });
            } else {
                call.sent_ms = now;
                let message = PeerMessage::Forward {
                    id,
                    request: call.request.clone(),
                };
                out.push(Effect::SendPeer {
                    to: call.to,
                    message,
                });
            }
        }
        let due: Vec<Origin> = self
            .proposals
            .expire(now)
            .into_iter()
            .map(|w| w.origin)
            .collect();
        for origin in due {
            let response = unavailable(
                "TIMEOUT",
                "no majority of masters confirmed it in time; it may still happen",
            );
            self.respond(origin, response, out);
        }
        self.expire_reads(now, out);
    }

    fn expire_reads(&mut self, now: u64, out: &mut Vec<Effect>) {
        let mut late = Vec::new();
        let batches = self.calls.asked.values_mut().chain([&mut self.calls.reads]);
        for batch in batches.chain(self.calls.confirmed.iter_mut().map(|(_, b)| b)) {
            late.extend(batch.extract_if(.., |call| call.deadline_ms <= now));
        }
        self.calls.asked.retain(|_, batch| !batch.is_empty());
        for call in late {
            let text = "no majority of masters confirmed the leader in time";
            self.respond(call.origin, unavailable("TIMEOUT", text), out);
        }
    }
}
