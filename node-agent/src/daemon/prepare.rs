//! Making a task ready: port, directories, the checkpoint to resume from.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::Path;

use berth_agent_core::{PrepareFault, Prepared};
use berth_types::LaunchTask;
use rustix::io::Errno;

use crate::daemon::checkpoints;
use crate::layout::Layout;

/// True if preparation touches only the agent's own disk, so that it may be done on the event loop; a job's own
/// directories may lie on a file system that hangs.
pub(super) fn is_quick(launch: &LaunchTask) -> bool {
    launch.work_dir.is_empty() && launch.checkpoint_dir.is_empty() && launch.resume_from.is_empty()
}

/// Makes a task ready. May block unless [`is_quick`].
///
/// # Errors
/// Why it cannot start.
pub(super) fn prepare(layout: &Layout, launch: &LaunchTask) -> Result<Prepared, PrepareFault> {
    if launch.key.rank.0 == 0 && launch.master_port != 0 {
        test_bind(&launch.master_addr, launch.master_port)?;
    }
    if !launch.work_dir.is_empty() {
        let fault = |error: String| PrepareFault::WorkDir {
            path: launch.work_dir.clone(),
            error,
        };
        let metadata = std::fs::metadata(&launch.work_dir).map_err(|e| fault(e.to_string()))?;
        if !metadata.is_dir() {
            return Err(fault("is not a directory".into()));
        }
    }
    let dir = layout.checkpoint_dir(&launch.checkpoint_dir, launch.key.job, launch.key.epoch);
    make_checkpoint_dir(&dir, launch.checkpoint_dir.is_empty())?;
    let (resume, damaged) = checkpoints::choose(&launch.resume_from);
    Ok(Prepared {
        checkpoint_dir: dir.display().to_string(),
        resume,
        damaged,
    })
}

fn make_checkpoint_dir(dir: &Path, own: bool) -> Result<(), PrepareFault> {
    std::fs::create_dir_all(dir).map_err(|error| {
        let nodes = own
            || matches!(
                Errno::from_io_error(&error),
                Some(Errno::NOSPC | Errno::IO | Errno::DQUOT | Errno::STALE)
            );
        let (path, error) = (dir.display().to_string(), error.to_string());
        if nodes {
            PrepareFault::NodeDirectory { path, error }
        } else {
            PrepareFault::CheckpointDir { path, error }
        }
    })
}

/// The scheduler leases ports; something that it does not know of may still hold one.
fn test_bind(address: &str, port: u16) -> Result<(), PrepareFault> {
    let ip = address.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    match TcpListener::bind((ip, port)) {
        Err(e) if e.kind() == ErrorKind::AddrInUse => Err(PrepareFault::PortInUse { port }),
        // Any other trouble is for the task to meet and to tell.
        _ => Ok(()),
    }
}
