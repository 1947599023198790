//! Failures with a name, each with real processes: what others get wrong (and say so in their issue trackers), and what
//! must hold here.
//!
//! One file each. A scenario returns what it measured, or an error that says which promise was broken.

mod adopted;
mod all_replaced;
mod around_failover;
mod away_and_back;
mod backup;
mod bad_node;
mod cut_leader;
mod ends_alone;
mod fatal_xid;
mod fence;
mod followers;
mod frozen_leader;
mod members;
mod power_cut;
mod torn;
mod upgrade;
mod vanished_gpu;
mod wait_rule;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, ensure};
use berth_proto::v1;

use crate::client::Client;
use crate::cluster::{Cluster, LiveTask};
use crate::ledger::Ledger;
use crate::{figures, spec, wait};

/// Within this time of the heal everything has its right final state, and an isolated copy has ended.
pub const HEAL: Duration = Duration::from_secs(5);
/// For what no promise bounds: work itself, or a busy machine.
pub const SOON: Duration = Duration::from_secs(60);

/// Where and how strictly a scenario runs.
#[derive(Clone, Debug)]
pub struct Ground {
    /// Where to make clusters; the system's temporary directory if `None`.
    pub dir: Option<PathBuf>,
    /// Promised times are multiplied by this: 1 on a machine that does nothing else.
    pub slack: u32,
}

impl Default for Ground {
    fn default() -> Self {
        Self {
            dir: None,
            slack: 1,
        }
    }
}

impl Ground {
    fn within(&self, promised: Duration) -> Duration {
        promised * self.slack
    }
}

/// What a scenario measured: what, and how much.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// In the order in which it happened.
    pub figures: Vec<(String, String)>,
}

impl Measured {
    fn time(&mut self, what: &str, time: Duration) {
        self.say(what, figures::seconds(time));
    }

    fn say(&mut self, what: &str, value: impl ToString) {
        self.figures.push((what.to_owned(), value.to_string()));
    }
}

type Running<'a> = Pin<Box<dyn Future<Output = anyhow::Result<Measured>> + 'a>>;

/// A scenario.
pub struct Scenario {
    /// How it is called on the command line.
    pub name: &'static str,
    /// What happens, and what must hold.
    pub about: &'static str,
    run: for<'a> fn(&'a Ground) -> Running<'a>,
}

impl Scenario {
    /// Runs it.
    ///
    /// # Errors
    /// If a promise was broken, with the place of all logs.
    pub async fn run(&self, ground: &Ground) -> anyhow::Result<Measured> {
        (self.run)(ground).await
    }
}

macro_rules! scenarios {
    ($($name:literal: $module:ident, $about:literal;)*) => {
        /// All of them.
        pub const ALL: &[Scenario] = &[$(Scenario {
            name: $name,
            about: $about,
            run: |ground| Box::pin($module::run(ground)),
        }),*];
    };
}

scenarios! {
    "short-jobs-around-failover": around_failover,
        "jobs end while the leader is killed: each ends well, once, and holds nothing";
    "job-ends-without-master": ends_alone,
        "jobs end while no master runs: their ends are known as soon as there is one";
    "agent-killed-under-task": adopted,
        "the agent is killed and restarted: the same process goes on, and an end in between is not lost";
    "agent-away-and-back": away_and_back,
        "a node is cut off until it is lost: the job restarts elsewhere, the old copy ends on contact";
    "agent-upgrade-restart": upgrade,
        "the agent is stopped and started again: its task does not notice";
    "torn-master": torn,
        "a master's files are torn or emptied: it does not vote, says what is wrong, and is replaced";
    "lost-node-fence": fence,
        "rule fence: the cut-off copy is gone before the new one starts";
    "lost-node-wait": wait_rule,
        "rule wait: nothing restarts until the node returns or an operator fences it";
    "leader-cut-off": cut_leader,
        "the leader is cut off from the other masters: they go on without it, and it follows when it is back";
    "leader-frozen": frozen_leader,
        "the leader is frozen and wakes up: it takes nothing back that happened meanwhile";
    "power-cut": power_cut,
        "everything dies at once and comes back: every acknowledged job goes on";
    "backup-and-restore": backup,
        "all masters are destroyed: a restored one knows every job and kills no task";
    "followers": followers,
        "reads and writes through every master: nobody misses its own write";
    "members": members,
        "masters are added, removed and replaced while jobs are submitted";
    "all-masters-replaced": all_replaced,
        "every master is replaced while an agent stays as it is: it finds the new ones, also when it is started again";
    "fatal-xid": fatal_xid,
        "a GPU reports a fatal error under a gang: it goes on elsewhere within 3 s, and nothing is placed on that GPU";
    "gpu-vanished": vanished_gpu,
        "a GPU disappears under a running job: it is noticed, and the job runs elsewhere";
    "bad-node": bad_node,
        "a node breaks every task at once: it does not swallow a queue of jobs one by one";
}

/// The scenario with this name.
///
/// # Errors
/// If there is none; the error names all.
pub fn named(name: &str) -> anyhow::Result<&'static Scenario> {
    let names: Vec<&str> = ALL.iter().map(|scenario| scenario.name).collect();
    ALL.iter()
        .find(|scenario| scenario.name == name)
        .with_context(|| format!("no scenario `{name}`. hint: one of {}", names.join(", ")))
}

// --- what several scenarios ask ---

/// A job of one worker that runs until it is ended, and the process that it is.
async fn endless(
    cluster: &Cluster,
    client: &Client,
    ledger: &Ledger,
    shape: impl FnOnce(v1::JobSpec) -> v1::JobSpec,
) -> anyhow::Result<(u64, LiveTask)> {
    let job = client
        .submit(&shape(spec::shell("endless", &ledger.endless())))
        .await?;
    client.wait_state(job, v1::JobState::Running, SOON).await?;
    wait_for(
        &format!("job {job} has written that it started"),
        SOON,
        || !ledger.of(job, "start").is_empty(),
    )
    .await?;
    Ok((job, only_copy(cluster, job)?))
}

/// The one process of a job of one worker.
fn only_copy(cluster: &Cluster, job: u64) -> anyhow::Result<LiveTask> {
    let tasks = cluster.tasks_of(job);
    ensure!(
        tasks.len() == 1,
        "job {job} has {} live copies instead of 1: {tasks:?}",
        tasks.len()
    );
    Ok(tasks[0].clone())
}

/// Waits until it is so, and tells how long it took.
async fn wait_for(
    what: &str,
    deadline: Duration,
    mut is_so: impl FnMut() -> bool,
) -> anyhow::Result<Duration> {
    let look = async || {
        if is_so() {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    };
    Ok(wait::until(what, deadline, look).await?.1)
}

/// Waits until nothing holds a share of any node.
async fn nothing_held(client: &Client, deadline: Duration) -> anyhow::Result<Duration> {
    let look = async || {
        let nodes = client.nodes().await.map_err(|e| format!("{e:#}"))?;
        let held = |n: &&v1::Node| {
            n.used_millicpu > 0 || n.used_mem_bytes > 0 || n.used_milligpu.iter().any(|m| *m > 0)
        };
        let leaks: Vec<String> = nodes
            .iter()
            .filter(held)
            .map(|n| {
                let name = n.spec.as_ref().map_or("?", |spec| spec.name.as_str());
                format!(
                    "{name}: {} mCPU, GPUs {:?}, jobs {:?}",
                    n.used_millicpu, n.used_milligpu, n.jobs
                )
            })
            .collect();
        if leaks.is_empty() {
            Ok(())
        } else {
            Err(leaks.join("; "))
        }
    };
    Ok(wait::until("every slot is free", deadline, look).await?.1)
}

/// Cancels a job and waits until its processes are gone.
async fn end(cluster: &Cluster, client: &Client, job: u64) -> anyhow::Result<()> {
    client.cancel(job).await?;
    client
        .wait_state(job, v1::JobState::Cancelled, SOON)
        .await?;
    let what = format!("job {job}'s processes are gone");
    wait_for(&what, SOON, || cluster.tasks_of(job).is_empty()).await?;
    Ok(())
}

/// The job's newest attempt.
fn epoch(job: &v1::Job) -> u32 {
    let past = job.past.last().map_or(0, |past| past.epoch);
    job.attempt.as_ref().map_or(past, |attempt| attempt.epoch)
}
