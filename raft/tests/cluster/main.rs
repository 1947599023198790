//! Whole groups of members in one thread: scripted scenarios, and chaos from seeds.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod chaos;
mod harness;
mod scenarios;
