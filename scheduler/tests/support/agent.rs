//! An agent that runs nothing and says that everything ended well.

use berth_proto::v1;
use berth_proto::v1::agent_message::Kind as Said;
use berth_proto::v1::agents_client::AgentsClient;
use berth_proto::v1::master_message::Kind as Heard;
use berth_types::{
    AgentReport, Directive, GpuInfo, NodeSpec, TaskEvent, TaskExit, TaskInventory, TaskKey,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

pub struct FakeAgent {
    said: mpsc::Sender<v1::AgentMessage>,
    heard: Streaming<v1::MasterMessage>,
    /// What `ReadLog` is answered with.
    pub output: Vec<u8>,
    pub launched: Vec<TaskKey>,
    pub forgotten: Vec<TaskKey>,
}

pub fn node(name: &str, gpus: u16) -> NodeSpec {
    let gpu = |i| GpuInfo {
        uuid: format!("GPU-{name}-{i}"),
        model: "a100".into(),
        mem_bytes: 80 << 30,
        nvlink_group: 0,
        numa: 0,
    };
    NodeSpec {
        name: name.into(),
        address: "127.0.0.1".into(),
        millicpu: 8_000,
        mem_bytes: 64 << 30,
        gpus: (0..gpus).map(gpu).collect(),
        simulated_gpus: true,
        port_first: 20_000,
        port_count: 100,
        agent_version: "test".into(),
        ..NodeSpec::default()
    }
}

fn message(kind: Said) -> v1::AgentMessage {
    v1::AgentMessage { kind: Some(kind) }
}

impl FakeAgent {
    /// Connects and registers an empty node.
    pub async fn connect(channel: Channel, spec: &NodeSpec) -> Result<FakeAgent, tonic::Status> {
        let (said, outgoing) = mpsc::channel(64);
        let inventory = AgentReport {
            full_inventory: true,
            events: vec![],
        };
        let register = v1::Register {
            spec: Some(spec.into()),
            incarnation: 1,
            inventory: Some((&inventory).into()),
            ..v1::Register::default()
        };
        said.send(message(Said::Register(register)))
            .await
            .expect("open");
        let mut client = AgentsClient::new(channel);
        let heard = client
            .session(ReceiverStream::new(outgoing))
            .await?
            .into_inner();
        Ok(FakeAgent {
            said,
            heard,
            output: vec![],
            launched: vec![],
            forgotten: vec![],
        })
    }

    /// The next thing that the master says.
    pub async fn hear(&mut self) -> Result<Option<Heard>, tonic::Status> {
        Ok(self.heard.message().await?.and_then(|m| m.kind))
    }

    pub async fn report(&self, events: Vec<TaskEvent>) {
        let report = AgentReport {
            full_inventory: false,
            events,
        };
        let _ = self
            .said
            .send(message(Said::Report((&report).into())))
            .await;
    }

    /// Obeys until the stream ends: each launched task ends at once with 0, and each log is `output`.
    pub async fn obey(mut self) {
        let mut beat = tokio::time::interval(std::time::Duration::from_millis(500));
        loop {
            tokio::select! {
                heard = self.hear() => match heard {
                    Ok(Some(heard)) => self.on(heard).await,
                    _ => return,
                },
                _ = beat.tick() => self.report(vec![]).await,
            }
        }
    }

    pub async fn on(&mut self, heard: Heard) {
        match heard {
            Heard::Directive(directive) => {
                let directive = Directive::try_from(directive).expect("well formed");
                let mut events = Vec::new();
                for task in &directive.launch {
                    if self.launched.contains(&task.key) {
                        continue;
                    }
                    self.launched.push(task.key);
                    let exit = TaskExit {
                        code: 0,
                        at_ms: 2,
                        reason: String::new(),
                        node_fault: false,
                    };
                    events.push(TaskEvent::State(
                        task.key,
                        TaskInventory::Running { since_ms: 1 },
                    ));
                    events.push(TaskEvent::State(task.key, TaskInventory::Ended(exit)));
                }
                self.forgotten.extend(&directive.forget);
                if !events.is_empty() {
                    self.report(events).await;
                }
            }
            Heard::ReadLog(read) => self.send_log(&read).await,
            Heard::Redirect(_) | Heard::LogCredit(_) | Heard::CloseLog(_) => {}
        }
    }

    async fn send_log(&self, read: &v1::ReadLog) {
        assert!(
            self.output.len() as u64 <= read.credit_bytes,
            "the fake has no use for more credit"
        );
        let data = v1::LogData {
            request_id: read.request_id,
            stream: v1::LogStream::Stdout.into(),
            offset: 0,
            data: self.output.clone().into(),
            eof: true,
            error: String::new(),
        };
        let _ = self.said.send(message(Said::Log(data))).await;
    }
}
