//! What NVIDIA's error numbers mean here.
//!
//! Numbers, meanings and remedies are those of NVIDIA's catalogue ("Xid Errors", docs.nvidia.com/deploy/xid-errors, the
//! catalogue for Ampere and newer, column "immediate action"). A remedy becomes a class like this:
//!
//! | immediate action | class |
//! | --- | --- |
//! | `RESTART_APP`, then check the program | [`Application`] |
//! | `RESTART_APP`, then contact support, or a contained memory error | [`Contained`] |
//! | a workflow for NVLink | [`Link`] |
//! | `RESET_GPU` and the workflow of 48 | [`ResetGpu`] |
//! | `RESTART_BM` | [`RestartMachine`] |
//! | `RESTART_VM`, `UPDATE_SWFW`, `CHECK_MECHANICALS` | [`DrainMachine`] |
//! | `IGNORE`, or informational | [`Harmless`] |

/// What an XID asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum XidClass {
    /// Nothing: it informs, or follows from another one.
    Harmless,
    /// The program is to blame: its failure is charged to the job.
    Application,
    /// The program ends through no fault of its own, and the GPU goes on. Evidence against the GPU.
    Contained,
    /// A link to another GPU has trouble. Evidence against the GPU.
    Link,
    /// The GPU has to be reset: it is quarantined, and what runs there restarts elsewhere.
    ResetGpu,
    /// The GPU comes back with a restart of the machine only: it is quarantined like one that has to be reset, and the rest
    /// of the machine goes on.
    RestartMachine,
    /// The machine as a whole needs somebody's hand: it takes no new work.
    DrainMachine,
    /// Not in the catalogue.
    Unlisted,
}

use XidClass::{
    Application, Contained, DrainMachine, Harmless, Link, ResetGpu, RestartMachine, Unlisted,
};

/// First and last number, class, and what it says; in order of numbers.
pub const CATALOGUE: &[(u32, u32, XidClass, &str)] = &[
    (8, 8, Contained, "GPU stopped processing"),
    (11, 11, Application, "invalid or missing engine"),
    (13, 13, Application, "graphics engine exception"),
    (14, 14, Harmless, "test error"),
    (25, 25, Application, "illegal notification"),
    (31, 31, Application, "memory page fault"),
    (32, 32, Application, "corrupted push buffer"),
    (37, 38, Harmless, "driver firmware warning"),
    (39, 41, Contained, "copy engine exception"),
    (43, 43, Harmless, "channel reset"),
    (44, 44, Harmless, "fault during context switch"),
    (45, 45, Harmless, "channel removed after another error"),
    (46, 46, ResetGpu, "GPU timeout"),
    (48, 48, ResetGpu, "double-bit memory error"),
    (54, 54, DrainMachine, "auxiliary power not connected"),
    (60, 60, Contained, "video processor exception"),
    (62, 62, ResetGpu, "power management unit halted"),
    (63, 63, Harmless, "memory row remapped"),
    (64, 64, ResetGpu, "memory row remapping failed"),
    (66, 67, Harmless, "illegal register access"),
    (68, 68, Contained, "video decoder exception"),
    (69, 69, Application, "graphics engine class error"),
    (70, 72, Contained, "copy engine exception"),
    (74, 74, Link, "NVLink error"),
    (75, 77, Contained, "copy engine exception"),
    (78, 78, DrainMachine, "vGPU start error"),
    (79, 79, RestartMachine, "fell off the bus"),
    (80, 80, Application, "corrupted data sent to the GPU"),
    (82, 82, Contained, "image decoder exception"),
    (83, 84, Contained, "video decoder exception"),
    (85, 85, Contained, "copy engine exception"),
    (86, 86, Contained, "optical flow exception"),
    (88, 89, Contained, "video decoder exception"),
    (92, 92, Harmless, "many single-bit memory errors"),
    (93, 93, Harmless, "InfoROM erase limit"),
    (94, 94, Contained, "contained memory error"),
    (95, 95, ResetGpu, "uncontained memory error"),
    (96, 98, Contained, "video decoder exception"),
    (99, 105, Contained, "image decoder exception"),
    (106, 107, Harmless, "test message"),
    (108, 108, Harmless, "NVLink remote translation error"),
    (109, 109, ResetGpu, "context switch timeout"),
    (110, 110, ResetGpu, "security fault"),
    (119, 119, ResetGpu, "GSP call timeout"),
    (120, 120, ResetGpu, "GSP error"),
    (121, 121, Harmless, "chip-to-chip link error"),
    (126, 135, Contained, "copy engine exception"),
    (136, 136, ResetGpu, "link training failed"),
    (137, 137, Harmless, "NVLink privilege error"),
    (139, 139, Contained, "optical flow exception"),
    (140, 140, ResetGpu, "unrecovered memory error"),
    (141, 141, Harmless, "fast path error"),
    (143, 143, ResetGpu, "GPU initialisation error"),
    (144, 150, Link, "NVLink error"),
    (151, 151, DrainMachine, "key rotation error"),
    (152, 153, Harmless, "accelerator error"),
    (154, 154, Harmless, "recovery action changed"),
    (155, 155, ResetGpu, "NVLink software error"),
    (156, 156, ResetGpu, "resource retired"),
    (157, 157, Harmless, "resource retirement failed"),
    (158, 158, ResetGpu, "fatal GPU timeout"),
    (160, 161, Harmless, "channel retirement"),
];

/// The class of an XID.
pub fn class(xid: u32) -> XidClass {
    row(xid).map_or(Unlisted, |(_, _, class, _)| *class)
}

/// Such as `XID 79 (fell off the bus)`.
pub fn name(xid: u32) -> String {
    match row(xid) {
        Some((_, _, _, what)) => format!("XID {xid} ({what})"),
        None => format!("XID {xid}"),
    }
}

fn row(xid: u32) -> Option<&'static (u32, u32, XidClass, &'static str)> {
    let mut rows = CATALOGUE.iter();
    rows.find(|(first, last, _, _)| (*first..=*last).contains(&xid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_in_order_and_unambiguous() {
        for pair in CATALOGUE.windows(2) {
            assert!(pair[0].1 < pair[1].0, "{pair:?}");
        }
        assert!(CATALOGUE.iter().all(|(first, last, _, _)| first <= last));
    }

    #[test]
    fn remedies_of_the_catalogue() {
        for (xid, expected) in [
            (13, Application),
            (31, Application),
            (43, Harmless),
            (45, Harmless),
            (48, ResetGpu),
            (63, Harmless),
            (64, ResetGpu),
            (74, Link),
            (79, RestartMachine),
            (94, Contained),
            (95, ResetGpu),
            (119, ResetGpu),
            (151, DrainMachine),
            (9_999, Unlisted),
        ] {
            assert_eq!(class(xid), expected, "{}", name(xid));
        }
    }
}
