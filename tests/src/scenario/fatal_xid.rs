//! A GPU reports a fatal error under a gang: the gang goes on elsewhere at once, and nothing is placed on that GPU until it
//! has passed its test. The other seven of the node are used meanwhile.

use anyhow::{Context, ensure};
use berth_fake_nvml::scenario::{Event, Scenario};
use berth_proto::v1;
use v1::JobState;

use super::{Ground, Measured, SOON, end, epoch, nothing_held};
use crate::cluster::{Cluster, Plan};
use crate::spec::{self, Shape};

/// What the node offers.
const GPUS: u32 = 8;
/// Fell off the bus, says NVIDIA's catalogue: it comes back with the machine only.
const XID: u64 = 79;

pub(super) async fn run(ground: &Ground) -> anyhow::Result<Measured> {
    let plan = Plan {
        masters: 1,
        agents: 1,
        driver_gpus: Some(GPUS),
        dir: ground.dir.clone(),
        ..Plan::default()
    };
    let mut cluster = Cluster::start(plan).await?;
    let result = play(&mut cluster, ground).await;
    cluster.explain(result)
}

async fn play(cluster: &mut Cluster, ground: &Ground) -> anyhow::Result<Measured> {
    let mut measured = Measured::default();
    let client = cluster.client()?;
    let gang = spec::shell("gang", "sleep 600").workers(2).gpus(1);
    let job = client.submit(&gang.max_restarts(0)).await?;
    let (view, _) = client.wait_state(job, JobState::Running, SOON).await?;
    let sick = gpus_of(&view).first().copied().context("it holds GPUs")?;

    let mut scenario = Scenario::healthy(GPUS);
    scenario.event.push(Event {
        at: 0.0,
        gpu: sick,
        xid: XID,
    });
    cluster.play(0, &scenario)?;
    let moved = |view: &v1::Job| epoch(view) == 2 && view.state() == JobState::Running;
    let promised = ground.within(std::time::Duration::from_secs(3));
    let (view, took) = client.wait(job, "runs elsewhere", promised, moved).await?;
    measured.time("fatal XID to gang restarted", took);
    ensure!(
        !gpus_of(&view).contains(&sick),
        "the gang restarted on GPU {sick}, which is out of service"
    );
    ensure!(view.restarts == 0, "the fault was charged to the job");
    let past = view.past.last().and_then(|past| past.end.clone());
    ensure!(
        matches!(
            past.and_then(|end| end.kind),
            Some(v1::attempt_end::Kind::GpuFault(_))
        ),
        "the attempt did not end through its GPU: {:?}",
        view.past
    );

    // Five more GPUs are used, and no sixth.
    let mut singles = Vec::new();
    for number in 0..6 {
        let single = spec::shell(&format!("single-{number}"), "sleep 600").gpus(1);
        singles.push(client.submit(&single).await?);
    }
    let (last, first) = singles.split_last().context("six were submitted")?;
    let mut on_sick = 0;
    for single in first {
        let (view, _) = client.wait_state(*single, JobState::Running, SOON).await?;
        on_sick += usize::from(gpus_of(&view).contains(&sick));
    }
    let waiting = client.job(*last).await?;
    ensure!(
        waiting.state() == JobState::Pending,
        "there is no eighth GPU for it"
    );
    ensure!(on_sick == 0, "{on_sick} tasks on the quarantined GPU");
    measured.say("tasks placed on the quarantined GPU", on_sick);
    measured.say("GPUs of the node that stay in use", GPUS - 1);

    // Mended, and returned by hand: it passes its test and takes the last one.
    cluster.play(0, &Scenario::healthy(GPUS))?;
    client.put_back("n1", Some(sick.to_string())).await?;
    let (view, took) = client.wait_state(*last, JobState::Running, SOON).await?;
    ensure!(gpus_of(&view) == [sick], "it runs on the GPU that is back");
    measured.time("returned GPU tested and used", took);
    for job in singles.into_iter().chain([job]) {
        end(cluster, &client, job).await?;
    }
    nothing_held(&client, SOON).await?;
    Ok(measured)
}

/// GPUs that the job's attempt holds, ascending.
pub(super) fn gpus_of(view: &v1::Job) -> Vec<u32> {
    let tasks = view.attempt.iter().flat_map(|attempt| &attempt.tasks);
    let placed = tasks.filter_map(|task| task.placement.as_ref());
    let mut gpus: Vec<u32> = placed.flat_map(|p| p.gpus.iter().map(|s| s.gpu)).collect();
    gpus.sort_unstable();
    gpus
}
