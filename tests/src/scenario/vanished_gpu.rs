//! A GPU disappears under a running job that does not notice: its node does, and the job runs elsewhere.

use anyhow::{Context, ensure};
use berth_fake_nvml::scenario::Scenario;
use berth_proto::v1;
use v1::JobState;

use super::fatal_xid::gpus_of;
use super::{Ground, Measured, SOON, end, epoch, nothing_held};
use crate::cluster::{Cluster, Plan};
use crate::spec::{self, Shape};

/// What the node offers.
const GPUS: u32 = 4;

pub(super) async fn run(ground: &Ground) -> anyhow::Result<Measured> {
    let plan = Plan {
        masters: 1,
        agents: 1,
        driver_gpus: Some(GPUS),
        dir: ground.dir.clone(),
        ..Plan::default()
    };
    let mut cluster = Cluster::start(plan).await?;
    let result = play(&mut cluster).await;
    cluster.explain(result)
}

async fn play(cluster: &mut Cluster) -> anyhow::Result<Measured> {
    let mut measured = Measured::default();
    let client = cluster.client()?;
    let job = spec::shell("unaware", "sleep 600").gpus(1).max_restarts(0);
    let job = client.submit(&job).await?;
    let (view, _) = client.wait_state(job, JobState::Running, SOON).await?;
    let gone = gpus_of(&view).first().copied().context("it holds a GPU")?;

    let mut scenario = Scenario::healthy(GPUS);
    let one = scenario.gpu[0].clone();
    scenario.gpu = (0..GPUS)
        .map(|index| {
            let mut gpu = one.clone();
            gpu.count = 1;
            gpu.lost_from = (index == gone).then_some(0.0);
            gpu
        })
        .collect();
    cluster.play(0, &scenario)?;
    let moved = |view: &v1::Job| epoch(view) == 2 && view.state() == JobState::Running;
    let (view, took) = client.wait(job, "runs elsewhere", SOON, moved).await?;
    measured.time("GPU gone to job running elsewhere", took);
    ensure!(!gpus_of(&view).contains(&gone), "it runs where no GPU is");
    ensure!(view.restarts == 0, "the fault was charged to the job");
    end(cluster, &client, job).await?;
    nothing_held(&client, SOON).await?;
    Ok(measured)
}
