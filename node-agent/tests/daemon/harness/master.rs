use std::pin::Pin;
use std::sync::{Arc, Mutex};

use berth_proto::v1;
use berth_proto::v1::agent_message::Kind;
use berth_proto::v1::agents_server::{Agents, AgentsServer};
use berth_proto::v1::master_message;
use berth_types::{
    AgentReport, Directive, LaunchTask, TaskEvent, TaskExit, TaskInventory, TaskKey, Tombstone,
};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::DEADLINE;

type Out = mpsc::Sender<Result<v1::MasterMessage, Status>>;

#[derive(Default)]
struct Seen {
    registrations: Vec<v1::Register>,
    events: Vec<TaskEvent>,
    logs: Vec<v1::LogData>,
    out: Option<Out>,
    redirect: Option<String>,
    applied: u64,
    term: u64,
    lease_ms: u64,
    marks: Option<fn(&mut Directive)>,
}

/// A master: records what an agent says, and says what a test wants.
pub(crate) struct FakeMaster {
    pub(crate) address: String,
    seen: Arc<Mutex<Seen>>,
    changed: Arc<Notify>,
    stop: Option<oneshot::Sender<()>>,
}

impl FakeMaster {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0", 1).await
    }

    /// A master of this term; a later one has applied more.
    pub(crate) async fn start_at(address: &str, term: u64) -> Self {
        let listener = loop {
            match tokio::net::TcpListener::bind(address).await {
                Ok(listener) => break listener,
                // A master that has just crashed lets go of its port soon.
                Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {
                    tokio::task::yield_now().await
                }
                Err(e) => panic!("{address}: {e}"),
            }
        };
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Seen {
            term,
            applied: term * 1_000,
            lease_ms: 30_000,
            ..Seen::default()
        }));
        let changed = Arc::new(Notify::new());
        let service = Service {
            seen: Arc::clone(&seen),
            changed: Arc::clone(&changed),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let serving = tonic::transport::Server::builder()
                .add_service(AgentsServer::new(service))
                .serve_with_incoming(TcpListenerStream::new(listener));
            tokio::select! {
                result = serving => result.unwrap(),
                _ = stopped => {}
            }
        });
        Self {
            address,
            seen,
            changed,
            stop: Some(stop),
        }
    }

    /// Ends it as a crash would: the stream breaks, the port is closed.
    pub(crate) fn crash(&mut self) {
        self.stop.take();
        self.seen.lock().unwrap().out.take();
    }

    pub(crate) fn redirect_to(&self, address: &str) {
        self.seen.lock().unwrap().redirect = Some(address.into());
    }

    pub(crate) fn set_lease(&self, lease_ms: u64) {
        self.seen.lock().unwrap().lease_ms = lease_ms;
    }

    /// Stops answering what comes on the present stream, without closing it.
    pub(crate) fn cut_off(&self) {
        self.seen.lock().unwrap().out.take();
    }

    /// Redirects no more.
    pub(crate) fn lead(&self) {
        self.seen.lock().unwrap().redirect = None;
    }

    /// Changes every directive from now on.
    pub(crate) fn set_marks(&self, marks: fn(&mut Directive)) {
        self.seen.lock().unwrap().marks = Some(marks);
    }

    pub(crate) fn registrations(&self) -> usize {
        self.seen.lock().unwrap().registrations.len()
    }

    pub(crate) async fn registration(&self, number: usize) -> v1::Register {
        self.wait("a registration", |seen| {
            seen.registrations.get(number).cloned()
        })
        .await
    }

    /// The state of every task in the inventory of a registration.
    pub(crate) async fn inventory(&self, number: usize) -> Vec<(TaskKey, TaskInventory)> {
        let register = self.registration(number).await;
        let report = AgentReport::try_from(register.inventory.unwrap()).unwrap();
        report.events.into_iter().filter_map(state).collect()
    }

    pub(crate) async fn direct(&self, fill: impl FnOnce(&mut Directive)) {
        self.registration(0).await;
        let mut seen = self.seen.lock().unwrap();
        seen.applied += 1;
        let mut directive = seen.empty();
        fill(&mut directive);
        // Under the lock, so that directives leave in the order of their marks.
        seen.send(master_message::Kind::Directive((&directive).into()));
    }

    pub(crate) async fn launch(&self, tasks: impl IntoIterator<Item = LaunchTask>) {
        self.direct(|d| d.launch.extend(tasks)).await;
    }

    pub(crate) async fn tombstone(&self, key: TaskKey) {
        let (job, through) = (key.job, key.epoch);
        self.direct(|d| d.stop.push(Tombstone { job, through }))
            .await;
    }

    pub(crate) async fn forget(&self, key: TaskKey) {
        self.direct(|d| d.forget.push(key)).await;
    }

    pub(crate) fn read_log(&self, request: v1::ReadLog) {
        self.seen
            .lock()
            .unwrap()
            .send(master_message::Kind::ReadLog(request));
    }

    pub(crate) fn credit(&self, request_id: u64, bytes: u64) {
        let credit = v1::LogCredit { request_id, bytes };
        self.seen
            .lock()
            .unwrap()
            .send(master_message::Kind::LogCredit(credit));
    }

    pub(crate) async fn log<T>(&self, what: &str, test: impl Fn(&[v1::LogData]) -> Option<T>) -> T {
        self.wait(what, |seen| test(&seen.logs)).await
    }

    pub(crate) fn logs(&self) -> Vec<v1::LogData> {
        self.seen.lock().unwrap().logs.clone()
    }

    pub(crate) fn events(&self) -> Vec<TaskEvent> {
        self.seen.lock().unwrap().events.clone()
    }

    pub(crate) async fn event<T>(&self, what: &str, test: impl Fn(&TaskEvent) -> Option<T>) -> T {
        self.wait(what, |seen| seen.events.iter().find_map(&test))
            .await
    }

    pub(crate) async fn running(&self, key: TaskKey) {
        self.event(&format!("{key:?} runs"), |event| match event {
            TaskEvent::State(k, TaskInventory::Running { .. }) if *k == key => Some(()),
            _ => None,
        })
        .await;
    }

    pub(crate) async fn ended(&self, key: TaskKey) -> TaskExit {
        self.event(&format!("{key:?} ends"), |event| match event {
            TaskEvent::State(k, TaskInventory::Ended(exit)) if *k == key => Some(exit.clone()),
            _ => None,
        })
        .await
    }

    async fn wait<T>(&self, what: &str, test: impl Fn(&Seen) -> Option<T>) -> T {
        let found = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(found) = test(&self.seen.lock().unwrap()) {
                    return found;
                }
                changed.await;
            }
        };
        let found = tokio::time::timeout(DEADLINE, found).await;
        found.unwrap_or_else(|_| panic!("in vain: {what}; seen: {:?}", self.events()))
    }
}

impl Seen {
    fn send(&self, kind: master_message::Kind) {
        if let Some(out) = &self.out {
            // An agent that has hung up does not hear.
            let _ = out.try_send(Ok(v1::MasterMessage { kind: Some(kind) }));
        }
    }

    fn empty(&self) -> Directive {
        let mut directive = Directive {
            cluster_id: 77,
            term: self.term,
            applied: self.applied,
            lease_ms: self.lease_ms,
            ..Directive::default()
        };
        if let Some(marks) = self.marks {
            marks(&mut directive);
        }
        directive
    }
}

fn state(event: TaskEvent) -> Option<(TaskKey, TaskInventory)> {
    match event {
        TaskEvent::State(key, state) => Some((key, state)),
        _ => None,
    }
}

struct Service {
    seen: Arc<Mutex<Seen>>,
    changed: Arc<Notify>,
}

#[tonic::async_trait]
impl Agents for Service {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<v1::MasterMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (out, messages) = mpsc::channel(1_024);
        let redirect = self.seen.lock().unwrap().redirect.clone();
        if let Some(leader_address) = redirect {
            let redirect = v1::Redirect {
                leader_address,
                reason: "a test says so".into(),
            };
            let kind = Some(master_message::Kind::Redirect(redirect));
            let _ = out.try_send(Ok(v1::MasterMessage { kind }));
        } else {
            self.seen.lock().unwrap().out = Some(out);
            let (seen, changed) = (Arc::clone(&self.seen), Arc::clone(&self.changed));
            tokio::spawn(record(request.into_inner(), seen, changed));
        }
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

async fn record(
    mut stream: Streaming<v1::AgentMessage>,
    seen: Arc<Mutex<Seen>>,
    changed: Arc<Notify>,
) {
    while let Some(Ok(message)) = stream.next().await {
        {
            let mut seen = seen.lock().unwrap();
            match message.kind {
                Some(Kind::Register(register)) => {
                    let report = register.inventory.clone().unwrap();
                    seen.events
                        .extend(AgentReport::try_from(report).unwrap().events);
                    seen.registrations.push(register);
                }
                Some(Kind::Report(report)) => {
                    seen.events
                        .extend(AgentReport::try_from(report).unwrap().events);
                }
                Some(Kind::Log(log)) => seen.logs.push(log),
                None => {}
            }
            seen.send(master_message::Kind::Directive((&seen.empty()).into()));
        }
        changed.notify_waiters();
    }
}
