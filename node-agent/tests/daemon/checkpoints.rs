//! Checkpoints from a task's report to the next attempt's resume.

use std::path::{Path, PathBuf};

use berth_types::{CheckpointRecord, Epoch, JobId, TaskEvent};
use sha2::{Digest, Sha256};

use crate::harness::{FakeMaster, Node, key, shell, until};
use crate::socket::Talk;

fn report(dir: &Path, step: u64, content: &str, extra: &str) -> String {
    std::fs::create_dir_all(dir).unwrap();
    let name = format!("weights{}", extra.len());
    std::fs::write(dir.join(&name), content).unwrap();
    let sha: String = Sha256::digest(content)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    format!(
        r#"{{"type":"checkpoint","step":{step},"path":{dir:?},"files":[{{"path":"{name}","bytes":{},"sha256":"{sha}"}}],"seconds":0.25{extra}}}"#,
        content.len()
    )
}

async fn verified(master: &FakeMaster, step: u64) -> CheckpointRecord {
    master
        .event("a verified checkpoint", |event| match event {
            TaskEvent::CheckpointVerified {
                job: JobId(1),
                record,
            } if record.step == step => Some(record.clone()),
            _ => None,
        })
        .await
}

async fn save(node: &Node, master: &FakeMaster, talk: &mut Talk, step: u64) -> CheckpointRecord {
    let base = node.layout().checkpoint_dir("", JobId(1), Epoch(1));
    talk.say(&report(
        &base.join(format!("step-{step}")),
        step,
        &format!("w{step}"),
        "",
    ))
    .await;
    let record = verified(master, step).await;
    assert_eq!(
        (record.epoch, record.bytes, record.save_ms),
        (Epoch(1), 3, 250)
    );
    master
        .direct(|d| d.checkpoints_recorded.push((JobId(1), Epoch(1), step)))
        .await;
    let ack = format!(r#"{{"type":"ack","step":{step},"accepted":true,"reason":""}}"#);
    assert_eq!(talk.hear().await, Some(ack));
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_resumes_from_the_newest_checkpoint_that_verifies() {
    let master = FakeMaster::start().await;
    let node = Node::start(&[&master.address]);
    master.launch([shell(key(1, 1, 0), "sleep 1000")]).await;
    master.running(key(1, 1, 0)).await;
    let mut talk = Talk::open(&node).await;
    talk.hello(1, 1, 0).await;
    let mut records = Vec::new();
    for step in [10, 20, 30] {
        records.insert(0, save(&node, &master, &mut talk, step).await);
    }
    // Two are kept; the oldest goes once a newer one is recorded.
    until("the oldest is deleted", || {
        !Path::new(&records[2].path).exists()
    })
    .await;
    records.pop();
    std::fs::write(PathBuf::from(&records[0].path).join("weights0"), "w31").unwrap();
    let mut next = shell(
        key(1, 2, 0),
        "echo $BERTH_RESUME_FROM; echo $BERTH_CHECKPOINT_DIR",
    );
    next.resume_from = records.clone();
    master.launch([next]).await;
    assert_eq!(master.ended(key(1, 2, 0)).await.code, 0);
    let told = node.stdout(key(1, 2, 0));
    let own = node.layout().checkpoint_dir("", JobId(1), Epoch(2));
    assert_eq!(told, format!("{}\n{}\n", records[1].path, own.display()));
    let damaged = master.event("damage", |event| match event {
        TaskEvent::CheckpointDamaged {
            job,
            epoch,
            step,
            reason,
        } => Some((*job, *epoch, *step, reason.clone())),
        _ => None,
    });
    let (job, epoch, step, reason) = damaged.await;
    assert_eq!((job, epoch, step), (JobId(1), Epoch(1), 30));
    assert!(reason.contains("SHA-256"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_are_refused_and_shards_are_put_together() {
    let master = FakeMaster::start().await;
    let node = Node::start(&[&master.address]);
    let shared = node.dir.path().join("shared");
    let tasks = [key(1, 1, 0), key(1, 1, 1)];
    let launches = tasks.map(|task| {
        let mut launch = shell(task, "sleep 1000");
        launch.checkpoint_dir = shared.display().to_string();
        launch
    });
    master.launch(launches).await;
    let mut talks = Vec::new();
    for task in tasks {
        master.running(task).await;
        let mut talk = Talk::open(&node).await;
        talk.hello(1, 1, task.rank.0).await;
        talks.push(talk);
    }
    let base = shared.join("1/epoch-1");
    assert!(base.is_dir());
    let good = report(&base.join("step-5"), 5, "content", "");
    let outside = report(&node.dir.path().join("elsewhere"), 6, "content", "");
    for (text, reason) in [
        (
            good.replace("\"bytes\":7", "\"bytes\":8"),
            "has 7 bytes, not 8",
        ),
        (
            good.replace("\"weights0\"", "\"../../epoch-1/step-5/weights0\""),
            "is not relative",
        ),
        (outside, "is not inside this attempt's checkpoint directory"),
    ] {
        talks[0].say(&text).await;
        let told = talks[0].hear().await.unwrap();
        assert!(
            told.contains("\"accepted\":false") && told.contains(reason),
            "{told}"
        );
    }
    let dir = base.join("step-7");
    talks[1]
        .say(&report(&dir, 7, "bb", r#","shard": 1,"shards":2"#))
        .await;
    talks[0]
        .say(&report(&dir, 7, "a", r#","shard":0,"shards":2"#))
        .await;
    assert_eq!(verified(&master, 7).await.bytes, 3);
    master
        .direct(|d| d.checkpoints_recorded.push((JobId(1), Epoch(1), 7)))
        .await;
    for talk in &mut talks {
        let ack = talk.hear().await.unwrap();
        assert!(ack.contains("\"step\":7,\"accepted\":true"), "{ack}");
    }
    // Said again by a task that missed the answer.
    talks[1]
        .say(&report(&dir, 7, "bb", r#","shard": 1,"shards":2"#))
        .await;
    assert!(talks[1].hear().await.unwrap().contains("\"accepted\":true"));
}
