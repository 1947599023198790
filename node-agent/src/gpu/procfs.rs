//! What the kernel says of a process.

/// The parent and the start of a process, in ticks since the machine's boot.
pub(crate) fn parent_and_start(pid: u32) -> Option<(u32, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, also brackets and blanks.
    let mut rest = stat.rsplit_once(") ")?.1.split(' ');
    let parent = rest.nth(1)?.parse().ok()?;
    let start = rest.nth(17)?.parse().ok()?;
    Some((parent, start))
}
