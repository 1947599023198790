//! A local cluster's life: written down, started, waited for, ended.

use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::daemons::{self, AgentSettings, Birth, MasterSettings, Programs};
use super::layout::{self, AgentEntry, Cluster, MasterEntry, Place};
use super::process::{ProcessId, spawn};
use crate::client::Client;
use crate::failure::Failure;

/// How long a daemon may take to end by itself.
const DAEMON_GRACE: Duration = Duration::from_secs(5);
/// How long a keeper may take to end its tasks.
const KEEPER_GRACE: Duration = Duration::from_secs(20);
/// Lines of a log that are shown when its daemon ended at once.
const LOG_LINES: usize = 8;

/// What to bring up.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Number of masters.
    pub(crate) masters: u32,
    /// The first master's port; a free one if 0.
    pub(crate) first_port: u16,
    /// Number of agents.
    pub(crate) agents: u32,
    /// What the masters have in common.
    pub(crate) master: MasterSettings,
    /// What each agent offers.
    pub(crate) agent: AgentSettings,
}

/// Daemons that this process started.
pub(crate) struct Started {
    /// Where.
    pub(crate) dir: PathBuf,
    /// What the cluster consists of.
    pub(crate) cluster: Cluster,
    children: Vec<(String, Place, Child)>,
}

/// Makes the directory, writes all configurations and starts all daemons.
pub(crate) fn start(dir: &Path, plan: &Plan) -> Result<Started, Failure> {
    let programs = Programs::find()?;
    std::fs::create_dir_all(dir).map_err(|e| Failure::file(dir, e))?;
    let dir = dir.canonicalize().map_err(|e| Failure::file(dir, e))?;
    let cluster = if Cluster::exists(&dir) {
        refuse_running(&dir)?;
        // Masters and agents keep what they have; only what runs is new.
        Cluster::load(&dir)?
    } else {
        write_new(&dir, plan)?
    };
    let mut started = Started {
        dir: dir.clone(),
        cluster: cluster.clone(),
        children: Vec::new(),
    };
    let result = (|| {
        for master in &cluster.masters {
            let place = layout::master(&dir, master.id);
            started.launch(format!("master {}", master.id), place, &programs.scheduler)?;
        }
        for agent in &cluster.agents {
            let place = layout::agent(&dir, &agent.name);
            started.launch(format!("agent {}", agent.name), place, &programs.agent)?;
        }
        Ok(())
    })();
    if let Err(error) = result {
        end(&dir, false)?;
        return Err(error);
    }
    Ok(started)
}

fn write_new(dir: &Path, plan: &Plan) -> Result<Cluster, Failure> {
    let ports = free_ports(plan.masters as usize, plan.first_port)?;
    let masters: Vec<MasterEntry> = (1..)
        .zip(ports)
        .map(|(id, port)| MasterEntry {
            id,
            address: format!("127.0.0.1:{port}"),
        })
        .collect();
    let agents: Vec<AgentEntry> = (1..=plan.agents)
        .map(|n| AgentEntry {
            name: format!("n{n}"),
        })
        .collect();
    for master in &masters {
        let place = layout::master(dir, master.id);
        daemons::write_master(&place, master, Birth::First, &masters, &plan.master)?;
    }
    let addresses: Vec<String> = masters.iter().map(|m| m.address.clone()).collect();
    for (number, agent) in (0..).zip(&agents) {
        let place = layout::agent(dir, &agent.name);
        daemons::write_agent(&place, &agent.name, number, &addresses, &plan.agent)?;
    }
    let cluster = Cluster { masters, agents };
    cluster.save(dir)?;
    Ok(cluster)
}

/// Ports that nobody listens at now: the kernel picks, and all are held until all are known.
fn free_ports(count: usize, first: u16) -> Result<Vec<u16>, Failure> {
    let mut held = Vec::new();
    for index in 0..count {
        let wanted = if index == 0 { first } else { 0 };
        let listener = TcpListener::bind(("127.0.0.1", wanted)).map_err(|e| {
            Failure::local(
                format!("cannot listen at 127.0.0.1:{wanted}: {e}"),
                "choose another port, or end what uses it",
            )
        })?;
        held.push(listener);
    }
    let port = |l: &TcpListener| l.local_addr().map(|a| a.port());
    Ok(held.iter().map(port).collect::<Result<_, _>>()?)
}

fn refuse_running(dir: &Path) -> Result<(), Failure> {
    let running = running(dir)?;
    match running.first() {
        None => Ok(()),
        Some((name, id)) => Err(Failure::local(
            format!(
                "{name} of the cluster in {} runs already, as process {}",
                dir.display(),
                id.pid
            ),
            format!("end it with `berth down --dir {}`", dir.display()),
        )),
    }
}

/// Every daemon of a cluster that runs, by its pid file.
pub(crate) fn running(dir: &Path) -> Result<Vec<(String, ProcessId)>, Failure> {
    let cluster = Cluster::load(dir)?;
    let masters = cluster
        .masters
        .iter()
        .map(|m| (format!("master {}", m.id), layout::master(dir, m.id)));
    let agents = cluster
        .agents
        .iter()
        .map(|a| (format!("agent {}", a.name), layout::agent(dir, &a.name)));
    let all = masters.chain(agents);
    Ok(all
        .filter_map(|(name, place)| Some((name, ProcessId::load(&place.pid())?)))
        .filter(|(_, id)| id.alive())
        .collect())
}

/// The running masters' processes, by id.
pub(crate) fn master_processes(dir: &Path) -> Vec<(u64, ProcessId)> {
    let Ok(cluster) = Cluster::load(dir) else {
        return Vec::new();
    };
    let process = |m: &MasterEntry| {
        let id = ProcessId::load(&layout::master(dir, m.id).pid())?;
        id.alive().then_some((m.id, id))
    };
    cluster.masters.iter().filter_map(process).collect()
}

impl Started {
    fn launch(&mut self, name: String, place: Place, program: &Path) -> Result<(), Failure> {
        let child = launch(&place, program)?;
        self.children.push((name, place, child));
        Ok(())
    }

    /// Waits until a leader answers and every agent has registered.
    pub(crate) async fn ready(&mut self, within: Duration) -> Result<(), Failure> {
        let addresses = self.cluster.masters.iter().map(|m| m.address.clone());
        let client = Client::new(addresses.collect(), Duration::from_millis(500));
        let deadline = Instant::now() + within;
        let wanted = self.cluster.agents.len();
        loop {
            self.check_children()?;
            let seen = match client.status().await {
                Ok(status) if status.nodes.0 as usize + status.nodes.1 as usize >= wanted => {
                    return Ok(());
                }
                Ok(status) => format!("{} of {wanted} agents have registered", status.nodes.0),
                Err(error) => error.to_string(),
            };
            if Instant::now() > deadline {
                return Err(Failure::local(
                    format!(
                        "the cluster is not ready after {} s: {seen}",
                        within.as_secs()
                    ),
                    format!(
                        "look into the files called `log` below {}",
                        self.dir.display()
                    ),
                ));
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// Fails if a daemon has ended.
    pub(crate) fn check_children(&mut self) -> Result<(), Failure> {
        for (name, place, child) in &mut self.children {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(Failure::local(
                    format!("{name} ended: {status}\n{}", last_lines(&place.log())),
                    format!("look into {}", place.log().display()),
                ));
            }
        }
        Ok(())
    }
}

/// Starts one daemon and writes its pid file.
fn launch(place: &Place, program: &Path) -> Result<Child, Failure> {
    let args = daemons::run_args(place)?;
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let child = spawn(program, &args, &place.log())?;
    let id = i32::try_from(child.id()).ok().and_then(ProcessId::of);
    if let Some(id) = id {
        id.save(&place.pid())?;
    }
    Ok(child)
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

/// Ends every daemon of a cluster; unless `keep_tasks`, its tasks and their keepers too. Returns what was ended.
pub(crate) fn end(dir: &Path, keep_tasks: bool) -> Result<Vec<String>, Failure> {
    let cluster = Cluster::load(dir)?;
    // Agents and tasks know each other by paths without links.
    let dir = &dir.canonicalize().map_err(|e| Failure::file(dir, e))?;
    let mut ended = Vec::new();
    let mut failed = None;
    // Agents first: they would otherwise look for masters in vain.
    let agents: Vec<Place> = cluster
        .agents
        .iter()
        .map(|a| layout::agent(dir, &a.name))
        .collect();
    for (agent, place) in cluster.agents.iter().zip(&agents) {
        note(
            end_one(place),
            format!("agent {}", agent.name),
            &mut ended,
            &mut failed,
        );
    }
    if !keep_tasks {
        for (agent, place) in cluster.agents.iter().zip(&agents) {
            note(
                end_keeper(place),
                format!("keeper of {}", agent.name),
                &mut ended,
                &mut failed,
            );
        }
    }
    for master in &cluster.masters {
        let place = layout::master(dir, master.id);
        note(
            end_one(&place),
            format!("master {}", master.id),
            &mut ended,
            &mut failed,
        );
    }
    failed.map_or(Ok(ended), Err)
}

/// One that cannot be ended does not keep the others from being ended.
fn note(
    result: Result<bool, Failure>,
    name: String,
    ended: &mut Vec<String>,
    failed: &mut Option<Failure>,
) {
    match result {
        Ok(true) => ended.push(name),
        Ok(false) => {}
        Err(error) => *failed = Some(error),
    }
}

/// Ends the daemon in `place`. True if it ran.
pub(crate) fn end_one(place: &Place) -> Result<bool, Failure> {
    let Some(id) = ProcessId::load(&place.pid()) else {
        return Ok(false);
    };
    let ran = id.end(DAEMON_GRACE)?;
    let _ = std::fs::remove_file(place.pid());
    Ok(ran)
}

/// Ends an agent's keeper and its tasks, also tasks that have lost their keeper. True if there was a keeper.
fn end_keeper(place: &Place) -> Result<bool, Failure> {
    if !place.data().join("keeper").exists() {
        return Ok(false);
    }
    let keeper = keeper_process(place);
    let program = Programs::find()?.agent;
    let mut child = Command::new(&program)
        .args(daemons::keeper_stop_args(place)?)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| Failure::file(&program, e))?;
    let deadline = Instant::now() + KEEPER_GRACE;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // One that did not listen is not left behind.
    if let Some(keeper) = keeper.filter(|k| k.alive()) {
        keeper.end(Duration::from_secs(1))?;
    }
    Ok(keeper.is_some())
}

/// The keeper of the agent in `place`, if it runs.
pub(crate) fn keeper_process(place: &Place) -> Option<ProcessId> {
    let text = std::fs::read_to_string(place.data().join("keeper/pid")).ok()?;
    let pid: i32 = text.split_whitespace().next()?.parse().ok()?;
    // The keeper writes no start time, so its command line has to show that it is one.
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let data = place.data();
    let is_keeper = command
        .split(|b| *b == 0)
        .any(|arg| arg == data.as_os_str().as_bytes());
    ProcessId::of(pid).filter(|id| is_keeper && id.alive())
}

/// Starts one more master of a local cluster, which waits to be added. Returns it.
pub(crate) fn start_joining_master(dir: &Path, id: u64) -> Result<MasterEntry, Failure> {
    let programs = Programs::find()?;
    let dir = dir.canonicalize().map_err(|e| Failure::file(dir, e))?;
    let mut cluster = Cluster::load(&dir)?;
    let port = free_ports(1, 0)?[0];
    let entry = MasterEntry {
        id,
        address: format!("127.0.0.1:{port}"),
    };
    let place = layout::master(&dir, id);
    let settings = MasterSettings::default();
    daemons::write_master(&place, &entry, Birth::Joins, &cluster.masters, &settings)?;
    launch(&place, &programs.scheduler)?;
    cluster.masters.push(entry.clone());
    cluster.save(&dir)?;
    Ok(entry)
}

/// Ends a master of a local cluster and forgets it.
pub(crate) fn forget_master(dir: &Path, id: u64) -> Result<(), Failure> {
    end_one(&layout::master(dir, id))?;
    let mut cluster = Cluster::load(dir)?;
    cluster.masters.retain(|m| m.id != id);
    cluster.save(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_are_distinct_and_a_taken_one_is_refused() {
        let ports = free_ports(5, 0).unwrap();
        let mut unique = ports.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), 5);
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = holder.local_addr().unwrap().port();
        assert!(free_ports(1, taken).is_err());
    }

    #[test]
    fn a_stale_pid_file_ends_nobody() {
        let dir = tempfile::tempdir().unwrap();
        Cluster::example().save(dir.path()).unwrap();
        let place = layout::master(dir.path(), 1);
        std::fs::create_dir_all(&place.dir).unwrap();
        // This test's own pid, with a start time that is not its own.
        std::fs::write(place.pid(), format!("{} 1\n", std::process::id())).unwrap();
        assert!(running(dir.path()).unwrap().is_empty());
        assert!(end(dir.path(), false).unwrap().is_empty());
        assert!(!place.pid().exists());
    }
}
