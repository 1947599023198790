//! Watching events: pages for what has happened, then what this master applies.

use std::collections::VecDeque;
use std::sync::Arc;

use berth_proto::{to_status, v1};
use berth_types::JobId;
use berth_types::api::{Event, MAX_PAGE, Request, Response};
use futures_util::stream;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tonic::Status;

use super::Answers;
use crate::shared::Shared;

struct Watch {
    shared: Shared,
    live: broadcast::Receiver<Arc<Vec<Arc<Event>>>>,
    job: Option<JobId>,
    /// First sequence number not yet delivered; 0 until the first event if only news is wanted.
    next_seq: u64,
    /// Read pages until they are empty, before listening on.
    behind: bool,
    ready: VecDeque<v1::Event>,
}

pub(super) fn watch(shared: Shared, request: v1::WatchRequest) -> Answers<v1::Event> {
    // Subscribed before the first page is read, so that nothing falls between.
    let live = shared.events.subscribe();
    let watch = Watch {
        shared,
        live,
        job: request.job.map(JobId),
        next_seq: request.from_seq,
        behind: request.from_seq > 0,
        ready: VecDeque::new(),
    };
    Box::pin(stream::unfold(Some(watch), |watch| async {
        let mut watch = watch?;
        match watch.next().await {
            Ok(Some(event)) => Some((Ok(event), Some(watch))),
            Ok(None) => None,
            Err(status) => Some((Err(status), None)),
        }
    }))
}

impl Watch {
    async fn next(&mut self) -> Result<Option<v1::Event>, Status> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            if self.behind {
                self.read_page().await?;
                continue;
            }
            match self.live.recv().await {
                Ok(events) => self.on_live(&events),
                // Too slow, and pages still have what was missed.
                Err(RecvError::Lagged(_)) => self.behind = self.next_seq > 0,
                Err(RecvError::Closed) => return Ok(None),
            }
        }
    }

    fn on_live(&mut self, events: &[Arc<Event>]) {
        for event in events {
            if self.next_seq > 0 && event.seq > self.next_seq {
                // This master has jumped over some (it installed a snapshot): read them as pages.
                self.behind = true;
                return;
            }
            self.deliver(event);
        }
    }

    fn deliver(&mut self, event: &Event) {
        if event.seq < self.next_seq {
            return;
        }
        self.next_seq = event.seq + 1;
        if self.job.is_none_or(|job| event.job == Some(job)) {
            self.ready.push_back(event.into());
        }
    }

    async fn read_page(&mut self) -> Result<(), Status> {
        let request = Request::Events {
            since_seq: self.next_seq,
            limit: MAX_PAGE,
        };
        match self.shared.call(request).await {
            Ok(Response::Events { events, next_seq }) => {
                self.behind = !events.is_empty();
                for event in &events {
                    self.deliver(event);
                }
                self.next_seq = self.next_seq.max(next_seq);
                Ok(())
            }
            Ok(Response::Error(error)) | Err(error) => Err(to_status(&error)),
            Ok(_) => Err(Status::internal("the answer does not belong to the call")),
        }
    }
}
