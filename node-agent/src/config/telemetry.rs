//! Keys of telemetry and metrics.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::reader::Reader;

/// Where metrics are served if a file says nothing: the port of NVIDIA's own exporter, for this host alone.
const METRICS: &str = "127.0.0.1:9400";
/// More often than this costs more than it tells.
const LEAST_INTERVAL: Duration = Duration::from_millis(10);
/// A probe shows that it lives once a second at least, and more often where it reads more often.
const LEAST_DEADLINE: Duration = Duration::from_millis(2_500);
/// Some calls wait on purpose, for half of this.
const LEAST_DEADLINE_EVER: Duration = Duration::from_secs(1);

/// How GPUs are read from a driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// Time between two readings of a GPU.
    pub interval: Duration,
    /// A call that takes longer hangs.
    pub deadline: Duration,
    /// The library; where the system finds it if absent.
    pub library: Option<PathBuf>,
}

/// `[telemetry]`, which only GPUs from a driver need.
pub(super) fn read(root: &mut Reader, from_driver: bool) -> Option<Telemetry> {
    let mut table = root.table("telemetry");
    let telemetry = Telemetry {
        interval: table.duration("interval", Duration::from_secs(1)),
        deadline: table.duration("deadline", Duration::from_secs(5)),
        library: table.string("library").map(PathBuf::from),
    };
    if telemetry.interval < LEAST_INTERVAL {
        table.fault("interval", "shorter than 10 ms", "1s is usual");
    }
    let least = (telemetry.interval * 10).clamp(LEAST_DEADLINE_EVER, LEAST_DEADLINE);
    if telemetry.deadline < least {
        let what = format!("shorter than {}", humantime::format_duration(least));
        table.fault("deadline", &what, "5s is usual");
    }
    if telemetry
        .library
        .as_ref()
        .is_some_and(|path| !path.is_absolute())
    {
        table.fault("library", "is not absolute", "start with `/`");
    }
    root.adopt(table);
    from_driver.then_some(telemetry)
}

pub(super) fn read_metrics(root: &mut Reader) -> Option<SocketAddr> {
    let text = root.string("metrics").unwrap_or_else(|| METRICS.into());
    if text == "off" {
        return None;
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Some(address),
        Ok(_) => {
            let hint =
                "use 127.0.0.1: whoever reaches the port reads it, without saying who they are";
            root.fault(
                "metrics",
                &format!("`{text}` is not a loopback address"),
                hint,
            );
            None
        }
        Err(_) => {
            let hint = "such as \"127.0.0.1:9400\", or \"off\"";
            root.fault(
                "metrics",
                &format!("`{text}` is no address with a port"),
                hint,
            );
            None
        }
    }
}
