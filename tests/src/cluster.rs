//! A cluster of real processes on loopback, in a directory of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use berth_fake_nvml::Stage;
use berth_fake_nvml::scenario::Scenario;
use berth_proto::v1;

use crate::client::Client;
use crate::config::{AgentFile, MasterFile, Settings};
use crate::ports::{self, Ports};
use crate::process::{self, Daemon};
use crate::programs::Programs;
use crate::proxy::{End, Network};
use crate::scratch::Scratch;
use crate::{procfs, wait};

/// How long a cluster may take to come up, on a busy machine.
const UP: Duration = Duration::from_secs(60);
/// Ports that each agent lends to gangs.
const PORTS_PER_AGENT: u16 = 40;
/// Where proxies listen. Masters themselves listen at 127.0.0.1, on the same port.
const OUTSIDE: &str = "127.0.0.2";

/// What to start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many masters.
    pub masters: u64,
    /// How many agents.
    pub agents: usize,
    /// Simulated GPUs of each agent.
    pub gpus: u32,
    /// GPUs of each agent that a driver lists, instead of simulated ones: the library that plays scenarios is loaded as the
    /// driver's would be.
    pub driver_gpus: Option<u32>,
    /// CPUs of each agent, as declared.
    pub cpus: u32,
    /// Put a proxy before each master, so that links can be cut.
    pub proxied: bool,
    /// Masters' settings.
    pub settings: Settings,
    /// Where to make the cluster's directory; the system's temporary directory if `None`.
    pub dir: Option<PathBuf>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            masters: 3,
            agents: 3,
            gpus: 2,
            driver_gpus: None,
            cpus: 16,
            proxied: false,
            settings: Settings::default(),
            dir: None,
        }
    }
}

/// A master: its files, and its process while it runs.
#[derive(Debug)]
pub struct Master {
    /// Its id.
    pub id: u64,
    /// Where others reach it.
    pub address: String,
    /// Where its log and history lie.
    pub data_dir: PathBuf,
    /// Its configuration file.
    pub config: PathBuf,
    /// Its process.
    pub daemon: Option<Daemon>,
}

/// An agent: its files, and its process while it runs.
#[derive(Debug)]
pub struct Agent {
    /// The node's name.
    pub name: String,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Its configuration file.
    pub config: PathBuf,
    /// What its GPUs do, if a driver lists them.
    pub stage: Option<Stage>,
    /// Its process.
    pub daemon: Option<Daemon>,
}

/// A task that runs now, as the machine sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveTask {
    /// Its process.
    pub pid: i32,
    /// Number of its agent in the harness.
    pub agent: usize,
    /// Its job.
    pub job: u64,
    /// Its attempt.
    pub epoch: u32,
    /// Its rank.
    pub rank: u32,
}

/// What a run of the CLI printed, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Output {
    /// Standard output of a run that must succeed.
    ///
    /// # Errors
    /// If it did not.
    pub fn ok(self) -> anyhow::Result<String> {
        if self.code != Some(0) {
            bail!("exit code {:?}: {}{}", self.code, self.out, self.err);
        }
        Ok(self.out)
    }
}

/// The cluster. Dropping it ends every process that it started, and all that those started.
#[derive(Debug)]
pub struct Cluster {
    /// Masters by id.
    pub masters: BTreeMap<u64, Master>,
    /// Agents, by their number.
    pub agents: Vec<Agent>,
    /// Cuts links, if the plan asked for it.
    pub network: Option<Network>,
    plan: Plan,
    programs: Programs,
    ports: Ports,
    // Last, so that the daemons are gone before their files.
    scratch: Scratch,
}

impl Cluster {
    /// Starts everything and waits until there is a leader and every agent is ready.
    ///
    /// # Errors
    /// If something does not come up; the files stay.
    pub async fn start(plan: Plan) -> anyhow::Result<Self> {
        let mut cluster = Self::lay_out(plan).await?;
        let started = cluster.start_all().await;
        cluster.explain(started)?;
        Ok(cluster)
    }

    /// Makes the files of a cluster and starts nothing.
    ///
    /// # Errors
    /// If a program was not built or a file cannot be written.
    pub async fn lay_out(plan: Plan) -> anyhow::Result<Self> {
        let mut cluster = Self {
            masters: BTreeMap::new(),
            agents: Vec::new(),
            network: plan.proxied.then(Network::new),
            programs: Programs::find()?,
            ports: Ports::new(),
            scratch: Scratch::new(plan.dir.as_deref())?,
            plan,
        };
        for id in 1..=cluster.plan.masters {
            cluster.new_master(id).await?;
        }
        let first: Vec<u64> = cluster.masters.keys().copied().collect();
        for id in first {
            cluster.write_master(id, false)?;
        }
        for number in 0..cluster.plan.agents {
            cluster.new_agent(number)?;
        }
        Ok(cluster)
    }

    async fn start_all(&mut self) -> anyhow::Result<()> {
        for id in self.masters.keys().copied().collect::<Vec<_>>() {
            self.start_master(id)?;
        }
        for number in 0..self.agents.len() {
            self.start_agent(number)?;
        }
        self.ready().await
    }

    /// Waits until there is a leader that reaches every master, and every agent is connected and ready.
    ///
    /// # Errors
    /// After a minute.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        let client = self.client()?;
        wait::until("the cluster is up", UP, async || {
            if let Err(ended) = self.check_alive() {
                return Ok(Err(ended));
            }
            let status = client.status().await.map_err(|e| format!("{e:#}"))?;
            if let Some(away) = status.masters.iter().find(|m| !m.leader && !m.reachable) {
                return Err(format!("the leader does not reach master {}", away.id));
            }
            let nodes = client.nodes().await.map_err(|e| format!("{e:#}"))?;
            let ready = |node: &&v1::Node| node.connected && node.state() == v1::NodeState::Ready;
            let ready = nodes.iter().filter(ready).count();
            if ready >= self.agents.len() {
                Ok(Ok(()))
            } else {
                Err(format!("{ready} of {} nodes are ready", self.agents.len()))
            }
        })
        .await?
        .0
    }

    /// Nobody that should run has ended by itself.
    fn check_alive(&mut self) -> anyhow::Result<()> {
        let masters = self.masters.values_mut().map(|m| m.daemon.as_mut());
        let agents = self.agents.iter_mut().map(|a| a.daemon.as_mut());
        for daemon in masters.chain(agents).flatten() {
            if let Some(status) = daemon.ended() {
                bail!(
                    "{} ended: {status}\n{}",
                    daemon.log().display(),
                    daemon.output()
                );
            }
        }
        Ok(())
    }

    /// The cluster's directory.
    pub fn dir(&self) -> &Path {
        self.scratch.path()
    }

    /// The programs under test.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Keep the files, and say where they are, if `result` is an error.
    ///
    /// # Errors
    /// The same one, with the place of the files.
    pub fn explain<T>(&mut self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        if result.is_err() {
            self.scratch.keep();
        }
        result.with_context(|| format!("files and logs are kept in {}", self.dir().display()))
    }

    /// Keep the files when this value is dropped.
    pub fn keep(&mut self) {
        self.scratch.keep();
    }

    /// Addresses of all masters, by id.
    pub fn addresses(&self) -> Vec<String> {
        self.masters.values().map(|m| m.address.clone()).collect()
    }

    /// A client of all masters that there are now.
    ///
    /// # Errors
    /// If an address is wrong.
    pub fn client(&self) -> anyhow::Result<Client> {
        Client::new(&self.addresses())
    }

    // --- masters ---

    async fn new_master(&mut self, id: u64) -> anyhow::Result<()> {
        let port = self.ports.one()?;
        let inside = ports::loopback(port);
        let mut address = inside.clone();
        if let Some(network) = &self.network {
            address = format!("{OUTSIDE}:{port}");
            let outside: SocketAddr = address.parse().context("an address of our own")?;
            let inside: SocketAddr = inside.parse().context("an address of our own")?;
            network.front(id, outside, inside).await?;
        }
        let home = self.dir().join(format!("master-{id}"));
        std::fs::create_dir_all(&home)?;
        let master = Master {
            id,
            address,
            data_dir: home.join("data"),
            config: home.join("master.toml"),
            daemon: None,
        };
        self.masters.insert(id, master);
        Ok(())
    }

    fn write_master(&self, id: u64, join: bool) -> anyhow::Result<()> {
        let master = self.master(id)?;
        let listen = ports::loopback(ports::port_of(&master.address)?);
        // One that joins lists those that it will find.
        let listed = self.masters.values().filter(|m| !join || m.id != id);
        let masters: Vec<(u64, String)> = listed.map(|m| (m.id, m.address.clone())).collect();
        let file = MasterFile {
            id,
            data_dir: &master.data_dir,
            listen: &listen,
            masters: &masters,
            join,
            settings: &self.plan.settings,
        };
        std::fs::write(&master.config, file.text())
            .with_context(|| format!("cannot write {}", master.config.display()))
    }

    /// Makes the files of a master that will join, and starts it. Adding it is the caller's.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn start_joining_master(&mut self, id: u64) -> anyhow::Result<String> {
        self.new_master(id).await?;
        self.write_master(id, true)?;
        self.start_master(id)?;
        Ok(self.master(id)?.address.clone())
    }

    /// A master.
    ///
    /// # Errors
    /// If there is none with this id.
    pub fn master(&self, id: u64) -> anyhow::Result<&Master> {
        self.masters.get(&id).context("no such master")
    }

    /// Starts a master that does not run.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_master(&mut self, id: u64) -> anyhow::Result<()> {
        let program = self.programs.scheduler.clone();
        let master = self.masters.get_mut(&id).context("no such master")?;
        let log = master.config.with_file_name("log");
        let mut command = Command::new(program);
        command.arg("--config").arg(&master.config);
        let daemon = Daemon::start(&mut command, &log)?;
        if let Some(network) = &self.network {
            network.is_now(End::Master(id), daemon.pid());
        }
        master.daemon = Some(daemon);
        Ok(())
    }

    /// kill -9 of a master.
    pub fn kill_master(&mut self, id: u64) {
        if let Some(mut daemon) = self.masters.get_mut(&id).and_then(|m| m.daemon.take()) {
            daemon.kill_9();
        }
    }

    /// Ends a master as a service manager does.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn stop_master(&mut self, id: u64) -> anyhow::Result<()> {
        match self.masters.get_mut(&id).and_then(|m| m.daemon.take()) {
            Some(mut daemon) => daemon.terminate(UP).await.map(drop),
            None => Ok(()),
        }
    }

    /// Forgets a master that was removed, and ends its process.
    pub fn forget_master(&mut self, id: u64) {
        self.kill_master(id);
        self.masters.remove(&id);
    }

    // --- agents ---

    fn new_agent(&mut self, number: usize) -> anyhow::Result<()> {
        let name = format!("n{}", number + 1);
        let home = self.dir().join(&name);
        std::fs::create_dir_all(&home)?;
        let port_first = self.ports.range(PORTS_PER_AGENT)?;
        let masters = self.addresses();
        let agent = Agent {
            data_dir: home.join("data"),
            config: home.join("agent.toml"),
            name,
            stage: self.plan.driver_gpus.map(|_| Stage::new(&home)),
            daemon: None,
        };
        let library = match self.plan.driver_gpus {
            Some(_) => Some(berth_fake_nvml::library().map_err(anyhow::Error::msg)?),
            None => None,
        };
        let file = AgentFile {
            name: &agent.name,
            data_dir: &agent.data_dir,
            masters: &masters,
            cpus: self.plan.cpus,
            gpus: self.plan.gpus,
            library: library.as_deref(),
            port_first,
            port_count: PORTS_PER_AGENT,
        };
        std::fs::write(&agent.config, file.text())
            .with_context(|| format!("cannot write {}", agent.config.display()))?;
        self.agents.push(agent);
        if let Some(gpus) = self.plan.driver_gpus {
            self.play(number, &Scenario::healthy(gpus))?;
        }
        Ok(())
    }

    /// What an agent's GPUs do from now on.
    ///
    /// # Errors
    /// If the agent's GPUs are simulated, or the file cannot be written.
    pub fn play(&mut self, number: usize, scenario: &Scenario) -> anyhow::Result<()> {
        let agent = self.agents.get_mut(number).context("no such agent")?;
        let stage = agent.stage.as_mut().context("its GPUs are simulated")?;
        stage.play(scenario).context("cannot write a scenario")
    }

    /// Starts an agent that does not run.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_agent(&mut self, number: usize) -> anyhow::Result<()> {
        let program = self.programs.agent.clone();
        let agent = self.agents.get_mut(number).context("no such agent")?;
        let log = agent.config.with_file_name("log");
        let mut command = Command::new(program);
        command.arg("--config").arg(&agent.config);
        if let Some(stage) = &agent.stage {
            command.env("FAKE_NVML_SCENARIO", stage.file());
        }
        let daemon = Daemon::start(&mut command, &log)?;
        if let Some(network) = &self.network {
            network.is_now(End::Agent(number), daemon.pid());
        }
        agent.daemon = Some(daemon);
        Ok(())
    }

    /// kill -9 of an agent alone: its keeper and tasks go on.
    pub fn kill_agent(&mut self, number: usize) {
        if let Some(mut daemon) = self.agents[number].daemon.take() {
            daemon.kill_9();
        }
    }

    /// Ends an agent as a service manager does: its keeper and tasks go on.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn stop_agent(&mut self, number: usize) -> anyhow::Result<()> {
        match self.agents[number].daemon.take() {
            Some(mut daemon) => daemon.terminate(UP).await.map(drop),
            None => Ok(()),
        }
    }

    /// kill -9 of an agent with its keeper and tasks, as when the machine loses power.
    pub fn kill_node(&mut self, number: usize) {
        self.kill_agent(number);
        let dir = &self.agents[number].data_dir;
        loop {
            let left = procfs::belonging_to(dir);
            if left.is_empty() {
                return;
            }
            left.iter().for_each(|p| process::kill_9(p.pid));
            std::thread::yield_now();
        }
    }

    /// Cuts an agent off from all masters.
    pub fn cut_agent(&self, number: usize) {
        if let Some(network) = &self.network {
            let masters = self.masters.keys();
            masters.for_each(|id| network.cut(End::Agent(number), End::Master(*id)));
        }
    }

    /// Cuts a master off from all others.
    pub fn cut_master(&self, id: u64) {
        if let Some(network) = &self.network {
            let others = self.masters.keys().filter(|other| **other != id);
            others.for_each(|other| network.cut(End::Master(id), End::Master(*other)));
        }
    }

    /// Heals every link.
    pub fn heal(&self) {
        if let Some(network) = &self.network {
            network.heal();
        }
    }

    /// Number of the agent with this node name.
    ///
    /// # Errors
    /// If there is none.
    pub fn agent_named(&self, name: &str) -> anyhow::Result<usize> {
        let at = self.agents.iter().position(|agent| agent.name == name);
        at.with_context(|| format!("no agent is called {name}"))
    }

    /// Rewrites a master's file for a cluster of which it is the only master, as after a restore.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_lone_master(&mut self, id: u64) -> anyhow::Result<()> {
        self.masters.retain(|other, _| *other == id);
        self.write_master(id, false)
    }

    // --- the CLI ---

    /// Runs `berth` on this cluster and waits for it.
    ///
    /// # Errors
    /// If it cannot be started, or still runs after a minute.
    pub async fn berth(&self, args: &[&str]) -> anyhow::Result<Output> {
        self.berth_at(&self.addresses().join(","), args).await
    }

    /// Runs `berth` on the masters at these addresses.
    ///
    /// # Errors
    /// If it cannot be started, or still runs after a minute.
    pub async fn berth_at(&self, addresses: &str, args: &[&str]) -> anyhow::Result<Output> {
        let mut command = self.berth_command(addresses, args);
        let run = tokio::task::spawn_blocking(move || command.output());
        let output = tokio::time::timeout(UP, run)
            .await
            .with_context(|| format!("`berth {}` still runs after {UP:?}", args.join(" ")))???;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Output {
            code: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
        })
    }

    /// `berth` with these arguments, free of the caller's settings.
    pub fn berth_command(&self, addresses: &str, args: &[&str]) -> Command {
        let mut command = Command::new(&self.programs.berth);
        command
            .args(args)
            .current_dir(self.dir())
            .env_remove("BERTH_DIR")
            .env("BERTH_ADDR", addresses)
            .env("XDG_CONFIG_HOME", self.dir())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    // --- tasks ---

    /// Every task that runs now, by the machine's word alone.
    pub fn tasks(&self) -> Vec<LiveTask> {
        let mut tasks: Vec<LiveTask> = procfs::all()
            .into_iter()
            // A task leads its own process group; what it started is in it.
            .filter(|process| process.group == process.pid)
            .filter_map(|process| self.task_of(process.pid))
            .collect();
        tasks.sort_by_key(|task| (task.job, task.epoch, task.rank, task.pid));
        tasks
    }

    /// Every copy of a job that runs now.
    pub fn tasks_of(&self, job: u64) -> Vec<LiveTask> {
        let mut tasks = self.tasks();
        tasks.retain(|task| task.job == job);
        tasks
    }

    fn task_of(&self, pid: i32) -> Option<LiveTask> {
        let environment = procfs::environment(pid);
        let socket = Path::new(environment.get("BERTH_SOCKET")?);
        let agent = self
            .agents
            .iter()
            .position(|agent| socket.starts_with(&agent.data_dir))?;
        let number = |name: &str| environment.get(name)?.parse::<u64>().ok();
        Some(LiveTask {
            pid,
            agent,
            job: number("BERTH_JOB_ID")?,
            epoch: u32::try_from(number("BERTH_ATTEMPT")?).ok()?,
            rank: u32::try_from(number("RANK")?).ok()?,
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(network) = &self.network {
            network.close();
        }
    }
}
