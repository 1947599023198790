//! The agent's side: probes that are silent or hang are replaced, and somebody knows.

use std::time::Duration;

use berth_agent::gpu::watch::{Looks, News, Settings, start};
use berth_fake_nvml::Stage;
use berth_fake_nvml::scenario::{Hang, Scenario};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::harness::{DEADLINE, with_scenario};

struct Watched {
    _dir: TempDir,
    stage: Stage,
    looks: Looks,
    news: UnboundedReceiver<News>,
}

impl Watched {
    fn start(scenario: &Scenario) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut stage = Stage::new(dir.path());
        stage.play(scenario).unwrap();
        let settings = Settings {
            program: with_scenario(&dir, &stage),
            library: Some(berth_fake_nvml::library().unwrap()),
            tasks_dir: dir.path().join("tasks"),
            interval: Duration::from_millis(50),
            deadline: Duration::from_millis(1_500),
        };
        let (sender, news) = unbounded_channel();
        let looks = start(settings, move |n| drop(sender.send(n)));
        Self {
            _dir: dir,
            stage,
            looks,
            news,
        }
    }

    async fn until<T>(&mut self, what: &str, mut test: impl FnMut(News) -> Option<T>) -> T {
        let found = async {
            loop {
                let news = self.news.recv().await.expect("it is watched");
                if let Some(found) = test(news) {
                    return found;
                }
            }
        };
        let found = tokio::time::timeout(DEADLINE, found).await;
        found.unwrap_or_else(|_| panic!("in vain: {what}"))
    }

    async fn started(&mut self) -> (u32, u64) {
        self.until("a start", |news| match news {
            News::Started { pid, restarts } => Some((pid, restarts)),
            _ => None,
        })
        .await
    }

    async fn reading(&mut self, index: u16) -> u64 {
        self.until("a reading", |news| match news {
            News::Reading { look, reading } if reading.index == index => Some(look),
            _ => None,
        })
        .await
    }
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap()).unwrap()
}

fn alive(number: u32) -> bool {
    std::path::Path::new(&format!("/proc/{number}")).exists()
}

#[tokio::test]
async fn a_silent_probe_is_killed_and_another_one_reads_on() {
    let mut watched = Watched::start(&Scenario::healthy(2));
    let (first, restarts) = watched.started().await;
    assert_eq!(restarts, 0);
    watched.reading(1).await;
    watched.looks.ask(5);
    kill_process(pid(first), Signal::STOP).unwrap();
    let why = watched
        .until("silence", |news| match news {
            News::Silent { why } => Some(why),
            _ => None,
        })
        .await;
    assert!(why.contains("silent for 1.5s"), "{why}");
    assert!(!alive(first));
    let (second, restarts) = watched.started().await;
    assert_ne!(second, first);
    assert_eq!(restarts, 1);
    // What was asked of the one before is asked again.
    while watched.reading(0).await < 5 {}
}

#[tokio::test]
async fn a_hanging_call_is_told_and_the_probe_replaced() {
    let mut scenario = Scenario::healthy(2);
    let mut watched = Watched::start(&scenario);
    let (first, _) = watched.started().await;
    watched.reading(0).await;
    watched.reading(1).await;
    scenario.hang = vec![Hang {
        call: "*".into(),
        gpu: Some(1),
        from: 0.0,
        until: None,
    }];
    watched.stage.play(&scenario).unwrap();
    let calls = watched
        .until("the hang", |news| match news {
            News::Hanging(calls) => Some(calls),
            _ => None,
        })
        .await;
    assert!(calls.iter().any(|call| call.index == Some(1)), "{calls:?}");
    let (second, _) = watched.started().await;
    assert!(!alive(first) && second != first);
    // The other GPU is read by the new one, too.
    watched.reading(0).await;
    scenario.hang.clear();
    watched.stage.play(&scenario).unwrap();
    watched.reading(1).await;
}

#[tokio::test]
async fn a_driver_that_comes_later_is_found() {
    let mut scenario = Scenario::healthy(1);
    scenario.driver_loaded = false;
    let mut watched = Watched::start(&scenario);
    let why = watched
        .until("silence", |news| match news {
            News::Silent { why } => Some(why),
            _ => None,
        })
        .await;
    assert!(why.contains("driver is not loaded"), "{why}");
    scenario.driver_loaded = true;
    watched.stage.play(&scenario).unwrap();
    watched.reading(0).await;
}

#[tokio::test]
async fn nobody_is_left_when_nobody_wants_readings() {
    let mut watched = Watched::start(&Scenario::healthy(1));
    let (first, _) = watched.started().await;
    watched.reading(0).await;
    let Watched {
        looks, mut news, ..
    } = watched;
    drop(looks);
    let closed = async { while news.recv().await.is_some() {} };
    tokio::time::timeout(DEADLINE, closed).await.unwrap();
    assert!(!alive(first));
}
