use super::*;
use crate::gpu::line::Waiting;
use berth_types::telemetry::{GpuMemory, GpuXid};

fn gpus(dir: &tempfile::TempDir) -> Gpus {
    Gpus::open(&Layout::new(dir.path()))
}

fn driver(count: u16) -> News {
    News::Driver(Driver {
        gpus: count,
        ..Driver::default()
    })
}

fn found(index: u16, uuid: &str) -> News {
    News::Gpu(GpuIdentity {
        index,
        uuid: uuid.into(),
        name: "NVIDIA H100".into(),
        ..GpuIdentity::default()
    })
}

fn reading(index: u16, condition: GpuCondition) -> News {
    News::Reading {
        look: 3,
        reading: Box::new(GpuReading {
            index,
            condition,
            memory: Some(GpuMemory {
                used_bytes: 5,
                ..GpuMemory::default()
            }),
            ..GpuReading::default()
        }),
    }
}

fn hanging(index: u16) -> News {
    News::Hanging(vec![Waiting {
        index: Some(index),
        call: "nvmlX".into(),
        for_ms: 9_000,
    }])
}

fn started() -> News {
    News::Started {
        pid: 1,
        restarts: 0,
    }
}

fn uuids(gpus: &Gpus) -> Vec<&str> {
    gpus.offer.iter().map(|gpu| gpu.uuid.as_str()).collect()
}

fn conditions(gpus: &Gpus) -> Vec<GpuCondition> {
    gpus.gpus.iter().map(|gpu| gpu.condition).collect()
}

#[test]
fn the_offer_waits_until_all_are_heard_of() {
    let dir = tempfile::tempdir().unwrap();
    let mut gpus = gpus(&dir);
    for news in [started(), driver(3), found(2, "c"), found(0, "a")] {
        assert!(!gpus.on_news(news).offer_changed);
    }
    // The second one hangs before its name is known: the others are offered in their order.
    assert!(gpus.on_news(hanging(1)).offer_changed);
    assert_eq!(uuids(&gpus), ["a", "c"]);
    assert!(gpus.on_news(found(1, "b")).offer_changed);
    assert_eq!(uuids(&gpus), ["a", "c", "b"]);
}

#[test]
fn numbers_outlive_the_agent_and_what_is_missing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut before = gpus(&dir);
    for news in [started(), driver(2), found(0, "a"), found(1, "b")] {
        before.on_news(news);
    }
    let mut after = gpus(&dir);
    assert_eq!(uuids(&after), ["a", "b"]);
    after.on_news(started());
    after.on_news(driver(1));
    let outcome = after.on_news(found(0, "b"));
    assert!(!outcome.offer_changed);
    assert_eq!(
        conditions(&after),
        [GpuCondition::Lost, GpuCondition::Unknown]
    );
    let Some(Input::Gpu { gpu: 0, fact }) = outcome.inputs.first() else {
        panic!("{outcome:?}");
    };
    assert_eq!(fact.condition, GpuCondition::Lost);
}

#[test]
fn a_hang_takes_the_reading_away_and_a_reading_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut gpus = gpus(&dir);
    for news in [started(), driver(2), found(0, "a"), found(1, "b")] {
        gpus.on_news(news);
    }
    gpus.on_news(reading(0, GpuCondition::Answering));
    gpus.on_news(reading(1, GpuCondition::Answering));
    let outcome = gpus.on_news(hanging(1));
    assert_eq!(outcome.inputs.len(), 1);
    assert_eq!(
        conditions(&gpus),
        [GpuCondition::Answering, GpuCondition::Unresponsive]
    );
    assert!(gpus.gpus[1].reading.is_none() && gpus.gpus[0].reading.is_some());
    // The same hang, told again with each beat, is one hang.
    assert!(gpus.on_news(hanging(1)).inputs.is_empty());
    assert_eq!(gpus.gpus[1].hangs, 1);
    gpus.on_news(reading(1, GpuCondition::Answering));
    assert_eq!(conditions(&gpus), [GpuCondition::Answering; 2]);
    let silent = News::Silent { why: "gone".into() };
    assert_eq!(gpus.on_news(silent).inputs.len(), 2);
    assert_eq!(conditions(&gpus), [GpuCondition::Unresponsive; 2]);
}

#[test]
fn processes_are_matched_by_their_directory() {
    let dir = tempfile::tempdir().unwrap();
    let gpus = gpus(&dir);
    let key = TaskKey {
        job: JobId(7),
        epoch: Epoch(2),
        rank: Rank(3),
    };
    let tasks = dir.path().join("tasks");
    for (below, expected) in [
        ("7/2/3", Some(key)),
        ("7/2/3/scratch", Some(key)),
        ("7/2", None),
        ("x/2/3", None),
    ] {
        let path = tasks.join(below);
        assert_eq!(gpus.task_of(path.to_str().unwrap()), expected, "{below}");
    }
    assert_eq!(gpus.task_of("/elsewhere/7/2/3"), None);
}

#[test]
fn xids_are_counted_by_number() {
    let dir = tempfile::tempdir().unwrap();
    let mut gpus = gpus(&dir);
    for news in [started(), driver(1), found(0, "a")] {
        gpus.on_news(news);
    }
    for xid in [79, 31, 31] {
        gpus.on_news(News::Xid(GpuXid {
            index: 0,
            at_ms: 0,
            xid,
        }));
    }
    assert_eq!(gpus.gpus[0].last_xid, Some(31));
    assert_eq!(gpus.gpus[0].xids, BTreeMap::from([(31, 2), (79, 1)]));
}

#[test]
fn only_the_process_that_was_seen_is_ended() {
    let mut child = std::process::Command::new("sleep")
        .arg("60")
        .spawn()
        .unwrap();
    let (_, start) = parent_and_start(child.id()).unwrap();
    assert!(!end_process(child.id(), start + 1));
    assert!(child.try_wait().unwrap().is_none());
    assert!(end_process(child.id(), start));
    assert!(!child.wait().unwrap().success());
}
