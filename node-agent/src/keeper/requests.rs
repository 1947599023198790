//! What the keeper does on each request, and when a task ends.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use berth_types::TaskKey;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process_group, pidfd_open, waitpid,
};

use crate::cgroup::Limits;
use crate::keeper::connection::{Connection, ConnectionError};
use crate::keeper::protocol::{
    ExitRecord, Kept, MAX_REASON_BYTES, OLDEST_VERSION, PROTOCOL_VERSION, Reply, Request,
    SpawnRequest, truncate,
};
use crate::keeper::records::Record;
use crate::keeper::server::{Held, HeldPhase, Keeper, RunningTask, Source, now_ms};
use crate::keeper::spawn;

/// Longest lease and grace taken seriously; keeps clock arithmetic in range.
const MOST_MS: u64 = 365 * 24 * 3600 * 1000;
/// Pause between kills of tasks that do not go away.
const KILL_AGAIN: Duration = Duration::from_secs(1);

impl Keeper {
    pub(crate) fn on_request(
        &mut self,
        client: &mut Connection,
        request: Request,
    ) -> Result<(), ConnectionError> {
        match request {
            Request::Hello { version } => {
                client.send(&Reply::Hello {
                    version: version.min(PROTOCOL_VERSION),
                    incarnation: self.incarnation,
                    pid: std::process::id(),
                })?;
                if version > OLDEST_VERSION {
                    client.send(&self.confinement.reply())?;
                }
            }
            Request::List => {
                self.retire_other_clients();
                // Announcements that are still held back are part of the state, but not durable yet.
                let tasks = self.list();
                client.subscribed = true;
                client.send(&Reply::State { tasks })?;
            }
            Request::Spawn(spawn) => self.on_spawn(*spawn, Limits::default()),
            Request::SpawnWithin { spawn, limits } => self.on_spawn(*spawn, limits),
            Request::Signal { key, kill, by_node } => {
                if by_node {
                    self.blame_node(key);
                }
                self.signal(key, kill);
            }
            Request::Record { key, exit } => self.on_record(key, exit),
            Request::Forget { keys } => keys.into_iter().for_each(|key| self.on_forget(key)),
            Request::Lease { ms } => {
                self.lease_over = Some(Instant::now() + Duration::from_millis(ms.min(MOST_MS)));
            }
            Request::Shutdown { grace_ms } => {
                client.subscribed = true;
                self.on_shutdown(grace_ms);
            }
        }
        Ok(())
    }

    /// A new agent speaks: what an earlier one has left in its socket is older and comes first, so that the new one is
    /// never surprised by it.
    fn retire_other_clients(&mut self) {
        let agents = self.clients.iter().filter(|(_, client)| client.subscribed);
        let tokens: Vec<u64> = agents.map(|(token, _)| *token).collect();
        for token in tokens {
            let Some(mut client) = self.clients.remove(&token) else {
                continue;
            };
            self.sources.remove(&token);
            // Its end is what is expected of it; what came before the end has been taken.
            while let Ok(requests) = client.receive() {
                if requests.is_empty() {
                    break;
                }
                for request in requests {
                    let _ = self.on_request(&mut client, request);
                }
            }
        }
    }

    fn list(&self) -> Vec<Kept> {
        let undurable: Vec<TaskKey> = self
            .announcements
            .iter()
            .filter_map(|reply| match reply {
                Reply::Exited { key, .. } => Some(*key),
                _ => None,
            })
            .collect();
        self.tasks
            .iter()
            .map(|(key, held)| {
                let (running, exit) = match &held.phase {
                    HeldPhase::Running(r) => (Some((r.pid, r.since_ms)), None),
                    // Its end follows as an announcement.
                    HeldPhase::Ended(exit) if undurable.contains(key) => {
                        (Some((0, exit.at_ms)), None)
                    }
                    HeldPhase::Ended(exit) => (None, Some(exit.clone())),
                };
                Kept {
                    key: *key,
                    memo: held.memo.clone(),
                    running,
                    exit,
                }
            })
            .collect()
    }

    fn note(&mut self, record: &Record) {
        if let Err(error) = self.records.push(record) {
            tracing::error!(%error, "a record cannot be encoded");
        }
    }

    fn on_spawn(&mut self, request: SpawnRequest, limits: Limits) {
        let key = request.key;
        if let Some(held) = self.tasks.get(&key) {
            let again = match &held.phase {
                HeldPhase::Running(r) => Reply::Spawned {
                    key,
                    pid: r.pid,
                    at_ms: r.since_ms,
                },
                HeldPhase::Ended(exit) => Reply::Exited {
                    key,
                    exit: exit.clone(),
                },
            };
            self.announce_soon(again);
            return;
        }
        if self.stopping.is_some() {
            return;
        }
        // On disk before there is a process, so that a dead keeper's successor knows of it.
        self.note(&Record::Starting { key });
        if let Err(error) = self.records.write() {
            tracing::error!(%error, "the records cannot be written");
            let exit = node_fault("the keeper cannot write its records");
            self.end(key, request.memo, exit);
            return;
        }
        let at_ms = now_ms();
        let started = match self.confinement.make(key, &limits) {
            Ok(procs) => spawn::spawn(&request, &self.null, procs, at_ms),
            Err(reason) => Err(node_fault(&reason)),
        };
        match started {
            Ok(pid) => self.on_started(request, pid, at_ms, limits),
            Err(exit) => {
                self.confinement.end(key);
                self.end(key, request.memo, exit);
            }
        }
    }

    fn on_started(&mut self, request: SpawnRequest, pid: u32, since_ms: u64, limits: Limits) {
        let key = request.key;
        let boot_ms = self.clock.now_ms();
        let process = to_pid(pid);
        let watched = pidfd_open(process, PidfdFlags::empty())
            .and_then(|pidfd| Ok((self.watch(&pidfd, Source::Task(key))?, pidfd)));
        match watched {
            Ok((token, pidfd)) => {
                self.note(&Record::Running { key, pid, boot_ms });
                self.announce_soon(Reply::Spawned {
                    key,
                    pid,
                    at_ms: since_ms,
                });
                let running = RunningTask {
                    pid,
                    since_ms,
                    boot_ms,
                    _pidfd: pidfd,
                    token,
                    by_node: false,
                    limits,
                };
                let held = Held {
                    memo: request.memo,
                    fence: request.fence,
                    phase: HeldPhase::Running(running),
                };
                self.tasks.insert(key, held);
            }
            Err(error) => {
                // Unwatched it would be lost: take it back.
                let _ = kill_process_group(process, Signal::KILL);
                let _ = waitpid(Some(process), WaitOptions::empty());
                self.confinement.end(key);
                let exit = node_fault(&format!("the keeper cannot watch a process: {error}"));
                self.end(key, request.memo, exit);
            }
        }
    }

    /// A task's first process has ended: whatever else is in its group ends with it.
    pub(crate) fn on_ended(&mut self, key: TaskKey) {
        let Some(Held {
            memo,
            phase: HeldPhase::Running(running),
            ..
        }) = self.tasks.get(&key)
        else {
            return;
        };
        let (pid, token, memo) = (to_pid(running.pid), running.token, memo.clone());
        let (by_node, limits) = (running.by_node, running.limits);
        // Before it is reaped, so that its number cannot be another group's.
        let _ = kill_process_group(pid, Signal::KILL);
        let mut exit = match waitpid(Some(pid), WaitOptions::NOHANG) {
            Ok(Some((_, status))) => {
                spawn::exit_record(ExitStatus::from_raw(status.as_raw()), now_ms())
            }
            Ok(None) => return,
            Err(error) => node_fault(&format!("its status cannot be read: {error}")),
        };
        self.confinement.tell_memory(key, &limits, &mut exit);
        self.confinement.end(key);
        if by_node {
            exit.node_fault = true;
            exit.reason = "ended by its node when the lease was over".to_owned();
        }
        self.sources.remove(&token);
        self.end(key, memo, exit);
    }

    /// The node ends this task for its lease: that is neither the job's failure nor its success.
    fn blame_node(&mut self, key: TaskKey) {
        if let Some(Held {
            phase: HeldPhase::Running(running),
            ..
        }) = self.tasks.get_mut(&key)
        {
            running.by_node = true;
        }
    }

    fn end(&mut self, key: TaskKey, memo: Vec<u8>, mut exit: ExitRecord) {
        truncate(&mut exit.reason, MAX_REASON_BYTES);
        self.note(&Record::Ended {
            key,
            exit: exit.clone(),
        });
        self.must_sync = true;
        self.announcements.push(Reply::Exited {
            key,
            exit: exit.clone(),
        });
        let held = Held {
            memo,
            fence: false,
            phase: HeldPhase::Ended(exit),
        };
        self.tasks.insert(key, held);
    }

    fn on_record(&mut self, key: TaskKey, exit: ExitRecord) {
        match self.tasks.get(&key).map(|held| &held.phase) {
            None => self.end(key, Vec::new(), exit),
            Some(HeldPhase::Ended(exit)) => {
                let exit = exit.clone();
                self.announce_soon(Reply::Exited { key, exit });
            }
            // It has a process after all; its own end will be announced.
            Some(HeldPhase::Running(_)) => {}
        }
    }

    fn on_forget(&mut self, key: TaskKey) {
        let ended = self
            .tasks
            .get(&key)
            .is_some_and(|held| matches!(held.phase, HeldPhase::Ended(_)));
        if ended {
            self.tasks.remove(&key);
            self.note(&Record::Forgotten { key });
        }
    }

    fn signal(&self, key: TaskKey, kill: bool) {
        let signal = if kill { Signal::KILL } else { Signal::TERM };
        if let Some(Held {
            phase: HeldPhase::Running(running),
            ..
        }) = self.tasks.get(&key)
        {
            // The number is ours until the task is reaped.
            let _ = kill_process_group(to_pid(running.pid), signal);
            if kill {
                self.confinement.kill(key);
            }
        }
    }

    /// Without a renewed lease the `fence` tasks are killed, also while the agent is dead; so are those that start
    /// late.
    pub(crate) fn enforce_lease(&mut self) {
        if self.lease_over.is_none_or(|over| Instant::now() < over) {
            return;
        }
        let fenced: Vec<TaskKey> = self.running_fenced().collect();
        if !fenced.is_empty() {
            tracing::warn!(
                tasks = fenced.len(),
                "the lease is over: `fence` tasks are killed"
            );
            self.lease_over = Some(Instant::now() + KILL_AGAIN);
        }
        for key in fenced {
            self.blame_node(key);
            self.signal(key, true);
        }
    }

    /// Running tasks that the lease is about.
    pub(crate) fn running_fenced(&self) -> impl Iterator<Item = TaskKey> {
        self.tasks
            .iter()
            .filter(|(_, held)| held.fence && matches!(held.phase, HeldPhase::Running(_)))
            .map(|(key, _)| *key)
    }

    fn on_shutdown(&mut self, grace_ms: u64) {
        tracing::info!(grace_ms, "asked to end all tasks");
        self.stopping = Some(Instant::now() + Duration::from_millis(grace_ms.min(MOST_MS)));
        self.signal_all(false);
    }

    pub(crate) fn enforce_stop(&mut self) {
        if self
            .stopping
            .is_some_and(|kill_at| Instant::now() >= kill_at)
        {
            self.signal_all(true);
            self.stopping = Some(Instant::now() + KILL_AGAIN);
        }
    }

    fn signal_all(&self, kill: bool) {
        for key in self.tasks.keys() {
            self.signal(*key, kill);
        }
    }
}

fn to_pid(pid: u32) -> Pid {
    let raw = i32::try_from(pid).expect("the system's process ids fit");
    Pid::from_raw(raw).expect("a child's process id is not 0")
}

fn node_fault(reason: &str) -> ExitRecord {
    ExitRecord {
        code: -1,
        at_ms: now_ms(),
        reason: reason.to_owned(),
        node_fault: true,
    }
}
