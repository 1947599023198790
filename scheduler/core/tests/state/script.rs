//! A small language for lifecycles: one command a line, with `key=value` options.
//!
//! ```text
//! at MS | +MS                                   the leader's clock
//! node NAME gpus=4 model=a100 gpu_mem=40 cpu=16 mem=64 ports=100 inc=1 label=k:v
//! submit NAME workers=2 | workers=1..4 gpus=1 (or 0.5) cpu=1 mem=1 types=a100,h100 gpu_mem=40 label=k:v prio=0
//!        gang=no restarts=3 backoff=1000 rule=fence limit=0 keep=3 now=yes key=NUMBER key_at=MS also=GROUP:WORKERS
//! start JOB[@EPOCH] NODE:GPU,GPU … port=20000   several with `then`; `evict JOB[@EPOCH] WHY` before makes a reservation
//! running JOB[@EPOCH] [RANK …]                  all ranks if none is named
//! exit JOB[@EPOCH] CODE [RANK …] [why=TEXT]     node_fault=yes for a start that the node could not do; node=NAME
//! lost NODE | fence NODE [operator=yes] | drain NODE [evict=yes] | undrain NODE
//! xid NODE GPU NUMBER | out NODE GPU lost | back NODE GPU | sign NODE GPU POINTS | forecast NODE GPU PER_MILLE
//! quarantine NODE [GPU] why=TEXT | return NODE [GPU] | review NODE [GPU] | tested NODE [GPU] pass=yes
//! cancel JOB | expire JOB[@EPOCH] | reject JOB
//! checkpoint JOB[@EPOCH] STEP | damaged JOB@EPOCH STEP | progress JOB[@EPOCH] STEP
//! show                                          the state in short
//! repeat N LINE ; LINE …                        N times, and what the last time printed
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_core::apply::{CommandResult, apply};
use berth_core::{Bundle, Command, Eviction, Start, State};
use berth_types::api::{Drain, Progress};
use berth_types::{
    CheckpointRecord, Epoch, Evidence, Finding, GpuShare, HealthOrder, JobId, LostNodeRule, NodeId,
    Outage, Rank, Sign, TaskExit, TaskInventory, TaskKey, TaskPhase, TaskPlacement,
};

use crate::make::{self, GIB};

pub(crate) struct Script {
    pub(crate) state: State,
    now_ms: u64,
    keys: u64,
}

/// A line's words: positional ones and options.
struct Words<'a> {
    words: Vec<&'a str>,
    options: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Self {
        let (options, words): (Vec<_>, Vec<_>) =
            line.split_whitespace().partition(|w| w.contains('='));
        let options = options
            .into_iter()
            .map(|o| o.split_once('=').expect("partitioned"));
        Self {
            words,
            options: options.collect(),
        }
    }

    fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> T {
        match self.options.get(name) {
            Some(text) => text.parse().ok().unwrap_or_else(|| panic!("{name}={text}")),
            None => default,
        }
    }

    fn milli(&self, name: &str, default: f64) -> u32 {
        (self.number(name, default) * 1000.0) as u32
    }

    fn yes(&self, name: &str) -> bool {
        self.options.get(name) == Some(&"yes")
    }

    fn rest(&self, from: usize) -> String {
        self.words.get(from..).unwrap_or_default().join(" ")
    }
}

impl Script {
    pub(crate) fn new() -> Self {
        Self {
            state: State::new(),
            now_ms: 1_000_000,
            keys: 0,
        }
    }

    /// Carries out one line and tells what it did.
    pub(crate) fn line(&mut self, line: &str) -> String {
        let words = Words::of(line);
        let first = words.words[0];
        match first {
            "show" => return self.show(),
            "repeat" => return self.repeat(line),
            "at" => {
                self.now_ms = words.words[1].parse().expect("a time");
                return String::new();
            }
            _ => {}
        }
        if let Some(ms) = first.strip_prefix('+') {
            self.now_ms += ms.parse::<u64>().expect("milliseconds");
            return String::new();
        }
        let command = self.command(line, &words);
        let entry = make::entry(self.now_ms, vec![command]);
        let applied = apply(&mut self.state, 1, &entry);
        let mut out = String::new();
        for result in &applied.results {
            match result {
                CommandResult::Done => {}
                CommandResult::Submitted {
                    duplicate: true,
                    job,
                } => {
                    out += &format!("job {job}, as before\n");
                }
                CommandResult::Submitted { .. } | CommandResult::CertificateIssued { .. } => {}
                CommandResult::Rejected(why) => out += &format!("refused: {why}\n"),
                CommandResult::Bundles(bundles) => {
                    for why in bundles.iter().filter_map(|b| b.as_ref().err()) {
                        out += &format!("refused: {why}\n");
                    }
                }
            }
        }
        for event in &applied.events {
            out += &format!("{}: {}\n", event.kind, event.text);
        }
        if let Err(violations) = self.state.check() {
            panic!("after `{line}`: {violations:#?}");
        }
        out
    }

    fn repeat(&mut self, line: &str) -> String {
        let mut parts = line.splitn(3, ' ').skip(1);
        let times: u32 = parts.next().and_then(|n| n.parse().ok()).expect("a number");
        let lines = parts.next().expect("lines");
        let mut last = String::new();
        for _ in 0..times {
            last = lines.split(" ; ").map(|line| self.line(line)).collect();
        }
        last
    }

    fn command(&mut self, line: &str, words: &Words<'_>) -> Command {
        match words.words[0] {
            "node" => self.node(words),
            "submit" => self.submit(words),
            "start" | "evict" => {
                let mut bundle = Bundle {
                    evictions: Vec::new(),
                    starts: Vec::new(),
                };
                for part in line.split(" then ") {
                    let words = Words::of(part);
                    match words.words[0] {
                        "evict" => bundle.evictions.push(self.eviction(&words)),
                        _ => bundle.starts.push(self.start(&words)),
                    }
                }
                let bundles = vec![bundle];
                Command::ApplyPlan { plan: 1, bundles }
            }
            "running" | "exit" => self.tasks(words),
            "lost" | "fence" | "drain" | "undrain" => self.node_command(words),
            "xid" | "out" | "back" | "sign" | "forecast" | "quarantine" | "return" | "review"
            | "tested" => self.health(words),
            _ => self.job_command(words),
        }
    }

    fn health(&self, words: &Words<'_>) -> Command {
        let node = self.node_id(words.words[1]);
        let gpu: Option<u16> = words.words.get(2).map(|gpu| gpu.parse().expect("a GPU"));
        let number = || words.words[3].parse::<u32>().expect("a number");
        let why = words.options.get("why").unwrap_or(&"").replace('_', " ");
        let evidence = match words.words[0] {
            "quarantine" => {
                let order = HealthOrder::Quarantine { reason: why };
                return Command::OrderHealth { node, gpu, order };
            }
            "return" => {
                let order = HealthOrder::Return;
                return Command::OrderHealth { node, gpu, order };
            }
            "review" => return Command::ReviewHealth { node, gpu },
            "xid" => Evidence::Xid {
                xid: number(),
                at_ms: words.number("seen", self.now_ms),
            },
            "out" => Evidence::Out(match words.words[3] {
                "lost" => Outage::Lost,
                "hangs" => Outage::Unresponsive,
                _ => Outage::ResetRequired,
            }),
            "back" => Evidence::Back,
            "sign" => Evidence::Sign {
                sign: Sign::PcieReplays,
                points: number(),
                text: "packets sent again".into(),
            },
            "forecast" => Evidence::Forecast {
                per_mille: number(),
                text: "errors grow".into(),
            },
            _ => Evidence::Checked {
                number: self.tests(node, gpu),
                passed: words.yes("pass"),
                text: "looked at".into(),
            },
        };
        Command::RecordHealth {
            node,
            findings: vec![Finding { gpu, evidence }],
        }
    }

    fn tests(&self, node: NodeId, gpu: Option<u16>) -> u64 {
        let health = self.state.health.get(&node);
        health.and_then(|h| h.of(gpu)).map_or(0, |h| h.tests)
    }

    fn node(&self, words: &Words<'_>) -> Command {
        let mut spec = make::node(words.words[1], words.number("gpus", 4));
        spec.millicpu = words.milli("cpu", 16.0);
        spec.mem_bytes = words.number("mem", 64u64) * GIB;
        spec.port_count = words.number("ports", 100);
        for gpu in &mut spec.gpus {
            gpu.model = words.options.get("model").unwrap_or(&"a100").to_string();
            gpu.mem_bytes = words.number("gpu_mem", 40u64) * GIB;
        }
        if let Some((k, v)) = words.options.get("label").and_then(|l| l.split_once(':')) {
            spec.labels.insert(k.into(), v.into());
        }
        Command::RegisterNode {
            spec: Arc::new(spec),
            incarnation: words.number("inc", 1),
        }
    }

    fn submit(&mut self, words: &Words<'_>) -> Command {
        let mut spec = make::job(words.words[1], 1);
        let group = &mut spec.groups[0];
        let workers = *words.options.get("workers").unwrap_or(&"1");
        let (min, max) = workers.split_once("..").unwrap_or((workers, workers));
        group.min_workers = min.parse().expect("workers");
        group.max_workers = max.parse().expect("workers");
        group.gang = words.options.get("gang") != Some(&"no");
        group.resources.milligpu = words.milli("gpus", 1.0);
        group.resources.millicpu = words.milli("cpu", 1.0);
        group.resources.mem_bytes = words.number("mem", 1u64) * GIB;
        group.resources.gpu_mem_bytes = words.number("gpu_mem", 0u64) * GIB;
        if let Some(types) = words.options.get("types") {
            group.resources.gpu_types = types.split(',').map(String::from).collect();
        }
        if let Some((k, v)) = words.options.get("label").and_then(|l| l.split_once(':')) {
            group.node_labels.insert(k.into(), v.into());
        }
        if let Some((name, n)) = words.options.get("also").and_then(|a| a.split_once(':')) {
            spec.groups
                .push(make::group(name, n.parse().expect("workers")));
        }
        spec.priority = words.number("prio", 0);
        spec.restart.max_restarts = words.number("restarts", 3);
        spec.restart.backoff_ms = words.number("backoff", 1000);
        spec.restart.on_lost_node = match words.options.get("rule") {
            Some(&"fence") => LostNodeRule::Fence,
            Some(&"wait") => LostNodeRule::Wait,
            _ => LostNodeRule::Restart,
        };
        spec.time_limit_ms = words.number("limit", 0);
        spec.checkpoint.keep = words.number("keep", 3);
        spec.start_now = words.yes("now");
        self.keys += 1;
        let number = words.number("key", self.keys);
        make::submit(make::key(words.number("key_at", self.now_ms), number), spec)
    }

    /// `JOB` or `JOB@EPOCH`; without an epoch the job's newest, plus `ahead`.
    fn job(&self, text: &str, ahead: u32) -> (JobId, Epoch) {
        let (job, epoch) = text.split_once('@').unwrap_or((text, ""));
        let job = JobId(job.parse().expect("a job"));
        let newest = self.state.job(job).map_or(0, |j| j.epoch.0);
        (job, Epoch(epoch.parse().unwrap_or(newest + ahead)))
    }

    fn node_id(&self, name: &str) -> NodeId {
        self.state.node_ids.get(name).copied().unwrap_or(NodeId(99))
    }

    fn eviction(&self, words: &Words<'_>) -> Eviction {
        let (job, epoch) = self.job(words.words[1], 0);
        let reason = words.rest(2);
        Eviction { job, epoch, reason }
    }

    fn start(&self, words: &Words<'_>) -> Start {
        let (job, epoch) = self.job(words.words[1], 1);
        let spec = self.state.job(job).map(|j| Arc::clone(&j.spec));
        let share = spec
            .as_ref()
            .map_or(1000, |s| s.groups[0].resources.milligpu.min(1000));
        let first_group = words.number("first_group", u32::MAX);
        let placements = words.words[2..].iter().zip(0u32..).map(|(place, rank)| {
            let (node, gpus) = place.split_once(':').unwrap_or((place, ""));
            let gpus = gpus.split(',').filter(|g| !g.is_empty());
            TaskPlacement {
                rank: Rank(rank),
                group: u16::from(rank >= first_group),
                node: self.node_id(node),
                gpus: gpus
                    .map(|g| GpuShare {
                        gpu: g.parse().expect("a GPU"),
                        milligpu: words.number("share", share),
                    })
                    .collect(),
            }
        });
        Start {
            job,
            epoch,
            placements: placements.collect(),
            master_port: words.number("port", 20_000 + (job.0 % 1000) as u16),
            because: String::new(),
        }
    }

    fn tasks(&self, words: &Words<'_>) -> Command {
        let (job, epoch) = self.job(words.words[1], 0);
        let exits = words.words[0] == "exit";
        let ranks: Vec<u32> = words.words[2 + usize::from(exits)..]
            .iter()
            .map(|r| r.parse().expect("a rank"))
            .collect();
        let record = self.state.job(job);
        let attempt = record.and_then(|j| j.attempt.as_deref().cloned());
        let tasks = attempt.map_or(Vec::new(), |a| a.tasks);
        let ranks: Vec<u32> = if ranks.is_empty() {
            let live = tasks
                .iter()
                .filter(|t| !matches!(t.phase, TaskPhase::Ended { .. }));
            live.map(|t| t.placement.rank.0).collect()
        } else {
            ranks
        };
        let inventory = if exits {
            TaskInventory::Ended(TaskExit {
                code: words.words[2].parse().expect("a code"),
                at_ms: self.now_ms,
                reason: words.options.get("why").unwrap_or(&"").replace('_', " "),
                node_fault: words.yes("node_fault"),
            })
        } else {
            let since_ms = self.now_ms;
            TaskInventory::Running { since_ms }
        };
        let named = words.options.get("node").map(|n| self.node_id(n));
        // Sent per node in reality; here each rank is said by the node that has it, so only one node per line counts.
        let first = ranks.first().and_then(|r| tasks.get(*r as usize));
        let node = named
            .or(first.map(|t| t.placement.node))
            .unwrap_or(NodeId(1));
        let key = |rank| TaskKey {
            job,
            epoch,
            rank: Rank(rank),
        };
        let tasks = ranks.into_iter().map(|r| (key(r), inventory.clone()));
        Command::RecordTasks {
            node,
            tasks: tasks.collect(),
        }
    }

    fn node_command(&self, words: &Words<'_>) -> Command {
        let node = self.node_id(words.words[1]);
        match words.words[0] {
            "lost" => Command::MarkNodeLost {
                node,
                reason: "no contact for 4 s".into(),
            },
            "fence" => Command::FenceNode {
                node,
                by_operator: words.yes("operator"),
            },
            "drain" => Command::SetDrain {
                node,
                drain: Some(Drain {
                    reason: "maintenance".into(),
                    evict: words.yes("evict"),
                }),
            },
            _ => Command::SetDrain { node, drain: None },
        }
    }

    fn job_command(&self, words: &Words<'_>) -> Command {
        let (job, epoch) = self.job(words.words[1], 0);
        let step = || words.words[2].parse::<u64>().expect("a step");
        match words.words[0] {
            "cancel" => Command::CancelJob {
                job,
                user: "bob".into(),
            },
            "expire" => Command::ExpireAttempt { job, epoch },
            "reject" => Command::RejectJob {
                job,
                reason: "no GPU is free".into(),
            },
            "checkpoint" => Command::RecordCheckpoint {
                job,
                record: CheckpointRecord {
                    epoch,
                    step: step(),
                    path: format!("/ckpt/{job}/{epoch}/{}", step()),
                    bytes: 1000,
                    manifest_sha256: "ab".repeat(32),
                    save_ms: 5,
                },
            },
            "damaged" => Command::RejectCheckpoint {
                job,
                epoch,
                step: step(),
                reason: "sha256 differs".into(),
            },
            "progress" => Command::RecordProgress {
                progress: vec![(
                    job,
                    epoch,
                    Progress {
                        step: step(),
                        at_ms: self.now_ms,
                        ..Progress::default()
                    },
                )],
            },
            other => panic!("no command `{other}`"),
        }
    }

    fn show(&self) -> String {
        let mut out = format!("time {}\n", self.state.time_ms);
        for job in self.state.jobs.values() {
            out += &format!("job {} {:?} epoch {}", job.id, job.state(), job.epoch);
            if job.not_before_ms > self.state.time_ms {
                out += &format!(" not before {}", job.not_before_ms);
            }
            if job.restarts > 0 {
                out += &format!(" restarts {}", job.restarts);
            }
            if let Some(attempt) = &job.attempt {
                let ended = |p| matches!(p, TaskPhase::Ended { .. });
                let live = attempt.tasks.iter().filter(|t| !ended(t.phase)).count();
                out += &format!(" tasks {live}/{}", attempt.tasks.len());
            }
            if let Some(step) = job.checkpoints.first().map(|c| c.step) {
                out += &format!(" newest checkpoint {step} of {}", job.checkpoints.len());
            }
            out.push('\n');
        }
        let queue: Vec<String> = self
            .state
            .pending
            .iter()
            .map(|k| k.job.to_string())
            .collect();
        if !queue.is_empty() {
            out += &format!("queue {}\n", queue.join(" "));
        }
        for node in self.state.nodes.values() {
            let gpus: Vec<String> = node
                .gpus
                .iter()
                .map(|g| match g.reserved {
                    0 => g.milligpu.to_string(),
                    kept => format!("{}+{kept}", g.milligpu),
                })
                .collect();
            out += &format!(
                "node {} {:?} gpus {} cpu {} mem {} tasks {} ports {:?}\n",
                node.name(),
                node.state(),
                gpus.join(","),
                node.used_millicpu,
                node.used_mem_bytes / GIB,
                node.jobs.values().sum::<u32>(),
                node.ports.keys().collect::<Vec<_>>(),
            );
        }
        let [completed, failed, cancelled, timed_out] = self.state.finished_by_class;
        out += &format!(
            "finished {completed} completed, {failed} failed, {cancelled} cancelled, {timed_out} timed out\n"
        );
        out
    }
}
