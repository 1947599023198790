//! Fills gaps in the history from other masters: after a snapshot was installed, and at every start.

use std::time::Duration;

use berth_proto::channel::CONNECT_TIMEOUT;
use berth_proto::v1::peers_client::PeersClient;
use berth_proto::{MAX_ANSWER_BYTES, v1};
use berth_tls::Dialler;
use berth_types::MasterId;
use berth_types::api::MasterInfo;
use tokio::sync::{oneshot, watch};
use tracing::{debug, info};

use crate::history::{Task, Tasks};

/// Records asked for at once.
const PAGE: u32 = 1_000;
/// Pause before the next master is asked.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Fills what is missing whenever `through` grows, until its sender is gone.
pub(crate) async fn fill(
    own: MasterId,
    dialler: Dialler,
    mut through: watch::Receiver<u64>,
    masters: watch::Receiver<Vec<(MasterId, MasterInfo)>>,
    tasks: Tasks,
) {
    let mut turn = 0;
    loop {
        let target = *through.borrow_and_update();
        while let Some((from, to)) = find(&tasks, target).await {
            let others: Vec<_> = masters
                .borrow()
                .iter()
                .filter(|(id, _)| *id != own)
                .cloned()
                .collect();
            let Some((id, info)) = others.get(turn % others.len().max(1)) else {
                break;
            };
            let kept = match fetch(&dialler, &info.address, from, to).await {
                Ok(records) if !records.is_empty() => {
                    info!(master = %id, from, records = records.len(), "took over finished jobs");
                    import(&tasks, records).await
                }
                Ok(_) => false,
                Err(status) => {
                    debug!(master = %id, error = status.message(), "cannot fetch finished jobs");
                    false
                }
            };
            if !kept {
                turn += 1;
                tokio::time::sleep(PAUSE).await;
            }
        }
        if through.changed().await.is_err() {
            return;
        }
    }
}

async fn find(tasks: &Tasks, through: u64) -> Option<(u64, u64)> {
    let (found, gap) = oneshot::channel();
    tasks.send(Task::FindGap { through, found }).ok()?;
    gap.await.ok()?
}

async fn import(tasks: &Tasks, records: Vec<v1::HistoryRecord>) -> bool {
    let (done, kept) = oneshot::channel();
    let records = records
        .into_iter()
        .map(|r| (r.seq, r.job, r.data))
        .collect();
    tasks.send(Task::Import(records, done)).is_ok() && kept.await.is_ok()
}

async fn fetch(
    dialler: &Dialler,
    address: &str,
    from_seq: u64,
    to: u64,
) -> Result<Vec<v1::HistoryRecord>, tonic::Status> {
    let unreachable = |e: tonic::transport::Error| tonic::Status::unavailable(e.to_string());
    let channel = dialler.connect(address, CONNECT_TIMEOUT).await;
    let channel = channel.map_err(unreachable)?;
    let mut client = PeersClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
    let limit = u32::try_from(to - from_seq + 1).unwrap_or(PAGE).min(PAGE);
    let call = client.fetch_history(v1::FetchHistoryRequest { from_seq, limit });
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, call)
        .await
        .map_err(|_| tonic::Status::deadline_exceeded("no answer in time"))??;
    Ok(answer
        .into_inner()
        .records
        .into_iter()
        .filter(|r| r.seq <= to)
        .collect())
}
