//! Logs as a reader gets them.

use berth_proto::v1::{LogData, LogStream, ReadLog};
use berth_types::TaskKey;

use crate::harness::{FakeMaster, Node, key, shell, until};

fn request(id: u64, task: TaskKey) -> ReadLog {
    ReadLog {
        request_id: id,
        key: Some((&task).into()),
        stream: LogStream::Stdout as i32,
        credit_bytes: 1 << 20,
        ..ReadLog::default()
    }
}

fn text(logs: &[LogData], id: u64) -> String {
    let bytes: Vec<u8> = logs
        .iter()
        .filter(|l| l.request_id == id)
        .flat_map(|l| l.data.to_vec())
        .collect();
    String::from_utf8(bytes).unwrap()
}

fn whole(id: u64) -> impl Fn(&[LogData]) -> Option<(String, String)> {
    move |logs| {
        let end = logs.iter().find(|l| l.request_id == id && l.eof)?;
        Some((text(logs, id), end.error.clone()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_read_after_the_end_and_of_earlier_attempts() {
    let master = FakeMaster::start().await;
    let _node = Node::start(&[&master.address]);
    master
        .launch([shell(key(1, 1, 0), "echo one; echo oops >&2; exit 1")])
        .await;
    master.ended(key(1, 1, 0)).await;
    master.launch([shell(key(1, 2, 0), "echo two")]).await;
    master.ended(key(1, 2, 0)).await;
    master.forget(key(1, 1, 0)).await;
    for (id, task, edit, expected) in [
        (1, key(1, 1, 0), (|_| {}) as fn(&mut ReadLog), "one\n"),
        (2, key(1, 2, 0), |_| {}, "two\n"),
        (
            3,
            key(1, 1, 0),
            |r| r.stream = LogStream::Stderr as i32,
            "oops\n",
        ),
        (4, key(1, 1, 0), |r| r.offset = 2, "e\n"),
        (5, key(1, 1, 0), |r| r.tail_bytes = Some(3), "ne\n"),
        (6, key(1, 1, 0), |r| r.stream = 0, "one\noops\n"),
        (7, key(1, 2, 0), |r| r.follow = true, "two\n"),
    ] {
        let mut read = request(id, task);
        edit(&mut read);
        master.read_log(read);
        let (text, error) = master.log("the log", whole(id)).await;
        assert_eq!(
            (text.as_str(), error.as_str()),
            (expected, ""),
            "request {id}"
        );
    }
    master.read_log(request(9, key(8, 1, 0)));
    let (_, error) = master.log("an error", whole(9)).await;
    assert!(error.contains("no output of this task"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_sees_lines_as_they_come_until_the_end() {
    let master = FakeMaster::start().await;
    let node = Node::start(&[&master.address]);
    let gate = node.dir.path().join("gate");
    let task = key(1, 1, 0);
    let script = format!(
        "echo first; while [ ! -e {} ]; do sleep 0.02; done; echo last",
        gate.display()
    );
    master.launch([shell(task, &script)]).await;
    master.running(task).await;
    let mut read = request(1, task);
    read.follow = true;
    master.read_log(read);
    master
        .log("the first line", |logs| {
            (text(logs, 1) == "first\n").then_some(())
        })
        .await;
    assert!(!master.logs().iter().any(|l| l.eof));
    std::fs::write(gate, "").unwrap();
    let (text, _) = master.log("the end", whole(1)).await;
    assert_eq!(text, "first\nlast\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_the_sender_back() {
    let master = FakeMaster::start().await;
    let node = Node::start(&[&master.address]);
    let task = key(1, 1, 0);
    master
        .launch([shell(task, "head -c 300000 /dev/zero")])
        .await;
    master.ended(task).await;
    until("all is written", || node.stdout(task).len() == 300_000).await;
    let mut read = request(1, task);
    read.credit_bytes = 100_000;
    master.read_log(read);
    let sent = |logs: &[LogData]| logs.iter().map(|l| l.data.len()).sum::<usize>();
    master
        .log("the credit is used up", |logs| {
            (sent(logs) == 100_000).then_some(())
        })
        .await;
    // Another reader is served meanwhile, and the first one gets nothing more.
    let mut other = request(2, task);
    other.tail_bytes = Some(1);
    master.read_log(other);
    master.log("the other ends", whole(2)).await;
    assert_eq!(sent(&master.logs()), 100_001);
    master.credit(1, 1 << 20);
    master.log("the rest", whole(1)).await;
    assert_eq!(sent(&master.logs()), 300_001);
    assert!(master.logs().iter().all(|l| l.data.len() <= 64 << 10));
}
