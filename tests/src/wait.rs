//! Waiting with a deadline: for liveness only, nothing here measures speed.

use std::time::{Duration, Instant};

use anyhow::bail;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until there is something to see; `None` after `deadline`.
pub async fn polled<T>(deadline: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + deadline;
    loop {
        if let Some(seen) = look() {
            return Some(seen);
        }
        if Instant::now() >= until {
            return None;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Looks until `look` answers with a value; its complaint (`Err`) tells what was still missing. Returns the value and
/// how long it took.
///
/// # Errors
/// After `deadline`, with the last complaint.
pub async fn until<T>(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> anyhow::Result<(T, Duration)> {
    let started = Instant::now();
    loop {
        match look().await {
            Ok(seen) => return Ok((seen, started.elapsed())),
            Err(complaint) if started.elapsed() >= deadline => {
                bail!("{what}: not within {deadline:?}; last seen: {complaint}")
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
