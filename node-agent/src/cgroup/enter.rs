//! Starting a process inside a group, so that nothing of it is ever outside.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::Errno;

/// What a start fails with if the group could not be entered; no exec fails with it.
pub const NOT_ENTERED: Errno = Errno::NOLINK;

/// Has the process move itself before it runs the program. `procs` is the group's open `cgroup.procs`.
#[allow(unsafe_code)]
pub fn before_exec(command: &mut Command, procs: File) {
    let enter = move || match rustix::io::write(&procs, b"0") {
        Ok(_) => Ok(()),
        Err(_) => Err(NOT_ENTERED.into()),
    };
    // SAFETY: the closure runs between fork and exec. It makes one write(2) to a descriptor that was opened before,
    // allocates nothing, takes no lock, and its error is a bare number.
    unsafe {
        command.pre_exec(enter);
    }
}
