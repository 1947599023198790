//! What reading 8 GPUs once a second costs, and whether calls that hang delay anything.
//!
//! `cargo run --release -p berth-agent --example telemetry_cost`
//!
//! A real agent with its probe on the library with scenarios, and a master that answers each message. First everything
//! is well; then every call on one GPU hangs; then every call on all of them. Prints the share of a core and the memory
//! of the agent and its probe, and the times between two heartbeats as the master sees them.

#![allow(clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use berth_fake_nvml::Stage;
use berth_fake_nvml::scenario::{Hang, Scenario};
use berth_proto::v1;
use berth_proto::v1::agents_server::{Agents, AgentsServer};
use berth_proto::v1::master_message::Kind;
use berth_types::Directive;
use clap::Parser;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

/// What `/proc` counts in.
const TICKS_PER_S: f64 = 100.0;

#[derive(Parser)]
struct Arguments {
    /// GPUs of the machine.
    #[arg(long, default_value_t = 8)]
    gpus: u32,
    /// Seconds of each part.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The agent's program; beside this one if absent.
    #[arg(long)]
    agent: Option<PathBuf>,
}

/// When messages came.
type Beats = Arc<Mutex<Vec<Instant>>>;

struct Master(Beats);

#[tonic::async_trait]
impl Agents for Master {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<v1::MasterMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (out, messages) = mpsc::channel(64);
        let beats = Arc::clone(&self.0);
        let mut stream = request.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(_)) = stream.next().await {
                if let Ok(mut beats) = beats.lock() {
                    beats.push(Instant::now());
                }
                let directive = Directive {
                    cluster_id: 7,
                    term: 1,
                    applied: 1,
                    lease_ms: 30_000,
                    ..Directive::default()
                };
                let kind = Some(Kind::Directive((&directive).into()));
                if out.send(Ok(v1::MasterMessage { kind })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

/// A process that is ended with this.
struct Agent {
    child: Child,
    program: PathBuf,
    data: PathBuf,
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
        let _ = Command::new(&self.program)
            .args(["keeper-stop", "--grace", "0s", "--dir"])
            .arg(&self.data)
            .stderr(Stdio::null())
            .status();
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure(&arguments))
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut stage = Stage::new(dir.path());
    let mut scenario = Scenario::healthy(arguments.gpus);
    stage.play(&scenario)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let beats = Beats::default();
    let service = AgentsServer::new(Master(Arc::clone(&beats)));
    let serving = tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(serving);
    let agent = start(arguments, dir.path(), &stage, &address.to_string())?;
    // The start itself is not measured.
    tokio::time::sleep(Duration::from_secs(5)).await;
    println!(
        "{} GPUs, a reading each second, {} s for each row; heartbeats are due every 1000 ms\n",
        arguments.gpus, arguments.seconds
    );
    println!(
        "| calls | agent, of a core | probe, of a core | agent and probe RSS | heartbeats | median | longest |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    row("all return", arguments, &agent, &beats).await?;
    let hang = |gpu| Hang {
        call: "*".into(),
        gpu,
        from: 0.0,
        until: None,
    };
    scenario.hang = vec![hang(Some(arguments.gpus / 2))];
    stage.play(&scenario)?;
    row("all on one GPU hang", arguments, &agent, &beats).await?;
    scenario.hang = vec![hang(None)];
    stage.play(&scenario)?;
    row("all on all GPUs hang", arguments, &agent, &beats).await
}

fn start(arguments: &Arguments, dir: &Path, stage: &Stage, master: &str) -> Result<Agent> {
    let beside = std::env::current_exe()?
        .parent()
        .and_then(Path::parent)
        .map(|target| target.join("berth-agent"));
    let program = arguments
        .agent
        .clone()
        .or(beside)
        .context("no agent's program")?;
    if !program.is_file() {
        bail!(
            "{} is not there: cargo build --release -p berth-agent",
            program.display()
        );
    }
    let library = berth_fake_nvml::library().map_err(anyhow::Error::msg)?;
    let data = dir.join("data");
    let config = format!(
        "name = \"n1\"\nmasters = [{master:?}]\ndata_dir = {data:?}\ngpus = \"auto\"\nmetrics = \"127.0.0.1:0\"\n[telemetry]\nlibrary = {library:?}\n"
    );
    let path = dir.join("agent.toml");
    std::fs::write(&path, config)?;
    let child = Command::new(&program)
        .arg("--config")
        .arg(&path)
        .env("FAKE_NVML_SCENARIO", stage.file())
        .env("BERTH_LOG", "warn")
        .stderr(std::fs::File::create(dir.join("agent.log"))?)
        .spawn()?;
    Ok(Agent {
        child,
        program,
        data,
    })
}

/// Measures for a while and prints a line.
async fn row(name: &str, arguments: &Arguments, agent: &Agent, beats: &Beats) -> Result<()> {
    let pid = agent.child.id();
    let (own, began) = (cpu_s(pid)?, Instant::now());
    let mut probes = Probes::default();
    if let Ok(mut beats) = beats.lock() {
        beats.clear();
    }
    let mut rss = 0;
    while began.elapsed() < Duration::from_secs(arguments.seconds) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        probes.look(pid);
        rss = rss.max(
            rss_kib(pid)
                + probes
                    .alive
                    .iter()
                    .map(|(pid, _)| rss_kib(*pid))
                    .sum::<u64>(),
        );
    }
    let seconds = began.elapsed().as_secs_f64();
    let agent_share = (cpu_s(pid)? - own) / seconds;
    let probe_share = probes.spent_s() / seconds;
    let times = beats.lock().map(|beats| beats.clone()).unwrap_or_default();
    let mut gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort();
    let (Some(middle), Some(longest)) = (gaps.get(gaps.len() / 2), gaps.last()) else {
        bail!("no heartbeats came");
    };
    println!(
        "| {name} | {:.2} % | {:.2} % | {:.1} MiB | {} | {} ms | {} ms |",
        agent_share * 100.0,
        probe_share * 100.0,
        rss as f64 / 1024.0,
        gaps.len() + 1,
        middle.as_millis(),
        longest.as_millis(),
    );
    Ok(())
}

/// The probes of an agent, also those that were replaced meanwhile.
#[derive(Default)]
struct Probes {
    /// Those that are there: what each had used when it was first seen, and now.
    alive: Vec<(u32, (f64, f64))>,
    ended_s: f64,
}

impl Probes {
    fn look(&mut self, agent: u32) {
        let children = std::fs::read_to_string(format!("/proc/{agent}/task/{agent}/children"));
        let there: Vec<u32> = children
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .filter(|pid| is_probe(*pid))
            .collect();
        let first = self.alive.is_empty() && self.ended_s == 0.0;
        for pid in &there {
            let Ok(now) = cpu_s(*pid) else { continue };
            match self.alive.iter_mut().find(|(known, _)| known == pid) {
                Some((_, (_, used))) => *used = now,
                // One that was there before has used something before; a new one counts from its start.
                None => self
                    .alive
                    .push((*pid, (if first { now } else { 0.0 }, now))),
            }
        }
        let ended = self.alive.extract_if(.., |(pid, _)| !there.contains(pid));
        self.ended_s += ended.map(|(_, (before, used))| used - before).sum::<f64>();
    }

    fn spent_s(&self) -> f64 {
        let now: f64 = self
            .alive
            .iter()
            .map(|(_, (before, used))| used - before)
            .sum();
        now + self.ended_s
    }
}

fn is_probe(pid: u32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0)
        .any(|word| word == b"nvml-probe")
}

fn cpu_s(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(") ").context("no fields")?.1.split(' ');
    let ticks: Vec<f64> = fields
        .skip(11)
        .take(2)
        .filter_map(|n| n.parse().ok())
        .collect();
    Ok(ticks.iter().sum::<f64>() / TICKS_PER_S)
}

fn rss_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}
