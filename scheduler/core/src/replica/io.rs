//! What goes into a replica and what comes out. Shells (the master daemon, the simulator) feed inputs and carry out
//! effects; the order in which they carry out effects of different kinds does not matter.

use std::sync::Arc;

use berth_raft::Persist;
use berth_types::api::{Event, JobFilter, MasterInfo, Request, Response};
use berth_types::{AgentReport, Directive, JobId, MasterId, NodeSpec};
use bytes::Bytes;

use crate::planner::Plan;
use crate::policy::View;
use crate::replica::peer::PeerMessage;
use crate::state::{FinishedJob, State};

/// A fact for a replica.
#[derive(Debug)]
pub enum Input {
    /// Time passed. Due every [`ReplicaConfig::tick_ms`](crate::ReplicaConfig::tick_ms).
    Tick,
    /// Another master said this.
    Peer {
        /// Who.
        from: MasterId,
        /// What.
        message: PeerMessage,
    },
    /// A message to this master could not be delivered.
    PeerUnreachable(MasterId),
    /// A message that carried a snapshot was delivered, or not.
    SnapshotSent {
        /// To whom.
        to: MasterId,
        /// Delivered.
        ok: bool,
    },
    /// All persist batches up to this number are durable.
    Persisted(u64),
    /// A persist batch could not be made durable: fatal to this replica.
    PersistFailed(String),
    /// A client of this master calls.
    Request {
        /// Chosen by the shell; repeated in the reply.
        id: u64,
        /// What it asks.
        request: Request,
    },
    /// An agent connected to this master.
    AgentConnected {
        /// Chosen by the shell, never reused.
        session: u64,
        /// What it offers.
        spec: Arc<NodeSpec>,
        /// Drawn at each start of its keeper.
        incarnation: u64,
        /// The cluster it served before; 0 if none.
        cluster_id: u64,
        /// The state of every task that it has.
        inventory: AgentReport,
    },
    /// A connected agent reported.
    AgentReport {
        /// Which.
        session: u64,
        /// What.
        report: AgentReport,
    },
    /// A connection to an agent is gone.
    AgentGone {
        /// Which.
        session: u64,
    },
    /// The policy answered and the planner made a plan of it, outside the event loop, with
    /// [`planner::decide`](crate::planner::decide).
    PolicyAnswer {
        /// The round that asked.
        round: u64,
        /// The plan; `None` if the policy was late, failed or panicked (then the shell has used no fallback either).
        plan: Option<Box<Plan>>,
    },
    /// Answer to [`Effect::LookUpHistory`].
    HistoryFound {
        /// The token of the question.
        token: u64,
        /// What was found, in the order asked for.
        jobs: Vec<FinishedJob>,
    },
    /// Answer to [`Effect::TakeSnapshot`].
    SnapshotTaken {
        /// The index of the question.
        index: u64,
        /// The encoded state.
        data: Bytes,
    },
}

/// What a shell is to do.
#[derive(Debug)]
pub enum Effect {
    /// Make this durable, then feed [`Input::Persisted`]. Several may be in flight; they are in order.
    Persist(Persist),
    /// Send to another master. Loss is tolerated.
    SendPeer {
        /// To whom.
        to: MasterId,
        /// What.
        message: PeerMessage,
    },
    /// Send to a connected agent, in order.
    SendAgent {
        /// Which.
        session: u64,
        /// What.
        directive: Directive,
    },
    /// End an agent's connection; it should try the leader.
    CloseAgent {
        /// Which.
        session: u64,
        /// Why, for its log.
        reason: String,
        /// Where the leader listens, if known.
        leader: Option<MasterInfo>,
    },
    /// Ask the policy with [`planner::decide`](crate::planner::decide), off the event loop, and feed
    /// [`Input::PolicyAnswer`].
    AskPolicy {
        /// Repeated in the answer.
        round: u64,
        /// What it may know.
        view: Box<View>,
    },
    /// Answer a client of this master.
    Reply {
        /// The request's id.
        id: u64,
        /// The answer.
        response: Response,
    },
    /// Keep these in the history; done again after a restart, so by sequence number.
    AppendHistory(Vec<FinishedJob>),
    /// Read the history and feed [`Input::HistoryFound`].
    LookUpHistory {
        /// Repeated in the answer.
        token: u64,
        /// What for.
        lookup: HistoryLookup,
    },
    /// The state was replaced by a snapshot: the history up to this sequence number may have to be fetched from
    /// another master.
    HistoryGap {
        /// Newest sequence number that should exist.
        through: u64,
    },
    /// Tell watchers.
    Publish(Vec<Arc<Event>>),
    /// Who leads has changed.
    LeaderChanged {
        /// The leader and where it listens, if known.
        leader: Option<(MasterId, MasterInfo)>,
        /// The term.
        term: u64,
        /// True if it is this master and it may serve.
        is_self: bool,
    },
    /// The set of masters to talk to has changed (all of them, learners included).
    MastersChanged(Vec<(MasterId, MasterInfo)>),
    /// Encode this state with [`encode_state`](crate::codec::encode_state), then feed [`Input::SnapshotTaken`].
    TakeSnapshot {
        /// Repeated in the answer.
        index: u64,
        /// A shared copy.
        state: Box<State>,
    },
    /// The replica has stopped for good; what to tell the operator.
    Stopped(String),
}

/// What to read from the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryLookup {
    /// One job.
    Job(JobId),
    /// Finished jobs that match, newest first, with sequence numbers below `before`.
    List {
        /// Which.
        filter: JobFilter,
        /// Below this sequence number.
        before: u64,
        /// At most so many.
        limit: u32,
    },
}
