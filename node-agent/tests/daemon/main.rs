//! Real agents, keepers and tasks against a master that only records and says what a test wants.

// Helpers of tests may fail like tests.
#![allow(clippy::unwrap_used)]

mod adoption;
mod checkpoints;
mod gpus;
mod harness;
mod host;
mod lifecycle;
mod logs;
mod masters;
mod socket;
