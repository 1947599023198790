//! A node breaks every task at once, which makes it the freest of all: it does not swallow a queue of jobs one by one.

use anyhow::ensure;
use berth_proto::v1;
use v1::JobState;

use super::{Ground, Measured, SOON, nothing_held};
use crate::cluster::{Cluster, Plan};
use crate::spec::{self, Shape};

/// Jobs in the queue. None may fail twice.
const JOBS: usize = 24;
/// Jobs that a node may fail before it cools down, and as many that were on their way.
const MOST_FAILED: usize = 5;

pub(super) async fn run(ground: &Ground) -> anyhow::Result<Measured> {
    let plan = Plan {
        masters: 1,
        agents: 2,
        gpus: 1,
        dir: ground.dir.clone(),
        ..Plan::default()
    };
    let mut cluster = Cluster::start(plan).await?;
    let result = play(&cluster).await;
    cluster.explain(result)
}

async fn play(cluster: &Cluster) -> anyhow::Result<Measured> {
    let mut measured = Measured::default();
    let client = cluster.client()?;
    let script = "[ \"$BERTH_NODE_NAME\" = n1 ] && exit 1; sleep 0.5";
    let mut jobs = Vec::new();
    for number in 0..JOBS {
        let job = spec::shell(&format!("queued-{number}"), script).gpus(1);
        jobs.push(client.submit(&job.max_restarts(0)).await?);
    }
    let (mut failed, mut completed) = (0, 0);
    for job in jobs {
        let over = |view: &v1::Job| matches!(view.state(), JobState::Failed | JobState::Completed);
        let (view, _) = client.wait(job, "is over", SOON, over).await?;
        match view.state() {
            JobState::Failed => failed += 1,
            _ => completed += 1,
        }
    }
    ensure!(
        failed <= MOST_FAILED,
        "a broken node swallowed {failed} of {JOBS} jobs"
    );
    measured.say("jobs that the broken node failed", failed);
    measured.say("jobs that ran elsewhere", completed);
    let nodes = client.nodes().await?;
    let cools = nodes.iter().any(|node| {
        let name = node.spec.as_ref().map_or("", |spec| spec.name.as_str());
        let own = node.health.iter().find(|health| health.gpu.is_none());
        name == "n1" && own.is_some_and(|h| h.stage() == v1::HealthStage::Quarantined)
    });
    ensure!(cools, "n1 is not out of service: {nodes:?}");
    nothing_held(&client, SOON).await?;
    Ok(measured)
}
