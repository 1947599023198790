//! Files that whoever started us left open: they must not reach the keeper, and through it every task.

use std::os::fd::BorrowedFd;

use rustix::io::{FdFlags, fcntl_setfd};

/// Marks every open file but the standard three to be closed on exec. Called first of all, before any thread or file
/// of our own exists (ours are marked as they are opened).
#[allow(unsafe_code)]
pub fn close_on_exec() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let open: Vec<i32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in open {
        // SAFETY: the number was open a moment ago, nothing else runs that could close it (the directory's own
        // descriptor is closed by now and only makes the call fail), and it is borrowed for this one call, which
        // changes a flag and neither closes nor keeps it.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        // Fails only for the number that is closed.
        let _ = fcntl_setfd(fd, FdFlags::CLOEXEC);
    }
}
