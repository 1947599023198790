//! The probe as a process, on a library with scenarios; and, where the machine has NVIDIA's own, on that as well.

// Helpers of tests may fail like tests.
#![allow(clippy::unwrap_used)]

mod harness;
mod readings;
mod trouble;
mod watched;
