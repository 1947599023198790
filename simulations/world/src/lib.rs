//! A whole Berth in one thread and one seed: masters, disks, networks, machines, processes and clients in virtual time.
//!
//! Owns what a shell would do around `berth-core` and `berth-agent-core`, made of virtual milliseconds; the faults that
//! are injected into it; and the checkers of Berth's promises. The same seed gives the same run, event for event.
//!
//! Must not know: which policies exist (one is handed in), real clocks, threads, files, terminals.
//!
//! Start reading at [`run_seed`], then [`options`] (what a seed draws), `world` (the event loop) and `checkers` (the
//! promises).

mod calendar;
mod checkers;
mod chronicle;
mod client;
mod dice;
mod digest;
mod disk;
mod garbage;
mod host;
mod machine;
mod network;
pub mod options;
pub mod regressions;
mod report;
mod stream;
pub mod twin;
mod workload;
mod world;

use berth_core::policy::Policy;

pub use chronicle::TAIL_LINES;
pub use digest::Digest;
pub use disk::DiskSpeed;
pub use network::{NetworkCounts, NetworkRates};
pub use options::{FaultKind, Options};
pub use report::{JobCounts, SeedReport, Violation};
pub use world::{FullLane, Latency, full_lane};

/// Makes the policy that a master uses; the number is drawn by the seed, to choose among those offered.
pub type PolicyMaker<'p> = &'p dyn Fn(u64) -> Box<dyn Policy>;

/// Runs one seed from start to end. `verbose` keeps the whole log instead of its tail.
pub fn run_seed(seed: u64, policies: PolicyMaker<'_>, verbose: bool) -> SeedReport {
    run_options(Options::draw(seed), policies, verbose)
}

/// Runs what was drawn, or changed by hand.
pub fn run_options(options: Options, policies: PolicyMaker<'_>, verbose: bool) -> SeedReport {
    world::World::new(options, policies, verbose).run()
}
