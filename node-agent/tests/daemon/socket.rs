//! What tasks say on the socket, from the task's side.

use berth_types::TaskEvent;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::harness::{FakeMaster, Node, key, shell};

/// A connection to a node's task socket; it belongs to no task by its environment.
pub(crate) struct Talk {
    lines: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
}

impl Talk {
    pub(crate) async fn open(node: &Node) -> Self {
        let stream = UnixStream::connect(node.layout().task_socket())
            .await
            .unwrap();
        let (reader, writer) = stream.into_split();
        Self {
            lines: BufReader::new(reader).lines(),
            writer,
        }
    }

    pub(crate) async fn say(&mut self, text: &str) {
        // The agent may have hung up; the next line that is read tells.
        let _ = self.writer.write_all(text.as_bytes()).await;
        let _ = self.writer.write_all(b"\n").await;
    }

    pub(crate) async fn hear(&mut self) -> Option<String> {
        let line = tokio::time::timeout(crate::harness::DEADLINE, self.lines.next_line());
        line.await.expect("the agent answers").unwrap_or(None)
    }

    pub(crate) async fn hello(&mut self, job: u64, epoch: u32, rank: u32) {
        self.say(&format!(
            r#"{{"type":"hello","version":1,"job":{job},"epoch":{epoch},"rank":{rank}}}"#
        ))
        .await;
        assert_eq!(
            self.hear().await.as_deref(),
            Some(r#"{"type":"welcome","version":1}"#)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_relayed() {
    let master = FakeMaster::start().await;
    let node = Node::start(&[&master.address]);
    let task = key(1, 1, 0);
    master.launch([shell(task, "sleep 1000")]).await;
    master.running(task).await;
    let mut talk = Talk::open(&node).await;
    talk.hello(1, 1, 0).await;
    talk.say(r#"{"type":"progress","step":120,"samples":7680,"loss":0.31,"step_ms":12.5}"#)
        .await;
    let progress = master
        .event("progress", |event| match event {
            TaskEvent::Progress {
                key,
                step,
                samples,
                loss_micros,
                step_us,
            } => Some((*key, *step, *samples, *loss_micros, *step_us)),
            _ => None,
        })
        .await;
    assert_eq!(progress, (task, 120, 7_680, Some(310_000), Some(12_500)));
    master.tombstone(task).await;
    let stop = talk.hear().await.unwrap();
    assert!(
        stop.starts_with(r#"{"type":"stop","deadline_ms":"#),
        "{stop}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_known_by_its_environment() {
    let master = FakeMaster::start().await;
    let node = Node::start(&[&master.address]);
    let task = key(7, 2, 3);
    let script = r#"python3 -c '
import os, socket
s = socket.socket(socket.AF_UNIX)
s.connect(os.environ["BERTH_SOCKET"])
f = s.makefile("rw")
f.write("{\"type\":\"hello\",\"version\":1,\"rank\":3,\"epoch\":2,\"pid\":%d}\n" % os.getpid())
f.flush()
print(f.readline(), end="")
f.write("{\"type\":\"progress\",\"step\":5}\n")
f.flush()
f.write("{\"type\":\"hello\",\"version\":1,\"rank\":3,\"epoch\":1}\n")
f.flush()
print(f.readline(), end="")
print(repr(f.readline()))
'"#;
    master
        .launch([shell(task, script), shell(key(8, 2, 3), "sleep 1000")])
        .await;
    assert_eq!(master.ended(task).await.code, 0);
    let told = node.stdout(task);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[0], r#"{"type":"welcome","version":1}"#);
    assert!(lines[1].contains("epoch 1 is not yours"), "{told}");
    assert_eq!(lines[2], "''", "the connection is closed");
    let step = master.event("progress", |event| match event {
        TaskEvent::Progress { key, step, .. } if *key == task => Some(*step),
        _ => None,
    });
    assert_eq!(step.await, 5, "told with the end at the latest");
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_answered_and_hurts_nobody() {
    let master = FakeMaster::start().await;
    let node = Node::start(&[&master.address]);
    let task = key(1, 1, 0);
    master.launch([shell(task, "sleep 1000")]).await;
    master.running(task).await;
    let long = "x".repeat((1 << 20) + 10);
    for (text, answer) in [
        ("nonsense", "not understood"),
        ("{\"type\":\"progress\",\"step\":1}", "say hello first"),
        (
            "{\"type\":\"hello\",\"version\":2,\"rank\":0,\"epoch\":1}",
            "version 2 is not known",
        ),
        (
            "{\"type\":\"hello\",\"version\":1,\"rank\":9,\"epoch\":1}",
            "no such task",
        ),
        ("\u{0}\u{1}", "not understood"),
        (long.as_str(), "a line has more than"),
    ] {
        let mut talk = Talk::open(&node).await;
        talk.say(text).await;
        let told = talk.hear().await.unwrap_or_default();
        assert!(told.contains(answer), "{told} does not say {answer}");
        assert_eq!(talk.hear().await, None, "the connection is closed");
    }
    let mut talk = Talk::open(&node).await;
    talk.hello(1, 1, 0).await;
    talk.say(r#"{"type":"from_the_future"}"#).await;
    talk.say(r#"{"type":"progress","step":1}"#).await;
    master
        .event("progress", |e| {
            matches!(e, TaskEvent::Progress { .. }).then_some(())
        })
        .await;
}
