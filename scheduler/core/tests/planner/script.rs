//! The language of the planner's scripts.
//!
//! ```text
//! node NAME [gpus=8] [model=a100] [rack=R] [links=4] [cpus=64] [mem=512] [label.K=V] [ports=100]
//! job NAME [workers=1|MIN..MAX] [gpus=1] [cpus=0] [mem=0] [types=a,b] [gpumem=0] [label.K=V] [prio=0]
//!          [limit=S] [expected=S] [now] [+ workers=… for another group]
//! plan [greedy|strict]        prints a plan and forgets it
//! round [greedy|strict]       prints a plan and carries it out; the tasks run at once
//! propose ACTION…             the same for one bundle: start:JOB[:N] stop:JOB resize:JOB:N wait:JOB
//! at S                        moves the clock to S seconds
//! end JOB [CODE] | fault JOB   tasks end; they could not start, and the node is to blame
//! stopped                     tasks that were asked to stop end
//! drain NODE [evict] | undrain NODE | lose NODE
//! why JOB | use
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;

use berth_core::planner::{HeadReservation, Plan, why};
use berth_core::policy::{Action, Backfill, Proposal, ProposedBundle};
use berth_core::state::Job;
use berth_core::{Command, Start};
use berth_types::api::Drain;
use berth_types::{GpuShare, GroupSpec, JobId, JobSpec, NodeId, NodeSpec};

use crate::lab::{self, GIB, Lab, START_MS};

pub(crate) struct Script {
    lab: Lab,
    jobs: BTreeMap<String, JobId>,
    last: Plan,
}

impl Script {
    pub(crate) fn new() -> Self {
        Self {
            lab: Lab::new(),
            jobs: BTreeMap::new(),
            last: Plan::default(),
        }
    }

    /// Carries out a line and returns what it prints.
    pub(crate) fn line(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (verb, rest) = words.split_first().expect("a line has a word");
        match *verb {
            "node" => self.node(rest),
            "job" => self.job(rest),
            "plan" => self.round(rest, false),
            "round" => self.round(rest, true),
            "propose" => self.propose(rest),
            "at" => {
                self.lab.now_ms = START_MS + 1_000 * number(rest[0]);
                String::new()
            }
            "end" => {
                let code = rest.get(1).map_or(0, |code| number(code));
                let job = self.jobs[rest[0]];
                self.lab.end(job, i32::try_from(code).expect("a code"));
                String::new()
            }
            "fault" => {
                self.lab.fault(self.jobs[rest[0]]);
                String::new()
            }
            "stopped" => {
                self.lab.stop_stopping();
                String::new()
            }
            "drain" | "undrain" => self.drain(verb, rest),
            "lose" => {
                let node = self.node_id(rest[0]);
                let reason = "silent".to_owned();
                self.lab.commit(Command::MarkNodeLost { node, reason });
                String::new()
            }
            "why" => self.why(rest[0]),
            "use" => self.usage(),
            other => panic!("no such verb: {other}"),
        }
    }

    fn node(&mut self, words: &[&str]) -> String {
        let options = Options::of(&words[1..]);
        let gpus = u16::try_from(options.number("gpus", 8)).expect("few GPUs");
        let mut spec: NodeSpec = lab::node(words[0], gpus, options.text("model", "a100"));
        let links = u16::try_from(options.number("links", 4)).expect("few links");
        for (index, gpu) in (0u16..).zip(&mut spec.gpus) {
            gpu.nvlink_group = index / links;
            gpu.mem_bytes = options.number("gpumem", 40) * GIB;
        }
        spec.rack = options.text("rack", "").to_owned();
        spec.millicpu = u32::try_from(1_000 * options.number("cpus", 64)).expect("few CPUs");
        spec.mem_bytes = options.number("mem", 512) * GIB;
        spec.port_count = u16::try_from(options.number("ports", 100)).expect("few ports");
        spec.labels = options.labels();
        self.lab.add_node(spec);
        String::new()
    }

    fn job(&mut self, words: &[&str]) -> String {
        let mut spec = JobSpec {
            groups: words[1..].split(|word| *word == "+").map(group).collect(),
            ..lab::job(1, 0)
        };
        for (index, group) in spec.groups.iter_mut().enumerate() {
            group.name = format!("g{index}");
        }
        let options = Options::of(&words[1..]);
        spec.name = words[0].to_owned();
        spec.priority = i32::try_from(options.number("prio", 0)).expect("small");
        spec.time_limit_ms = 1_000 * options.number("limit", 0);
        spec.expected_ms = 1_000 * options.number("expected", 0);
        spec.start_now = words.contains(&"now");
        match self.lab.submit(spec) {
            Ok(job) => {
                self.jobs.insert(words[0].to_owned(), job);
                String::new()
            }
            Err(rejection) => format!("refused: {rejection}\n"),
        }
    }

    fn round(&mut self, words: &[&str], commits: bool) -> String {
        let backfill = match words.first() {
            Some(&"greedy") => Backfill::Greedy,
            Some(&"strict") => Backfill::Strict,
            _ => Backfill::BehindReservation,
        };
        let proposal = lab::in_order(&self.lab.state, backfill);
        self.show(&proposal, commits)
    }

    fn propose(&mut self, words: &[&str]) -> String {
        let action = |word: &&str| {
            let parts: Vec<&str> = word.split(':').collect();
            let job = self.jobs[parts[1]];
            let workers = parts
                .get(2)
                .map(|n| vec![u32::try_from(number(n)).expect("small")]);
            match parts[0] {
                "start" => Action::Start {
                    job,
                    workers,
                    slots: None,
                },
                "stop" => Action::Stop(job),
                "wait" => Action::Wait(job),
                "keep" => Action::Keep(job),
                "resize" => Action::Resize {
                    job,
                    workers: workers.expect("resize:JOB:N"),
                    slots: None,
                },
                other => panic!("no such action: {other}"),
            }
        };
        let bundle = ProposedBundle {
            actions: words.iter().map(action).collect(),
            score: 0.0,
            reason: String::new(),
        };
        let proposal = Proposal {
            bundles: vec![bundle],
            backfill: Backfill::BehindReservation,
            ..Proposal::default()
        };
        self.show(&proposal, true)
    }

    fn show(&mut self, proposal: &Proposal, commits: bool) -> String {
        let plan = self.lab.plan(proposal);
        let text = self.print(&plan);
        if commits {
            self.lab.carry_out(&plan);
            for start in plan
                .bundles
                .iter()
                .filter(|b| b.evictions.is_empty())
                .flat_map(|b| &b.starts)
            {
                self.lab.run(start.job);
            }
        }
        self.last = plan;
        text
    }

    fn print(&self, plan: &Plan) -> String {
        let mut out = String::new();
        for bundle in &plan.bundles {
            for eviction in &bundle.evictions {
                let _ = writeln!(
                    out,
                    "evict {}: {}",
                    self.name(eviction.job),
                    eviction.reason
                );
            }
            let verb = if bundle.evictions.is_empty() {
                "start"
            } else {
                "reserve"
            };
            for start in &bundle.starts {
                let _ = writeln!(out, "{verb} {}", self.start(start));
            }
        }
        for (job, reason) in &plan.rejects {
            let _ = writeln!(out, "reject {}: {reason}", self.name(*job));
        }
        for told in plan.reservation.iter().chain(&plan.further) {
            let _ = writeln!(out, "promise {}", self.promise(told));
        }
        for (job, reason) in &plan.waiting {
            let _ = writeln!(
                out,
                "wait {}: {}: {}",
                self.name(*job),
                reason.code,
                reason.text
            );
        }
        if plan.stats.refused > 0 {
            let _ = writeln!(out, "refused {}", plan.stats.refused);
        }
        out
    }

    fn start(&self, start: &Start) -> String {
        let mut places: Vec<String> = Vec::new();
        for task in &start.placements {
            let gpus: Vec<String> = task.gpus.iter().map(share).collect();
            let group = if task.group > 0 {
                format!("g{} ", task.group)
            } else {
                String::new()
            };
            places.push(format!(
                "{group}{}[{}]",
                self.node_name(task.node),
                gpus.join(",")
            ));
        }
        format!(
            "{}: {}\n  {}",
            self.name(start.job),
            places.join(" "),
            start.because
        )
    }

    fn promise(&self, told: &HeadReservation) -> String {
        let nodes: Vec<&str> = told
            .nodes
            .iter()
            .map(|node| self.node_name(*node))
            .collect();
        let jobs: Vec<&str> = told.waits_for.iter().map(|job| self.name(*job)).collect();
        let when = told.start_ms.map_or("some time".to_owned(), |ms| {
            format!("{} s", ms.saturating_sub(START_MS) / 1_000)
        });
        format!(
            "{}: {} at {when} after {}",
            self.name(told.job),
            nodes.join(" "),
            jobs.join(" ")
        )
    }

    fn drain(&mut self, verb: &str, words: &[&str]) -> String {
        let node = self.node_id(words[0]);
        let drain = (verb == "drain").then(|| Drain {
            reason: "repair".to_owned(),
            evict: words.contains(&"evict"),
        });
        self.lab.commit(Command::SetDrain { node, drain });
        String::new()
    }

    fn why(&self, name: &str) -> String {
        let job: &Job = self
            .lab
            .state
            .job(self.jobs[name])
            .expect("it is unfinished");
        let told = self.last.waiting.get(&job.id);
        let parts = why(&self.lab.state, job, told, self.lab.now_ms);
        let mut out = format!("{}: {}\n", parts.reason, parts.text);
        if !parts.unblock.is_empty() {
            let _ = writeln!(out, "  would start with: {}", parts.unblock);
        }
        if let Some(ahead) = parts.ahead {
            let _ = writeln!(out, "  ahead: {ahead}");
        }
        for line in parts.evidence {
            let _ = writeln!(out, "  {line}");
        }
        out
    }

    /// Free thousandths by GPU.
    fn usage(&self) -> String {
        let mut out = String::new();
        for node in self.lab.state.nodes.values() {
            let gpus: Vec<String> = (node.gpus.iter())
                .map(|gpu| match (gpu.milligpu, gpu.reserved) {
                    (used, 0) => used.to_string(),
                    (used, reserved) => format!("{used}+{reserved}"),
                })
                .collect();
            let _ = writeln!(out, "{}: {}", node.spec.name, gpus.join(" "));
        }
        out
    }

    fn name(&self, job: JobId) -> &str {
        let found = self.jobs.iter().find(|(_, id)| **id == job);
        found.map_or("?", |(name, _)| name)
    }

    fn node_id(&self, name: &str) -> NodeId {
        self.lab.state.node_named(name).expect("a known node").id
    }

    fn node_name(&self, node: NodeId) -> &str {
        self.lab
            .state
            .nodes
            .get(&node)
            .map_or("?", |node| node.spec.name.as_str())
    }
}

fn share(share: &GpuShare) -> String {
    match share.milligpu {
        1_000 => share.gpu.to_string(),
        part => format!("{}:{part}", share.gpu),
    }
}

fn group(words: &[&str]) -> GroupSpec {
    let options = Options::of(words);
    let gpus: f64 = options.text("gpus", "1").parse().expect("a number of GPUs");
    let mut group = lab::group(1, (gpus * 1_000.0).round() as u32);
    let workers = options.text("workers", "1");
    let (least, most) = workers.split_once("..").unwrap_or((workers, workers));
    group.min_workers = u32::try_from(number(least)).expect("small");
    group.max_workers = u32::try_from(number(most)).expect("small");
    let resources = &mut group.resources;
    resources.millicpu = u32::try_from(1_000 * options.number("cpus", 0)).expect("few CPUs");
    resources.mem_bytes = options.number("mem", 0) * GIB;
    resources.gpu_mem_bytes = options.number("gpumem", 0) * GIB;
    let types = options.text("types", "").split(',');
    resources.gpu_types = types.filter(|t| !t.is_empty()).map(str::to_owned).collect();
    group.node_labels = options.labels();
    group
}

fn number(text: &str) -> u64 {
    text.parse()
        .unwrap_or_else(|_| panic!("`{text}` is no number"))
}

/// Words of the form `key=value`.
struct Options<'w>(BTreeMap<&'w str, &'w str>);

impl<'w> Options<'w> {
    fn of(words: &[&'w str]) -> Self {
        Self(
            words
                .iter()
                .filter_map(|word| word.split_once('='))
                .collect(),
        )
    }

    fn text(&self, key: &str, default: &'w str) -> &'w str {
        self.0.get(key).copied().unwrap_or(default)
    }

    fn number(&self, key: &str, default: u64) -> u64 {
        self.0.get(key).map_or(default, |text| number(text))
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let labels = self
            .0
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix("label.")?, value)));
        labels
            .map(|(key, value)| (key.to_owned(), (*value).to_owned()))
            .collect()
    }
}
