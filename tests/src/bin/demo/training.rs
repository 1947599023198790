//! The job on stage: submitted through `berth`, watched through the API, judged by the file that it writes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use berth_proto::v1::{self, JobState};
use berth_tests::{Client, Cluster, wait};
use serde::Deserialize;

/// A run of this size takes half a minute; this is for a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(150);

/// What the training script writes when it is done.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) accuracy: f64,
    pub(crate) weights_sha256: String,
    pub(crate) steps: u64,
}

impl Outcome {
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no result", path.display()))
    }
}

/// A run of the training job.
#[derive(Debug)]
pub(crate) struct Training {
    pub(crate) job: u64,
    steps: u64,
    out: PathBuf,
}

impl Training {
    /// Submits the job file as a user does.
    pub(crate) async fn submit(
        cluster: &Cluster,
        file: &Path,
        name: &str,
        steps: u64,
    ) -> anyhow::Result<Self> {
        let out = cluster.dir().join(name);
        let file = std::path::absolute(file).context("where am I?")?;
        let checkpoints = cluster.dir().join("checkpoints");
        // As it stands in the file, but for the number of steps, and a line for each of them.
        let command = format!(
            "groups.0.command=[\"python3\", \"train.py\", \"--steps\", \"{steps}\", \"--log-every\", \"1\"]"
        );
        let settings = [
            format!("name={name:?}"),
            format!("env.DIGITS_OUT={:?}", out.display().to_string()),
            format!("checkpoint.dir={:?}", checkpoints.display().to_string()),
            command,
        ];
        let file = file.display().to_string();
        let mut args = vec!["submit", &file, "--parsable"];
        for setting in &settings {
            args.extend(["--set", setting]);
        }
        let printed = cluster.berth(&args).await?.ok()?;
        let job = printed.trim().parse();
        Ok(Self {
            job: job.with_context(|| format!("`berth submit --parsable` printed {printed:?}"))?,
            steps,
            out,
        })
    }

    /// Waits until the run is so far, by the lines that rank 0 wrote, and until it has a checkpoint.
    pub(crate) async fn reaches(
        &self,
        cluster: &Cluster,
        client: &Client,
        share: f64,
    ) -> anyhow::Result<u64> {
        let wanted = (self.steps as f64 * share) as u64;
        let what = format!("the run reaches step {wanted}");
        let (step, _) = wait::until(&what, PATIENCE, async || {
            let view = client.job(self.job).await.map_err(|e| format!("{e:#}"))?;
            let epoch = view.attempt.as_ref().map_or(0, |attempt| attempt.epoch);
            let step = self.last_step(cluster, epoch);
            if step >= wanted && !view.checkpoints.is_empty() {
                Ok(step)
            } else {
                Err(format!(
                    "step {step}; {}",
                    berth_tests::client::summary(&view)
                ))
            }
        })
        .await?;
        Ok(step)
    }

    /// The newest step of an attempt in rank 0's output file, wherever that is.
    pub(crate) fn last_step(&self, cluster: &Cluster, epoch: u32) -> u64 {
        let file = format!("tasks/{}/{epoch}/0/stdout.log", self.job);
        let texts = cluster
            .agents
            .iter()
            .filter_map(|agent| std::fs::read_to_string(agent.data_dir.join(&file)).ok());
        texts
            .filter_map(|text| newest_step(&text))
            .max()
            .unwrap_or(0)
    }

    /// Waits for the end, which must be a good one.
    pub(crate) async fn finishes(&self, client: &Client) -> anyhow::Result<(v1::Job, Outcome)> {
        let over = |job: &v1::Job| job.ended_ms.is_some();
        let (view, _) = client.wait(self.job, "is over", PATIENCE, over).await?;
        if view.state() != JobState::Completed {
            bail!("the job is {}", berth_tests::client::summary(&view));
        }
        let outcome = Outcome::read(&self.out.join("result.json"))?;
        ensure!(
            outcome.steps == self.steps,
            "{} steps were made",
            outcome.steps
        );
        Ok((view, outcome))
    }
}

fn newest_step(text: &str) -> Option<u64> {
    let step = text
        .lines()
        .rev()
        .find_map(|line| line.split_once("] step "))?
        .1;
    step.split(' ').next()?.parse().ok()
}
