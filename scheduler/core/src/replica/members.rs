//! Masters join, gain their vote, and leave, while the cluster runs.
//!
//! ```text
//! add: AddLearner (with its address) --caught up--> Promote --(replace)--> Remove of the one replaced
//! ```
//! Whoever leads promotes learners that have caught up, so a failover in the middle only delays. Which master a new one
//! replaces is remembered by the leader alone: after a failover just then, the operator removes the old one.

use berth_raft::{MembershipChange, ProposeError};
use berth_types::MasterId;
use berth_types::api::{ApiError, ErrorKind, MasterInfo, Request, Response};

use super::proposals::Waiter;
use super::{Effect, Replica};
use crate::codec;
use crate::command::{Command, LogEntry, ProposalTag};

/// A learner whose log ends at most so far behind may vote: it will not hold up commits.
const CAUGHT_UP_ENTRIES: u64 = 500;

fn no_such_master(id: MasterId) -> Response {
    Response::Error(ApiError::new(
        ErrorKind::NotFound,
        "NO_SUCH_MASTER",
        format!("master {id} is no member"),
        "list them with `berth masters`",
    ))
}

fn refused(reason: &str, message: String, hint: &str) -> Response {
    Response::Error(ApiError::new(
        ErrorKind::FailedPrecondition,
        reason,
        message,
        hint,
    ))
}

impl Replica {
    /// A client adds or removes a master. Only called at the leader.
    pub(super) fn change_members(&mut self, call: Waiter, out: &mut Vec<Effect>) {
        let verdict = match &call.request {
            Request::AddMaster { id, info, replaces } => self.add_master(*id, info, *replaces),
            Request::RemoveMaster { id } => self.remove_master(*id),
            _ => return,
        };
        match verdict {
            Ok(change) => self.propose_change(change, Some(call), out),
            Err(response) => self.respond(call.origin, response, out),
        }
    }

    fn add_master(
        &self,
        id: MasterId,
        info: &MasterInfo,
        replaces: Option<MasterId>,
    ) -> Result<Change, Response> {
        let members = self.raft.membership();
        if id.0 == 0 {
            return Err(refused(
                "BAD_MASTER_ID",
                "0 is no master id".into(),
                "choose a number that was never used",
            ));
        }
        if let Some(known) = self.state.masters.get(&id) {
            let text = format!("master {id} is a member already, at {}", known.address);
            let joined = Response::Done(format!("{text}; nothing to do"));
            let clash = || refused("MASTER_EXISTS", text, "choose an id that was never used");
            return Err(if known == info { joined } else { clash() });
        }
        if self
            .state
            .masters
            .values()
            .any(|known| known.address == info.address)
        {
            let text = format!("{} belongs to a member already", info.address);
            return Err(refused(
                "ADDRESS_IN_USE",
                text,
                "remove that master first, or choose another address",
            ));
        }
        if let Some(old) = replaces.filter(|old| !members.contains(old.0)) {
            return Err(no_such_master(old));
        }
        let set = Command::SetMaster {
            id,
            info: Some(info.clone()),
        };
        Ok(Change {
            change: MembershipChange::AddLearner(id.0),
            command: Some(set),
        })
    }

    fn remove_master(&mut self, id: MasterId) -> Result<Change, Response> {
        let members = self.raft.membership();
        if !members.contains(id.0) {
            return Err(no_such_master(id));
        }
        if members.voters == [id.0] {
            let text = format!("master {id} is the only one that votes");
            return Err(refused("LAST_MASTER", text, "add another master first"));
        }
        if id == self.config.id {
            self.hand_over();
            let error = ApiError::new(
                ErrorKind::Unavailable,
                "LEADER_IS_LEAVING",
                format!("master {id} leads and hands over first"),
                "try again in a moment",
            );
            return Err(Response::Error(error));
        }
        Ok(Change {
            change: MembershipChange::Remove(id.0),
            command: Some(Command::SetMaster { id, info: None }),
        })
    }

    /// Moves leadership to the voter that is furthest, if there is one in contact.
    pub(super) fn hand_over(&mut self) {
        let status = self.raft.status();
        let able = |p: &&berth_raft::PeerProgress| {
            p.recent_active && status.membership.voters.contains(&p.id)
        };
        if let Some(best) = status.peers.iter().filter(able).max_by_key(|p| p.matched) {
            self.raft.transfer_leader(best.id);
        }
    }

    fn propose_change(&mut self, change: Change, call: Option<Waiter>, out: &mut Vec<Effect>) {
        let seq = self.proposals.reserve();
        let commands: Vec<Command> = change.command.into_iter().collect();
        let waits = !commands.is_empty();
        let tag = ProposalTag {
            proposer: self.config.proposer,
            seq,
        };
        let entry = LogEntry {
            tag,
            stamp_ms: self.now_ms,
            commands,
        };
        match self
            .raft
            .propose_membership(change.change, codec::encode_entry(&entry))
        {
            Ok(()) if waits => {
                let replaces = match call.as_ref().map(|c| &c.request) {
                    Some(Request::AddMaster {
                        id,
                        replaces: Some(old),
                        ..
                    }) => Some((*id, *old)),
                    _ => None,
                };
                if let (Some(lead), Some((new, old))) = (self.lead.as_mut(), replaces) {
                    lead.replacing.insert(new, old);
                }
                self.proposals.await_entry(seq, vec![call]);
            }
            Ok(()) => {}
            Err(error) => {
                let Some(call) = call else { return };
                let response = match error {
                    ProposeError::Invalid(text) => {
                        refused("BAD_MEMBERSHIP_CHANGE", text, "list the masters first")
                    }
                    other => Response::Error(ApiError::new(
                        ErrorKind::Unavailable,
                        "MEMBERSHIP_BUSY",
                        format!("the change cannot be taken up now: {other}"),
                        "another change is under way; try again in a moment",
                    )),
                };
                self.respond(call.origin, response, out);
            }
        }
    }

    /// Gives learners that have caught up their vote, and removes masters that were replaced. Called now and then.
    pub(super) fn advance_members(&mut self, out: &mut Vec<Effect>) {
        if self.lead.is_none() || !self.raft.may_change_membership() {
            return;
        }
        let status = self.raft.status();
        let ready = |id: &&u64| {
            let peer = status.peers.iter().find(|p| p.id == **id);
            peer.is_some_and(|p| p.recent_active && p.matched > 0 && p.lag <= CAUGHT_UP_ENTRIES)
        };
        if let Some(id) = status.membership.learners.iter().find(ready) {
            self.propose_change(
                Change {
                    change: MembershipChange::Promote(*id),
                    command: None,
                },
                None,
                out,
            );
            return;
        }
        let Some(lead) = self.lead.as_mut() else {
            return;
        };
        let voters = &status.membership.voters;
        let due = lead
            .replacing
            .iter()
            .find(|(new, _)| voters.contains(&new.0))
            .map(|(new, old)| (*new, *old));
        let Some((new, old)) = due else { return };
        if !status.membership.contains(old.0) {
            lead.replacing.remove(&new);
        } else if old == self.config.id {
            self.hand_over();
        } else {
            let command = Some(Command::SetMaster {
                id: old,
                info: None,
            });
            self.propose_change(
                Change {
                    change: MembershipChange::Remove(old.0),
                    command,
                },
                None,
                out,
            );
        }
    }
}

struct Change {
    change: MembershipChange,
    command: Option<Command>,
}
