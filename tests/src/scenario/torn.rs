//! A master whose files are torn, emptied or missing. It must not vote with what is left, must say what is wrong and what
//! to type, and that must work.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use berth_proto::v1::JobState;

use super::{Ground, Measured, SOON};
use crate::client::Client;
use crate::cluster::{Cluster, Plan};
use crate::{spec, wait};

/// Does something to the files in a master's data directory.
type Damage = fn(&Path) -> anyhow::Result<()>;

/// What can happen to files.
const DAMAGES: &[(&str, Damage)] = &[
    ("log emptied", |dir| {
        each(dir, "journal", |path| Ok(fs::write(path, "")?))
    }),
    ("log torn in its middle", |dir| each(dir, "journal", tear)),
    ("log removed", |dir| {
        each(dir, "journal", |path| Ok(fs::remove_file(path)?))
    }),
    ("vote emptied", |dir| {
        each(dir, "berth.acked", |path| Ok(fs::write(path, "")?))
    }),
    ("identity emptied", |dir| {
        each(dir, "berth.format", |path| Ok(fs::write(path, "")?))
    }),
    ("identity removed", |dir| {
        each(dir, "berth.format", |path| Ok(fs::remove_file(path)?))
    }),
];

pub(super) async fn run(ground: &Ground) -> anyhow::Result<Measured> {
    let plan = Plan {
        agents: 1,
        dir: ground.dir.clone(),
        ..Plan::default()
    };
    let mut cluster = Cluster::start(plan).await?;
    let outcome = torn(&mut cluster).await;
    cluster.explain(outcome)
}

async fn torn(cluster: &mut Cluster) -> anyhow::Result<Measured> {
    let mut measured = Measured::default();
    let client = cluster.client()?;
    for _ in 0..20 {
        client.submit(&spec::shell("before", "true")).await?;
    }
    let leader = client.leader().await?;
    let victim = *cluster
        .masters
        .keys()
        .find(|id| **id != leader)
        .context("a follower")?;
    cluster.kill_master(victim);
    let data = cluster.master(victim)?.data_dir.clone();
    let copy = cluster.dir().join("copy");
    copy_all(&data, &copy)?;
    for (what, damage) in DAMAGES {
        fs::remove_dir_all(&data)?;
        copy_all(&copy, &data)?;
        damage(&data)?;
        let said = refuses(cluster, victim)
            .await
            .with_context(|| format!("{what}: master {victim}"))?;
        measured.say(what, said);
    }
    let after = client.submit(&spec::shell("after", "true")).await?;
    client.wait_state(after, JobState::Completed, SOON).await?;
    replaced(cluster, victim, &mut measured).await?;
    Ok(measured)
}

/// Starts the master and expects it to end with an error that names the repair. Returns what it said was wrong.
async fn refuses(cluster: &mut Cluster, id: u64) -> anyhow::Result<String> {
    let log = cluster.master(id)?.config.with_file_name("log");
    let _ = fs::remove_file(&log);
    cluster.start_master(id)?;
    let master = cluster.masters.get_mut(&id).context("a master")?;
    let mut daemon = master.daemon.take().context("it was started")?;
    let status = daemon.wait(SOON).await?;
    let output = daemon.output();
    ensure!(!status.success(), "it ended as if all were well");
    let repair = format!("berth masters replace {id}");
    ensure!(
        output.contains(&repair),
        "it does not name `{repair}`:\n{output}"
    );
    let error = output.lines().rev().find(|line| line.starts_with("error:"));
    let said = error
        .context("it prints no `error:`")?
        .trim_start_matches("error: ");
    Ok(said.chars().take(90).collect())
}

/// Does what the message said, and shows that the new master counts.
async fn replaced(cluster: &mut Cluster, id: u64, measured: &mut Measured) -> anyhow::Result<()> {
    let new = cluster.masters.keys().max().copied().unwrap_or(0) + 1;
    let address = cluster.start_joining_master(new).await?;
    let asked = Instant::now();
    let (with, old) = (new.to_string(), id.to_string());
    let replace = [
        "masters",
        "replace",
        &old,
        "--with",
        &with,
        "--address",
        &address,
    ];
    cluster.berth(&replace).await?.ok()?;
    cluster.forget_master(id);
    let client = cluster.client()?;
    voters(
        &client,
        &cluster.masters.keys().copied().collect::<Vec<_>>(),
    )
    .await?;
    measured.time("replaced: three voters again after", asked.elapsed());
    // Two of three are left: without the new one's vote nothing would be accepted.
    let leader = client.leader().await?;
    let other = *cluster
        .masters
        .keys()
        .find(|other| **other != leader && **other != new)
        .context("three masters")?;
    cluster.kill_master(other);
    let job = client.submit(&spec::shell("with-the-new", "true")).await?;
    client.wait_state(job, JobState::Completed, SOON).await?;
    let own = Client::new(&[address])?;
    let seen = own.job(job).await?;
    ensure!(
        seen.state() == JobState::Completed,
        "the new master does not know it"
    );
    Ok(())
}

/// Waits until exactly these masters vote.
pub(super) async fn voters(client: &Client, ids: &[u64]) -> anyhow::Result<Duration> {
    let (_, took) = wait::until(&format!("the voters are {ids:?}"), SOON, async || {
        let status = client.status().await.map_err(|e| format!("{e:#}"))?;
        let mut voters: Vec<u64> = status
            .masters
            .iter()
            .filter(|m| m.voter)
            .map(|m| m.id)
            .collect();
        voters.sort_unstable();
        if voters == ids && status.masters.len() == ids.len() {
            Ok(())
        } else {
            Err(format!("{:?}", status.masters))
        }
    })
    .await?;
    Ok(took)
}

fn each(
    dir: &Path,
    prefix: &str,
    damage: impl Fn(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut found = 0;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        if name.is_some_and(|name| name.starts_with(prefix)) {
            damage(&path)?;
            found += 1;
        }
    }
    ensure!(found > 0, "no file {prefix}* in {}", dir.display());
    Ok(())
}

/// What was written last is lost from the middle on, as when a disk lied about its cache.
fn tear(path: &Path) -> anyhow::Result<()> {
    let mut bytes = fs::read(path)?;
    let used = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1);
    bytes[used / 2..].fill(0);
    Ok(fs::write(path, bytes)?)
}

fn copy_all(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_all(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
