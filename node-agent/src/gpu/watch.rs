//! The agent's side: keeps a probe running, and says what it says.
//!
//! ```text
//! start --> follow --any call longer than the deadline--> kill --> start      (the other GPUs go on being read)
//!             |                                            ^
//!             `--no line within the deadline, end of file--'--> pause --> start
//! ```
//! The pause doubles with each restart and shrinks back once a probe has lived. Nothing here is waited for by anything
//! else of the agent, and a killed child that does not go away (a call inside the kernel) is left behind: a few of them
//! at most, then none is started until one is gone.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use berth_types::telemetry::{GpuIdentity, GpuPath, GpuReading, GpuXid};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::gpu::line::{Beat, Driver, LOOK_NOW, Line, MAX_LINE_BYTES, Waiting};

/// Pause before the first restart.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// How long a killed child may take to go away before it is left behind.
const REAP: Duration = Duration::from_secs(1);
/// Children that were killed and are still there.
const MAX_LEFT_BEHIND: usize = 3;
/// Longest time for a word to the child; its pipe holds thousands of them.
const SAY: Duration = Duration::from_millis(100);
/// Lines that wait to be taken.
const LINES: usize = 256;

/// How to run probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// This program.
    pub program: PathBuf,
    /// The library; the driver's own if absent.
    pub library: Option<PathBuf>,
    /// Where tasks have their directories.
    pub tasks_dir: PathBuf,
    /// Time between two readings.
    pub interval: Duration,
    /// A call, or a silence, longer than this is a hang.
    pub deadline: Duration,
}

/// What is heard of the GPUs.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// A probe was started, and how many were before it.
    Started {
        /// Its process id.
        pid: u32,
        /// Probes before it.
        restarts: u64,
    },
    /// The driver answers.
    Driver(Driver),
    /// A GPU was found.
    Gpu(GpuIdentity),
    /// How the GPUs reach each other.
    Paths(Vec<GpuPath>),
    /// A look at one GPU.
    Reading {
        /// It began after this request.
        look: u64,
        /// What was seen.
        reading: Box<GpuReading>,
    },
    /// The driver announced an error.
    Xid(GpuXid),
    /// These calls do not return.
    Hanging(Vec<Waiting>),
    /// Nothing is heard of any GPU until the next reading.
    Silent {
        /// Why.
        why: String,
    },
}

/// The way to a probe that is watched.
#[derive(Clone, Debug)]
pub struct Looks(watch::Sender<u64>);

impl Looks {
    /// Asks for readings now. Those that began after it carry the number, which must only grow.
    pub fn ask(&self, number: u64) {
        self.0.send_if_modified(|newest| {
            let grows = number > *newest;
            *newest = number.max(*newest);
            grows
        });
    }
}

/// Keeps a probe running until `news` is dropped with the task, or the returned way is dropped.
pub fn start(settings: Settings, news: impl Fn(News) + Send + 'static) -> Looks {
    let (sender, looks) = watch::channel(0);
    let watcher = Watcher {
        settings,
        news,
        looks,
        left_behind: Vec::new(),
    };
    tokio::spawn(watcher.run());
    Looks(sender)
}

struct Watcher<N> {
    settings: Settings,
    news: N,
    looks: watch::Receiver<u64>,
    left_behind: Vec<Child>,
}

/// Why a probe was given up.
enum End {
    /// Nobody wants readings any more.
    NotWanted,
    /// Some calls hang; others do not.
    Hanging,
    /// None answers.
    Silent(String),
}

impl<N: Fn(News) + Send + 'static> Watcher<N> {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        for restarts in 0.. {
            let began = Instant::now();
            let end = match self.spawn() {
                Ok(mut child) => {
                    let pid = child.id().unwrap_or_default();
                    (self.news)(News::Started { pid, restarts });
                    let end = self.follow(&mut child, began + pause).await;
                    self.retire(child).await;
                    end
                }
                Err(error) => End::Silent(format!("no probe could be started: {error}")),
            };
            if began.elapsed() > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
            match end {
                End::NotWanted => return,
                End::Hanging => {}
                End::Silent(why) => {
                    tracing::warn!(why, "no GPU answers");
                    (self.news)(News::Silent { why });
                    sleep(pause).await;
                }
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            self.bury().await;
        }
    }

    fn spawn(&self) -> std::io::Result<Child> {
        let settings = &self.settings;
        let mut command = Command::new(&settings.program);
        command
            .arg("nvml-probe")
            .arg("--interval")
            .arg(format!("{}us", settings.interval.as_micros()))
            .arg("--tasks-dir")
            .arg(&settings.tasks_dir);
        if let Some(library) = &settings.library {
            command.arg("--library").arg(library);
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    /// Takes what the child says until it is to be given up: at once if it is silent, for single calls not before
    /// `patience`.
    async fn follow(&mut self, child: &mut Child, patience: Instant) -> End {
        let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return End::Silent("a probe without pipes".into());
        };
        let (lines, mut said) = mpsc::channel(LINES);
        tokio::spawn(read(stdout, lines));
        self.looks.mark_changed();
        let mut why_failed = None;
        loop {
            tokio::select! {
                line = timeout(self.settings.deadline, said.recv()) => match line {
                    Ok(Some(Ok(Line::Failed { why }))) => why_failed = Some(why),
                    Ok(Some(Ok(line))) => {
                        if self.tell(line) && Instant::now() >= patience {
                            return End::Hanging;
                        }
                    }
                    Ok(Some(Err(error))) => return End::Silent(format!("the probe said something else: {error}")),
                    Ok(None) => {
                        let why = why_failed.unwrap_or_else(|| "the probe ended".into());
                        return End::Silent(why);
                    }
                    Err(_) => {
                        let deadline = self.settings.deadline;
                        return End::Silent(format!("the probe was silent for {deadline:?}"));
                    }
                },
                changed = self.looks.changed() => {
                    if changed.is_err() {
                        return End::NotWanted;
                    }
                    let number = *self.looks.borrow_and_update();
                    // If it does not take it, it is silent or gone, and that is found above.
                    let _ = timeout(SAY, ask(&mut stdin, number)).await;
                }
            }
        }
    }

    /// Passes a line on. True if a call does not return.
    fn tell(&self, line: Line) -> bool {
        let news = match line {
            Line::Driver(driver) => News::Driver(driver),
            Line::Gpu(identity) => News::Gpu(identity),
            Line::Paths { paths } => News::Paths(paths),
            Line::Reading { look, reading } => News::Reading { look, reading },
            Line::Xid(xid) => News::Xid(xid),
            Line::Beat(Beat { mut waiting, .. }) => {
                let deadline = self.settings.deadline.as_millis();
                waiting.retain(|call| u128::from(call.for_ms) >= deadline);
                if waiting.is_empty() {
                    return false;
                }
                (self.news)(News::Hanging(waiting));
                return true;
            }
            Line::Failed { .. } => return false,
        };
        (self.news)(news);
        false
    }

    /// Kills a child and waits a little for it.
    async fn retire(&mut self, mut child: Child) {
        // It may have ended by itself.
        let _ = child.start_kill();
        if timeout(REAP, child.wait()).await.is_err() {
            tracing::warn!(
                pid = child.id(),
                "a killed probe does not go away: it hangs in the kernel"
            );
            self.left_behind.push(child);
        }
    }

    /// Waits until few enough killed children are left.
    async fn bury(&mut self) {
        loop {
            self.left_behind
                .retain_mut(|child| matches!(child.try_wait(), Ok(None)));
            if self.left_behind.len() < MAX_LEFT_BEHIND {
                return;
            }
            sleep(REAP).await;
        }
    }
}

async fn ask(stdin: &mut ChildStdin, number: u64) -> std::io::Result<()> {
    let word = format!("{LOOK_NOW} {number}\n");
    stdin.write_all(word.as_bytes()).await?;
    stdin.flush().await
}

/// Reads lines until the end, or until one cannot be understood.
async fn read(stdout: ChildStdout, lines: mpsc::Sender<Result<Line, String>>) {
    let mut stdout = BufReader::new(stdout);
    let mut text = String::new();
    loop {
        text.clear();
        let most = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX);
        let line = match (&mut stdout).take(most).read_line(&mut text).await {
            Ok(0) => return,
            Ok(_) => Line::decode(&text).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let understood = line.is_ok();
        if lines.send(line).await.is_err() || !understood {
            return;
        }
    }
}
