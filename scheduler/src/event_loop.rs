//! The event loop: one thread that owns the replica, drains the inbox in batches, and carries out effects.
//!
//! ```text
//! Serving --Stop--> HandingOver --leadership gone, or after a while--> (ended)
//!    `---Effect::Stopped (a fatal error of the replica)--------------> (ended)
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use berth_core::state::{Certificates, Revocation};
use berth_core::{Effect, Input, Replica};
use berth_raft::Persist;
use berth_types::api::{MasterInfo, Response};
use berth_types::{Identity, MasterId};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::history::{self, Task};
use crate::inbox::{Inbox, Message};
use crate::peers::Peers;
use crate::planning::Planning;
use crate::sessions::{Outbox, ToAgent};
use crate::shared::{Leader, Shared};
use crate::snapshots;
use crate::watchdog::{self, Watchdog};

/// Messages taken into one step: they share log entries and a flush. Bounds how long a tick can be late.
const MAX_BATCH: usize = 4_096;
/// Callers who have given up are forgotten this often.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// How long a stopping leader tries to hand over.
const HAND_OVER: Duration = Duration::from_millis(1_500);

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As asked.
    Stopped,
    /// The replica failed: what to tell the operator.
    Fatal(String),
    /// The thread panicked.
    Panicked,
}

/// The ways out.
pub(crate) struct Outlets {
    pub(crate) storage: Sender<Persist>,
    pub(crate) history: history::Tasks,
    pub(crate) snapshots: Sender<snapshots::Copy>,
    pub(crate) planning: Planning,
    pub(crate) peers: Peers,
    pub(crate) leader: watch::Sender<Leader>,
    pub(crate) masters: watch::Sender<Vec<(MasterId, MasterInfo)>>,
    pub(crate) history_through: watch::Sender<u64>,
    pub(crate) shared: Shared,
}

/// See the [module](self).
pub(crate) struct EventLoop {
    replica: Replica,
    clock: Clock,
    tick: Duration,
    inbox: Receiver<Message>,
    out: Outlets,
    calls: HashMap<u64, oneshot::Sender<Response>>,
    last_call: u64,
    agents: BTreeMap<u64, Outbox>,
    inputs: Vec<Input>,
    effects: Vec<Effect>,
    /// As last published.
    certificates: Certificates,
    stopping_since: Option<Instant>,
    end: Option<End>,
    watchdog: Watchdog,
}

impl EventLoop {
    pub(crate) fn new(
        (replica, effects): (Replica, Vec<Effect>),
        clock: Clock,
        tick: Duration,
        inbox: Receiver<Message>,
        out: Outlets,
    ) -> Self {
        Self {
            replica,
            clock,
            tick,
            inbox,
            out,
            calls: HashMap::new(),
            last_call: 0,
            agents: BTreeMap::new(),
            inputs: Vec::new(),
            effects,
            certificates: Certificates::default(),
            stopping_since: None,
            end: None,
            watchdog: Watchdog::of_service_manager(),
        }
    }

    /// Starts the thread; its end arrives on the channel.
    pub(crate) fn start(self) -> std::io::Result<(JoinHandle<()>, oneshot::Receiver<End>)> {
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("berth-replica".into())
            .spawn(move || {
                let _ = end.send(self.run());
            })?;
        Ok((thread, ended))
    }

    /// Runs until the end. The storage and history threads end after it, since their senders go with it.
    fn run(mut self) -> End {
        self.execute();
        let now = Instant::now();
        let (mut next_tick, mut next_sweep) = (now + self.tick, now + SWEEP_EVERY);
        loop {
            if let Some(end) = self.end.take() {
                self.out.planning.stop();
                return end;
            }
            let wait = next_tick.saturating_duration_since(Instant::now());
            match self.inbox.recv_timeout(wait) {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return End::Stopped,
            }
            while self.inputs.len() < MAX_BATCH
                && let Ok(message) = self.inbox.try_recv()
            {
                self.take(message);
            }
            let now = Instant::now();
            if now >= next_tick {
                self.on_tick(now);
                // A late tick is not made up for: a stalled master must not count its own stall as its leader's.
                next_tick = now + self.tick;
            }
            if now >= next_sweep {
                self.calls.retain(|_, reply| !reply.is_closed());
                next_sweep = now + SWEEP_EVERY;
            }
            self.step();
        }
    }

    fn step(&mut self) {
        let now_ms = self.clock.now_ms();
        self.replica
            .step_all(now_ms, self.inputs.drain(..), &mut self.effects);
        self.execute();
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Input(input) => {
                match &input {
                    Input::PolicyAnswer { round, .. } => self.out.planning.answered(*round),
                    Input::AgentGone { session } => {
                        self.agents.remove(session);
                    }
                    _ => {}
                }
                self.inputs.push(input);
            }
            Message::Call { request, reply } => {
                self.last_call += 1;
                let id = self.last_call;
                self.calls.insert(id, reply);
                self.inputs.push(Input::Request { id, request });
            }
            Message::AgentConnected {
                session,
                outbox,
                hello,
            } => {
                self.agents.insert(session, outbox);
                self.inputs.push(Input::AgentConnected {
                    session,
                    spec: hello.spec,
                    incarnation: hello.incarnation,
                    cluster_id: hello.cluster_id,
                    inventory: hello.inventory,
                });
            }
            Message::PeerListens { from, address } => {
                self.out.peers.hear(from, address);
                self.refresh_leader();
            }
            Message::Stop => {
                watchdog::stopping();
                info!("stopping");
                self.stopping_since.get_or_insert_with(Instant::now);
                self.replica.step_aside(&mut self.effects);
            }
        }
    }

    fn on_tick(&mut self, now: Instant) {
        self.inputs.push(Input::Tick);
        self.watchdog.turned();
        if let Some(round) = self.out.planning.overdue(now) {
            self.inputs.push(Input::PolicyAnswer { round, plan: None });
        }
        if let Some(since) = self.stopping_since
            && (!self.replica.is_serving()
                || self.is_alone()
                || now.duration_since(since) > HAND_OVER)
        {
            self.end = Some(End::Stopped);
        }
    }

    /// Nobody is there to hand over to.
    fn is_alone(&self) -> bool {
        self.replica.state().masters.len() <= 1
    }

    fn execute(&mut self) {
        let cluster_id = self.replica.state().cluster_id;
        self.out
            .shared
            .cluster_id
            .store(cluster_id, Ordering::Relaxed);
        self.publish_revocations();
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            self.carry_out(effect);
        }
        self.effects = effects;
    }

    /// Before anything is answered: who has been told that a certificate is revoked may rely on it here.
    fn publish_revocations(&mut self) {
        let revoked = &self.replica.state().certificates.revoked;
        if self.certificates.revoked.ptr_eq(revoked) {
            return;
        }
        self.certificates = self.replica.state().certificates.clone();
        if let Some(acceptor) = &self.out.shared.acceptor {
            let revoked = self.certificates.revoked.iter();
            let through = |(identity, r): (&Arc<Identity>, &Revocation)| {
                (Identity::clone(identity), r.through)
            };
            acceptor.set_revoked(revoked.map(through).collect());
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(persist) => {
                // A dead storage thread has already said why.
                let _ = self.out.storage.send(persist);
            }
            Effect::SendPeer { to, message } => self.out.peers.send(to, message),
            Effect::Reply { id, response } => {
                if let Some(reply) = self.calls.remove(&id) {
                    // Whoever asked may have given up.
                    let _ = reply.send(response);
                }
            }
            Effect::SendAgent { session, directive } => {
                self.send_agent(session, ToAgent::Directive(directive))
            }
            Effect::CloseAgent {
                session,
                reason,
                leader,
            } => {
                self.send_agent(session, ToAgent::Redirect { reason, leader });
                self.agents.remove(&session);
            }
            Effect::AskPolicy { round, view } => {
                if !self.out.planning.ask(round, view, Instant::now()) {
                    self.inputs.push(Input::PolicyAnswer { round, plan: None });
                }
            }
            Effect::AppendHistory(jobs) => self.history(Task::Append(jobs)),
            Effect::LookUpHistory { token, lookup } => self.history(Task::LookUp { token, lookup }),
            Effect::HistoryGap { through } => {
                self.out
                    .history_through
                    .send_if_modified(|t| through > std::mem::replace(t, through.max(*t)));
            }
            Effect::Publish(events) => {
                let sender = &self.out.shared.events;
                if sender.receiver_count() > 0 {
                    let _ = sender.send(Arc::new(events));
                }
            }
            Effect::LeaderChanged {
                leader,
                term,
                is_self,
            } => self.on_leader(leader, term, is_self),
            Effect::MastersChanged(masters) => self.on_masters(masters),
            Effect::TakeSnapshot { index, state } => {
                let _ = self.out.snapshots.send((index, state));
            }
            Effect::Stopped(reason) => {
                error!(reason, "this master has stopped for good");
                self.end = Some(End::Fatal(reason));
            }
        }
    }

    fn history(&self, task: Task) {
        // The thread ends after this one only.
        let _ = self.out.history.send(task);
    }

    fn send_agent(&mut self, session: u64, message: ToAgent) {
        let Some(outbox) = self.agents.get(&session) else {
            return;
        };
        if let Err(mpsc::error::TrySendError::Full(_)) = outbox.try_send(message) {
            warn!(session, "an agent does not keep up and is cut off");
            self.agents.remove(&session);
            self.inputs.push(Input::AgentGone { session });
        }
    }

    fn on_leader(&self, leader: Option<(MasterId, MasterInfo)>, term: u64, is_self: bool) {
        let id = leader.as_ref().map(|(id, _)| id.0);
        info!(leader = id, term, serving = is_self, "leadership");
        let known = leader.map(|(id, info)| (id, self.address_of(id).unwrap_or(info)));
        self.out.leader.send_replace(Leader { known, is_self });
    }

    fn on_masters(&mut self, masters: Vec<(MasterId, MasterInfo)>) {
        self.out.peers.set(&masters);
        self.out.masters.send_replace(masters);
        self.refresh_leader();
    }

    /// The leader may have been known before its address was.
    fn refresh_leader(&self) {
        self.out.leader.send_if_modified(|leader| {
            let Some((id, info)) = &mut leader.known else {
                return false;
            };
            let now = self.address_of(*id).unwrap_or_else(|| info.clone());
            let changed = now != *info;
            *info = now;
            changed
        });
    }

    fn address_of(&self, id: MasterId) -> Option<MasterInfo> {
        let masters = self.out.masters.borrow();
        let listed = masters.iter().find(|(master, _)| *master == id);
        let heard = || {
            let address = self.out.peers.heard(id)?.to_owned();
            Some(MasterInfo { address })
        };
        listed.map(|(_, info)| info.clone()).or_else(heard)
    }
}

/// Asks the event loop to stop.
pub(crate) async fn stop(inbox: &Inbox) {
    inbox.send(Message::Stop).await;
}
