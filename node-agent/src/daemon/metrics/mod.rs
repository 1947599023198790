//! `/metrics` and `/healthz` for Prometheus and for whoever watches the agent.
//!
//! Every answer goes through the event loop, so an agent whose loop stands still is not healthy. [`table`] declares each
//! metric once: what is served and what a test expects come from it.

mod snapshot;
pub mod table;

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::daemon::happening::{Happening, Happenings};
pub(super) use snapshot::{Counts, Snapshot};

/// A loop that does not answer for so long stands still.
const ANSWER: Duration = Duration::from_secs(2);
/// A port that is taken is tried again after this.
const BIND_AGAIN: Duration = Duration::from_secs(30);
/// What the encoding is called.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves for ever.
pub(super) async fn serve(address: SocketAddr, out: Happenings) {
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                tracing::info!(%address, "metrics are served");
                let router = Router::new()
                    .route("/metrics", get(metrics))
                    .route("/healthz", get(healthy))
                    .with_state(out.clone());
                if let Err(error) = axum::serve(listener, router).await {
                    tracing::warn!(%error, "metrics are no longer served");
                }
            }
            Err(error) if !told => {
                told = true;
                tracing::warn!(%address, %error, "no metrics: another program has the address; `metrics` in the configuration names another one");
            }
            Err(_) => {}
        }
        sleep(BIND_AGAIN).await;
    }
}

async fn metrics(State(out): State<Happenings>) -> Response {
    match ask(&out).await {
        Some(snapshot) => match encode(snapshot) {
            Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        },
        None => standing_still(),
    }
}

async fn healthy(State(out): State<Happenings>) -> Response {
    match ask(&out).await {
        Some(_) => "ok\n".into_response(),
        None => standing_still(),
    }
}

fn standing_still() -> Response {
    let words = "the agent's event loop does not answer\n";
    (StatusCode::SERVICE_UNAVAILABLE, words).into_response()
}

async fn ask(out: &Happenings) -> Option<Snapshot> {
    let (answer, answered) = oneshot::channel();
    out.send(Happening::Scrape(answer));
    timeout(ANSWER, answered).await.ok()?.ok()
}

fn encode(snapshot: Snapshot) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(snapshot));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        for metric in table::METRICS {
            metric.encode(self, &mut encoder)?;
        }
        Ok(())
    }
}
