//! Closed-loop submissions: each client has one in flight and starts the next when it is answered.
//!
//! The load shares the machine with the masters, so it does as little as it can: one thread, a few connections, and
//! requests whose constant part was encoded once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use berth_proto::v1::{SubmitRequest, SubmitResponse};
use berth_proto::{connect, from_status};
use berth_types::{ErrorKind, GroupSpec, JobSpec};
use bytes::{Buf, BufMut, Bytes};
use hdrhistogram::Histogram;
use tokio::task::LocalSet;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status};
use uuid::Uuid;

use crate::failure::Failure;

/// Pause before a submission that found no leader is repeated, with the same key.
const RETRY_AFTER: Duration = Duration::from_millis(10);
/// A submission that is not accepted within this ends the measurement.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);
/// Latencies are told apart up to this, in microseconds.
const MAX_LATENCY_US: u64 = 120_000_000;
/// Label of every job that a measurement submits, so that they can be told from real ones.
pub(super) const LABEL: (&str, &str) = ("berth-bench", "1");

/// What to do.
pub(super) struct Load {
    /// Address of the master to submit to.
    pub(super) master: String,
    /// Connections that the clients share.
    pub(super) connections: usize,
    /// Submissions in flight.
    pub(super) clients: usize,
    /// The job.
    pub(super) spec: JobSpec,
    /// Latencies from here on count.
    pub(super) count_from: Instant,
    /// When to stop.
    pub(super) until: Until,
}

/// When a load ends.
#[derive(Clone, Copy)]
pub(super) enum Until {
    /// At this moment.
    Time(Instant),
    /// After so many submissions.
    Accepted(u64),
}

/// What came of it.
pub(super) struct Result {
    /// Latencies in microseconds of the submissions that count.
    pub(super) latency_us: Histogram<u64>,
    /// Submissions that were repeated because there was no leader.
    pub(super) retries: u64,
    /// Ids of the jobs, of the first to the last accepted.
    pub(super) jobs: (u64, u64),
}

/// A job that does nothing and needs `cpus`.
pub(super) fn trivial_job(millicpu: u32) -> JobSpec {
    JobSpec {
        name: "bench".into(),
        user: crate::commands::user_name(),
        labels: [(LABEL.0.to_owned(), LABEL.1.to_owned())].into(),
        groups: vec![GroupSpec {
            name: "worker".into(),
            command: vec!["/bin/true".into()],
            min_workers: 1,
            max_workers: 1,
            gang: true,
            resources: berth_types::Resources {
                millicpu,
                ..Default::default()
            },
            node_labels: Default::default(),
        }],
        ..JobSpec::default()
    }
}

struct Shared {
    template: Bytes,
    count_from: Instant,
    until: Until,
    started: Cell<u64>,
    retries: Cell<u64>,
    first: Cell<u64>,
    last: Cell<u64>,
    latency_us: RefCell<Histogram<u64>>,
}

/// Runs a load to its end.
pub(super) async fn run(load: &Load) -> std::result::Result<Result, Failure> {
    let histogram = Histogram::new_with_max(MAX_LATENCY_US, 3)
        .map_err(|e| Failure::local(e.to_string(), ""))?;
    let shared = Rc::new(Shared {
        template: template(&load.spec),
        count_from: load.count_from,
        until: load.until,
        started: Cell::new(0),
        retries: Cell::new(0),
        first: Cell::new(u64::MAX),
        last: Cell::new(0),
        latency_us: RefCell::new(histogram),
    });
    let mut channels = Vec::new();
    for _ in 0..load.connections.clamp(1, load.clients.max(1)) {
        let channel =
            connect(&load.master).map_err(|e| Failure::usage(e.to_string(), "give host:port"))?;
        channels.push(channel);
    }
    let local = LocalSet::new();
    let clients: Vec<_> = (0..load.clients)
        .map(|i| {
            let channel = channels[i % channels.len()].clone();
            local.spawn_local(client(channel, Rc::clone(&shared)))
        })
        .collect();
    local
        .run_until(async {
            for client in clients {
                client
                    .await
                    .map_err(|e| Failure::local(e.to_string(), ""))??;
            }
            Ok::<(), Failure>(())
        })
        .await?;
    Ok(Result {
        latency_us: shared.latency_us.borrow().clone(),
        retries: shared.retries.get(),
        jobs: (shared.first.get(), shared.last.get()),
    })
}

/// One client.
async fn client(channel: Channel, shared: Rc<Shared>) -> std::result::Result<(), Failure> {
    let mut grpc = Grpc::new(channel);
    let path = PathAndQuery::from_static("/berth.v1.Jobs/Submit");
    loop {
        let begin = Instant::now();
        let started = shared.started.get();
        let over = match shared.until {
            Until::Time(end) => begin >= end,
            Until::Accepted(n) => started >= n,
        };
        if over {
            return Ok(());
        }
        shared.started.set(started + 1);
        let message = message(&shared.template, Uuid::now_v7());
        loop {
            let ready = grpc
                .ready()
                .await
                .map_err(|e| Status::unavailable(e.to_string()));
            let answer = match ready {
                Ok(()) => {
                    grpc.unary(Request::new(message.clone()), path.clone(), Encoded)
                        .await
                }
                Err(status) => Err(status),
            };
            match answer {
                Ok(answer) => {
                    let job = answer.get_ref().job;
                    shared.first.set(shared.first.get().min(job));
                    shared.last.set(shared.last.get().max(job));
                    break;
                }
                Err(status) => {
                    let error = from_status(&status);
                    if error.kind != ErrorKind::Unavailable || begin.elapsed() > GIVE_UP_AFTER {
                        return Err(error.into());
                    }
                    shared.retries.set(shared.retries.get() + 1);
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
        if begin >= shared.count_from {
            let us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(MAX_LATENCY_US);
            shared.latency_us.borrow_mut().saturating_record(us);
        }
    }
}

/// Length of a UUID as text.
const KEY_LEN: usize = uuid::fmt::Hyphenated::LENGTH;
/// Tag of field 1, `key`, and the length of every key.
const KEY_HEAD: [u8; 2] = [0x0a, KEY_LEN as u8];

/// Everything of a request but its key, encoded.
fn template(spec: &JobSpec) -> Bytes {
    let whole = SubmitRequest::new(Uuid::nil().as_u128(), spec);
    let bytes = prost::Message::encode_to_vec(&whole);
    Bytes::from(bytes).slice(KEY_HEAD.len() + KEY_LEN..)
}

/// A whole request, encoded.
fn message(template: &Bytes, key: Uuid) -> Bytes {
    let mut message = Vec::with_capacity(KEY_HEAD.len() + KEY_LEN + template.len());
    message.extend_from_slice(&KEY_HEAD);
    let mut text = [0; KEY_LEN];
    message.extend_from_slice(key.hyphenated().encode_lower(&mut text).as_bytes());
    message.extend_from_slice(template);
    message.into()
}

/// Requests that are encoded already.
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = SubmitResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(
        &mut self,
        item: Bytes,
        buffer: &mut EncodeBuf<'_>,
    ) -> std::result::Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = SubmitResponse;
    type Error = Status;

    fn decode(
        &mut self,
        buffer: &mut DecodeBuf<'_>,
    ) -> std::result::Result<Option<SubmitResponse>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        let answer = prost::Message::decode(bytes);
        answer
            .map(Some)
            .map_err(|e| Status::internal(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_put_together_is_the_one_that_prost_would_encode() {
        let spec = trivial_job(500);
        let key = Uuid::now_v7();
        let whole = SubmitRequest::new(key.as_u128(), &spec);
        let bytes = prost::Message::encode_to_vec(&whole);
        assert_eq!(message(&template(&spec), key), bytes);
    }

    #[test]
    fn the_trivial_job_is_sound() {
        assert_eq!(trivial_job(0).faults(), Vec::new());
    }
}
