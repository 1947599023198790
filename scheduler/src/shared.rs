//! What the services of a master share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use berth_raft_store::HistoryStore;
use berth_tls::{Acceptor, Dialler, Leaf};
use berth_types::MasterId;
use berth_types::api::{ApiError, ErrorKind, Event, MasterInfo, Request, Response};
use tokio::sync::{broadcast, watch};

use crate::inbox::Inbox;
use crate::service::access;
use crate::sessions::Sessions;

/// Batches of events that a slow watcher may lag behind before it has to read pages again.
pub(crate) const EVENT_BATCHES: usize = 1_024;
/// A call's last resort: the replica answers every call by its own deadline, before this.
pub(crate) const CALL_SLACK: Duration = Duration::from_secs(2);

/// Who leads, as last heard.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Leader {
    pub(crate) known: Option<(MasterId, MasterInfo)>,
    /// This master leads and serves.
    pub(crate) is_self: bool,
}

/// Shared by all services. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) id: MasterId,
    pub(crate) inbox: Inbox,
    pub(crate) sessions: Sessions,
    /// Owned by the history thread; a connection that lingers must not keep the store open.
    pub(crate) history: Weak<dyn HistoryStore>,
    pub(crate) leader: watch::Receiver<Leader>,
    pub(crate) events: broadcast::Sender<Arc<Vec<Arc<Event>>>>,
    /// The cluster's id as far as it is known here; 0 before.
    pub(crate) cluster_id: Arc<AtomicU64>,
    pub(crate) call_timeout: Duration,
    /// Where masters listen, as the log has it.
    pub(crate) masters: watch::Receiver<Vec<(MasterId, MasterInfo)>>,
    /// The way to other masters.
    pub(crate) dialler: Dialler,
    /// With TLS: who signs and who is let in.
    pub(crate) acceptor: Option<Arc<Acceptor>>,
    /// Where files that are only needed for a while may be put.
    pub(crate) data_dir: Arc<std::path::Path>,
}

impl Shared {
    /// Asks the replica.
    pub(crate) async fn call(&self, request: Request) -> Result<Response, ApiError> {
        let answer = self.inbox.call(request)?;
        match tokio::time::timeout(self.call_timeout + CALL_SLACK, answer).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(_)) => Err(ApiError::new(
                ErrorKind::Unavailable,
                "STOPPING",
                "this master stopped before it had an answer",
                "try another master; a submission with the same key is never counted twice",
            )),
            Err(_) => Err(ApiError::new(
                ErrorKind::Unavailable,
                "TIMEOUT",
                "there was no answer in time",
                "try again with the same key; it is never counted twice",
            )),
        }
    }

    pub(crate) fn cluster_id(&self) -> u64 {
        self.cluster_id.load(Ordering::Relaxed)
    }

    /// Refuses messages of another cluster or for another master.
    pub(crate) fn check_peer(
        &self,
        caller: Option<&Leaf>,
        from: u64,
        to: u64,
        cluster_id: u64,
    ) -> Result<MasterId, ApiError> {
        let refuse = |reason: &str, message: String| {
            let hint = "check the addresses in [[masters]]";
            Err(ApiError::new(
                ErrorKind::FailedPrecondition,
                reason,
                message,
                hint,
            ))
        };
        let own = self.cluster_id();
        if to != self.id.0 {
            return refuse(
                "WRONG_MASTER",
                format!("this is master {}, not {to}", self.id),
            );
        }
        if own != 0 && cluster_id != 0 && own != cluster_id {
            return refuse(
                "WRONG_CLUSTER",
                format!("this master serves cluster {own:x}, not {cluster_id:x}"),
            );
        }
        access::speaks_for(caller, &from.to_string())?;
        Ok(MasterId(from))
    }
}
